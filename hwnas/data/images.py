"""Images and labels as training and evaluation read them: in memory, or decoded whenever they are asked for."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hwnas.data.left_out import LeftOut
from hwnas.data.levels import Levels
from hwnas.data.stream import ImageStream
from hwnas.errors import DataError
from hwnas.task import DEFAULT_TASK, TASKS, Task

SAMPLE = 1000
"""Training images of a stream from which mean, deviation and a part of its hash are taken."""
FEW = 256
"""Up to so many images are read faster than processes that read them would begin."""
READ_AT_A_TIME = 64
"""Images of a stream, where nobody asks for another number."""


@dataclass(frozen=True)
class ImageSet:
    """Images and labels."""

    images: Tensor | ImageStream
    """``(N, C, H, W)`` uint8, in memory or read when they are asked for."""
    labels: Tensor
    """``(N,)`` int64 or ``(N, k)`` float32, as the loss of the task takes them (`Task.targets`); always in memory."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size_px(self) -> int:
        """Width of the images, before they are brought to the resolution of a network."""
        images = self.images
        return images.split.shape[-1] if isinstance(images, ImageStream) else int(images.shape[-1])

    def take(self, index: Tensor) -> ImageSet:
        """Return the rows ``index``."""
        images = self.images.part(index.numpy()) if isinstance(self.images, ImageStream) else self.images[index]
        return ImageSet(images, self.labels[index])

    def first(self, n: int | None) -> ImageSet:
        """Return the first rows, or all; nothing is copied or read."""
        images = self.images.part(slice(n)) if isinstance(self.images, ImageStream) else self.images[:n]
        return ImageSet(images, self.labels[:n])

    def to(self, device: torch.device) -> ImageSet:
        """Return the same on a device; a stream stays where it is, and its batches are sent one by one."""
        images = self.images if isinstance(self.images, ImageStream) else self.images.to(device)
        return ImageSet(images, self.labels.to(device))

    def in_memory(self) -> ImageSet:
        """Return the same images, read once; those that are skipped are left out.

        Raises:
            DataError: an image cannot be read, or none can.
        """
        if not isinstance(self.images, ImageStream):
            return self
        images = self.images if len(self) > FEW else dataclasses.replace(self.images, decoders=None)
        read = list(ImageSet(images, self.labels).batches(READ_AT_A_TIME))
        if not any(len(labels) for _, labels in read):
            raise DataError(
                f"{self.images.split.what} has no image that can be read, such as {next(iter(images.skipped), '')}; "
                "look at the images with `hwnas data`"
            )
        pixels, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
        return ImageSet(pixels.contiguous(), labels)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pixels ``(B, C, H, W)`` uint8 and their labels, in order; images that are skipped are left out.

        Raises:
            DataError: an image of a stream cannot be read.
        """
        if not isinstance(self.images, ImageStream):
            yield from zip(self.images.split(size), self.labels.split(size), strict=True)
            return
        requests = [np.arange(i, min(i + size, len(self))) for i in range(0, len(self), size)]
        for rows, decoded in zip(requests, self.images.feed(requests), strict=True):
            readable = torch.from_numpy(decoded.readable)
            labels = self.labels[rows[0] : rows[-1] + 1]
            if not readable.all():
                yield decoded.pixels[readable], labels[readable.to(labels.device)]
            else:
                yield decoded.pixels, labels


@dataclass(frozen=True)
class Splits:
    """A dataset ready for use."""

    name: str
    classes: tuple[str, ...]
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    task: Task = field(default_factory=lambda: TASKS.get(DEFAULT_TASK))
    """What is learnt from it."""
    left_out: tuple[LeftOut, ...] = ()
    """What the source found and does not give."""

    @cached_property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel of the training images, for pixel values in 0..1.

        Of a stream: of a sample of its training images.
        """
        images = self.train.images
        if isinstance(images, ImageStream):
            mean, deviation = self.sample.levels.values()
            return tuple(v / 255 for v in mean), tuple(max(v / 255, 1e-3) for v in deviation)
        x = images.to(torch.float64) / 255.0
        std = x.std((0, 2, 3)).clamp(min=1e-3)
        return tuple(x.mean((0, 2, 3)).tolist()), tuple(std.tolist())

    @cached_property
    def sample(self) -> Sample:
        """Some training images, drawn without looking at them: always the same ones."""
        return sampled(self.train)

    @cached_property
    def sha256(self) -> str:
        """Sixteen hexadecimal digits that change with any pixel or label; of a stream see `sha256_covers`."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            if isinstance(part.images, ImageStream):
                digest.update(part.images.split.listing_digest)
            else:
                digest.update(part.images.contiguous().numpy().tobytes())
            digest.update(part.labels.contiguous().numpy().tobytes())
        if isinstance(self.train.images, ImageStream):
            digest.update(self.sample.sha256.encode())
        return digest.hexdigest()[:16]

    @property
    def sha256_covers(self) -> str:
        """What `sha256` was computed from, in words."""
        streamed = [p for p in (self.train, self.validation, self.test) if isinstance(p.images, ImageStream)]
        if not streamed:
            return "every pixel and label"
        listed = all(isinstance(p.images, ImageStream) and p.images.split.listing_digest for p in streamed)
        files = "names and sizes of all files, all labels" if listed else "all labels"
        pixels = isinstance(self.train.images, ImageStream)
        return f"{files}, the pixels of {self.sample.n:,} training images" if pixels else files


@dataclass(frozen=True)
class Sample:
    """What some training images are like."""

    n: int
    levels: Levels
    sha256: str
    """Of their pixels."""


def sampled(train: ImageSet) -> Sample:
    """Read up to `SAMPLE` images, drawn from a fixed seed; memory does not grow with their number."""
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:SAMPLE])
    levels, digest, count = Levels(), hashlib.sha256(), 0
    for pixels, _ in train.take(torch.from_numpy(rows)).batches(READ_AT_A_TIME):
        levels.add(pixels.numpy())
        digest.update(pixels.numpy().tobytes())
        count += len(pixels)
    return Sample(count, levels, digest.hexdigest())
