"""What sources share: finding files, arrays of an .npz, checks of images and labels."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from hwnas.data.source import Labels, MemoryImages, SourceConfig
from hwnas.errors import DataError
from hwnas.reading import ROUGHLY


def npz_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz; never a pickle."""
    try:
        with path.open("rb") as raw:  # opened here, so that it is closed where NumPy gives up on it
            file = np.load(raw, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it holds a single array without a name")
            return {k: file[k] for k in file.files}
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, *ROUGHLY) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}; write it with numpy.savez") from None


def array_images(x: np.ndarray, y: np.ndarray, where: str) -> MemoryImages:
    """Return arrays as images; ``where`` names them in errors.

    Args:
        x: ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)`` uint8, C 1 or 3.
        y: ``(N,)`` or ``(N, 1)`` integers, or ``(N,)`` or ``(N, k)`` floats.
        where: such as ``file.npz: x_train``.

    Raises:
        DataError: another shape or type.
    """
    if x.dtype != np.uint8:
        raise DataError(f"{where} is {x.dtype}; images must be uint8 (0 to 255)")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    elif x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DataError(
            f"{where} has shape {x.shape}; use (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels"
        )
    if np.issubdtype(y.dtype, np.integer):
        y = y.reshape(-1).astype(np.int64)
    elif np.issubdtype(y.dtype, np.floating):
        y = y.reshape(len(y), -1)
    else:
        raise DataError(f"{where}: labels are {y.dtype}; they must be integers or floats")
    if len(x) != len(y):
        raise DataError(f"{where} has {len(x)} images but {len(y)} labels")
    return MemoryImages(np.array(x, order="C"), y)


def numbered(labels: Labels) -> tuple[str, ...]:
    """Return names for classes or outputs that have none: ``0``, ``1``, ...; as many as ``labels`` need."""
    if labels.ndim == 2:
        return tuple(str(i) for i in range(labels.shape[1]))
    return tuple(str(i) for i in range(int(labels.max()) + 1 if len(labels) else 0))


def existing_path(config: SourceConfig) -> Path:
    """Return the file or folder that ``data.path`` names, here or below the folder HWNAS_DATA.

    Raises:
        DataError: there is none.
    """
    if config.path is None:
        raise DataError(f"data source {config.source!r} needs data.path")
    path = Path(config.path).expanduser()
    elsewhere = Path(os.environ.get("HWNAS_DATA", ".")).expanduser() / path
    found = path if path.exists() else elsewhere
    if not found.exists():
        raise DataError(
            f"data.path {config.path!r} does not exist; give the file or folder of your images, "
            "or set HWNAS_DATA to the folder that holds it"
        )
    return found
