"""Which images and labels does a run use, and which of them may the search see?

A dataset is decoded once into uint8 tensors. Training sees ``train``, the search sees ``validation``, and
``test`` is used once, for the final table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hwnas.errors import DataError

if TYPE_CHECKING:
    pass
from hwnas.data.config import DataConfig
from hwnas.data.images import ImageSet, Splits
from hwnas.data.sources.readers import READERS


def load_data(config: DataConfig, in_channels: int, classes: int, image_size_px: int) -> Splits:
    """Read, check and split a dataset.

    Args:
        config: where it is.
        in_channels: image channels that the network takes; grey images are repeated for 3, RGB images are an error
            for 1.
        classes: how many classes the network has.
        image_size_px: edge for images of differing sizes (``folder``) where the config names none.

    Raises:
        DataError: nothing there, no images, fewer than two classes, a broken image, labels out of range, or images
            that do not fit the network.
    """
    train, test, names = READERS[config.source](config, config.image_size_px or image_size_px)
    what = f"data source {config.source!r}" + (f" at {config.path}" if config.path else "")
    if len(train) == 0:
        raise DataError(f"{what} has no training images; give at least a few per class")
    train = _with_channels(train, in_channels, what)
    test = None if test is None else _with_channels(test, in_channels, what)
    if len(names) < 2 or int(train.labels.min()) == int(train.labels.max()):
        raise DataError(f"{what} has one class only; a classifier needs at least two")
    for part in (train, test):
        if part is not None and len(part) and (int(part.labels.min()) < 0 or int(part.labels.max()) >= classes):
            low, high = int(part.labels.min()), int(part.labels.max())
            raise DataError(
                f"{what} has labels from {low} to {high}, but the network has {classes} classes (0 to {classes - 1}); "
                f"set supernet.classes={high + 1} or correct the labels"
            )
    if len(names) != classes:
        raise DataError(f"{what} has {len(names)} classes, the network {classes}; set supernet.classes={len(names)}")
    if test is None:
        test, train = _split(train, config.test_percent, config.seed)
    validation, train = _split(train, config.validation_percent, config.seed + 1)
    if config.max_images is not None:
        train, validation, test = (
            p.take(torch.arange(min(len(p), config.max_images))) for p in (train, validation, test)
        )
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        if len(part) == 0:
            raise DataError(f"{what} leaves no {name} images; give more images or change the split percentages")
    return Splits(config.source, names, train, validation, test)


def _split(images: ImageSet, percent: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Cut ``percent`` of every class off; the rest comes second. Both keep a shuffled, class-mixed order."""
    rng = np.random.default_rng(seed)
    labels = images.labels.numpy()
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out[members[: max(1, round(len(members) * percent / 100))]] = True
    order = rng.permutation(len(labels))
    return (
        images.take(torch.from_numpy(order[held_out[order]])),
        images.take(torch.from_numpy(order[~held_out[order]])),
    )


def _with_channels(part: ImageSet, in_channels: int, what: str) -> ImageSet:
    given = part.images.shape[1]
    if given == in_channels:
        return part
    if given == 1:
        return ImageSet(part.images.expand(-1, in_channels, -1, -1).contiguous(), part.labels)
    raise DataError(
        f"{what} has images of {given} channels, the network takes {in_channels}; set supernet.in_channels={given}"
    )
