"""One folder of images a class."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.data.pictures import RULES
from hwnas.data.source import FileImages, Labels, MemoryImages, Opened, Pixels, Source, SourceConfig
from hwnas.data.sources.files import existing_path
from hwnas.data.sources.layout import find_layout
from hwnas.data.sources.tree import Tree
from hwnas.errors import DataError, escaped
from hwnas.files import first_rank, write_atomically, write_text
from hwnas.reading import ROUGHLY


class Folder(Source):
    """One folder of images a class, below folders of splits or not; `hwnas.data.sources.layout` says how."""

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """List the files."""
        root = existing_path(config)
        if not root.is_dir():
            raise DataError(
                f"{escaped(str(root))} is a file; source 'folder' needs a folder with one folder of images a class"
            )
        tree = Tree(root)
        layout = find_layout(tree)
        classes = tuple(sorted(layout["train"]))
        cache = None if config.cache is None else Path(config.cache).expanduser()
        parts = {split: _listed(tree, folders, classes, cache) for split, folders in layout.items()}
        given = {split: part for split, part in parts.items() if len(part) or split == "train"}
        return Opened(
            classes, given["train"], given.get("test"), given.get("validation"), left_out=tree.left_out.values()
        )


def _listed(tree: Tree, folders: Mapping[str, Path], classes: Sequence[str], cache: Path | None) -> FolderImages:
    """Every image of a split, class by class."""
    found = [
        (path, label) for label, name in enumerate(classes) if name in folders for path in tree.images(folders[name])
    ]
    labels = np.array([label for _, label in found], dtype=np.int64)
    return FolderImages(tree.root, FileImages([path for path, _ in found], labels), cache)


@dataclass(frozen=True)
class FolderImages:
    """Image files below a folder, and what an earlier start decoded of the same files."""

    root: Path
    files: FileImages
    cache: Path | None
    opened: dict[int, MemoryImages] = field(default_factory=dict, repr=False, compare=False)
    """What is kept, by size, once it was opened."""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> Labels:
        """``(N,)`` numbers of classes."""
        return self.files.labels

    def place(self, index: int) -> str:
        """Return the file."""
        return self.files.place(index)

    def pixels(self, indices: NDArray[np.int64], size_px: int) -> Pixels:
        """Return ``(B, 3, size_px, size_px)`` from the cache, which is filled first, or from the files."""
        if self.cache is not None and size_px not in self.opened and (kept := self._kept(self.cache, size_px)):
            self.opened[size_px] = kept
        return self.opened.get(size_px, self.files).pixels(indices, size_px)

    def _kept(self, cache: Path, size_px: int) -> MemoryImages | None:
        """All images in one memory-mapped file; None where another process is writing it."""
        paths = self.files.files
        listing = [(str(p.relative_to(self.root)), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
        what = [RULES, str(self.root.resolve()), size_px, listing]
        digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        path = cache / f"{self.root.name}-{size_px}px-{digest}.npy"

        def fill(temporary: Path) -> None:
            whole = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(paths), 3, size_px, size_px))
            self.files.decode_into(whole, np.arange(len(paths)))
            whole.flush()

        seal = path.with_suffix(".sha256")
        if not _is_whole(path, seal):
            write_atomically(path, fill)
            if first_rank():
                write_text(seal, _digest(path))
        if not _is_whole(path, seal):
            return None
        # Pages are read when they are used, and a change of them stays in memory.
        try:
            kept = np.load(path, mmap_mode="c", allow_pickle=False)
            if kept.shape != (len(paths), 3, size_px, size_px) or kept.dtype != np.uint8:
                raise ValueError(f"it holds {kept.dtype} of shape {kept.shape}")
        except (OSError, *ROUGHLY) as error:
            raise DataError(f"{path} is damaged: {error}; remove it, images are decoded again") from None
        return MemoryImages(kept, self.labels)


def _is_whole(path: Path, seal: Path) -> bool:
    """Whether decoded images are kept as they were written; damaged ones are decoded again."""
    try:
        return seal.read_text(encoding="utf-8") == _digest(path)
    except (OSError, UnicodeDecodeError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


FOLDER = Folder()
