"""Which operators does an ONNX file of anybody's hold? As a cost model counts them: batch norm and relu are folded.

Shapes come from ONNX's own inference; the weights themselves are not read. A file that was quantised has the operators
of its float form: what quantises and dequantises belongs to the operators between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from hwnas.errors import MeasurementError, UnreadableError, escaped, one_line, shown
from hwnas.export.onnx_facts import open_onnx
from hwnas.export.op import Op, OpType
from hwnas.reading import made_of

ELEMENTWISE: Mapping[str, OpType] = {
    "Add": "add", "Sub": "add", "Sum": "add", "Mul": "mul", "Div": "mul", "Relu": "relu", "Clip": "relu",
    "PRelu": "relu", "LeakyRelu": "relu", "HardSwish": "hswish", "Swish": "hswish", "Gelu": "hswish",
    "HardSigmoid": "hsigmoid", "Sigmoid": "sigmoid", "BatchNormalization": "batch_norm",
}  # fmt: skip

NOTHING = frozenset({
    "Cast", "Constant", "ConstantOfShape", "DequantizeLinear", "Dropout", "Expand", "Flatten", "Gather", "Identity",
    "Pad", "QuantizeLinear", "Range", "Reshape", "Shape", "Squeeze", "Unsqueeze",
})  # fmt: skip
"""What a runtime does beforehand, or inside its neighbours."""

Shape = tuple[int, ...]


def onnx_ops(path: Path, input_shape: Sequence[int] | None = None) -> list[Op]:
    """Return the operators of an ONNX file, in its order, for one image.

    Args:
        path: the file.
        input_shape: channels, height and width, for a model whose axes are open.

    Raises:
        MeasurementError: it is no ONNX model, its axes are open, or it has an operator that no cost model of hwnas
            knows; the operator is named.
    """
    graph = _with_shapes(path, input_shape).graph
    try:
        with made_of(path):
            return _ops_of(graph, path)
    except UnreadableError as error:
        raise MeasurementError(f"{path} is no model that can be read: {error.reason}") from None


def _ops_of(graph: onnx.GraphProto, path: Path) -> list[Op]:
    shapes = {v.name: _shape(v) for v in (*graph.input, *graph.value_info, *graph.output)}
    constants = {t.name: tuple(t.dims) for t in graph.initializer}
    for node in graph.node:  # constants that nodes make, and weights that are dequantised or turned
        inputs = [n for n in node.input if n]
        made = next((tuple(a.t.dims) for a in node.attribute if a.name == "value" and a.HasField("t")), None)
        if node.op_type == "Constant":
            constants[node.output[0]] = made if made is not None else (1,)
        elif inputs and all(n in constants for n in inputs) and node.output:
            constants[node.output[0]] = shapes.get(node.output[0]) or constants[inputs[0]]
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    makers = {name: node for node in graph.node for name in node.output}
    found: list[Op] = []
    gates = _gates(graph.node, makers)
    for node in graph.node:
        if node.op_type in NOTHING or node.output[0] in gates or all(n in constants for n in node.output):
            continue
        if node.op_type == "BatchNormalization":
            before = makers.get(node.input[0])
            if before is not None and before.op_type == "Conv" and readers[node.input[0]] == 1:
                continue
        op = _op(node, shapes, constants, path)
        if op is not None:
            found.append(replace(op, type="hswish", n_inputs=1) if node.output[0] in gates.values() else op)
    if not found:
        raise MeasurementError(f"{path} has no operators that take time; give the model as it runs on the device")
    return found


def _gates(nodes: Sequence[onnx.NodeProto], makers: Mapping[str, onnx.NodeProto]) -> dict[str, str]:
    """Outputs of sigmoids that only gate their own input, as swish is written, to those of the products that do it."""

    def source(name: str) -> str:
        for _ in range(8):  # a damaged file may run in a circle
            maker = makers.get(name)
            if maker is None or maker.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                break
            name = maker.input[0]
        return name

    found = {}
    for node in nodes:
        if node.op_type != "Mul":
            continue
        for gate, value in (node.input[:2], node.input[1::-1]):
            maker = makers.get(source(gate))
            if maker is None or maker.op_type not in ("Sigmoid", "HardSigmoid"):
                continue
            if source(maker.input[0]) == source(value):
                found[maker.output[0]] = node.output[0]
    return found


def _with_shapes(path: Path, input_shape: Sequence[int] | None) -> onnx.ModelProto:
    proto = open_onnx(path)
    constants = {t.name for t in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in constants:
            continue
        axes = value.type.tensor_type.shape.dim
        for i, axis in enumerate(axes):
            if axis.dim_value > 0 and i:
                continue
            if i == 0:
                axis.Clear()
                axis.dim_value = 1
            elif input_shape is not None and len(axes) == len(input_shape) + 1:
                axis.Clear()
                axis.dim_value = int(input_shape[i - 1])
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception as error:  # ONNX raises classes of its own and plain ones
        raise MeasurementError(f"{path}: its shapes cannot be found: {one_line(str(error), 200)}") from error


def _shape(value: onnx.ValueInfoProto) -> Shape:
    return tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)


def _op(
    node: onnx.NodeProto, shapes: Mapping[str, Shape], constants: Mapping[str, Shape], path: Path
) -> Op | None:  # fmt: skip
    kind = node.op_type
    maps = [n for n in node.input if n and n not in constants]
    if not maps:
        return None
    read, made = _plane(shapes.get(maps[0], ()), maps[0], path), _plane(shapes.get(node.output[0], ()), kind, path)
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if kind in ("Conv", "QLinearConv", "ConvInteger"):
        return _conv(node, read, made, given, constants, path)
    if kind in ("Gemm", "MatMul", "QLinearMatMul", "MatMulInteger", "QGemm"):
        weights = next((constants[n] for n in node.input if n in constants and len(constants[n]) == 2), None)
        if weights is None or made[1] * made[2] != 1:
            raise MeasurementError(
                f"{path}: {kind} {shown(node.name, 60)} is no linear layer of one image; no cost model knows it"
            )
        return Op("linear", weights[0] if weights[1] == made[0] else weights[1], made[0], 1, 1)
    if kind in ("MaxPool", "AveragePool"):
        height, width = [*given["kernel_shape"], 1][:2]
        return _made(
            "max_pool" if kind == "MaxPool" else "avg_pool", read, made, height, width, given.get("strides", [1])[0],
            read[0],
        )  # fmt: skip
    if kind == "GlobalAveragePool" or (kind == "ReduceMean" and made[1] * made[2] == 1):
        return _made("global_avg_pool", read, made)
    if kind == "Concat":
        return _made("concat", read, made, n_inputs=len(maps))
    if kind in ("Split", "Slice"):
        return _made("split", read, made)
    if kind in ("Transpose", "DepthToSpace", "SpaceToDepth"):
        return _made("shuffle", read, read)
    if kind in ELEMENTWISE:
        larger = max((_plane(shapes.get(n, ()), n, path) for n in maps), key=_elements)
        return _made(ELEMENTWISE[kind], larger, made, n_inputs=len(maps))
    raise MeasurementError(
        f"{path}: operator {escaped(kind)} is known to no cost model of hwnas; leave this network out"
    )


def _conv(
    node: onnx.NodeProto, read: Shape, made: Shape, given: Mapping[str, Any], constants: Mapping[str, Shape], path: Path
) -> Op:  # fmt: skip
    weights = next((constants[n] for n in node.input[1:] if n in constants and len(constants[n]) >= 3), None)
    if weights is None:
        raise MeasurementError(f"{path}: the weights of {node.op_type} {shown(node.name, 60)} are no constants")
    groups = int(given.get("group", 1))
    height, width = [*weights[2:], 1][:2]
    kind: OpType = "depthwise_conv" if groups == read[0] and groups > 1 else "conv"
    return _made(kind, read, made, height, width, given.get("strides", [1])[0], groups)


def _made(
    kind: OpType, read: Shape, made: Shape, kernel: int = 1, kernel_width: int = 1, stride: int = 1, groups: int = 1,
    n_inputs: int = 1,
) -> Op:  # fmt: skip
    """An operator; widths are given only where something is not square, so that square ones equal those of hwnas."""
    return Op(
        kind, read[0], made[0], read[1], made[1], int(kernel), int(stride), groups, n_inputs,
        read[2] if read[2] != read[1] else 0, made[2] if made[2] != made[1] else 0,
        int(kernel_width) if kernel_width != kernel else 0,
    )  # fmt: skip


def _plane(shape: Shape, name: str, path: Path) -> Shape:
    """Channels, height and width of a value; one image, and what has no plane lies in one pixel."""
    if not shape or min(shape) < 1:
        raise MeasurementError(
            f"{path}: the shape of {shown(name, 60)} is open; write the file with fixed axes, such as 1x3x224x224"
        )
    rest = [*shape[1:], 1, 1]
    if len(shape) > 4:  # parts of channels, as in a channel shuffle
        return _elements((shape[1], shape[2], 1)), shape[3], shape[4]
    return rest[0], rest[1], rest[2]


def _elements(plane: Shape) -> int:
    return plane[0] * plane[1] * plane[2]
