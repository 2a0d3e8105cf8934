"""How is a large set of images decoded only once? Its pixels are kept on disk as bytes, one image after the other.

Two files stand for a split: ``.u8`` has the pixels (height, width, channel), ``.jsonl`` a line for the split and one
for each part that is whole, with a checksum of every image. A process that is killed while it fills them loses the part
that it was at; the next one goes on behind the last whole part. An image whose bytes are not those that were written is
decoded again.

Images are read, not mapped into memory: pages of a map would count as memory of the process.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from hwnas.data.decoders import Decoders
from hwnas.data.opened import DatasetSplit
from hwnas.data.pictures import RULES, room_for
from hwnas.data.source import HasListing, Pixels
from hwnas.data.stream import ImageStream
from hwnas.errors import DataError, OutputError
from hwnas.files import make_folder
from hwnas.progress import Progress, silent

PART = 256
"""Images that are written at a time."""
Checksums = dict[int, int | None]
"""Of the pixels of each image that is kept; None: the image cannot be read."""


@dataclass(frozen=True)
class CachedSplit:
    """Images of a split whose pixels are kept on disk; `cached` makes it."""

    split: DatasetSplit
    """Decodes what is damaged."""
    path: Path
    """Of the pixels."""
    checksums: Checksums
    checked: set[int] = field(default_factory=set, repr=False, compare=False)
    """Images whose bytes were found to be whole by this process."""
    decodes = False

    def __len__(self) -> int:
        return len(self.split)

    @property
    def what(self) -> str:
        """Begins messages."""
        return self.split.what

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image."""
        return self.split.shape

    def place(self, index: int) -> str:
        """Return where an image lies in its source."""
        return self.split.place(index)

    @property
    def listing_digest(self) -> bytes:
        """That of the source's files."""
        return self.split.listing_digest

    def pixels(self, indices: Sequence[int] | NDArray[np.integer]) -> Pixels:
        """Read images; see `DatasetSplit.pixels`."""
        out = room_for(len(indices), *self.shape)
        stored = out.transpose(0, 2, 3, 1)
        try:
            with self.path.open("rb", buffering=0) as file:
                whole = [self._read(file, row, int(index)) for row, index in zip(stored, indices, strict=True)]
        except OSError as error:
            raise DataError(
                f"cannot read {self.path}: {error.strerror}; put it back, or start again: images are decoded anew"
            ) from None
        for row, index, is_whole in zip(stored, indices, whole, strict=True):
            if not is_whole:
                row[:] = self.split.pixels([int(index)])[0].transpose(1, 2, 0)
                self._repair(row, int(index))
        return out

    def _repair(self, row: Pixels, index: int) -> None:
        """Put an image back that was damaged; where that cannot be done, it is decoded again and again."""
        if zlib.crc32(row.data) != self.checksums[index]:
            return  # its file is another by now, which a start notices
        with suppress(OSError), self.path.open("r+b") as file:
            file.seek(index * row.nbytes)
            file.write(row.data)

    def _read(self, file: FileIO, row: Pixels, index: int) -> bool:
        """Read one image; say whether its bytes are those that were written."""
        expected = self.checksums[index]
        if expected is None:
            return False
        file.seek(index * row.nbytes)
        if file.readinto(row.data) != row.nbytes:
            return False
        if index not in self.checked and zlib.crc32(row.data) != expected:
            return False
        self.checked.add(index)
        return True


