"""Which images and labels does a run use, and which of them may the search see?

A dataset is decoded once into uint8 tensors. Training sees ``train``, the search sees ``validation``, and
``test`` is used once, for the final table.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.data.config import DataConfig
from hwnas.data.images import ImageSet, Splits
from hwnas.data.source import Images, Pixels
from hwnas.data.sources import SOURCES
from hwnas.errors import DataError
from hwnas.task import Task

Rows = NDArray[np.int64]


def load_data(config: DataConfig, task: Task, in_channels: int, classes: int, image_size_px: int) -> Splits:
    """Read, check and split a dataset.

    Args:
        config: where it is.
        task: what is to be learnt; it checks the labels, and says of which groups every split has the same share.
        in_channels: image channels that the network takes; grey images are repeated for 3, RGB images are an error
            for 1.
        classes: how many outputs the network has.
        image_size_px: edge for images of differing sizes (``folder``) where the config names none.

    Raises:
        DataError: nothing there, no images, a broken image, labels that the task or the network cannot have, or images
            that do not fit the network.
    """
    size_px = config.image_size_px or image_size_px
    opened = SOURCES.get(config.source).open(config, size_px)
    what = f"data source {config.source!r}" + (f" at {config.path}" if config.path else "")
    if len(opened.train) == 0:
        raise DataError(f"{what} has no training images; give at least a few per class")
    given_test = opened.test
    task.check(
        opened.train.labels, None if given_test is None else given_test.labels, classes, opened.classes, what
    )  # fmt: skip
    everything = np.arange(len(opened.train))
    if given_test is None:
        test, rest = _split(task.strata(opened.train.labels), everything, config.test_percent, config.seed)
    else:
        test, rest = np.arange(len(given_test)), everything
    validation, train = _split(task.strata(opened.train.labels), rest, config.validation_percent, config.seed + 1)
    chosen: dict[str, tuple[Images, Rows]] = {
        "train": (opened.train, train),
        "validation": (opened.train, validation),
        "test": (opened.train if given_test is None else given_test, test),
    }
    parts: dict[str, ImageSet] = {}
    for name, (images, rows) in chosen.items():
        rows = rows[: config.max_images]
        if len(rows) == 0:
            raise DataError(f"{what} leaves no {name} images; give more images or change the split percentages")
        pixels = _with_channels(images.pixels(rows, size_px), in_channels, what)
        pixels = pixels if pixels.flags.writeable else pixels.copy()  # PyTorch warns of arrays that are not
        parts[name] = ImageSet(torch.from_numpy(pixels), task.targets(images.labels[rows]))
    return Splits(config.source, opened.classes, **parts, task=task)


def _split(strata: NDArray[np.int64], rows: Rows, percent: float, seed: int) -> tuple[Rows, Rows]:
    """Cut ``percent`` of every stratum of ``rows`` off; the rest comes second. Both come in a shuffled, mixed order."""
    rng = np.random.default_rng(seed)
    groups = strata[rows]
    held_out = np.zeros(len(rows), dtype=bool)
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        held_out[members[: max(1, round(len(members) * percent / 100))]] = True
    order = rng.permutation(len(rows))
    return rows[order[held_out[order]]], rows[order[~held_out[order]]]


def _with_channels(pixels: Pixels, in_channels: int, what: str) -> Pixels:
    given = pixels.shape[1]
    if given == in_channels:
        return pixels
    if given == 1:
        return np.repeat(pixels, in_channels, axis=1)
    raise DataError(
        f"{what} has images of {given} channels, the network takes {in_channels}; set supernet.in_channels={given}"
    )
