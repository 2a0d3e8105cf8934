"""Which images does step number ``n`` see, at which resolution?

Everything is a function of (seed, step), so a resumed training sees exactly what it would have seen. Images that are
not in memory are read ahead: the images of the next steps, as long as steps follow one another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hwnas.data.augment import AugmentConfig, Draws, augment, augment_pixels
from hwnas.data.images import ImageSet
from hwnas.data.inputs import CPU, as_input, normalised, resized
from hwnas.data.stream import Decoded, ImageStream
from hwnas.errors import DataError


@dataclass(frozen=True)
class TrainBatches:
    """Shuffled, augmented batches by step number; the last incomplete batch of an epoch is left out.

    Use as a context where images are streamed: its end ends the reading ahead.
    """

    data: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int
    augment: AugmentConfig
    seed: int
    device: torch.device = CPU
    """Where batches are varied and needed; images in memory should be there already (`ImageSet.to`)."""
    _read: _ReadAhead = field(default_factory=lambda: _ReadAhead(), repr=False, compare=False)

    def __enter__(self) -> TrainBatches:
        return self

    def __exit__(self, *error: object) -> None:
        self._read.close()

    @property
    def per_epoch(self) -> int:
        """Batches in one pass over the data, at least 1."""
        return max(1, len(self.data) // self.batch_size)

    def batch(self, step: int, resolution: int, part: slice | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(B, C, resolution, resolution)`` images and ``(B,)`` labels of step ``step`` (from 0).

        Args:
            step: counted over all epochs.
            resolution: edge in pixels.
            part: only these rows, as they are in the whole batch (kornia's augmentations alone are drawn anew).

        Raises:
            DataError: an image cannot be read; or none of the batch can, where such images are left out.
        """
        whole = self.rows(step)
        rows = whole if part is None else whole[part]
        generator = torch.Generator().manual_seed(_mix(self.seed, step))
        draws = Draws(generator, len(whole), part, self.device)
        pixels, readable = self._pixels(step, rows, part)
        if self.augment.varies_pixels:
            x = augment_pixels(resized(pixels, resolution), self.augment, generator, draws)
            x = normalised(x, self.mean, self.std).contiguous(memory_format=torch.channels_last)
        else:
            x = as_input(pixels, resolution, self.mean, self.std)
        x = augment(x, self.augment, generator, draws)
        labels = self.data.labels[rows.to(self.data.labels.device)]
        if readable is not None:
            x, labels = x[readable.to(x.device)], labels[readable.to(labels.device)]
        return x.contiguous(memory_format=torch.channels_last), labels

    def rows(self, step: int) -> Tensor:
        """Return which images a step sees, ``(B,)``."""
        epoch, index = divmod(step, self.per_epoch)
        order = _order(len(self.data), self.seed, epoch)
        return order[index * self.batch_size : (index + 1) * self.batch_size]

    def _pixels(self, step: int, rows: Tensor, part: slice | None) -> tuple[Tensor, Tensor | None]:
        """Pixels on the device, and which of them could be read where not all could."""
        images = self.data.images
        if not isinstance(images, ImageStream):
            return images[rows.to(images.device)], None
        found = self._read.next((step, part), lambda: self._feed(images, step, part))
        pixels = found.pixels.to(self.device, non_blocking=True)
        if found.readable.all():
            return pixels, None
        if not found.readable.any():
            raise DataError(
                f"no image of a batch of {len(rows)} can be read, such as {next(iter(images.skipped.items()), '')}; "
                "look at the images with `hwnas data`"
            )
        return pixels, torch.from_numpy(found.readable)

    def _feed(self, images: ImageStream, step: int, part: slice | None) -> Generator[Decoded, None, None]:
        """Images of this step and all that follow."""
        steps = (self.rows(later).numpy() for later in itertools.count(step))
        return images.feed((r if part is None else r[part] for r in steps), pinned=self.device.type == "cuda")


@dataclass
class _ReadAhead:
    """What is being read ahead: for which step it will be. What comes of it does not depend on it."""

    begun: Generator[Decoded, None, None] | None = None
    due: tuple[int, slice | None] | None = None

    def next(self, wanted: tuple[int, slice | None], begin: Callable[[], Generator[Decoded, None, None]]) -> Decoded:
        if self.begun is None or wanted != self.due:
            self.close()
            self.begun = begin()
        found = next(self.begun)
        self.due = (wanted[0] + 1, wanted[1])
        return found

    def close(self) -> None:
        if self.begun is not None:
            self.begun.close()
            self.begun = None


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(n))


def _mix(seed: int, step: int) -> int:
    """One 63-bit seed from two numbers."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
