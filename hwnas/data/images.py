"""Images and labels in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from hwnas.data.left_out import LeftOut
from hwnas.task import DEFAULT_TASK, TASKS, Task


@dataclass(frozen=True)
class ImageSet:
    """Images and labels in memory."""

    images: Tensor
    """``(N, C, H, W)`` uint8."""
    labels: Tensor
    """``(N,)`` int64 or ``(N, k)`` float32, as the loss of the task takes them (`Task.targets`)."""

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor) -> ImageSet:
        """Return the rows ``index``."""
        return ImageSet(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> ImageSet:
        """Return the same on a device."""
        return ImageSet(self.images.to(device), self.labels.to(device))


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
        """Mean and standard deviation of every channel of the training images, for pixel values in 0..1."""
        x = self.train.images.to(torch.float64) / 255.0
        std = x.std((0, 2, 3)).clamp(min=1e-3)
        return tuple(x.mean((0, 2, 3)).tolist()), tuple(std.tolist())

    @cached_property
    def sha256(self) -> str:
        """Sixteen hexadecimal digits that change with any pixel or label."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            digest.update(part.images.contiguous().numpy().tobytes())
            digest.update(part.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
