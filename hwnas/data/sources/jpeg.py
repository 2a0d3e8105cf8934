"""Encoded images in one .npz file."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.data.left_out import LeftOutCounter
from hwnas.data.pictures import open_picture
from hwnas.data.source import Entry, Labels, Opened, Pixels, Source, SourceConfig
from hwnas.data.sources.files import (
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
        """Find ``jpeg_train`` and ``jpeg_test``, and ``jpeg_validation`` where it is there."""
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
        parts = {s: _encoded(arrays, splits[s], labels[s], path) for s in splits}
        left_out = LeftOutCounter()
        given = labelled_parts(parts, left_out)
        return Opened(
            classes, given["train"], given.get("test"), given.get("validation"), left_out=left_out.values()
        )  # fmt: skip


def _encoded(arrays: Mapping[str, np.ndarray], names: Mapping[str, str], y: Labels, path: Path) -> EncodedImages:
    name = names["jpeg"]
    content, offset = arrays[name], arrays[names["offset"]]
    if content.dtype != np.uint8 or content.ndim != 1 or offset.ndim != 1 or offset.dtype.kind not in "iu":
        raise DataError(f"{path}: {name} must be bytes in a row (uint8), {names['offset']} integers")
    ends = offset.astype(np.int64)
    if len(ends) != len(y) + 1 or (np.diff(ends) <= 0).any() or ends[0] < 0 or ends[-1] > len(content):
        raise DataError(f"{path}: {names['offset']} does not fit {len(y)} labels and {len(content)} bytes")
    return EncodedImages(content, ends, y, f"{name} in {path}")


@dataclass(frozen=True)
class EncodedImages:
    """Image files of one size, one after the other in memory, decoded when their pixels are asked for."""

    content: NDArray[np.uint8]
    ends: NDArray[np.int64]
    """``(N + 1,)``: where each begins, and the end."""
    labels: Labels
    name: str

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, index: int) -> str:
        """Return the number of an image and where it is."""
        return f"{index} of {self.name}"

    def entry(self, index: int) -> Entry:
        """Return a checksum of the bytes of an image, and how many there are; see `HasListing`."""
        content = self._bytes(index)
        return Entry(f"{zlib.crc32(content):08x}", len(content))

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the first image, which all must have."""
        return open_picture(self._bytes(0), self.place(0)).size

    def pixels(self, indices: NDArray[np.int64], size_px: int) -> Pixels:
        """Return ``(B, 3, H, W)`` as they are; see `Images.pixels`."""
        width, height = self.size
        out = np.empty((len(indices), 3, height, width), dtype=np.uint8)
        for row, index in enumerate(indices.tolist()):
            picture = open_picture(self._bytes(index), self.place(index))
            if picture.size != self.size:
                raise DataError(
                    f"image {self.place(index)} has {picture.width}x{picture.height} pixels, the first one "
                    f"{width}x{height}; images of differing sizes need the source 'folder'"
                )
            out[row] = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
        return out

    def _bytes(self, index: int) -> bytes:
        return self.content[self.ends[index] : self.ends[index + 1]].tobytes()


JPEG = Jpeg()
