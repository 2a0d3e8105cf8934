"""Encoded images in one .npz file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hwnas.data.left_out import LeftOutCounter
from hwnas.data.pictures import open_picture
from hwnas.data.source import Labels, MemoryImages, Opened, Source, SourceConfig
from hwnas.data.sources.files import (
    array_images,
    arrays_by_split,
    existing_path,
    labelled_parts,
    labels_by_split,
    npz_arrays,
)
from hwnas.errors import DataError


class Jpeg(Source):
    """Encoded images one after the other in an array of bytes; all must have one size."""

    columns = ("label_column",)

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Decode ``jpeg_train`` and ``jpeg_test``, and ``jpeg_validation`` where it is there."""
        path = existing_path(config)
        arrays = npz_arrays(path)
        columns = ("jpeg", "offset", config.label_column or "y")
        splits = arrays_by_split(arrays, columns)
        for split in ("train", "test", *splits):
            if missing := [f"{c}_{split}" for c in columns if c not in splits.get(split, {})]:
                raise DataError(f"{path} lacks arrays {missing}; it has {sorted(arrays)}")
        names = tuple(map(str, arrays["classes"].reshape(-1).tolist())) if "classes" in arrays else None
        found = {s: arrays[by_column[columns[2]]] for s, by_column in splits.items()}
        classes, labels = labels_by_split(found, names, str(path))
        parts = {s: _decoded(arrays, splits[s], labels[s], path) for s in splits}
        left_out = LeftOutCounter()
        given = labelled_parts(parts, left_out)
        return Opened(
            classes, given["train"], given.get("test"), given.get("validation"), left_out=left_out.values()
        )  # fmt: skip


def _decoded(arrays: Mapping[str, np.ndarray], names: Mapping[str, str], y: Labels, path: Path) -> MemoryImages:
    name = names["jpeg"]
    content, offset = arrays[name], arrays[names["offset"]]
    if content.dtype != np.uint8 or content.ndim != 1 or offset.ndim != 1 or offset.dtype.kind not in "iu":
        raise DataError(f"{path}: {name} must be bytes in a row (uint8), {names['offset']} integers")
    ends = offset.astype(np.int64)
    if len(ends) != len(y) + 1 or (np.diff(ends) <= 0).any() or ends[0] < 0 or ends[-1] > len(content):
        raise DataError(f"{path}: {names['offset']} does not fit {len(y)} labels and {len(content)} bytes")
    images = []
    for row in range(len(y)):
        picture = open_picture(content[ends[row] : ends[row + 1]].tobytes(), f"{row} of {name} in {path}")
        images.append(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
    if len({i.shape for i in images}) > 1:
        raise DataError(f"{path}: images of {name} differ in size; use source 'folder'")
    return array_images(np.stack(images) if images else np.zeros((0, 3, 1, 1), np.uint8), y, f"{path}: {name}")


JPEG = Jpeg()
