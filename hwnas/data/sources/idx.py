"""The IDX files of MNIST and Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwnas.data.source import Opened, Source, SourceConfig
from hwnas.data.sources.files import array_images, existing_path
from hwnas.data.sources.labels import numbered
from hwnas.errors import DataError, UnreadableError
from hwnas.reading import gunzipped


class Idx(Source):
    """The IDX files of MNIST and Fashion-MNIST under their published names, plain or gzipped."""

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Read the four files of a folder."""
        root = existing_path(config)
        train, test = (
            array_images(
                _idx_array(root, f"{prefix}-images-idx3-ubyte", 3),
                _idx_array(root, f"{prefix}-labels-idx1-ubyte", 1).astype(np.int64),
                f"{root}: {prefix}",
            )
            for prefix in ("train", "t10k")
        )
        return Opened(numbered(train.labels, str(root)), train, test)


IDX = Idx()


def _idx_array(root: Path, name: str, n_axes: int) -> np.ndarray:
    """One IDX file: magic number with type and axes, sizes, then bytes (LeCun, Cortes and Burges, MNIST page)."""
    found = [p for p in (root / name, root / f"{name}.gz", root / name.replace("-idx", ".idx")) if p.is_file()]
    if not found:
        raise DataError(f"{root} lacks {name} (or {name}.gz)")
    n_header = 4 + 4 * n_axes

    def size_of(header: bytes) -> int:
        if len(header) < n_header:
            return len(header)
        return n_header + int(np.prod(np.frombuffer(header, ">u4", n_axes, 4), dtype=np.float64))

    try:
        packed = found[0].suffix == ".gz"
        content = gunzipped(found[0], n_header, size_of) if packed else found[0].read_bytes()
    except (OSError, UnreadableError) as error:
        reason = error.reason if isinstance(error, UnreadableError) else str(error)
        raise DataError(f"{found[0]} cannot be read: {reason}") from None
    if len(content) < 4 + 4 * n_axes or content[:4] != bytes((0, 0, 8, n_axes)):
        raise DataError(f"{found[0]} is not an IDX file of unsigned bytes with {n_axes} axes")
    shape = np.frombuffer(content, ">u4", n_axes, 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes)
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{found[0]} holds {values.size} bytes, its header says {shape.tolist()}; it is cut short")
    return values.reshape(shape.tolist())
