"""How does a network become an INT8 file? Exactly as it was evaluated: its `Quantization` is written down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.export.onnx_file import write_onnx
from hwnas.export.onnx_nodes import build_onnx
from hwnas.export.quantization import Quantization


def to_int8_onnx(
    quantization: Quantization, in_channels: int, resolution: int, path: Path, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a network in 8 bits as one ONNX file in QDQ form, with a dynamic batch axis.

    It is smaller, and not always faster: measure it with `hwnas profile` on the device.

    Args:
        quantization: of its trace; see `hwnas.export.quantization.calibrate`.
        in_channels: channels of the input.
        resolution: height and width of the input, fixed in the file.
        path: the file.
        metadata: JSON values kept in the file's metadata, each under its key.

    Raises:
        OutputError: the file cannot be written.
    """
    write_onnx(build_onnx(quantization.graph, in_channels, resolution, quantization=quantization), path, metadata)
