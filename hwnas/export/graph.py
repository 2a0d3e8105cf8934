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
    """An `OpType`, ``flatten``, ``zeros`` or ``item`` (one output of a ``split``)."""
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
    ceil_mode: bool = False
    """Of pooling: incomplete windows at the border count."""
    name: str = field(default="", compare=False)
    """Of the module in the network that it comes from, such as ``stage1_block2.depthwise.conv``; for people."""
    tensors: dict[str, Tensor] = field(default_factory=dict, compare=False)
    """``weight`` and ``bias`` with batch norm folded in."""


@dataclass(frozen=True)
class Graph:
    """A traced network."""

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...] = ()
    """Numbers of the nodes that are its outputs, where it has several; else the last one is."""

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
            if node.type in ("flatten", "item", "zeros"):
                continue
            op_type: OpType = "relu" if node.type == "relu6" else node.type  # type: ignore[assignment]
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
        rounding = node.stride - 1 if node.ceil_mode else 0
        edge = (size + 2 * node.padding - node.kernel_size + rounding) // node.stride + 1
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


class _Tracer(fx.Tracer):
    """Goes into every module but layers, of torch or derived from its convolution."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def trace(module: nn.Module) -> Graph:
    """Trace a plain network in eval mode, fold its batch norms and drop what does nothing.

    Raises:
        ExportError: it uses a layer or function that is not in the list of operators.
    """
    was_training = module.training
    module.eval()
    try:
        traced = _Tracer().trace(module)
        return _fold(*_read(traced, module))
    except (fx.proxy.TraceError, TypeError) as error:
        raise ExportError(f"{type(module).__name__} cannot be traced: {error}") from None
    finally:
        module.train(was_training)


def _read(traced: fx.Graph, module: nn.Module) -> tuple[list[Node], tuple[int, ...]]:
    """Nodes in the order of computation, and which of several are outputs; what these do not depend on is left out."""
    used: set[fx.Node] = set()
    for node in reversed(traced.nodes):
        if node.op == "output" or node in used:
            used.update(node.all_input_nodes)
    modules = dict(module.named_modules())
    number: dict[fx.Node, int] = {}
    nodes: list[Node] = []
    outputs: tuple[int, ...] = ()

    def emit(node: fx.Node, made: Node | int) -> None:
        if isinstance(made, int):
            number[node] = made  # passes its input through
        else:
            nodes.append(replace(made, name=_name(node)))
            number[node] = len(nodes) - 1

    for node in traced.nodes:
        if node.op == "placeholder":
            number[node] = -1
            continue
        if node.op == "output" and isinstance(node.args[0], tuple):
            outputs = tuple(number[a] for a in node.args[0] if isinstance(a, fx.Node))
        if node.op == "output" or node not in used:
            continue
        if node.op == "get_attr":
            raise ExportError(f"{node.target}: a tensor outside a layer is not known to the exporter")
        first = [a for a in node.args if isinstance(a, fx.Node)]
        if node.args and isinstance(node.args[0], list | tuple):
            first = [a for a in node.args[0] if isinstance(a, fx.Node)]
        inputs = tuple(number[a] for a in first)
        if node.op == "call_module":
            emit(node, _of_module(modules[str(node.target)], inputs))
        else:
            emit(node, _of_function(node, inputs))
    return nodes, outputs


def _name(node: fx.Node) -> str:
    """The module that a node of the trace calls, or the function and the module in which it is called."""
    if node.op == "call_module":
        return str(node.target)
    stack = list(node.meta.get("nn_module_stack") or ())
    return ".".join([*stack[-1:], node.name])


def _pair(value: int | tuple[int, ...], what: nn.Module) -> int:
    if isinstance(value, int):
        return value
    if len(set(value)) != 1:
        raise ExportError(f"{what}: only square kernels, strides and paddings are known, got {value}")
    return value[0]


def _of_module(m: nn.Module, inputs: tuple[int, ...]) -> Node | int:
    if isinstance(m, nn.Conv2d):
        if isinstance(m.padding, str) or _pair(m.dilation, m) != 1 or m.padding_mode != "zeros":
            raise ExportError(f"{m}: give padding in pixels, of zeros, and no dilation")
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
        if isinstance(m, nn.MaxPool2d) and (_pair(m.dilation, m) != 1 or m.return_indices):
            raise ExportError(f"{m}: dilation and indices are not known to the exporter")
        return Node(
            kind, inputs, _pair(m.kernel_size, m), _pair(m.stride, m), _pair(m.padding, m), ceil_mode=m.ceil_mode
        )
    if isinstance(m, nn.AdaptiveAvgPool2d) and m.output_size in (1, (1, 1)):
        return Node("global_avg_pool", inputs)
    if isinstance(m, nn.ChannelShuffle):
        return Node("shuffle", inputs, groups=m.groups)
    if isinstance(m, nn.Flatten) and (m.start_dim, m.end_dim) == (1, -1):
        return Node("flatten", inputs)
    if isinstance(m, nn.Identity | nn.Dropout):
        return inputs[0]
    names: dict[type[nn.Module], str] = {
        nn.ReLU: "relu", nn.ReLU6: "relu6", nn.Hardswish: "hswish", nn.Hardsigmoid: "hsigmoid", nn.Sigmoid: "sigmoid",
    }  # fmt: skip
    if type(m) in names:
        return Node(names[type(m)], inputs)
    raise ExportError(f"layer {type(m).__name__} is not known to the exporter; known are those of hwnas networks")


def _bn_scale_shift(bn: nn.BatchNorm2d) -> dict[str, Tensor]:
    """Batch norm in eval mode as ``x * scale + shift``, computed in float64."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    if bn.running_var.is_meta:
        return {name: _sized(bn.running_var, torch.float64) for name in ("scale", "shift")}
    scale = bn.weight.detach().double() / (bn.running_var.double() + bn.eps).sqrt()
    shift = bn.bias.detach().double() - bn.running_mean.double() * scale
    return {"scale": scale, "shift": shift}


