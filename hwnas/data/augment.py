"""How are training images varied? A few tensor operations on whole batches, without torchvision."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

NonNegative = Annotated[float, Field(ge=0)]


class AugmentConfig(BaseModel):
    """Ranges from which every image of a batch draws its own variation; zeros: none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: bool = False
    """Mirror half of the images left to right."""
    shift_percent: NonNegative = 0.0
    """Largest shift along each axis, of the image edge."""
    rotate_degrees: NonNegative = 0.0
    scale_percent: NonNegative = 0.0
    """Largest change of size along each axis."""
    shear_percent: NonNegative = 0.0
    cutout_percent: NonNegative = 0.0
    """Edge of one square set to the mean, of the image edge."""


def augment(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Return a varied copy of a batch.

    Shift, rotation, scale, shear and flip are one bilinear resampling, so that a pixel is blurred once.

    Args:
        images: ``(B, C, H, W)`` floats; 0 should be a neutral value, since cutout writes it.
        config: the ranges.
        generator: the only source of randomness.
    """
    n = len(images)

    def draw(reach: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * reach

    if config.flip or config.shift_percent or config.rotate_degrees or config.scale_percent or config.shear_percent:
        angle = draw(config.rotate_degrees * torch.pi / 180)
        scale_x, scale_y = 1 + draw(config.scale_percent / 100), 1 + draw(config.scale_percent / 100)
        shear = draw(config.shear_percent / 100)
        mirror = 1 - 2 * ((torch.rand(n, generator=generator) < 0.5) & config.flip).float()
        cos, sin = angle.cos(), angle.sin()
        matrix = torch.stack(
            [
                torch.stack([mirror * cos * scale_x, -sin * scale_y + shear, draw(config.shift_percent / 50)], 1),
                torch.stack([mirror * sin * scale_x, cos * scale_y, draw(config.shift_percent / 50)], 1),
            ],
            1,
        )  # (B, 2, 3)
        grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if config.cutout_percent:
        h, w = images.shape[2:]
        half_y, half_x = h * config.cutout_percent / 200, w * config.cutout_percent / 200
        y = torch.rand(n, 1, 1, generator=generator) * h
        x = torch.rand(n, 1, 1, generator=generator) * w
        rows, columns = torch.arange(h).view(1, h, 1) + 0.5, torch.arange(w).view(1, 1, w) + 0.5
        hole = ((rows - y).abs() < half_y) & ((columns - x).abs() < half_x)  # (B, H, W)
        images = images.masked_fill(hole[:, None], 0.0)
    return images
