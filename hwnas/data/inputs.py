"""How do pixels become what networks take? Brought to their resolution, then shifted and scaled channel by channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CPU = torch.device("cpu")


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
