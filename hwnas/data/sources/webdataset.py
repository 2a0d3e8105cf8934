"""Tar files of images and labels, as the package webdataset reads them.

Files of one sample follow one another and have one name up to its first dot: ``0001.jpg``, ``0001.cls``. An image is
whatever ends like one; its label is the number or text in ``.cls``, or a field of ``.json``: the one that
``data.label_column`` names, otherwise ``label``. Splits are told by a word of the tar file's name or its folder, such
as ``imagenet-train-000123.tar``; without one, all are training images.

The headers of all tar files are read when they are opened, pixels when they are asked for, in any order.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.data.left_out import LeftOutCounter
from hwnas.data.pictures import room_for, square_picture
from hwnas.data.source import Entry, Labels, Opened, Pixels, Source, SourceConfig
from hwnas.data.sources.files import existing_path
from hwnas.data.sources.labels import MISSING, mapped, names_of, numbered
from hwnas.data.sources.tree import IMAGE_ENDINGS, is_hidden
from hwnas.data.split_names import SplitName, split_of
from hwnas.errors import DataError, escaped, one_line, shown

LABEL_BYTES = 2**20
"""Longest ``.cls`` or ``.json`` that is read."""


class WebDataset(Source):
    """Tar files below a folder, or one tar file."""

    columns = ("label_column",)

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Read the headers and the labels."""
        root, left_out = existing_path(config), LeftOutCounter()
        shards = _shards(root, left_out)
        found: dict[SplitName, _Index] = {}
        for path in shards:
            index = found.setdefault(_split(path, root), _Index())
            index.add_shard(path, os.path.relpath(path, root.parent if root.is_file() else root))
            for sample in _samples(path):
                index.add(sample, config.label_column, left_out)
        if "train" not in found:
            raise DataError(f"{escaped(str(root))} has tar files of {', '.join(found)}, and none of train; add them")
        numbers = all(isinstance(v, int) for index in found.values() for v in index.labels)
        classes: tuple[str, ...] = ()
        parts: dict[SplitName, TarImages] = {}
        for split in sorted(found, key=("train", "validation", "test").index):
            index, where = found[split], f"{root}, {split}"
            if numbers:
                labels = np.array(index.labels, dtype=np.int64)
                classes = classes or numbered(labels, where)
            else:
                own, labels = names_of([str(v) for v in index.labels])
                classes = classes or own
                labels = mapped(labels, own, classes, where)
            if len(labels):
                parts[split] = index.images(labels)
        if "train" not in parts:
            raise DataError(
                f"{escaped(str(root))} has no images with labels in its tar files; a sample is NAME.jpg and NAME.cls"
            )
        return Opened(
            classes, parts["train"], parts.get("test"), parts.get("validation"), left_out=left_out.values()
        )  # fmt: skip


@dataclass(frozen=True)
class _File:
    """One file of a sample."""

    name: str
    ending: str
    offset: int
    n_bytes: int
    content: bytes = b""
    """Of labels."""


