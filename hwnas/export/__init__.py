"""A plain network leaves PyTorch: operators, ONNX, parity, INT8, model bundles."""

from hwnas.export.bundle import Bundle, load_model, write_bundle
from hwnas.export.graph import Graph, count_macs, trace
from hwnas.export.onnx_file import build_onnx, quantize_onnx, run_onnx, to_onnx, verify_onnx
from hwnas.export.op import Op

__all__ = [
    "Bundle", "Graph", "Op", "build_onnx", "count_macs", "load_model", "quantize_onnx", "run_onnx", "to_onnx", "trace",
    "verify_onnx", "write_bundle",
]  # fmt: skip
