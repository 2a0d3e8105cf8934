"""The IDX files of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwnas.errors import DataError

if TYPE_CHECKING:
    pass
from hwnas.data.config import DataConfig
from hwnas.data.sources.files import Read, existing_path, image_set


def read_idx(config: DataConfig, image_size_px: int) -> Read:
    """The IDX files of MNIST and Fashion-MNIST under their published names, plain or gzipped."""
    root = existing_path(config)
    parts = []
    for prefix in ("train", "t10k"):
        images = _idx_array(root, f"{prefix}-images-idx3-ubyte", 3)
        labels = _idx_array(root, f"{prefix}-labels-idx1-ubyte", 1)
        parts.append(image_set(images, labels, f"{root}: {prefix}"))
    return parts[0], parts[1], tuple(str(i) for i in range(int(parts[0].labels.max()) + 1))


def _idx_array(root: Path, name: str, n_axes: int) -> np.ndarray:
    """One IDX file: magic number with type and axes, sizes, then bytes (LeCun, Cortes and Burges, MNIST page)."""
    found = [p for p in (root / name, root / f"{name}.gz", root / name.replace("-idx", ".idx")) if p.is_file()]
    if not found:
        raise DataError(f"{root} lacks {name} (or {name}.gz)")
    try:
        content = gzip.decompress(found[0].read_bytes()) if found[0].suffix == ".gz" else found[0].read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{found[0]} cannot be read: {error}") from None
    if len(content) < 4 + 4 * n_axes or content[:4] != bytes((0, 0, 8, n_axes)):
        raise DataError(f"{found[0]} is not an IDX file of unsigned bytes with {n_axes} axes")
    shape = np.frombuffer(content, ">u4", n_axes, 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes)
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{found[0]} holds {values.size} bytes, its header says {shape.tolist()}; it is cut short")
    return values.reshape(shape.tolist())
