"""Which ONNX nodes does a traced network become?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from hwnas.errors import ExportError
from hwnas.export.graph import Graph, Node
from hwnas.export.quantization import Quantization

OPSET = 18
"""In the band that ONNX Runtime, TensorRT, OpenVINO and QNN all read."""
IR_VERSION = 10


def build_onnx(
    graph: Graph,
    in_channels: int,
    size_px: int,
    batch: int | str = "batch",
    quantization: Quantization | None = None,
    outputs: Sequence[str] = (),
) -> onnx.ModelProto:
    """Return the ONNX model of a traced network or block.

    Args:
        graph: the trace.
        in_channels: channels of the input.
        size_px: height and width of the input.
        batch: the batch axis: a number, or a name for a dynamic axis.
        quantization: of the graph; given, values in 8 bits stand between `QuantizeLinear` and `DequantizeLinear`
            (the QDQ form), from which runtimes make integer operators.
        outputs: names of the outputs; none: one output, called ``logits`` where it is flat, else ``output``.
    """
    builder = _Builder(quantization)
    names = {-1: builder.in_8_bits("input", -1)}
    shapes = graph.shapes(in_channels, size_px)
    for number, node in enumerate(graph.nodes):
        made = builder.add(node, [names[i] for i in node.inputs], number, shapes[number][1])
        names[number] = made if node.type == "split" else builder.in_8_bits(made, number)
    value = helper.make_tensor_value_info
    flat = {-1: False}  # (batch, channels); what is computed of flat values alone is flat, too
    for number, node in enumerate(graph.nodes):
        of_flat = bool(node.inputs) and all(flat[i] for i in node.inputs)
        flat[number] = of_flat or node.type in ("linear", "flatten")

    def described(name: str, number: int) -> onnx.ValueInfoProto:
        channels, edge = shapes[number]
        return value(name, TensorProto.FLOAT, [batch, channels] if flat[number] else [batch, channels, edge, edge])

    last = len(graph.nodes) - 1
    if outputs:
        numbers = graph.outputs or (last,)
        made_of = [(name, number) for name, number in zip(outputs, numbers, strict=True)]
        builder.nodes += [helper.make_node("Identity", [names[number]], [name]) for name, number in made_of]
    else:
        made_of = [("logits" if flat[last] else "output", last)]
        builder.nodes[-1].output[0] = made_of[0][0]
        if names[last] != builder.last:
            raise ExportError("the last operator is not the network's output")
    model = helper.make_graph(
        builder.nodes,
        "hwnas",
        [value("input", TensorProto.FLOAT, [batch, in_channels, size_px, size_px])],
        [described(name, number) for name, number in made_of],
        builder.tensors,
    )
    return helper.make_model(
        model, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="hwnas"
    )


class _Builder:
    """Collects ONNX nodes and initialisers."""

    def __init__(self, quantization: Quantization | None = None) -> None:
        self.quantization = quantization
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.last = "input"

    def emit(self, op: str, inputs: Sequence[str], output: str, n_outputs: int = 1, **attributes: Any) -> str:
        outputs = [output] if n_outputs == 1 else [f"{output}.{i}" for i in range(n_outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=f"{output}_{op}", **attributes))
        self.last = outputs[0]
        return output

    def tensor(self, name: str, values: NDArray[Any] | Tensor) -> str:
        array = values.detach().contiguous().cpu().numpy() if isinstance(values, Tensor) else values
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def parameters(self, node: Node, number: int) -> list[str]:
        """Weight and bias of a node; in 8 bits they are integers that are dequantised channel by channel."""
        name = f"n{number}"
        found = None if self.quantization is None else self.quantization.weights.get(number)
        if self.quantization is None or found is None:
            return [self.tensor(f"{name}.{k}", v) for k, v in node.tensors.items()]
        out = [self._dequantised(f"{name}.weight", found.weight, found.scale)]
        if found.bias is not None:
            in_scale = np.float32(self.quantization.scales[node.inputs[0]].scale)
            out.append(self._dequantised(f"{name}.bias", found.bias, in_scale * found.scale.numpy()))
        return out

    def _dequantised(self, name: str, levels: Tensor, scale: NDArray[Any] | Tensor) -> str:
        given = [self.tensor(name, levels), self.tensor(f"{name}.scale", scale)]
        if levels.dtype == torch.int8:  # written out, since ONNX Runtime moves it where 8-bit sums would overflow
            given.append(self.tensor(f"{name}.zero_point", torch.zeros(len(levels), dtype=torch.int8)))
        return self.emit("DequantizeLinear", given, f"{name}.real", axis=0)

    def in_8_bits(self, value: str, number: int) -> str:
        """Return the name under which a value is read: after quantising and dequantising, where it has a scale."""
        scale = None if self.quantization is None else self.quantization.scales.get(number)
        if scale is None:
            return value
        numbers = {"level_scale": np.float32(scale.scale), "zero_point": np.uint8(scale.zero_point)}
        given = [f"{value}.{name}" for name in numbers]
        self.tensors += [  # without axes: pooling in 8 bits takes no list of one scale
            numpy_helper.from_array(np.array(number), name)
            for name, number in zip(given, numbers.values(), strict=True)
        ]
        self.emit("QuantizeLinear", [value, *given], f"{value}.levels")
        return self.emit("DequantizeLinear", [f"{value}.levels", *given], f"{value}.real")

    def add(self, node: Node, inputs: list[str], number: int, size_px: int) -> str:
        name = f"n{number}"
        if node.type == "conv":
            tensors = self.parameters(node, number)
            return self.emit(
                "Conv", [*inputs, *tensors], name, kernel_shape=[node.kernel_size] * 2,
                strides=[node.stride] * 2, pads=[node.padding] * 4, group=node.groups,
            )  # fmt: skip
        if node.type == "linear":
            tensors = self.parameters(node, number)
            return self.emit("Gemm", [*inputs, *tensors], name, transB=1)
        if node.type == "batch_norm":
            shape = (1, -1, 1, 1)
            scale = self.tensor(f"{name}.scale", node.tensors["scale"].float().reshape(shape))
            shift = self.tensor(f"{name}.shift", node.tensors["shift"].float().reshape(shape))
            self.emit("Mul", [*inputs, scale], f"{name}.scaled")
            return self.emit("Add", [f"{name}.scaled", shift], name)
        if node.type in ("max_pool", "avg_pool"):
            op = "MaxPool" if node.type == "max_pool" else "AveragePool"
            return self.emit(
                op, inputs, name, kernel_shape=[node.kernel_size] * 2, strides=[node.stride] * 2,
                pads=[node.padding] * 4, ceil_mode=int(node.ceil_mode),
            )  # fmt: skip
        if node.type == "relu6":
            limits = [
                self.tensor(f"{name}.{k}", np.array(v, dtype=np.float32)) for k, v in (("low", 0.0), ("high", 6.0))
            ]
            return self.emit("Clip", [*inputs, *limits], name)
        if node.type == "zeros":
            return self.emit("Mul", [*inputs, self.tensor(f"{name}.zero", np.array(0.0, dtype=np.float32))], name)
        if node.type == "hsigmoid":
            return self.emit("HardSigmoid", inputs, name, alpha=1.0 / 6.0, beta=0.5)
        if node.type == "concat":
            return self.emit("Concat", inputs, name, axis=1)
        if node.type == "split":
            self.emit("Split", inputs, name, n_outputs=node.groups, axis=1, num_outputs=node.groups)
            return name
        if node.type == "item":
            return f"{inputs[0]}.{node.index}"
        if node.type == "shuffle":
            return self._shuffle(node, inputs, name, size_px)
        ops = {
            "relu": "Relu", "hswish": "HardSwish", "sigmoid": "Sigmoid", "add": "Add", "mul": "Mul",
            "global_avg_pool": "GlobalAveragePool", "flatten": "Flatten",
        }  # fmt: skip
        return self.emit(ops[node.type], inputs, name)

    def _shuffle(self, node: Node, inputs: list[str], name: str, size_px: int) -> str:
        """Channels as (groups, channels a group, pixels), the first two swapped; 0 copies an axis."""
        apart = self.tensor(f"{name}.apart", np.array([0, node.groups, -1, size_px**2], dtype=np.int64))
        together = self.tensor(f"{name}.together", np.array([0, -1, size_px, size_px], dtype=np.int64))
        self.emit("Reshape", [*inputs, apart], f"{name}.apart4")
        self.emit("Transpose", [f"{name}.apart4"], f"{name}.swapped", perm=[0, 2, 1, 3])
        return self.emit("Reshape", [f"{name}.swapped", together], name)
