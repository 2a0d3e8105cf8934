"""Which ONNX models are timed for a table? Blocks alone and whole networks, with random weights, in its precision."""

from __future__ import annotations

import torch

from hwnas.export.graph import Graph, trace
from hwnas.export.onnx_nodes import build_onnx
from hwnas.export.quantization import MIN_IMAGES, calibrate
from hwnas.latency.number_format import Precision
from hwnas.space import Arch
from hwnas.supernet import BlockSpec, Layout


def block_onnx(block: BlockSpec, batch_size: int, precision: Precision = "fp32") -> bytes:
    """Return one block of random weights as a serialised ONNX model.

    In int8 its output has 8 bits, too, as it has inside a network; only that it is float for whoever calls it costs
    a little, as does the input, and the correction of a table takes that out.
    """
    return _serialised(trace(block.build()), block.in_channels, block.in_size_px, batch_size, precision, True)


def network_onnx(layout: Layout, arch: Arch, batch_size: int, precision: Precision = "fp32") -> bytes:
    """Return a whole network of random weights as a serialised ONNX model, exactly as it would be exported."""
    channels, resolution, _ = layout.input_shape(arch)
    return _serialised(trace(layout.build_subnet(arch)), channels, resolution, batch_size, precision, False)


def _serialised(
    graph: Graph, channels: int, px: int, batch_size: int, precision: Precision, output_in_8_bits: bool
) -> bytes:
    quantization = None
    if precision == "int8":  # any images: how long it takes does not depend on the scales
        images = torch.randn(MIN_IMAGES, channels, px, px, generator=torch.Generator().manual_seed(0))
        quantization = calibrate(graph, images, output_in_8_bits=output_in_8_bits)
    return bytes(build_onnx(graph, channels, px, batch_size, quantization).SerializeToString())
