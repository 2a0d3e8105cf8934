"""Which images and labels does a run use, and which of them may the search see?

Training sees ``train``, the search sees ``validation``, and ``test`` is used once, for the final table. Splits are rows
of what a source opened: `open_dataset` decodes nothing, `load_data` decodes once what fits into memory.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.data.cache import cached
from hwnas.data.config import DataConfig
from hwnas.data.decoders import Decoders, default_workers
from hwnas.data.images import ImageSet, Splits
from hwnas.data.left_out import broken_images
from hwnas.data.opened import SPLITS, Dataset, DatasetSplit, Rows
from hwnas.data.source import HasColumns, Images, Labels, MemoryImages, Opened
from hwnas.data.sources import SOURCES
from hwnas.data.split_names import SplitName
from hwnas.data.stream import ImageStream
from hwnas.errors import DataError, some
from hwnas.progress import Progress, silent
from hwnas.task import Task

Parts = dict[SplitName, tuple[Images, Rows, str]]
"""By split: images of the source, which rows of them, and where these come from."""


def open_dataset(config: DataConfig, task: Task, in_channels: int, classes: int, image_size_px: int) -> Dataset:
    """Open, check and split a dataset without decoding it; see `load_data` for arguments and errors."""
    size_px = config.image_size_px or image_size_px
    what, opened = opened_source(config, size_px)
    check_labels(opened, task, classes, what)
    parts = divided(opened, config, task)
    check_parts(opened, parts, task, what)
    return made_dataset(config, opened, parts, task, in_channels, size_px, what)


def made_dataset(
    config: DataConfig, opened: Opened, parts: Parts, task: Task, in_channels: int, size_px: int, what: str
) -> Dataset:  # fmt: skip
    """Put together what `opened_source` and `divided` gave; of every split as many images as the config wants."""
    splits = {
        name: DatasetSplit(images, rows[: config.max_images], size_px, in_channels, what, origin)
        for name, (images, rows, origin) in parts.items()
    }
    return Dataset(
        config.source, opened.classes, splits["train"], splits["validation"], splits["test"], task, opened.left_out
    )  # fmt: skip


def load_data(
    config: DataConfig, task: Task, in_channels: int, classes: int, image_size_px: int, progress: Progress = silent
) -> Splits:
    """Read, check and split a dataset.

    Images that a source has in memory, and sets of others up to ``data.memory_mib``, are in memory; of other sets the
    images are decoded whenever they are asked for, or read from where ``data.cache`` keeps them.

    Args:
        config: where it is.
        task: what is to be learnt; it checks the labels, and says of which groups every split has the same share.
        in_channels: image channels that the network takes; grey images are repeated for 3, RGB images are an error
            for 1.
        classes: how many outputs the network has.
        image_size_px: edge for images of differing sizes (``folder``) where the config names none.
        progress: told how many images are decoded to be kept.

    Raises:
        DataError: nothing there, no images, a broken image, labels that the task or the network cannot have, a class
            without training images, or images that do not fit the network or are all of one colour.
        OutputError: decoded images cannot be kept.
    """
    dataset = open_dataset(config, task, in_channels, classes, image_size_px)
    skipped: dict[str, str] = {}
    workers = default_workers() if config.workers is None else config.workers
    decoders = Decoders(list(dataset.splits().values()), workers) if workers else None
    parts = {
        name: _image_set(split, config, task, decoders, skipped, progress) for name, split in dataset.splits().items()
    }
    left_out = (*dataset.left_out, *broken_images(skipped))
    splits = Splits(config.source, dataset.classes, **parts, task=task, left_out=left_out)
    images = splits.train.images
    if isinstance(images, ImageStream):
        levels = splits.sample.levels
        check_levels(levels.lowest, levels.highest, dataset.train.what)
    else:
        check_levels(int(images.min()), int(images.max()), dataset.train.what)
    return splits


def _image_set(
    split: DatasetSplit,
    config: DataConfig,
    task: Task,
    decoders: Decoders | None,
    skipped: dict[str, str],
    progress: Progress,
) -> ImageSet:
    """Images of a split, in memory where they are or fit; those that cannot be read are noted in ``skipped``."""
    targets = task.targets(split.labels)
    if isinstance(split.images, MemoryImages):
        pixels = split.all_pixels()
        pixels = pixels if pixels.flags.writeable else pixels.copy()  # PyTorch warns of arrays that are not
        return ImageSet(torch.from_numpy(pixels), targets)
    skips = config.broken_images == "skip"
    kept = split if config.cache is None else cached(split, Path(config.cache), decoders, skips, progress)
    streamed = ImageSet(ImageStream(kept, decoders, skips, skipped=skipped), targets)
    if len(split) * math.prod(split.shape) > config.memory_mib * 2**20:
        return streamed
    return streamed.in_memory()


def opened_source(config: DataConfig, size_px: int) -> tuple[str, Opened]:
    """Let the source of a config open its images; return what it is called in messages, and what it gives.

    Raises:
        DataError: it cannot, takes no such setting, or names a class twice.
    """
    what = f"data source {config.source!r}" + (f" at {config.path}" if config.path else "")
    source = SOURCES.get(config.source)
    columns = source.columns if isinstance(source, HasColumns) else ()
    for setting in ("label_column", "image_column"):
        if getattr(config, setting) is not None and setting not in columns:
            raise DataError(f"{what} has no columns to choose from; leave data.{setting} out")
    opened = source.open(config, size_px)
    if repeated := sorted({name for name in opened.classes if opened.classes.count(name) > 1}):
        raise DataError(f"{what} has several classes called {some(repeated)}; give every class a name of its own")
    return what, opened


def check_labels(opened: Opened, task: Task, classes: int, what: str) -> None:
    """Raise where there are no training images, or labels that the task or the network cannot have."""
    if len(opened.train) == 0:
        raise DataError(f"{what} has no training images; give at least a few per class")
    task.check(opened.train.labels, None, classes, opened.classes, what)
    for part in (opened.validation, opened.test):
        if part is not None and len(part):
            task.check(opened.train.labels, part.labels, classes, opened.classes, what)


def divided(opened: Opened, config: DataConfig, task: Task) -> Parts:
    """Return images of the source, which rows of them, and where these come from, for every split."""
    train = opened.train
    rest = np.arange(len(train))
    found: Parts = {}
    validation, test = opened.validation, opened.test
    origin = "the test images of the source"
    if test is None and validation is not None:
        validation, test, origin = None, validation, "the validation images of the source, as it has no test images"
    if test is None:
        rows, rest = _split(task.strata(train.labels), rest, config.test_percent, config.seed)
        found["test"] = (train, rows, f"{config.test_percent:g} % of the training images, held out")
    else:
        found["test"] = (test, np.arange(len(test)), origin)
    if validation is None:
        rows, rest = _split(task.strata(train.labels), rest, config.validation_percent, config.seed + 1)
        origin = f"{config.validation_percent:g} % of the training images, held out"
        found["validation"] = (train, rows, origin)
    else:
        found["validation"] = (validation, np.arange(len(validation)), "the validation images of the source")
    found["train"] = (train, rest, "the training images of the source")
    return {name: found[name] for name in SPLITS}


def check_parts(opened: Opened, parts: Parts, task: Task, what: str) -> None:
    """Raise where a split has no images, or where a class has none left to train."""
    held_out = [name for name in SPLITS if name != "train" and parts[name][0] is opened.train]
    labels, rows = opened.train.labels, parts["train"][1]
    strata = task.strata(labels)
    groups, sizes = np.unique(strata, return_counts=True)
    lost = ~np.isin(groups, strata[rows])
    if lost.any() and len(rows):
        found = zip(groups[lost].tolist(), sizes[lost].tolist(), strict=True)
        names = [f"{_name_of(opened, labels, strata, group)} ({n})" for group, n in found]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")
        raise DataError(
            f"{what} has too few images of {shown}: none is left to train when {' and '.join(held_out)} images are "
            f"held out; give each class at least {len(held_out) + 1} images, or take these classes out"
        )
    for name, (_, rows, _) in parts.items():
        if len(rows) == 0:
            raise DataError(f"{what} leaves no {name} images; give more images or change the split percentages")


def check_levels(low: int, high: int, what: str) -> None:
    """Raise where all pixels of the training images are the same."""
    if low == high:
        raise DataError(
            f"{what}: every pixel of the training images is {low}, so there is nothing to learn; values up to 255 in "
            "files of 16 bits are one reason (the upper 8 bits are used): save 8 bits, or multiply by 257"
        )


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


def _name_of(opened: Opened, labels: Labels, strata: NDArray[np.int64], group: int) -> str:
    """What a group of images is called: its class, where labels are numbers of classes."""
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        label = int(labels[strata == group][0])
        if 0 <= label < len(opened.classes):
            return repr(opened.classes[label])
    return f"group {group}"
