"""What does an ONNX file of anybody's say of itself? The precision that it computes in, and the files it needs.

Both are read without loading the weights, and neither trusts names: precision follows from the convolutions and matrix
products, since conditions of a measurement rest on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx

from hwnas.errors import MeasurementError, UnreadableError, shown
from hwnas.reading import inside

Model: TypeAlias = "Path | onnx.ModelProto | bytes"

PRODUCTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "FusedConv": 1, "FusedMatMul": 1, "FusedGemm": 1}
"""Operators that compute in the type of their operands, and where their weights are among the inputs."""

INTEGER_PRODUCTS = {
    "QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3, "ConvInteger": 1, "MatMulInteger": 1, "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1, "QAttention": 1,
}  # fmt: skip
"""Operators that compute with integers, and where their weights are among the inputs."""

WEIGHT_ONLY_PRODUCTS = {"MatMulNBits": 1, "MatMulBnb4": 1, "MatMulFpQ4": 1}
"""Operators that unpack small weights and compute in the type of the other operand."""

NAMES = {
    onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.DOUBLE: "fp64", onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "int8",
    onnx.TensorProto.INT16: "int16", onnx.TensorProto.UINT16: "int16", onnx.TensorProto.INT4: "int4",
    onnx.TensorProto.UINT4: "int4", onnx.TensorProto.FLOAT8E4M3FN: "fp8", onnx.TensorProto.FLOAT8E5M2: "fp8",
    onnx.TensorProto.FLOAT8E4M3FNUZ: "fp8", onnx.TensorProto.FLOAT8E5M2FNUZ: "fp8",
}  # fmt: skip

PASSES_THROUGH = frozenset({
    "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Relu", "Clip", "Pad", "Slice", "MaxPool",
    "AveragePool", "GlobalAveragePool", "Concat", "Split", "Dropout",
})  # fmt: skip
"""Operators whose output has the type of their first input, and is as quantised."""


def open_onnx(model: Model) -> onnx.ModelProto:
    """Return the graph of a model; weights in other files stay there.

    Raises:
        MeasurementError: it is no ONNX model.
    """
    if isinstance(model, onnx.ModelProto):
        return model
    name = str(model) if isinstance(model, Path) else "the model"
    try:
        data = model.read_bytes() if isinstance(model, Path) else model
        proto = onnx.load_model_from_string(data)
    except OSError as error:
        raise MeasurementError(f"{name} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # protobuf's own classes share no public base
        raise MeasurementError(f"{name} does not load as ONNX: {' '.join(str(error).split())}") from error
    if isinstance(model, Path) and not proto.graph.node:
        raise MeasurementError(f"{name} does not load as ONNX: it has no operators")
    return proto


def external_files(path: Path) -> dict[str, Path]:
    """Return the files that hold weights of a model, by their names in it.

    Raises:
        MeasurementError: it is no ONNX model, a file is missing, or lies outside the model's folder.
    """
    found: dict[str, Path] = {}
    for tensor in _tensors(open_onnx(path).graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        name = next((e.value for e in tensor.external_data if e.key == "location"), "")
        try:
            file = inside(path.parent, name)
        except UnreadableError:
            raise MeasurementError(
                f"{path} keeps weights in {shown(name, 100)}, which is outside its folder; put them beside the model"
            ) from None
        if not file.is_file():
            raise MeasurementError(
                f"{path} keeps weights in {shown(name, 100)}, and {file} does not exist; put it there"
            )
        found[name] = file
    return found


def with_open_axes(path: Path) -> bytes | None:
    """Return the graph of a model with its axes of 0 left open; None where it has none.

    Some exporters write 0 for an axis of any size, which ONNX Runtime takes at its word.
    """
    proto = open_onnx(path)
    found = False
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.HasField("dim_value") and axis.dim_value <= 0:
                axis.Clear()
                found = True
    return bytes(proto.SerializeToString()) if found else None


def precision_of(model: Model) -> str:
    """Return the precision in which a model computes, such as ``fp32``, ``fp16`` or ``int8``.

    It is that of the convolutions and matrix products: ``int8`` where both operands are quantised, in any form
    (quantise and dequantise nodes, integer operators, dynamic quantisation). ``fp32 (int8 weights)`` says that weights
    are kept small, but unpacked to compute. A model of several precisions gets all of them, that of the most weights
    first: ``int8+fp32``.

    Raises:
        MeasurementError: it is no ONNX model, or its weights do not lie beside it.
    """
    proto = open_onnx(model)
    if isinstance(model, Path):
        external_files(model)
    shares: dict[str, int] = {}
    for graph in _graphs(proto):
        scope = _Scope.of(graph)
        for node in graph.node:
            made = _of_product(node, scope)
            if made is not None:
                shares[made[0]] = shares.get(made[0], 0) + made[1]
    if shares:
        return "+".join(sorted(shares, key=lambda name: (-shares[name], name)))
    return _of_input(proto)


# -- inside ----------------------------------------------------------------------------------------------


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph of a model, and those of its branches and loops."""
    waiting = [proto.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting.extend([attribute.g] if attribute.HasField("g") else [])
                waiting.extend(attribute.graphs)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All constant tensors, those in nodes and in inner graphs too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _tensors(inner)


@dataclass
class _Scope:
    """Who makes the values of one graph, and of which type the constants and inputs are."""

    makers: Mapping[str, onnx.NodeProto]
    types: Mapping[str, int]
    sizes: Mapping[str, int]
    known: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> _Scope:
        makers = {name: node for node in graph.node for name in node.output if name}
        types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info)}
        types |= {t.name: t.data_type for t in graph.initializer}
        sizes = {t.name: int(np.prod(t.dims, dtype=np.float64)) for t in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.output:
                for attribute in node.attribute:
                    if attribute.name == "value":
                        types[node.output[0]] = attribute.t.data_type
                        sizes[node.output[0]] = int(np.prod(attribute.t.dims, dtype=np.float64))
        return cls(makers, types, sizes)

    def type_of(self, name: str) -> str:
        """Name of the type in which a value is at hand, ``dequantised X`` where it was an ``X`` just before.

        The chain of makers is followed in a loop, since a damaged file may be deep or run in a circle.
        """
        start, seen = name, set()
        while name not in self.known and name not in seen:
            seen.add(name)
            maker = self.makers.get(name)
            if maker is None or maker.op_type == "Constant":
                self.known[name] = NAMES.get(self.types.get(name, 0), "")
            elif maker.op_type == "DequantizeLinear":
                small = self._plain_type(maker.input[0]) or "int8"
                self.known[name] = f"dequantised {small}"
            elif maker.op_type == "Cast":
                to = next((a.i for a in maker.attribute if a.name == "to"), 0)
                self.known[name] = NAMES.get(to, "")
            elif maker.op_type in PASSES_THROUGH and maker.input:
                name = maker.input[0]
                continue
            else:
                self.known[name] = NAMES.get(self.types.get(name, 0), "")
        found = self.known.get(name, "")
        self.known[start] = found
        return found

    def _plain_type(self, name: str) -> str:
        maker = self.makers.get(name)
        if maker is not None and maker.op_type == "QuantizeLinear":
            zero = maker.input[2] if len(maker.input) > 2 else ""
            return NAMES.get(self.types.get(zero, onnx.TensorProto.UINT8), "int8")
        return NAMES.get(self.types.get(name, 0), "")


def _of_product(node: onnx.NodeProto, scope: _Scope) -> tuple[str, int] | None:
    """Precision of a convolution or matrix product and its number of weights; None for other operators."""
    kind = node.op_type
    for table in (PRODUCTS, INTEGER_PRODUCTS, WEIGHT_ONLY_PRODUCTS):
        if kind in table and len(node.input) > table[kind]:
            weight, data = node.input[table[kind]], node.input[0]
            break
    else:
        return None
    n = max(1, scope.sizes.get(_constant(weight, scope), 1))
    if kind in INTEGER_PRODUCTS:
        return "int8", n
    weights, values = scope.type_of(weight), scope.type_of(data)
    if kind in WEIGHT_ONLY_PRODUCTS:
        bits = next((a.i for a in node.attribute if a.name == "bits"), 4)
        return f"{_float(values) or 'fp32'} (int{bits} weights)", n
    small = weights.removeprefix("dequantised ")
    if weights.startswith("dequantised") and values.startswith("dequantised"):
        wide = values.removeprefix("dequantised ")
        return (small if small == wide else f"{wide} ({small} weights)"), n
    computing = _float(weights) or _float(values) or _scale_type(weight, scope) or "fp32"
    return (f"{computing} ({small} weights)" if weights.startswith("dequantised") else computing), n


def _float(name: str) -> str:
    return name if name.startswith(("fp", "bf")) else ""


def _scale_type(name: str, scope: _Scope) -> str:
    """Type of the scale with which a value is dequantised: what comes out is of the same."""
    maker = scope.makers.get(name)
    for _ in range(8):
        if maker is None or maker.op_type not in PASSES_THROUGH or not maker.input:
            break
        maker = scope.makers.get(maker.input[0])
    if maker is None or maker.op_type != "DequantizeLinear" or len(maker.input) < 2:
        return ""
    return NAMES.get(scope.types.get(maker.input[1], 0), "")


def _constant(name: str, scope: _Scope) -> str:
    """The constant that a value is made of, through conversions."""
    for _ in range(8):
        maker = scope.makers.get(name)
        if name in scope.sizes or maker is None or not maker.input:
            break
        name = maker.input[0]
    return name


def _of_input(proto: onnx.ModelProto) -> str:
    """Precision of a model without products: that of its quantisation or of its first input."""
    kinds = {n.op_type for n in proto.graph.node}
    if kinds & {"DequantizeLinear", "QuantizeLinear"} or any(k.startswith("QLinear") for k in kinds):
        return "int8"
    constants = {t.name for t in proto.graph.initializer}
    types = [v.type.tensor_type.elem_type for v in proto.graph.input if v.name not in constants]
    return next((NAMES[t] for t in types if t in NAMES and _float(NAMES[t])), "fp32")
