"""How does a plain network become an ONNX file?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from hwnas.arguments import checked_arguments
from hwnas.errors import ExportError
from hwnas.export.graph import trace
from hwnas.export.onnx_nodes import OPSET, build_onnx
from hwnas.files import write_atomically


@checked_arguments
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
    write_onnx(model, path, metadata)


def write_onnx(model: onnx.ModelProto, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a model as one file, checked, with JSON values in its metadata.

    Raises:
        OutputError: the file cannot be written.
    """
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
