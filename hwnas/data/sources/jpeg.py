"""Encoded images in one .npz file."""

from __future__ import annotations

import io

import numpy as np

from hwnas.data.source import MemoryImages, Opened, Source, SourceConfig
from hwnas.data.sources.files import array_images, existing_path, npz_arrays, numbered
from hwnas.errors import DataError


class Jpeg(Source):
    """Encoded images one after the other in an array of bytes; all must have one size."""

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Decode ``jpeg_train`` and ``jpeg_test``."""
        path = existing_path(config)
        arrays = npz_arrays(path)
        train, test = (_decoded(arrays, part, str(path)) for part in ("train", "test"))
        return Opened(tuple(map(str, arrays.get("classes", numbered(train.labels)))), train, test)


def _decoded(arrays: dict[str, np.ndarray], part: str, path: str) -> MemoryImages:
    from PIL import Image, UnidentifiedImageError

    needed = [f"jpeg_{part}", f"offset_{part}", f"y_{part}"]
    if missing := [n for n in needed if n not in arrays]:
        raise DataError(f"{path} lacks arrays {missing}; it has {sorted(arrays)}")
    content, offset, y = (arrays[n] for n in needed)
    if len(offset) != len(y) + 1 or (np.diff(offset) <= 0).any() or offset[-1] > len(content):
        raise DataError(f"{path}: offset_{part} does not fit {len(y)} labels and {len(content)} bytes")
    images = []
    for row in range(len(y)):
        try:
            with Image.open(io.BytesIO(content[offset[row] : offset[row + 1]].tobytes())) as file:
                images.append(np.asarray(file.convert("RGB")).transpose(2, 0, 1))
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            raise DataError(f"{path}: cannot read image {row} of jpeg_{part}: {error}") from None
    if len({i.shape for i in images}) > 1:
        raise DataError(f"{path}: images of jpeg_{part} differ in size; use source 'folder'")
    return array_images(np.stack(images), y, f"{path}: {part}")


JPEG = Jpeg()
