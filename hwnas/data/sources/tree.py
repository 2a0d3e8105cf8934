"""Which images are below a folder? What else is there is counted by its reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hwnas.data.left_out import LeftOutCounter
from hwnas.errors import DataError, escaped

IMAGE_ENDINGS = {
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".bmp", ".dib", ".webp", ".avif", ".gif", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga", ".pcx", ".ico",
}  # fmt: skip
"""Endings of the image formats that Pillow reads, in any case."""
SYSTEM_NAMES = {
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "system volume information",
    "@eadir", "lost+found", "__pycache__",
}  # fmt: skip
"""What systems leave beside images, in any case, besides names that begin with a dot."""


def is_hidden(name: str) -> bool:
    """Whether a name is of a hidden or system entry, which is neither a class nor an image."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


@dataclass(frozen=True)
class Tree:
    """A folder that is looked through once; names in messages are relative to it."""

    root: Path
    left_out: LeftOutCounter = field(default_factory=LeftOutCounter)

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """Return what is in a folder, by name; hidden and system entries are left out.

        Raises:
            DataError: it cannot be listed.
        """
        visible = []
        for entry in _listed(folder):
            if not is_hidden(entry.name):
                visible.append(entry)
            elif _is_folder(entry):
                n = sum(1 for _ in _files(entry.path))
                self.left_out.add("files in hidden or system folders", self.name(entry.path), n)
            else:
                self.left_out.add("hidden or system files", self.name(entry.path))
        return visible

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, by name."""
        return [Path(entry.path) for entry in _listed(folder) if not is_hidden(entry.name) and _is_folder(entry)]

    def images(self, folder: Path) -> list[Path]:
        """Return every image below a folder, in the order of the paths; the rest is left out."""
        return list(self._images(folder, (os.path.realpath(folder),)))

    def has_images(self, folder: Path) -> bool:
        """Whether there is an image below a folder; nothing is counted."""
        return next(Tree(self.root)._images(folder, (os.path.realpath(folder),)), None) is not None

    def leave_out_files(self, entries: list[os.DirEntry[str]], images: str) -> None:
        """Count the files among some entries; ``images`` is the reason for those that are images."""
        for entry in entries:
            if not _is_folder(entry) and self._is_image(entry):
                self.left_out.add(images, self.name(entry.path))

    def leave_out_folder(self, folder: Path, reason: str) -> None:
        """Count all files below a folder."""
        self.left_out.add(reason, self.name(folder), sum(1 for _ in _files(str(folder))))

    def name(self, path: str | Path) -> str:
        """Return a path as it is shown: below the root."""
        return os.path.relpath(path, self.root)

    def _images(self, folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
        for entry in self.entries(folder):
            if _is_folder(entry):
                real = os.path.realpath(entry.path)
                if real in above:
                    self.left_out.add("links back to a folder above", self.name(entry.path))
                else:
                    yield from self._images(Path(entry.path), (*above, real))
            elif self._is_image(entry):
                yield Path(entry.path)

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry that is no folder is an image by its ending; otherwise it is counted."""
        ending = os.path.splitext(entry.name)[1].lower()
        try:
            regular = entry.is_file()
        except OSError:  # links in a circle
            regular = False
        if regular and ending in IMAGE_ENDINGS:
            return True
        if regular:
            reason = f"files that end in {ending}, which is no image" if ending else "files without an ending"
        else:
            reason = "links that lead nowhere" if entry.is_symlink() else "pipes, sockets or devices"
        self.left_out.add(reason, self.name(entry.path))
        return False


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"cannot list the folder {escaped(str(folder))}: {error.strerror}; make it readable or move it away"
        ) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _files(folder: str) -> Iterator[str]:
    """Every file below a folder that is left out; what cannot be listed does not matter then."""
    for path, _, names in os.walk(folder):
        yield from (os.path.join(path, name) for name in names)
