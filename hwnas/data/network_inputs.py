"""What do networks of one resolution take? Images brought to it, batch by batch, on the device that computes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hwnas.data.images import READ_AT_A_TIME, ImageSet
from hwnas.data.inputs import CPU, as_input
from hwnas.data.stream import ImageStream

KEPT_BYTES = 2**28
"""Inputs that are used again and again are kept up to here."""


@dataclass(frozen=True)
class NetworkInputs:
    """Images as networks of one resolution take them, and their targets; made when they are asked for."""

    images: ImageSet
    resolution: int
    """Edge in pixels."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device = CPU
    """Where batches come."""
    kept: Tensor | None = None
    """All of them, ``(N, C, resolution, resolution)`` float32, where `keep` made them."""

    def __len__(self) -> int:
        return len(self.images) if self.kept is None else len(self.kept)

    @property
    def n_bytes(self) -> int:
        """Of all of them together."""
        return len(self) * len(self.mean) * self.resolution**2 * 4

    def keep(self) -> NetworkInputs:
        """Return the same, made once; images that are skipped are left out."""
        inputs, targets = self.tensors()
        return dataclasses.replace(self, images=ImageSet(self.images.images, targets), kept=inputs)

    def first(self, n: int | None) -> NetworkInputs:
        """Return the first ones, or all."""
        kept = None if self.kept is None else self.kept[:n]
        return dataclasses.replace(self, images=self.images.first(n), kept=kept)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(B, C, resolution, resolution)`` float32, channels-last, and targets of ``size`` images at a time.

        Raises:
            DataError: an image of a stream cannot be read.
        """
        if self.kept is not None:
            yield from zip(self.kept.split(size), self.images.labels.split(size), strict=True)
            return
        for pixels, targets in self.images.batches(size):
            inputs = as_input(pixels.to(self.device, non_blocking=True), self.resolution, self.mean, self.std)
            yield inputs, targets.to(self.device)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return all of them and their targets, `n_bytes` of memory."""
        found = list(self.batches(READ_AT_A_TIME if isinstance(self.images.images, ImageStream) else max(1, len(self))))
        if len(found) == 1:
            return found[0]
        return torch.cat([x for x, _ in found]), torch.cat([y for _, y in found])


def batch_of_pixels(resolution: int, pixels: int, least: int, most: int) -> int:
    """Return how many images of a resolution have about so many pixels together, within bounds."""
    return max(least, min(most, math.floor(pixels / resolution**2)))
