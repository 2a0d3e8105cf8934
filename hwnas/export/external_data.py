"""Which files beside an ONNX model hold its weights? Only such as lie in its own folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from hwnas.errors import ExportError, UnreadableError, shown
from hwnas.reading import inside

EXTERNAL = onnx.TensorProto.EXTERNAL


def external_files(model: onnx.ModelProto, folder: Path) -> list[Path]:
    """Return the files that a model's tensors lie in, each once.

    Args:
        model: loaded without its external data.
        folder: of the model's file.

    Raises:
        ExportError: a tensor names no file, or one outside of ``folder``.
    """
    found: dict[Path, None] = {}
    for tensor in _tensors(model.graph):
        if tensor.data_location != EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        try:
            found[inside(folder, location)] = None
        except UnreadableError:
            raise ExportError(
                f"tensor {shown(tensor.name, 60)} lies in {shown(location, 100)}, outside of the model's folder "
                f"{folder}; put the weights beside the model"
            ) from None
    return list(found)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)
