"""What does a runtime execute when it runs a plain network? A short list of operators, batch norm folded in.

One trace serves everything that must agree: the exported ONNX file, the timed ONNX block, the operators that a cost
model adds up, and the multiply-adds. Tracing a block takes about a millisecond, where a general exporter takes
seconds, so blocks can be measured by the hundred.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from hwnas.errors import ExportError
from hwnas.export.op import Op, OpType


@dataclass(frozen=True)
class Node:
    """One operator and where its inputs come from."""

    type: str
    """An `OpType`, ``flatten`` or ``item`` (one output of a ``split``)."""
    inputs: tuple[int, ...]
    """Numbers of the nodes it reads; -1 is the network's input."""
    kernel_size: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    index: int = 0
    """Which output of a ``split``; parts of a ``split``."""
    out_channels: int = 0
    """Of convolutions and linear layers."""
    tensors: dict[str, Tensor] = field(default_factory=dict, compare=False)
    """``weight`` and ``bias`` with batch norm folded in."""


@dataclass(frozen=True)
class Graph:
    """A traced network; the last node is its output."""

    nodes: tuple[Node, ...]

    def shapes(self, in_channels: int, in_size_px: int) -> dict[int, tuple[int, int]]:
        """Return channels and edge in pixels of every node's output; -1 is the input."""
        shapes: dict[int, tuple[int, int]] = {-1: (in_channels, in_size_px)}
        for number, node in enumerate(self.nodes):
            shapes[number] = _shape(node, [shapes[i] for i in node.inputs])
        return shapes

    def ops(self, in_channels: int, in_size_px: int) -> list[Op]:
        """Return the operators for square inputs of ``in_channels`` x ``in_size_px`` x ``in_size_px``."""
        shapes = self.shapes(in_channels, in_size_px)
        out = []
        for number, node in enumerate(self.nodes):
            channels, size = shapes[node.inputs[0]]
            made = shapes[number]
            if node.type in ("flatten", "item"):
                continue
            op_type: OpType = node.type  # type: ignore[assignment]
            if node.type == "conv" and node.groups == channels and node.groups > 1:
                op_type = "depthwise_conv"
            out.append(
                Op(
                    op_type, channels, made[0], size, made[1], node.kernel_size, node.stride, node.groups,
                    len(node.inputs),
                )
            )  # fmt: skip
        return out


def _shape(node: Node, inputs: list[tuple[int, int]]) -> tuple[int, int]:
    """Channels and edge of a node's output."""
    channels, size = inputs[0]
    if node.type in ("conv", "max_pool", "avg_pool"):
        edge = (size + 2 * node.padding - node.kernel_size) // node.stride + 1
        return (node.out_channels or channels), edge
    if node.type == "linear":
        return node.out_channels, 1
    if node.type == "global_avg_pool":
        return channels, 1
    if node.type == "concat":
        return sum(c for c, _ in inputs), size
    if node.type == "item":
        return channels // node.groups, size
    return channels, size


def trace(module: nn.Module) -> Graph:
    """Trace a plain network in eval mode, fold its batch norms and drop what does nothing.

    Raises:
        ExportError: it uses a layer or function that is not in the list of operators.
    """
    was_training = module.training
    module.eval()
    try:
        traced = fx.Tracer().trace(module)
        return _fold(_read(traced, module))
    except (fx.proxy.TraceError, TypeError) as error:
        raise ExportError(f"{type(module).__name__} cannot be traced: {error}") from None
    finally:
        module.train(was_training)


def _read(traced: fx.Graph, module: nn.Module) -> list[Node]:
    modules = dict(module.named_modules())
    number: dict[fx.Node, int] = {}
    nodes: list[Node] = []

    def emit(node: fx.Node, made: Node | int) -> None:
        if isinstance(made, int):
            number[node] = made  # passes its input through
        else:
            nodes.append(made)
            number[node] = len(nodes) - 1

    for node in traced.nodes:
        if node.op == "placeholder":
            number[node] = -1
            continue
        if node.op in ("output", "get_attr"):
            continue
        first = [a for a in node.args if isinstance(a, fx.Node)]
        if node.args and isinstance(node.args[0], list | tuple):
            first = [a for a in node.args[0] if isinstance(a, fx.Node)]
        inputs = tuple(number[a] for a in first)
        if node.op == "call_module":
            emit(node, _of_module(modules[str(node.target)], inputs))
        else:
            emit(node, _of_function(node, inputs))
    return nodes


def _pair(value: int | tuple[int, ...], what: nn.Module) -> int:
    if isinstance(value, int):
        return value
    if len(set(value)) != 1:
        raise ExportError(f"{what}: only square kernels, strides and paddings are known, got {value}")
    return value[0]


