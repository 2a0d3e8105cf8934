"""Encoded images in one .npz file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwnas.errors import DataError

if TYPE_CHECKING:
    pass
from hwnas.data.config import DataConfig
from hwnas.data.sources.files import Read, existing_path, image_set, npz_arrays


def read_jpeg(config: DataConfig, image_size_px: int) -> Read:
    """Encoded images in one .npz; all must have one size."""
    import io

    from PIL import Image, UnidentifiedImageError

    path = existing_path(config)
    arrays = npz_arrays(path)
    parts = []
    for part in ("train", "test"):
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
        parts.append(image_set(np.stack(images), y, f"{path}: {part}"))
    n = int(parts[0].labels.max()) + 1
    return parts[0], parts[1], tuple(map(str, arrays.get("classes", range(n))))
