"""Images of two sets as one, wherever each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.data.decoders import Decoders
from hwnas.data.images import ImageSet
from hwnas.data.source import Pixels
from hwnas.data.stream import ImageStream


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """Return the images of both, those of ``first`` first; in memory where both are."""
    labels = torch.cat([first.labels, second.labels])
    if isinstance(first.images, Tensor) and isinstance(second.images, Tensor):
        return ImageSet(torch.cat([first.images, second.images]), labels)
    streams = [images for images in (first.images, second.images) if isinstance(images, ImageStream)]
    both, one = _Joined((first.images, second.images), streams[0].split.what), streams[0]
    decoders = None if one.decoders is None else Decoders([both], one.decoders.workers)
    return ImageSet(ImageStream(both, decoders, one.skip_broken, skipped=one.skipped), labels)


@dataclass(frozen=True)
class _Joined:
    """See `hwnas.data.decoders.Readable`."""

    parts: tuple[Tensor | ImageStream, ...]
    what: str
    decodes = True

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def shape(self) -> tuple[int, int, int]:
        c, h, w = next(part.split.shape for part in self.parts if isinstance(part, ImageStream))
        return c, h, w

    def place(self, index: int) -> str:
        part, own = self._at(index)
        return part.split.place(own) if isinstance(part, ImageStream) else f"image {own} in memory"

    def pixels(self, indices: Sequence[int] | NDArray[np.integer], /) -> Pixels:
        return np.concatenate([self._one(int(index)) for index in indices])

    def _one(self, index: int) -> Pixels:
        part, own = self._at(index)
        found: Pixels = part.split.pixels([own]) if isinstance(part, ImageStream) else part[own : own + 1].numpy()
        return found

    @property
    def listing_digest(self) -> bytes:
        return b"".join(part.split.listing_digest for part in self.parts if isinstance(part, ImageStream))

    def _at(self, index: int) -> tuple[Tensor | ImageStream, int]:
        """In which part an image is, and its number in what the part reads from."""
        for part in self.parts:
            if index < len(part):
                own = part.rows[index] if isinstance(part, ImageStream) and part.rows is not None else index
                return part, int(own)
            index -= len(part)
        raise IndexError(index)
