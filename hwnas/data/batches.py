"""Which images does step number ``n`` see, at which resolution?

Everything is a function of (seed, step), so a resumed training sees exactly what it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hwnas.data.augment import AugmentConfig, Draws, augment, augment_pixels
from hwnas.data.images import ImageSet


def as_input(images: Tensor, resolution: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn pixels into what networks take.

    Args:
        images: ``(B, C, H, W)`` uint8.
        resolution: edge of the result in pixels; bilinear, with antialiasing where it shrinks.
        mean: of every channel, for pixel values in 0..1.
        std: of every channel.

    Returns:
        ``(B, C, resolution, resolution)`` float32, channels-last.
    """
    return normalised(resized(images, resolution), mean, std)


def resized(images: Tensor, resolution: int) -> Tensor:
    """Return ``(B, C, resolution, resolution)`` floats in 0..1 of ``(B, C, H, W)`` bytes."""
    x = images.to(torch.float32).div_(255.0)
    if tuple(x.shape[2:]) != (resolution, resolution):
        shrinks = resolution < min(x.shape[2:])
        x = F.interpolate(x, (resolution, resolution), mode="bilinear", antialias=shrinks)
    return x


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return pixels in 0..1 shifted and scaled per channel, channels-last."""
    shift, scale = (torch.tensor(v, dtype=torch.float32, device=pixels.device).view(1, -1, 1, 1) for v in (mean, std))
    return ((pixels - shift) / scale).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class TrainBatches:
    """Shuffled, augmented batches by step number; the last incomplete batch of an epoch is left out."""

    data: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int
    augment: AugmentConfig
    seed: int

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
        """
        epoch, index = divmod(step, self.per_epoch)
        order = _order(len(self.data), self.seed, epoch)
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        n, device = len(rows), self.data.images.device
        rows = (rows if part is None else rows[part]).to(device)
        generator = torch.Generator().manual_seed(_mix(self.seed, step))
        draws = Draws(generator, n, part, device)
        pixels = resized(self.data.images[rows], resolution)
        if self.augment.varies_pixels:
            pixels = augment_pixels(pixels, self.augment, generator, draws)
        x = augment(normalised(pixels, self.mean, self.std), self.augment, generator, draws)
        return x.contiguous(memory_format=torch.channels_last), self.data.labels[rows]


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(n))


def _mix(seed: int, step: int) -> int:
    """One 63-bit seed from two numbers."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
