"""How do pixels become what networks take? Brought to their resolution, then shifted and scaled channel by channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CPU = torch.device("cpu")
BLOCK = 2**18
"""Numbers that are worked on at a time on a CPU, so that they stay in its cache; 2.4 times as fast at 224 pixels."""


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
    n, channels = images.shape[:2]
    # Images of one channel have the same numbers in the same order either way, and are called contiguous.
    order = torch.channels_last if channels > 1 else torch.contiguous_format
    inputs = torch.empty((n, channels, resolution, resolution), device=images.device, memory_format=order)
    shift, scale = (torch.tensor(v, dtype=torch.float32, device=images.device).expand(channels) for v in (mean, std))
    block = max(1, BLOCK // (channels * max(resolution**2, images.shape[2:].numel())) if images.device == CPU else n)
    for into, some in zip(inputs.split(block), images.split(block), strict=True):
        if some.shape == into.shape and some.is_contiguous(memory_format=torch.channels_last):
            rows = _rows(into).copy_(_rows(some)).div_(255.0)
            rows.sub_(shift.repeat(resolution)).div_(scale.repeat(resolution))
        else:
            into.copy_(normalised(resized(some, resolution), mean, std))
    return inputs


def _rows(images: Tensor) -> Tensor:
    """Return a view of channels-last images, ``(B, H, W C)``: long rows, which a processor works through fastest."""
    n, channels, height_px, width_px = images.shape
    return images.permute(0, 2, 3, 1).view(n, height_px, width_px * channels)


def resized(images: Tensor, resolution: int) -> Tensor:
    """Return ``(B, C, resolution, resolution)`` floats in 0..1 of ``(B, C, H, W)`` bytes."""
    x = images.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)
    if tuple(x.shape[2:]) != (resolution, resolution):
        shrinks = resolution < min(x.shape[2:])
        x = F.interpolate(x, (resolution, resolution), mode="bilinear", antialias=shrinks)
    return x


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Shift and scale pixels in 0..1 per channel, in place, and return them."""
    shift, scale = (torch.tensor(v, dtype=torch.float32, device=pixels.device).view(1, -1, 1, 1) for v in (mean, std))
    return pixels.sub_(shift).div_(scale)
