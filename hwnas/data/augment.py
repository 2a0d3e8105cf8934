"""How are training images varied? A few tensor operations on whole batches, without torchvision."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

NonNegative = Annotated[float, Field(ge=0, le=1000)]


class AugmentConfig(BaseModel):
    """Ranges from which every image of a batch draws its own variation; zeros: none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    flip: bool = False
    """Mirror half of the images left to right."""
    shift_percent: NonNegative = 0.0
    """Largest shift along each axis, of the image edge."""
    rotate_degrees: NonNegative = 0.0
    """Largest turn to either side."""
    scale_percent: NonNegative = 0.0
    """Largest change of size along each axis."""
    shear_percent: NonNegative = 0.0
    """Largest shear along each axis."""
    cutout_percent: NonNegative = 0.0
    """Edge of one square set to the mean, of the image edge."""
    crop_percent: Annotated[float, Field(gt=0, le=100)] = 100.0
    """Random resized crop: smallest area that is kept, of the image; its sides differ by up to 4/3. 100: none."""
    trivial: bool = False
    """TrivialAugment: every image gets one operator, drawn from 14, at a strength drawn for it."""
    kornia: tuple[dict[str, dict[str, Any]], ...] = ()
    """Augmentations of kornia, by class name, with their arguments, such as ``{RandomErasing: {p: 0.2}}``; they see
    pixels in 0..1 (extra ``kornia``)."""

    @property
    def varies(self) -> bool:
        """Whether images are varied at all."""
        return self != type(self)()

    @property
    def varies_pixels(self) -> bool:
        """Whether `augment_pixels` does anything."""
        return self.trivial or bool(self.kornia)


class Draws:
    """Random numbers for the rows of a batch that this process holds.

    The whole batch is drawn and the own rows are kept, so that an image varies alike however many processes share the
    batch. All numbers come from the CPU, so that they are the same on every device.
    """

    def __init__(self, generator: torch.Generator, n: int, part: slice | None, device: torch.device) -> None:
        self.generator = generator
        self._n, self._part, self._device = n, part, device

    def uniform(self) -> Tensor:
        """``(rows,)`` numbers in 0..1."""
        numbers = torch.rand(self._n, generator=self.generator)
        return (numbers if self._part is None else numbers[self._part]).to(self._device)

    def signed(self, reach: float) -> Tensor:
        """``(rows,)`` numbers in -reach..reach."""
        return (self.uniform() * 2 - 1) * reach


def augment(images: Tensor, config: AugmentConfig, generator: torch.Generator, draws: Draws | None = None) -> Tensor:
    """Return a varied copy of a batch.

    Shift, rotation, scale, shear, flip and crop are one bilinear resampling, so that a pixel is blurred once.

    Args:
        images: ``(B, C, H, W)`` floats; 0 should be a neutral value, since cutout writes it.
        config: the ranges.
        generator: the only source of randomness.
        draws: its numbers for these rows, where they are a part of a batch.
    """
    n, device = len(images), images.device
    draws = draws or Draws(generator, n, None, device)
    crops = config.crop_percent < 100
    if (
        config.flip or config.shift_percent or config.rotate_degrees or config.scale_percent or config.shear_percent
        or crops
    ):  # fmt: skip
        angle = draws.signed(config.rotate_degrees * torch.pi / 180)
        scale_x, scale_y = 1 + draws.signed(config.scale_percent / 100), 1 + draws.signed(config.scale_percent / 100)
        shear = draws.signed(config.shear_percent / 100)
        mirror = 1 - 2 * ((draws.uniform() < 0.5) & config.flip).float()
        cos, sin = angle.cos(), angle.sin()
        across = [mirror * cos * scale_x, -sin * scale_y + shear, draws.signed(config.shift_percent / 50)]
        down = [mirror * sin * scale_x, cos * scale_y, draws.signed(config.shift_percent / 50)]
        if crops:
            area = config.crop_percent / 100 + draws.uniform() * (1 - config.crop_percent / 100)
            ratio = (draws.signed(1.0) * torch.log(torch.tensor(4 / 3))).exp()
            width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
            across = [width * a for a in across]
            down = [height * a for a in down]
            across[2] = across[2] + draws.signed(1.0) * (1 - width)
            down[2] = down[2] + draws.signed(1.0) * (1 - height)
        images = _resample(images, torch.stack([torch.stack(across, 1), torch.stack(down, 1)], 1))
    if config.cutout_percent:
        h, w = images.shape[2:]
        half_y, half_x = h * config.cutout_percent / 200, w * config.cutout_percent / 200
        y = draws.uniform().view(-1, 1, 1) * h
        x = draws.uniform().view(-1, 1, 1) * w
        rows = torch.arange(h, device=device).view(1, h, 1) + 0.5
        columns = torch.arange(w, device=device).view(1, 1, w) + 0.5
        hole = ((rows - y).abs() < half_y) & ((columns - x).abs() < half_x)  # (B, H, W)
        images = images.masked_fill(hole[:, None], 0.0)
    return images