def _sized(like: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor without values. Arithmetic on such ones goes through Python, and imports a compiler for it."""
    return torch.empty(like.shape, dtype=dtype, device="meta")


FUNCTIONS: dict[Any, str] = {
    operator.add: "add", torch.add: "add", operator.iadd: "add",
    operator.mul: "mul", torch.mul: "mul",
    F.relu: "relu", F.relu6: "relu6", torch.relu: "relu", F.hardswish: "hswish", F.hardsigmoid: "hsigmoid",
    torch.sigmoid: "sigmoid",
    torch.cat: "concat", torch.flatten: "flatten", "flatten": "flatten", "chunk": "split", torch.chunk: "split",
    operator.getitem: "item", "mean": "global_avg_pool", "relu": "relu",
}  # fmt: skip


def _of_function(node: fx.Node, inputs: tuple[int, ...]) -> Node | int:
    kind = FUNCTIONS.get(node.target)
    if kind is None:
        raise ExportError(f"function {node.target} is not known to the exporter")
    refused = f"{kind} with {node.args[1:]} {dict(node.kwargs)} is not known to the exporter; "
    if kind == "global_avg_pool":
        over, keeps = _argument(node, 1, "dim"), _argument(node, 2, "keepdim", False)
        if over not in ((2, 3), [2, 3], (-2, -1), [-2, -1]) or not keeps:
            raise ExportError(f"{refused}a mean must be over (2, 3) with keepdim=True")
    if kind == "mul" and node.args[1:] == (0.0,) and not node.kwargs:
        return Node("zeros", inputs)
    if kind in ("add", "mul") and (len(inputs) != 2 or node.kwargs):
        raise ExportError(f"{node.target} with a constant is not known to the exporter")
    if kind == "concat" and _argument(node, 1, "dim", 0) != 1:
        raise ExportError(f"{refused}torch.cat must join channels, dim 1")
    if kind == "flatten" and (_argument(node, 1, "start_dim", 0) != 1 or _argument(node, 2, "end_dim", -1) != -1):
        raise ExportError(f"{refused}flatten must begin at dim 1")
    if kind == "split":
        if _argument(node, 2, "dim", 0) != 1:
            raise ExportError(f"{refused}chunk must part channels, dim 1")
        return Node("split", inputs, groups=int(_argument(node, 1, "chunks")))
    if kind == "item":
        parent = node.args[0]
        if not isinstance(parent, fx.Node) or FUNCTIONS.get(parent.target) != "split":
            raise ExportError(f"{refused}only the parts of a chunk are indexed")
        parts = int(_argument(parent, 1, "chunks"))
        return Node("item", inputs, index=int(node.args[1]) % parts, groups=parts)  # type: ignore[arg-type]
    return Node(kind, inputs)


def _argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An argument of a call, given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _fold(nodes: list[Node], outputs: tuple[int, ...] = ()) -> Graph:
    """Fold every batch norm that directly follows a convolution read by nobody else."""
    readers: dict[int, int] = {}
    for i in (*outputs, *(i for node in nodes for i in node.inputs)):
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
    return Graph(tuple(kept), tuple(moved[i] for i in outputs))


def _folded(conv: Node, bn: dict[str, Tensor]) -> Node:
    weight = conv.tensors["weight"]
    if weight.is_meta:
        return replace(conv, tensors={"weight": weight, "bias": _sized(bn["shift"], weight.dtype)})
    scale = bn["scale"]
    bias = bn["shift"]
    if "bias" in conv.tensors:
        bias = bias + conv.tensors["bias"].double() * scale
    folded = weight.double() * scale.view(-1, 1, 1, 1)
    return replace(conv, tensors={"weight": folded.to(weight.dtype), "bias": bias.to(weight.dtype)})


def count_macs(module: nn.Module, in_channels: int, in_size_px: int) -> int:
    """Return multiply-adds of convolutions and linear layers for one image, each counted once."""
    return sum(op.macs for op in trace(module).ops(in_channels, in_size_px))
