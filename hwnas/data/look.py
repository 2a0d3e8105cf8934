"""What are the images of a recipe, and what is wrong with them? Everything is looked at before anything is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.data.config import DataConfig
from hwnas.data.dataset import check_labels, check_levels, check_parts, divided, made_dataset, opened_source
from hwnas.data.left_out import SKIP, LeftOut, broken_images
from hwnas.data.levels import Levels
from hwnas.data.opened import SPLITS, Dataset, DatasetSplit, with_channels
from hwnas.data.split_names import SplitName
from hwnas.errors import DataError, escaped, some
from hwnas.progress import Progress, silent
from hwnas.task import HasLargestStderr, Task

BATCH = 64
"""Images that are decoded at a time, at most."""
BATCH_BYTES = 64 * 2**20
"""Of images that are decoded at a time: of large ones fewer."""
FEW_IMAGES = 100
"""A validation or test split with fewer images is warned of: the standard error of a share is up to 5 points."""
DARK = 32
"""Warn where no pixel of the training images is above this level of 255."""
MOST_SHOWN = 20
"""Images that cannot be read are named up to this number; the others are counted."""


@dataclass(frozen=True)
class ClassSummary:
    """Images of one class."""

    name: str
    images: Mapping[str, int]
    """By split."""
    mean_levels: list[float]
    """Of the pixels of the training images, channel by channel, 0 to 255."""
    deviation_levels: list[float]
    """Standard deviation of the same."""


@dataclass(frozen=True)
class DataSummary:
    """What a recipe says about images, found out by decoding all of them."""

    source: str
    """As messages call it."""
    size_px: int
    """Edge to which images that differ in size are decoded."""
    classes: tuple[ClassSummary, ...]
    """In the order of their numbers; without counts where labels are no numbers of classes."""
    images: Mapping[str, int]
    """By split."""
    origins: Mapping[str, str]
    """Where the images of a split come from."""
    mean_levels: list[float]
    """Of the pixels of all training images, channel by channel, 0 to 255."""
    deviation_levels: list[float]
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
    """What may mislead, and does not stop a run."""
    problems: tuple[str, ...] = ()
    """What a run would stop at, with what to do."""
    unreadable: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Where the images lie that cannot be read, with what is wrong; they are left out, or stop a run
    (``data.broken_images``)."""
    dataset: Dataset | None = field(default=None, repr=False)
    """The images, where there are no problems."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "source": self.source,
            "size_px": self.size_px,
            "classes": [
                {
                    "name": c.name, "images": dict(c.images), "mean_levels": c.mean_levels,
                    "deviation_levels": c.deviation_levels,
                }
                for c in self.classes
            ],
            "images": dict(self.images),
            "origins": dict(self.origins),
            "mean_levels": self.mean_levels,
            "deviation_levels": self.deviation_levels,
            "left_out": [entry.as_dict() for entry in self.left_out],
            "warnings": list(self.warnings),
            "problems": list(self.problems),
        }  # fmt: skip


def look(
    config: DataConfig, task: Task, in_channels: int, classes: int, image_size_px: int, progress: Progress = silent
) -> DataSummary:
    """Open a dataset and decode all of its images; see `hwnas.data.load_data` for the arguments.

    What a run would stop at is collected (`DataSummary.problems`), so that all of it can be put right at once.

    Raises:
        DataError: the source cannot be opened at all, or has no training images or labels that mean nothing.
    """
    size_px = config.image_size_px or image_size_px
    config = config.model_copy(update={"cache": None})  # the files are what is looked at
    what, opened = opened_source(config, size_px)
    problems: list[str] = []
    _collected(problems, lambda: check_labels(opened, task, classes, what))
    if problems and (len(opened.train) == 0 or opened.train.labels.ndim != 1):
        raise DataError(problems[0])
    parts = divided(opened, config, task)
    _collected(problems, lambda: check_parts(opened, parts, task, what))
    dataset = made_dataset(config, opened, parts, task, in_channels, size_px, what)
    total, by_class = Levels(), [Levels() for _ in dataset.classes]
    done, n_images = 0, sum(map(len, dataset.splits().values()))
    skips, broken, unreadable = config.broken_images == "skip", dict[str, str](), list[str]()
    readable = dict(dataset.splits())
    for name, split in dataset.splits().items():
        read: list[NDArray[np.int64]] = []
        labels = _classes_of(split)
        batch = max(1, min(BATCH, BATCH_BYTES // (3 * size_px**2)))
        for start in range(0, len(split), batch):
            rows = np.arange(start, min(start + batch, len(split)))
            for places, pixels in _decoded(split, rows, broken):
                read.append(places)
                if name == "train":
                    total.add(pixels)
                    for label in np.unique(labels[places]).tolist():
                        if 0 <= label < len(by_class):
                            by_class[label].add(pixels[labels[places] == label])
            done += len(rows)
            progress("images", done, n_images, name)
        if skips and len(split) and not read:
            problems.append(f"{what}: none of the {len(split):,} {name} images can be read")
        elif skips and read:
            readable[name] = replace(split, rows=split.rows[np.concatenate(read)])
    if skips:
        dataset = replace(
            dataset, train=readable["train"], validation=readable["validation"], test=readable["test"],
            left_out=(*dataset.left_out, *broken_images(broken)),
        )  # fmt: skip
    else:
        unreadable = [f"{message}, {SKIP}" for message in broken.values()]
    if total.sums is not None:
        channels = np.zeros((1, len(total.sums), 1, 1), np.uint8)
        _collected(problems, lambda: with_channels(channels, in_channels, what))
        _collected(problems, lambda: check_levels(total.lowest, total.highest, what))
    problems += unreadable[:MOST_SHOWN]
    if len(unreadable) > MOST_SHOWN:
        problems.append(f"{len(unreadable) - MOST_SHOWN:,} more images cannot be read")
    counts = {name: _counted(split, len(dataset.classes)) for name, split in dataset.splits().items()}
    mean, deviation = total.values()
    return DataSummary(
        what, size_px,
        tuple(
            ClassSummary(name, {s: counts[s][i] for s in SPLITS if counts[s]}, *by_class[i].values())
            for i, name in enumerate(dataset.classes)
        ),
        {name: len(split) for name, split in dataset.splits().items()},
        {name: split.origin for name, split in dataset.splits().items()},
        mean, deviation, dataset.left_out, tuple(_warnings(dataset, counts, total, bool(problems))), tuple(problems),
        broken, None if problems else dataset,
    )  # fmt: skip


def _collected(problems: list[str], check: Callable[[], object]) -> None:
    """Do a check, and keep what it raises."""
    try:
        check()
    except DataError as error:
        problems.append(str(error))


def _decoded(
    split: DatasetSplit, rows: NDArray[np.int64], broken: dict[str, str]
) -> list[tuple[NDArray[np.int64], NDArray[np.uint8]]]:  # fmt: skip
    """Rows with their pixels, all together or, where one cannot be read, one by one; errors are kept by place."""
    try:
        return [(rows, split.images.pixels(split.rows[rows], split.size_px))]
    except DataError as error:
        if len(rows) == 1:
            broken[escaped(split.place(int(rows[0])))] = str(error)
            return []
    return [found for row in rows for found in _decoded(split, np.array([row]), broken)]


def _classes_of(split: DatasetSplit) -> NDArray[np.int64]:
    """Number of the class of every image; -1 where labels are no numbers of classes."""
    labels = split.labels
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        return labels
    return np.full(len(split), -1, dtype=np.int64)


def _counted(split: DatasetSplit, n_classes: int) -> list[int]:
    """Images of every class; empty where labels are no numbers of classes."""
    labels = _classes_of(split)
    known = labels[(labels >= 0) & (labels < n_classes)]
    return np.bincount(known, minlength=n_classes).tolist() if len(known) else []


def _warnings(
    dataset: Dataset, counts: Mapping[SplitName, list[int]], total: Levels, stops: bool
) -> list[str]:  # fmt: skip
    found = []
    score = dataset.task.score
    for name, split in dataset.splits().items():
        n = len(split)
        if name != "train" and 0 < n < FEW_IMAGES:
            error = ""
            if isinstance(dataset.task, HasLargestStderr):
                error = (
                    f": {score.title} would have a standard error of up to {dataset.task.largest_stderr(n):.0f} "
                    f"{score.unit}"
                )
            found.append(
                f"{name} has {n} images, too few to tell networks apart{error}; give at least {FEW_IMAGES}, better "
                "1,000"
            )
        without = [c for c, k in zip(dataset.classes, counts[name], strict=False) if k == 0]
        if without and n and not (stops and name == "train"):
            found.append(f"{name} has no images of {some(without)}")
    if dataset.classes and len({c.casefold() for c in dataset.classes}) < len(dataset.classes):
        twice = sorted({c for c in dataset.classes if sum(c.casefold() == d.casefold() for d in dataset.classes) > 1})
        found.append(f"classes {some(twice)} differ in upper and lower case only; are they meant to be different?")
    if total.sums is not None and total.highest < DARK:
        found.append(
            f"no pixel of the training images is above {total.highest} of 255; of 16 bits the upper 8 are "
            "used, so scale files of 10, 12 or 14 bits to 16 before"
        )
    return [escaped(text) for text in found]