def _resample(images: Tensor, matrix: Tensor) -> Tensor:
    """Read images at ``(B, 2, 3)`` affine images of their own positions; beyond the border its pixels repeat."""
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def augment_pixels(pixels: Tensor, config: AugmentConfig, generator: torch.Generator, draws: Draws) -> Tensor:
    """Return a varied copy of ``(B, C, H, W)`` pixels in 0..1: TrivialAugment, then what kornia is asked for.

    Raises:
        DataError: kornia is not installed, or has no such augmentation.
    """
    if config.trivial:
        pixels = _trivial(pixels, (draws.uniform() * len(TRIVIAL)).long(), draws.uniform(), draws.signed(1.0).sign())
    if config.kornia:
        from hwnas.data.kornia_extra import kornia_augment

        seed = int(torch.randint(2**62, (1,), generator=generator))
        pixels = kornia_augment(pixels, config.kornia, seed)
    return pixels


# -- TrivialAugment: each operator takes pixels in 0..1, strengths in 0..1 and signs, one an image ------------


def _affine(index: tuple[int, int], reach: float) -> Any:
    """A shear or shift: one entry of the matrix."""

    def apply(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
        matrix = torch.eye(2, 3, device=x.device).repeat(len(x), 1, 1)
        matrix[:, index[0], index[1]] += strength * sign * reach
        return _resample(x, matrix)

    return apply


def _rotate(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    angle = strength * sign * (torch.pi / 6)
    zero, cos, sin = torch.zeros_like(angle), angle.cos(), angle.sin()
    return _resample(x, torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1))


def _blend(other: Any) -> Any:
    """Move away from or towards what ``other`` makes of the image, by up to 0.9."""

    def apply(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
        factor = (1 + 0.9 * strength * sign).view(-1, 1, 1, 1)
        base: Tensor = other(x)
        return (base + factor * (x - base)).clamp(0, 1)

    return apply


def _smooth(x: Tensor) -> Tensor:
    """The weighted mean of each pixel and its neighbours that Pillow's sharpness uses; the border stays."""
    kernel = torch.tensor([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]], device=x.device) / 13
    out = x.clone()
    if min(x.shape[2:]) > 2:
        inner = F.conv2d(x, kernel.expand(x.shape[1], 1, 3, 3), groups=x.shape[1])
        out[:, :, 1:-1, 1:-1] = inner
    return out


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] != 3:
        return x
    weights = torch.tensor([0.299, 0.587, 0.114], device=x.device).view(1, 3, 1, 1)
    return (x * weights).sum(1, keepdim=True)


def _posterise(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Keep 8 to 4 bits of every value."""
    step = torch.exp2((strength * 4).round()).view(-1, 1, 1, 1)
    return ((x * 255).round() / step).floor() * step / 255


def _solarise(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    return torch.where(x >= (1 - strength).view(-1, 1, 1, 1), 1 - x, x)


def _autocontrast(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=1e-6), x)


def _equalise(x: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Make each of 256 values of a channel about equally frequent, with Pillow's table of integers."""
    values = (x * 255).round().long().flatten(2)  # (B, C, H W)
    counts = torch.zeros(*values.shape[:2], 256, device=x.device).scatter_add_(2, values, torch.ones_like(x).flatten(2))
    step = ((values.shape[2] - counts.gather(2, values.amax(2, keepdim=True))) / 255).floor()
    table = ((counts.cumsum(2) - counts + (step / 2).floor()) / step.clamp(min=1)).floor().clamp(0, 255) / 255
    return torch.where(step[..., None] > 0, table.gather(2, values).view(x.shape), x)


TRIVIAL: tuple[Any, ...] = (
    lambda x, strength, sign: x,
    _affine((0, 1), 0.3), _affine((1, 0), 0.3),  # shear
    _affine((0, 2), 2 * 10 / 32), _affine((1, 2), 2 * 10 / 32),  # shift by up to 10 of 32 pixels
    _rotate,
    _blend(torch.zeros_like),  # brightness
    _blend(_grey),  # colour
    _blend(lambda x: _grey(x).mean((1, 2, 3), keepdim=True)),  # contrast
    _blend(_smooth),  # sharpness
    _posterise, _solarise, _autocontrast, _equalise,
)  # fmt: skip
"""Operators and ranges of RandAugment, from which TrivialAugment draws.

Reference:
    Müller and Hutter, 2021, TrivialAugment, section 3 and the smaller of its two sets of ranges. Resampling is bilinear
    and repeats the border.
"""


def _trivial(pixels: Tensor, which: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    out = pixels.clone()
    for number, operator in enumerate(TRIVIAL):
        rows = (which == number).nonzero()[:, 0]
        if number and len(rows):
            out[rows] = operator(pixels[rows], strength[rows], sign[rows])
    return out