def _of_module(m: nn.Module, inputs: tuple[int, ...]) -> Node | int:
    if isinstance(m, nn.Conv2d):
        if isinstance(m.padding, str) or _pair(m.dilation, m) != 1:
            raise ExportError(f"{m}: give padding in pixels and no dilation")
        tensors = {"weight": m.weight.detach()}
        if m.bias is not None:
            tensors["bias"] = m.bias.detach()
        return Node(
            "conv", inputs, _pair(m.kernel_size, m), _pair(m.stride, m), _pair(m.padding, m), m.groups,
            out_channels=m.out_channels, tensors=tensors,
        )  # fmt: skip
    if isinstance(m, nn.BatchNorm2d):
        return Node("batch_norm", inputs, tensors=_bn_scale_shift(m))
    if isinstance(m, nn.Linear):
        tensors = {"weight": m.weight.detach()}
        if m.bias is not None:
            tensors["bias"] = m.bias.detach()
        return Node("linear", inputs, out_channels=m.out_features, tensors=tensors)
    if isinstance(m, nn.MaxPool2d | nn.AvgPool2d):
        kind = "max_pool" if isinstance(m, nn.MaxPool2d) else "avg_pool"
        if isinstance(m, nn.AvgPool2d) and m.count_include_pad and _pair(m.padding, m):
            raise ExportError(f"{m}: set count_include_pad=False")
        return Node(kind, inputs, _pair(m.kernel_size, m), _pair(m.stride, m), _pair(m.padding, m))
    if isinstance(m, nn.AdaptiveAvgPool2d) and m.output_size in (1, (1, 1)):
        return Node("global_avg_pool", inputs)
    if isinstance(m, nn.ChannelShuffle):
        return Node("shuffle", inputs, groups=m.groups)
    if isinstance(m, nn.Flatten):
        return Node("flatten", inputs)
    if isinstance(m, nn.Identity | nn.Dropout):
        return inputs[0]
    names: dict[type[nn.Module], str] = {
        nn.ReLU: "relu", nn.Hardswish: "hswish", nn.Hardsigmoid: "hsigmoid", nn.Sigmoid: "sigmoid",
    }  # fmt: skip
    if type(m) in names:
        return Node(names[type(m)], inputs)
    raise ExportError(f"layer {type(m).__name__} is not known to the exporter; known are those of hwnas networks")


def _bn_scale_shift(bn: nn.BatchNorm2d) -> dict[str, Tensor]:
    """Batch norm in eval mode as ``x * scale + shift``, computed in float64."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    scale = bn.weight.detach().double() / (bn.running_var.double() + bn.eps).sqrt()
    shift = bn.bias.detach().double() - bn.running_mean.double() * scale
    return {"scale": scale, "shift": shift}


FUNCTIONS: dict[Any, str] = {
    operator.add: "add", torch.add: "add", operator.iadd: "add",
    operator.mul: "mul", torch.mul: "mul",
    F.relu: "relu", torch.relu: "relu", F.hardswish: "hswish", F.hardsigmoid: "hsigmoid", torch.sigmoid: "sigmoid",
    torch.cat: "concat", torch.flatten: "flatten", "flatten": "flatten", "chunk": "split", torch.chunk: "split",
    operator.getitem: "item", "mean": "global_avg_pool", "relu": "relu",
}  # fmt: skip


def _of_function(node: fx.Node, inputs: tuple[int, ...]) -> Node | int:
    kind = FUNCTIONS.get(node.target)
    if kind is None:
        raise ExportError(f"function {node.target} is not known to the exporter")
    if kind == "global_avg_pool" and tuple(node.args[1]) != (2, 3):  # type: ignore[arg-type]
        raise ExportError(f"mean over {node.args[1]} is not known to the exporter; only (2, 3) with keepdim")
    if kind in ("add", "mul") and len(inputs) != 2:
        raise ExportError(f"{node.target} with a constant is not known to the exporter")
    if kind == "split":
        return Node("split", inputs, groups=int(node.args[1]))  # type: ignore[arg-type]
    if kind == "item":
        parent = node.args[0]
        assert isinstance(parent, fx.Node)
        return Node("item", inputs, index=int(node.args[1]), groups=int(parent.args[1]))  # type: ignore[arg-type]
    return Node(kind, inputs)


def _fold(nodes: list[Node]) -> Graph:
    """Fold every batch norm that directly follows a convolution read by nobody else."""
    readers: dict[int, int] = {}
    for node in nodes:
        for i in node.inputs:
            readers[i] = readers.get(i, 0) + 1
    kept: list[Node] = []
    moved: dict[int, int] = {-1: -1}
    for number, node in enumerate(nodes):
        source = node.inputs[0]
        if node.type == "batch_norm" and source >= 0 and nodes[source].type == "conv" and readers[source] == 1:
            at = moved[source]
            kept[at] = _folded(kept[at], node.tensors)
            moved[number] = at
            continue
        kept.append(replace(node, inputs=tuple(moved[i] for i in node.inputs)))
        moved[number] = len(kept) - 1
    return Graph(tuple(kept))


def _folded(conv: Node, bn: dict[str, Tensor]) -> Node:
    weight = conv.tensors["weight"]
    scale = bn["scale"]
    bias = bn["shift"]
    if "bias" in conv.tensors:
        bias = bias + conv.tensors["bias"].double() * scale
    folded = weight.double() * scale.view(-1, 1, 1, 1)
    return replace(conv, tensors={"weight": folded.to(weight.dtype), "bias": bias.to(weight.dtype)})


def count_macs(module: nn.Module, in_channels: int, in_size_px: int) -> int:
    """Return multiply-adds of convolutions and linear layers for one image, each counted once."""
    return sum(op.macs for op in trace(module).ops(in_channels, in_size_px))
