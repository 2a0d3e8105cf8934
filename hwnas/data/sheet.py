"""How do images look to a network? A picture with some of every class: resized, and varied as in training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hwnas.data.augment import AugmentConfig
from hwnas.data.batches import TrainBatches
from hwnas.data.images import ImageSet
from hwnas.data.inputs import resized
from hwnas.data.opened import Dataset
from hwnas.errors import OutputError, escaped
from hwnas.files import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image

EACH = 4
"""Images of a class, and as many varied ones."""
MOST_ROWS = 40
"""Classes that are shown: the first ones."""
EDGE_PX = 96
"""Smaller images are enlarged to about this edge, without smoothing."""
GAP_PX = 4
LABEL_PX = 18


def check_sheet(path: Path) -> None:
    """Raise where a contact sheet could not be written, before work is done for it."""
    if path.suffix.lower() != ".png":
        raise OutputError(f"a contact sheet is a PNG file, got {str(path)!r}; give it a name that ends in .png")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")


def write_sheet(dataset: Dataset, augment: AugmentConfig, resolution: int, seed: int, path: Path) -> None:
    """Write a contact sheet of training images as PNG.

    A row is a class: its name above, on the left images as a network sees them, on the right the same images varied.

    Args:
        dataset: opened, with images that can be read.
        augment: how training varies them.
        resolution: edge in pixels at which a network sees them.
        seed: of the variations.
        path: of the file.

    Raises:
        OutputError: the file cannot be written.
    """
    sheet = contact_sheet(dataset, augment, resolution, seed)
    check_sheet(path)
    write_atomically(path, lambda temporary: sheet.save(temporary, "PNG"))


def contact_sheet(dataset: Dataset, augment: AugmentConfig, resolution: int, seed: int) -> Image:
    """Return the picture; see `write_sheet`."""
    from PIL import Image as pillow
    from PIL import ImageDraw

    rows = _rows(dataset)
    chosen = np.array([index for _, indices in rows for index in indices])
    pixels = torch.from_numpy(np.ascontiguousarray(dataset.train.pixels(chosen)))
    plain, varied = _seen(pixels, resolution), _varied(pixels, augment, resolution, seed)
    scale = max(1, round(EDGE_PX / resolution))
    tile = resolution * scale + GAP_PX
    size = 2 * EACH * tile + 4 * GAP_PX, LABEL_PX + len(rows) * (tile + LABEL_PX) + GAP_PX
    sheet = pillow.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for side, heading in enumerate((f"resized to {resolution} px", "as augmented in training")):
        draw.text((side * EACH * tile + (1 + 2 * side) * GAP_PX, GAP_PX), heading, fill="black")
    position = 0
    for row, (name, indices) in enumerate(rows):
        top = LABEL_PX + row * (tile + LABEL_PX) + GAP_PX
        # The font that is always there has Latin letters only.
        draw.text((GAP_PX, top), escaped(name).encode("latin-1", "replace").decode("latin-1"), fill="black")
        for column in range(len(indices)):
            for side, images in enumerate((plain, varied)):
                image = pillow.fromarray(images[position]).resize((resolution * scale,) * 2, pillow.Resampling.NEAREST)
                sheet.paste(image, ((side * EACH + column) * tile + (1 + 2 * side) * GAP_PX, top + LABEL_PX))
            position += 1
    return sheet


def _rows(dataset: Dataset) -> list[tuple[str, list[int]]]:
    """Names of the rows and the training images in each: a row a class, or images as they come."""
    labels = dataset.train.labels
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        n = min(len(labels), EACH * 4)
        return [(f"images from {i}", list(range(i, min(i + EACH, n)))) for i in range(0, n, EACH)]
    return [
        (f"{number} {name}", np.flatnonzero(labels == number)[:EACH].tolist())
        for number, name in enumerate(dataset.classes[:MOST_ROWS])
    ]


def _seen(pixels: torch.Tensor, resolution: int) -> list[np.ndarray]:
    return [_shown(x) for x in resized(pixels, resolution)]


def _varied(pixels: torch.Tensor, augment: AugmentConfig, resolution: int, seed: int) -> list[np.ndarray]:
    """Each image as it comes in one step of training."""
    channels = pixels.shape[1]
    mean, std = (0.5,) * channels, (0.25,) * channels  # any; cutout writes the mean, which is grey then
    numbered = ImageSet(pixels, torch.arange(len(pixels)))
    x, order = TrainBatches(numbered, mean, std, len(pixels), augment, seed).batch(0, resolution)
    return [_shown(image * 0.25 + 0.5) for image in x[order.argsort()]]


def _shown(x: torch.Tensor) -> np.ndarray:
    """``(H, W, 3)`` bytes of a ``(C, H, W)`` image in 0..1."""
    x = x[:3] if x.shape[0] >= 3 else x[:1].expand(3, -1, -1)
    return (x.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