def cached(
    split: DatasetSplit,
    folder: Path,
    decoders: Decoders | None = None,
    skip_broken: bool = False,
    progress: Progress = silent,
) -> CachedSplit:
    """Return a split whose decoded images are kept in ``folder``; those that are not there yet are decoded now.

    Args:
        split: of a source whose images have an `HasListing.entry`, by which they are known again.
        folder: is made; several splits and runs may share it.
        decoders: processes that decode; None: this one does.
        skip_broken: note images that cannot be read and go on; otherwise the first one is an error.
        progress: told how many are decoded, and how large the file becomes.

    Raises:
        DataError: an image cannot be read, or the source cannot tell its images apart.
        OutputError: no space, no permission.
    """
    path = folder.expanduser() / f"{split.size_px}px-{_name(split)}.u8"
    journal = path.with_suffix(".jsonl")
    header = {"rules": RULES, "images": len(split), "shape": list(split.shape), "order": "HWC"}
    found = _read_journal(journal, header)
    if len(found) < len(split):
        make_folder(path.parent)
        try:
            with FileLock(path.with_suffix(".lock")):  # whoever comes second finds the work done
                found = _read_journal(journal, header)
                if len(found) < len(split):
                    _fill(ImageStream(split, decoders, skip_broken), path, header, found, progress)
        except OSError as error:
            raise OutputError(
                f"cannot keep decoded images in {path}: {error.strerror or error}; free space, give another "
                "data.cache, or leave it out; what is there is used by the next start"
            ) from None
    return CachedSplit(split, path, found)


def _fill(stream: ImageStream, path: Path, header: dict[str, Any], found: Checksums, progress: Progress) -> None:
    """Decode what is not there, part by part."""
    n, n_bytes = len(stream), int(np.prod(header["shape"]))
    size = f"{n * n_bytes / 2**30:.3g} GiB in {path}"
    missing = (n - len(found)) * n_bytes
    if (free := shutil.disk_usage(path.parent).free) < missing:
        raise OutputError(
            f"decoded images take {missing / 2**30:.3g} GiB, {path.parent} has {free / 2**30:.3g} GiB free; free "
            "space, give another data.cache, or leave it out"
        )
    progress("decode images", len(found), n, size)
    parts = [np.arange(begin, min(begin + PART, n)) for begin in range(len(found), n, PART)]
    with (
        path.open("r+b" if found else "wb") as pixels,
        path.with_suffix(".jsonl").open("a" if found else "w", encoding="utf-8") as journal,
    ):
        if not found:
            journal.write(json.dumps(header) + "\n")
        pixels.truncate(len(found) * n_bytes)
        pixels.seek(len(found) * n_bytes)
        for rows, decoded in zip(parts, stream.feed(parts), strict=True):
            content = np.ascontiguousarray(decoded.pixels.numpy().transpose(0, 2, 3, 1))
            pixels.write(content.data)
            pixels.flush()
            sums = [zlib.crc32(c.data) if ok else None for c, ok in zip(content, decoded.readable, strict=True)]
            journal.write(json.dumps({"first": int(rows[0]), "crc32": sums}) + "\n")
            journal.flush()
            found.update(zip(rows.tolist(), sums, strict=True))
            progress("decode images", len(found), n, size)


def _read_journal(path: Path, header: dict[str, Any]) -> Checksums:
    """Return the checksums of the parts that are whole; of other images or rules: none."""
    found: Checksums = {}
    try:
        with path.open(encoding="utf-8") as file:
            lines = _whole_lines(file)
            if next(lines, None) != header:
                return {}
            for line in lines:
                sums = line.get("crc32")
                if line.get("first") != len(found) or not isinstance(sums, list) or not all(map(_is_sum, sums)):
                    break
                found.update(enumerate(sums, len(found)))
        is_there = path.with_suffix(".u8").stat().st_size >= len(found) * int(np.prod(header["shape"]))
    except (OSError, UnicodeDecodeError):
        return {}
    return found if is_there and len(found) <= header["images"] else {}


def _whole_lines(file: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield JSON objects, up to the first line that a killed process left unfinished."""
    for text in file:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not text.endswith("\n") or not isinstance(line, dict):
            return
        yield line


def _is_sum(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32)


def _name(split: DatasetSplit) -> str:
    """Sixteen hexadecimal digits that stand for the images of a split, in their order, as their files are now."""
    if not isinstance(split.images, HasListing):
        raise DataError(f"{split.what} cannot tell its images apart, so they cannot be kept; leave data.cache out")
    digest = hashlib.sha256(f"{split.size_px} {split.in_channels}\n".encode())
    for row in split.rows.tolist():
        digest.update(repr(tuple(split.images.entry(row))).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
