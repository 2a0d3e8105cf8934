"""How does a plain network become an ONNX file, and does that file compute the same?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from hwnas.errors import ExportError
from hwnas.export.graph import Graph, Node, trace
from hwnas.files import write_atomically

OPSET = 18
"""In the band that ONNX Runtime, TensorRT, OpenVINO and QNN all read."""
IR_VERSION = 10

PARITY_TOLERANCE = 1e-4
"""Largest difference of ONNX Runtime and PyTorch, relative to the largest absolute logit."""


def to_onnx(
    module: nn.Module, in_channels: int, resolution: int, path: Path, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a plain network as one ONNX file with a dynamic batch axis.

    Input ``input`` ``(batch, in_channels, resolution, resolution)``, output ``logits`` ``(batch, classes)``; batch norm
    is folded, weights are inside the file. hwnas networks are written from the same trace that times their blocks;
    any other network goes through `torch.onnx.export`.

    Args:
        module: in eval mode; it is not changed.
        in_channels: channels of the input.
        resolution: height and width of the input, fixed in the file.
        path: the file.
        metadata: JSON values kept in the file's metadata, each under its key.

    Raises:
        ExportError: neither way can express the network.
        OutputError: the file cannot be written.
    """
    try:
        model = build_onnx(trace(module), in_channels, resolution)
    except ExportError:
        model = _by_torch(module, in_channels, resolution)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key = key
        entry.value = value if isinstance(value, str) else json.dumps(value)
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, lambda p: onnx.save(model, str(p), format="protobuf"))


def _by_torch(module: nn.Module, in_channels: int, resolution: int) -> onnx.ModelProto:
    example = torch.zeros(2, in_channels, resolution, resolution)
    program = torch.onnx.export(
        module.eval(), (example,), None, input_names=["input"], output_names=["logits"], opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim("batch")},), dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    if program is None:
        raise ExportError(f"{type(module).__name__} could not be exported by torch.onnx")
    return program.model_proto


def build_onnx(graph: Graph, in_channels: int, size_px: int, batch: int | str = "batch") -> onnx.ModelProto:
    """Return the ONNX model of a traced network or block.

    Args:
        graph: the trace.
        in_channels: channels of the input.
        size_px: height and width of the input.
        batch: the batch axis: a number, or a name for a dynamic axis.
    """
    builder = _Builder()
    names = {-1: "input"}
    shapes = graph.shapes(in_channels, size_px)
    for number, node in enumerate(graph.nodes):
        names[number] = builder.add(node, [names[i] for i in node.inputs], number, shapes[number][1])
    last = names[len(graph.nodes) - 1]
    flat = graph.nodes[-1].type in ("linear", "flatten")
    channels, edge = shapes[len(graph.nodes) - 1]
    output = "logits" if flat else "output"
    builder.nodes[-1].output[0] = output
    if last != builder.last:
        raise ExportError("the last operator is not the network's output")
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        builder.nodes,
        "hwnas",
        [value("input", TensorProto.FLOAT, [batch, in_channels, size_px, size_px])],
        [value(output, TensorProto.FLOAT, [batch, channels] if flat else [batch, channels, edge, edge])],
        builder.tensors,
    )
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="hwnas"
    )


class _Builder:
    """Collects ONNX nodes and initialisers."""

    def __init__(self) -> None:
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

    def add(self, node: Node, inputs: list[str], number: int, size_px: int) -> str:
        name = f"n{number}"
        if node.type == "conv":
            tensors = [self.tensor(f"{name}.{k}", v) for k, v in node.tensors.items()]
            return self.emit(
                "Conv", [*inputs, *tensors], name, kernel_shape=[node.kernel_size] * 2,
                strides=[node.stride] * 2, pads=[node.padding] * 4, group=node.groups,
            )  # fmt: skip
        if node.type == "linear":
            tensors = [self.tensor(f"{name}.{k}", v) for k, v in node.tensors.items()]
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


def session(model: Path | bytes, threads: int = 1) -> Any:
    """Return an ONNX Runtime CPU session of a file or of serialised bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_onnx(path: Path, inputs: Tensor, batch_size: int = 500) -> Tensor:
    """Return ``(N, classes)`` outputs of a file in ONNX Runtime on the CPU."""
    runner = session(path)
    name = runner.get_inputs()[0].name
    parts = [runner.run(None, {name: x.contiguous().numpy()})[0] for x in _batches(inputs, batch_size)]
    return torch.from_numpy(np.concatenate(parts))


def _batches(inputs: Tensor, size: int) -> Iterator[Tensor]:
    return (inputs[i : i + size] for i in range(0, len(inputs), size))


def verify_onnx(path: Path, module: nn.Module, inputs: Tensor) -> float:
    """Compare a file in ONNX Runtime with the network in PyTorch, at batch 1 and at the full batch.

    Args:
        path: the file.
        module: what it should compute, in eval mode.
        inputs: ``(N, C, H, W)``, N at least 2; real images, since noise through trained weights says little.

    Returns:
        The largest absolute difference, as a share of the largest absolute output.

    Raises:
        ExportError: it is above `PARITY_TOLERANCE`, or the batch axis is not dynamic.
    """
    with torch.inference_mode():
        expected = module(inputs)
    scale = float(expected.abs().max().clamp(min=1e-12))
    worst = 0.0
    for part, wanted in ((inputs, expected), (inputs[:1], expected[:1])):
        try:
            got = run_onnx(path, part)
        except Exception as error:  # ONNX Runtime raises its own classes, which share no public base
            raise ExportError(f"{path} does not run in ONNX Runtime at batch {len(part)}: {error}") from error
        worst = float(np.maximum(worst, float((got - wanted).abs().max()) / scale))  # unlike max, keeps NaN
    if not worst <= PARITY_TOLERANCE:
        raise ExportError(
            f"{path} differs from PyTorch by {worst:.1e} of the output scale, allowed is {PARITY_TOLERANCE:.0e}; "
            "recalibrate batch norm and export again, and report it if it stays"
        )
    return worst


def quantize_onnx(path: Path, out: Path, calibration: Tensor) -> None:
    """Write an INT8 version of a file: static QDQ, per-channel weights, calibrated on images.

    It is smaller, and not always faster: measure it with `hwnas profile` on the device.

    Args:
        path: the float32 file.
        out: the INT8 file.
        calibration: ``(N, C, H, W)`` training images as the network takes them; about 100 are enough.

    Raises:
        ExportError: ONNX Runtime cannot quantise the file.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter([{"input": x.contiguous().numpy()} for x in calibration.split(32)])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    def write(target: Path) -> None:
        prepared = target.with_name(target.name + ".prepared")
        try:
            quant_pre_process(str(path), str(prepared))
            quantize_static(
                str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            )  # fmt: skip
        finally:
            prepared.unlink(missing_ok=True)

    write_atomically(out, write)
