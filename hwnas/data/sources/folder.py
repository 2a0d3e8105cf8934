"""One folder of images a class."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.errors import DataError
from hwnas.files import write_atomically

if TYPE_CHECKING:
    pass
from hwnas.data.config import DataConfig
from hwnas.data.images import ImageSet
from hwnas.data.sources.files import Read, existing_path
from hwnas.data.sources.pictures import square_pixels

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


def read_folder(config: DataConfig, image_size_px: int) -> Read:
    """One folder a class, or ``train/`` and ``test/`` with one folder a class each."""
    root = existing_path(config)
    if not root.is_dir():
        raise DataError(f"{root} is a file; source 'folder' needs a folder with one folder of images a class")
    train_root = root / "train" if (root / "train").is_dir() else root
    names = tuple(sorted(p.name for p in train_root.iterdir() if p.is_dir()))
    cache = None if config.cache is None else Path(config.cache).expanduser()
    train = _decode_classes(train_root, names, image_size_px, cache)
    test = _decode_classes(root / "test", names, image_size_px, cache) if (root / "test").is_dir() else None
    return train, test, names


def _decode_classes(root: Path, names: tuple[str, ...], size_px: int, cache: Path | None) -> ImageSet:
    """Decode every image below ``root/<class>/``, or read what an earlier start decoded of the same files."""
    found = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
    ]
    labels = torch.tensor([label for _, label in found], dtype=torch.int64)
    if not found:
        return ImageSet(torch.zeros(0, 3, size_px, size_px, dtype=torch.uint8), labels)
    shape = (len(found), 3, size_px, size_px)
    if cache is None:
        pixels = np.empty(shape, dtype=np.uint8)
        _decode_into(pixels, [path for path, _ in found])
        return ImageSet(torch.from_numpy(pixels), labels)
    listing = [(str(p.relative_to(root)), p.stat().st_size, p.stat().st_mtime_ns) for p, _ in found]
    digest = hashlib.sha256(json.dumps([str(root.resolve()), size_px, listing]).encode()).hexdigest()[:16]
    path = cache / f"{root.name}-{size_px}px-{digest}.npy"

    def fill(temporary: Path) -> None:
        whole = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        _decode_into(whole, [p for p, _ in found])
        whole.flush()

    if not path.exists():
        write_atomically(path, fill)
    if not path.exists():  # another process is to write it
        return _decode_classes(root, names, size_px, None)
    # Pages are read when they are used, and a change of them stays in memory.
    return ImageSet(torch.from_numpy(np.load(path, mmap_mode="c")), labels)


def _decode_into(out: NDArray[np.uint8], files: Sequence[Path]) -> None:
    """Write the pixels of image files into ``(N, 3, H, H)``; a broken file is an error that names it."""
    from PIL import Image, UnidentifiedImageError

    for row, path in enumerate(files):
        try:
            with Image.open(path) as file:
                out[row] = square_pixels(file, out.shape[2])
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            raise DataError(f"cannot read image {path}: {error}; repair or remove the file") from None
