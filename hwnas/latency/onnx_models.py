"""Which ONNX models are timed for a table? Blocks alone and whole networks, with random weights."""

from __future__ import annotations

from hwnas.export.graph import trace
from hwnas.export.onnx_nodes import build_onnx
from hwnas.space import Arch
from hwnas.supernet import BlockSpec, Layout


def block_onnx(block: BlockSpec, batch_size: int) -> bytes:
    """Return one block of random weights as a serialised ONNX model."""
    return bytes(build_onnx(trace(block.build()), block.in_channels, block.in_size_px, batch_size).SerializeToString())


def network_onnx(layout: Layout, arch: Arch, batch_size: int) -> bytes:
    """Return a whole network of random weights as a serialised ONNX model, exactly as it would be exported."""
    channels, resolution, _ = layout.input_shape(arch)
    graph = trace(layout.build_subnet(arch))
    return bytes(build_onnx(graph, channels, resolution, batch_size).SerializeToString())