@dataclass
class _Index:
    """Where the images of a split are."""

    paths: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Of the shards, relative to the folder."""
    shard: list[int] = field(default_factory=list)
    member: list[str] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    n_bytes: list[int] = field(default_factory=list)
    labels: list[int | str] = field(default_factory=list)

    def add_shard(self, path: Path, name: str) -> None:
        """Begin a tar file."""
        self.paths.append(path)
        self.names.append(name)

    def add(self, files: Sequence[_File], column: str | None, left_out: LeftOutCounter) -> None:
        """Note a sample, or count why it is left out."""
        images = [f for f in files if f.ending in IMAGE_ENDINGS]
        where = f"{self.names[-1]}: {files[0].name}"
        if not images:
            left_out.add("samples without an image", where)
            return
        if len(images) > 1:
            left_out.add("further images of a sample", where, len(images) - 1)
        label = _label(files, column, f"{self.paths[-1]}: {files[0].name}")
        if label is None:
            left_out.add("images without a label", where)
            return
        self.shard.append(len(self.paths) - 1)
        self.member.append(images[0].name)
        self.offset.append(images[0].offset)
        self.n_bytes.append(images[0].n_bytes)
        self.labels.append(label)

    def images(self, labels: Labels) -> TarImages:
        """Return the images."""
        return TarImages(
            tuple(self.paths), tuple(self.names), np.array(self.shard, np.int32), tuple(self.member),
            np.array(self.offset, np.int64), np.array(self.n_bytes, np.int64), labels,
        )  # fmt: skip


@dataclass(frozen=True)
class TarImages:
    """Image files in tar files, decoded when their pixels are asked for."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    """Of the tar files, relative to their folder."""
    shard: NDArray[np.int32]
    """``(N,)``: in which tar file each image is."""
    member: tuple[str, ...]
    offset: NDArray[np.int64]
    n_bytes: NDArray[np.int64]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, index: int) -> str:
        """Return the tar file and the name in it."""
        return f"{self.paths[self.shard[index]]}: {self.member[index]}"

    def entry(self, index: int) -> Entry:
        """Return names and size; see `HasListing`."""
        return Entry(f"{self.names[self.shard[index]]}: {self.member[index]}", int(self.n_bytes[index]))

    def pixels(self, indices: NDArray[np.int64], size_px: int) -> Pixels:
        """Return ``(B, 3, size_px, size_px)``; see `Images.pixels`."""
        out = room_for(len(indices), 3, size_px, size_px)
        for row, index in enumerate(indices.tolist()):
            where = self.place(index)
            try:
                with self.paths[self.shard[index]].open("rb", buffering=0) as file:
                    file.seek(int(self.offset[index]))
                    content = file.read(int(self.n_bytes[index]))
            except OSError as error:
                raise DataError(f"cannot read {escaped(where)}: {error.strerror}; put the tar file back") from None
            out[row] = square_picture(content, where, size_px)
        return out


def _shards(root: Path, left_out: LeftOutCounter) -> list[Path]:
    """Tar files, by name."""
    if root.is_file():
        return [root]
    found, packed = [], []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(f for f in folders if not is_hidden(f))
        for name in sorted(files):
            path = Path(folder) / name
            if is_hidden(name):
                left_out.add("hidden or system files", os.path.relpath(path, root))
            elif name.endswith(".tar"):
                found.append(path)
            elif re.search(r"\.(tgz|tar\.\w+)$", name):
                packed.append(name)
            else:
                left_out.add("files that are no tar files", os.path.relpath(path, root))
    if packed:
        raise DataError(
            f"{escaped(str(root))} has packed tar files such as {packed[0]!r}, in which no image can be found without "
            "reading all before it; unpack them to .tar"
        )
    if not found:
        raise DataError(f"{escaped(str(root))} has no .tar files; give the folder of the shards, or one shard")
    return sorted(found)


def _split(path: Path, root: Path) -> SplitName:
    """The split that the name of a tar file, or of a folder around it, has as one of its words."""
    for name in (path.stem, *(p.name for p in path.parents if p != root and root in p.parents)):
        words = {split_of(w) for w in re.split(r"[\W\d_]+", name) if w} - {None}
        if len(words) == 1 and (split := words.pop()) is not None:
            return split
    return "train"


def _samples(path: Path) -> Iterator[list[_File]]:
    """The files of one sample after the other."""
    sample: list[_File] = []
    key = None
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, name = os.path.split(member.name)
                if not member.isfile() or is_hidden(name):
                    continue
                stem, _, ending = name.partition(".")
                if (folder, stem) != key and sample:
                    yield sample
                    sample = []
                key = (folder, stem)
                content = b""
                if ending.lower() in ("cls", "json") and member.size <= LABEL_BYTES:
                    content = getattr(tar.extractfile(member), "read", bytes)()
                last = f".{ending.rpartition('.')[2]}".lower()
                sample.append(_File(member.name, last, member.offset_data, member.size, content))
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        reason = one_line(str(error)) or type(error).__name__
        raise DataError(f"{escaped(str(path))} is no whole tar file: {reason}; copy it again or remove it") from None
    if sample:
        yield sample


def _label(files: Sequence[_File], column: str | None, where: str) -> int | str | None:
    """The label of a sample; None where it has none."""
    for file in files:
        value: Any = None
        if file.ending == ".cls" and column in (None, "cls"):
            value = file.content.decode("utf-8", "replace").strip()
        elif file.ending == ".json" and column != "cls":
            try:
                values = json.loads(file.content)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{escaped(where)}: its .json cannot be read: {one_line(str(error))}; repair it"
                ) from None
            value = values.get(column or "label") if isinstance(values, dict) else None
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value):
            value = int(value)
        if value is None or value == "" or value == MISSING:
            continue
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise DataError(f"{escaped(where)} has the label {shown(value)}; it must be a number of a class or a text")
        return value
    return None


WEBDATASET = WebDataset()
