"""What is a source of images? It opens them, says what their labels are called, and gives pixels when it is asked.

What it opens is an index: how many images, their labels, where each lies (`HasPlaces`), and a way to decode any of them
in any order, in any process. `hwnas.data.pictures` makes pixels of files and arrays, so that an image gives the same
pixels from every source.

A source of one's own is an object with a method `open`, whose parts are `MemoryImages`, `FileImages`, or anything else
with the three members of `Images`::

    class Tiles:
        def open(self, config, size_px):
            files = sorted(existing_path(config).glob("*.tif"))
            return Opened(("field", "forest"), FileImages(files, np.array([int("forest" in f.name) for f in files])))

    tiles = Tiles()  # in a recipe: data.source=my_package.tiles:tiles
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from hwnas.data.left_out import LeftOut
from hwnas.data.pictures import room_for, square_picture
from hwnas.errors import DataError, escaped

Labels = NDArray[Any]
"""``(N,)`` integers or ``(N, k)`` floats: what the task makes targets of."""
Pixels = NDArray[np.uint8]
"""``(B, C, H, W)``."""


class SourceConfig(BaseModel):
    """What a recipe tells a source."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    source: str = "digits"
    """``digits``: the 1,797 real 8x8 images of scikit-learn; ``cluttered-digits``: each of them in 4 or 5 pictures of
    12x12 pixels, among pieces of others; ``npz``: arrays ``x_train``, ``y_train`` and optionally
    ``x_test``, ``y_test``; ``folder``: one folder of images a class, optionally below ``train/``, ``val/``, ``test/``;
    ``idx``: the four files of MNIST or Fashion-MNIST, also gzipped; ``cifar10``, ``cifar100``: the binary version;
    ``jpeg``: an .npz of files, arrays ``jpeg_train`` (bytes one after the other), ``offset_train`` (where each begins,
    and the end) and ``y_train``, and the same with ``test``; ``huggingface``: name of a dataset of images and class
    labels on the hub, or a folder of ``save_to_disk`` (extra ``datasets``); ``webdataset``: tar files of images and
    labels; ``package.module:object``: one of your own, see `hwnas.data.source`."""
    path: str | None = None
    """File or folder; where it is not there, it is looked for below the folder that HWNAS_DATA names."""
    cache: str | None = None
    """Folder in which decoded images are kept as uint8, so that they are decoded once; sources whose images are in
    memory anyhow need none."""
    image_size_px: int | None = Field(default=None, gt=0, le=8192)
    """Edge to which images of ``folder``, ``huggingface`` and ``webdataset`` are resized (shorter edge, then centre
    crop); default: that of the largest resolution of the recipe."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What else a source of your own wants to know."""
    label_column: str | None = Field(default=None, min_length=1)
    """Which labels are learnt where a source has several: a column of ``huggingface``, ``fine`` or ``coarse`` of
    ``cifar100``, the word in place of ``y`` in the names of the arrays of ``npz`` and ``jpeg``, a field of the
    ``.json`` files of ``webdataset``."""
    image_column: str | None = Field(default=None, min_length=1)
    """Which images are used where a source has several: a column of ``huggingface``, the word in place of ``x`` of
    ``npz``."""


class Images(Protocol):
    """Some images of a source; nothing needs to be in memory before `pixels` asks for it."""

    def __len__(self) -> int:
        """How many."""
        ...

    @property
    def labels(self) -> Labels:
        """Of all images, in their order."""
        ...

    def pixels(self, indices: NDArray[np.int64], size_px: int) -> Pixels:
        """Return the images ``indices``, in this order, all of one size and with 1 or 3 channels.

        Args:
            indices: ``(B,)`` numbers from 0, at least one.
            size_px: edge to which images that differ in size are brought. Images that all have one size may come as
                they are: they are brought to the resolution of each network later.

        Raises:
            DataError: an image cannot be read; its file is named.
        """
        ...


@runtime_checkable
class HasPlaces(Protocol):
    """What `Images` may also have: where each of them lies, for messages and lists."""

    def place(self, index: int) -> str:
        """Return the file, or what else tells one image from the others."""
        ...


