"""One folder of images a class."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.data.source import FileImages, Labels, MemoryImages, Opened, Pixels, Source, SourceConfig
from hwnas.data.sources.files import existing_path
from hwnas.errors import DataError
from hwnas.files import write_atomically
from hwnas.reading import ROUGHLY

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


class Folder(Source):
    """One folder a class, or ``train/`` and ``test/`` with one folder a class each."""

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """List the files."""
        root = existing_path(config)
        if not root.is_dir():
            raise DataError(f"{root} is a file; source 'folder' needs a folder with one folder of images a class")
        train_root = root / "train" if (root / "train").is_dir() else root
        names = tuple(sorted(p.name for p in train_root.iterdir() if p.is_dir()))
        cache = None if config.cache is None else Path(config.cache).expanduser()
        test = _listed(root / "test", names, cache) if (root / "test").is_dir() else None
        return Opened(names, _listed(train_root, names, cache), test)


def _listed(root: Path, names: tuple[str, ...], cache: Path | None) -> FolderImages:
    """Every image below ``root/<class>/``, class by class."""
    found = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in IMAGE_ENDINGS)
    ]
    labels = np.array([label for _, label in found], dtype=np.int64)
    return FolderImages(root, FileImages([path for path, _ in found], labels), cache)


@dataclass(frozen=True)
class FolderImages:
    """Image files below a folder, and what an earlier start decoded of the same files."""

    root: Path
    files: FileImages
    cache: Path | None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> Labels:
        """``(N,)`` numbers of classes."""
        return self.files.labels

    def pixels(self, indices: NDArray[np.int64], size_px: int) -> Pixels:
        """Return ``(B, 3, size_px, size_px)`` from the cache, which is filled first, or from the files."""
        kept = None if self.cache is None else self._kept(self.cache, size_px)
        return self.files.pixels(indices, size_px) if kept is None else kept.pixels(indices, size_px)

    def _kept(self, cache: Path, size_px: int) -> MemoryImages | None:
        """All images in one memory-mapped file; None where another process is writing it."""
        paths = self.files.files
        listing = [(str(p.relative_to(self.root)), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
        digest = hashlib.sha256(json.dumps([str(self.root.resolve()), size_px, listing]).encode()).hexdigest()[:16]
        path = cache / f"{self.root.name}-{size_px}px-{digest}.npy"

        def fill(temporary: Path) -> None:
            whole = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(paths), 3, size_px, size_px))
            self.files.decode_into(whole, np.arange(len(paths)))
            whole.flush()

        if not path.exists():
            write_atomically(path, fill)
        if not path.exists():
            return None
        # Pages are read when they are used, and a change of them stays in memory.
        try:
            kept = np.load(path, mmap_mode="c", allow_pickle=False)
            if kept.shape != (len(paths), 3, size_px, size_px) or kept.dtype != np.uint8:
                raise ValueError(f"it holds {kept.dtype} of shape {kept.shape}")
        except (OSError, *ROUGHLY) as error:
            raise DataError(f"{path} is damaged: {error}; remove it, images are decoded again") from None
        return MemoryImages(kept, self.labels)


FOLDER = Folder()
