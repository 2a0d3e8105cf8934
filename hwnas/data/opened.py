"""What is an opened dataset? Three splits by rows of a source, whose pixels are decoded when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.data.inputs import resized
from hwnas.data.left_out import LeftOut
from hwnas.data.source import HasListing, Images, Labels, Pixels, place_of
from hwnas.data.split_names import SplitName
from hwnas.errors import DataError
from hwnas.task import Task

Rows = NDArray[np.int64]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class DatasetSplit:
    """Some images of a source, by their rows; pixels are decoded when they are asked for."""

    images: Images
    """Of the source."""
    rows: Rows
    """Which of them, in which order."""
    size_px: int
    """Edge to which images that differ in size are decoded."""
    in_channels: int
    """Of the network."""
    what: str
    """Begins messages."""
    origin: str
    """Where they come from, such as ``15 % of the training images``."""
    decodes = True
    """Reading takes computing."""

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image: that of the first one."""
        try:
            c, h, w = self.pixels([0]).shape[1:]
        except DataError:  # it is broken, which is said where it is needed
            return self.in_channels, self.size_px, self.size_px
        return c, h, w

    @property
    def labels(self) -> Labels:
        """``(N,)`` int64 numbers of classes; of other tasks what the source gives, such as ``(N, k)`` floats."""
        labels = self.images.labels[self.rows]
        return labels.astype(np.int64) if np.issubdtype(labels.dtype, np.integer) else labels

    def place(self, index: int) -> str:
        """Return where an image lies: its file, or what else its source calls it by."""
        return place_of(self.images, int(self._chosen([index])[0]))

    def pixels(self, indices: Sequence[int] | NDArray[np.integer], resolution: int | None = None) -> Pixels:
        """Decode images ``indices``, in this order, with as many channels as the network takes.

        Args:
            indices: ``(B,)`` numbers from 0, of any integer type.
            resolution: edge in pixels to which they are brought as for a network, then rounded; None: as they are kept.

        Returns:
            ``(B, C, H, W)`` uint8.

        Raises:
            DataError: an image cannot be read (it is named), or does not fit the network; there is no such image or
                resolution.
        """
        if resolution is not None and not (isinstance(resolution, int | np.integer) and 0 < resolution <= 8192):
            raise DataError(f"resolution is {resolution!r}; give a whole number of pixels from 1 to 8192")
        chosen = self._chosen(indices)
        pixels = with_channels(self.images.pixels(chosen, self.size_px), self.in_channels, self.what)
        if resolution is None or pixels.shape[2:] == (resolution, resolution):
            return pixels
        brought = resized(torch.from_numpy(np.ascontiguousarray(pixels)), resolution)
        return (brought * 255).round().clamp(0, 255).to(torch.uint8).numpy()

    def _chosen(self, indices: Sequence[int] | NDArray[np.integer]) -> Rows:
        """Rows of the source."""
        given = np.asarray(indices)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise DataError(f"images are chosen by a row of whole numbers, got {given.dtype} of shape {given.shape}")
        if given.size and not (int(given.min()) >= 0 and int(given.max()) < len(self)):
            raise DataError(f"images are numbered from 0 to {len(self) - 1}, got {given.min()} to {given.max()}")
        return self.rows[given.astype(np.int64)]

    @cached_property
    def listing_digest(self) -> bytes:
        """A digest of names and sizes of the files, in order; empty where the source does not know them."""
        if not isinstance(self.images, HasListing):
            return b""
        digest = hashlib.sha256()
        for row in self.rows.tolist():
            entry = self.images.entry(row)
            digest.update(f"{entry.name}\0{entry.n_bytes}\n".encode("utf-8", "surrogateescape"))
        return digest.digest()

    def all_pixels(self) -> Pixels:
        """Return `pixels` of all images, which may be those in the memory of the source."""
        return with_channels(self.images.pixels(self.rows, self.size_px), self.in_channels, self.what)


@dataclass(frozen=True)
class Dataset:
    """What a recipe says about images, opened and divided; nothing is decoded yet."""

    name: str
    """Of the source."""
    classes: tuple[str, ...]
    """In the order of their numbers; of other tasks what the network's outputs stand for."""
    train: DatasetSplit
    validation: DatasetSplit
    test: DatasetSplit
    task: Task
    left_out: tuple[LeftOut, ...] = ()
    """What the source found and does not give."""

    def splits(self) -> dict[SplitName, DatasetSplit]:
        """Return the three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def with_channels(pixels: Pixels, in_channels: int, what: str) -> Pixels:
    """Return ``(B, C, H, W)`` pixels with as many channels as a network takes.

    Raises:
        DataError: they have more.
    """
    given = pixels.shape[1]
    if given == in_channels:
        return pixels
    if given == 1:
        return np.repeat(pixels, in_channels, axis=1)
    raise DataError(
        f"{what} has images of {given} channels, the network takes {in_channels}; set supernet.in_channels={given}"
    )