def place_of(images: Images, index: int) -> str:
    """Return where an image lies; its number, where its source does not say more."""
    return images.place(index) if isinstance(images, HasPlaces) else f"image {index}"


class Entry(NamedTuple):
    """What is known of an image without decoding it."""

    name: str
    """The same wherever its folder lies."""
    n_bytes: int
    """Of its file."""
    changed_ns: int = 0
    """When its file was last written; 0: not known."""


@runtime_checkable
class HasListing(Protocol):
    """What `Images` may also have: what tells one image from another without decoding it.

    Images that have it can be kept decoded (``data.cache``), and are recognised when they are not all in memory.
    """

    def entry(self, index: int) -> Entry:
        """Return what is known of an image."""
        ...


@dataclass(frozen=True)
class Opened:
    """What a source gives."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of their numbers; of other tasks what the network's outputs stand for."""
    train: Images
    test: Images | None = None
    """None: a share of ``train`` is held out as the recipe says (``data.test_percent``)."""
    validation: Images | None = None
    """None: a share of ``train`` is held out as the recipe says (``data.validation_percent``). Without ``test`` it is
    used to test."""
    left_out: tuple[LeftOut, ...] = ()
    """What was found and is not used."""


class Source(Protocol):
    """Where images come from."""

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """Find the images and read their labels.

        Args:
            config: the section ``data`` of a recipe.
            size_px: edge that `Images.pixels` will be asked for.

        Raises:
            DataError: they are not there, or damaged.
        """
        ...


@runtime_checkable
class HasColumns(Protocol):
    """What a `Source` may also have: labels or images that are chosen by name."""

    columns: tuple[str, ...]
    """Which of the settings ``label_column`` and ``image_column`` it takes; a source that does not say takes none."""


@runtime_checkable
class HasLicence(Protocol):
    """What a `Source` may also have: the licence of its images, where it is the same for everybody."""

    licence: str
    """Such as ``CC BY 4.0``, with whose images they are."""


@dataclass(frozen=True)
class MemoryImages:
    """Images of one size, in memory or in a memory map."""

    images: Pixels
    """``(N, C, H, W)``."""
    labels: Labels
    name: str = ""
    """What they are, such as ``file.npz: x_train``."""

    def __len__(self) -> int:
        return len(self.images)

    def place(self, index: int) -> str:
        """Return the number of an image, after what they are."""
        return f"{self.name}[{index}]" if self.name else f"image {index}"

    def pixels(self, indices: NDArray[np.int64], size_px: int) -> Pixels:
        """Return them as they are; see `Images.pixels`."""
        if len(indices) == len(self.images) and np.array_equal(indices, np.arange(len(indices))):
            return self.images  # a memory map stays one
        return self.images[indices]


@dataclass(frozen=True)
class FileImages:
    """Image files, decoded when their pixels are asked for: shorter edge resized, centre cut out, as RGB."""

    files: Sequence[Path]
    labels: Labels
    root: Path | None = None
    """Names of files are relative to it."""

    def __len__(self) -> int:
        return len(self.files)

    def place(self, index: int) -> str:
        """Return the file."""
        return str(self.files[index])

    def entry(self, index: int) -> Entry:
        """Return name, size and date of a file; see `HasListing`.

        Raises:
            DataError: it is gone.
        """
        path = self.files[index]
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(
                f"{escaped(str(path))} cannot be looked at: {error.strerror}; put it back, or start anew"
            ) from None
        name = path.name if self.root is None else os.path.relpath(path, self.root)
        return Entry(name, found.st_size, found.st_mtime_ns)

    def pixels(self, indices: NDArray[np.int64], size_px: int) -> Pixels:
        """Decode the files ``indices``; see `Images.pixels`."""
        out = room_for(len(indices), 3, size_px, size_px)
        for row, index in enumerate(indices.tolist()):
            path = self.files[index]
            out[row] = square_picture(path, str(path), size_px)
        return out
