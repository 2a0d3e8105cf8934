"""How does somebody with a folder of pictures begin? With a recipe that fits them, and says why it is as it is."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hwnas.arguments import checked_arguments
from hwnas.data import DataConfig, Dataset, open_dataset
from hwnas.data.dataset import opened_source
from hwnas.data.left_out import broken_images
from hwnas.data.look import look
from hwnas.errors import DataError, OutputError, RecipeError, shown, some
from hwnas.files import write_text
from hwnas.latency.device import load_profile
from hwnas.progress import Progress, silent
from hwnas.runs.first_recipe import SMALL_PX, SMALLEST_PX, commented_yaml, recipe_values
from hwnas.runs.problem import read_limits
from hwnas.runs.recipe import Recipe, load_recipe
from hwnas.task import TASKS

SAMPLED = 200
"""Pictures whose size is looked at."""
LARGEST_PX = 128
"""Edge that larger pictures are brought to, unless another is asked for: what two cores can train in hours."""
WANTED_VALIDATION = 100
"""Validation images that are held out, where there are enough: the standard error of top-1 is then at most 5 points."""
MOST_VALIDATION_PERCENT = 30
LOOKED_AT = 5000
"""Up to so many pictures all are decoded, so that broken ones are found now."""


@dataclass(frozen=True)
class Begun:
    """A recipe that was written for a folder of pictures."""

    path: Path
    recipe: Recipe
    images: dict[str, int]
    """By split."""
    classes: tuple[str, ...]
    size_px: int
    """Largest resolution."""
    warnings: tuple[str, ...]
    """What may go wrong, and what to do about it."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "recipe": str(self.path), "images": self.images, "classes": list(self.classes), "size_px": self.size_px,
            "warnings": list(self.warnings),
        }  # fmt: skip


@checked_arguments
def init(
    pictures: str | Path,
    out: str | Path | None = None,
    devices: Sequence[str] | None = None,
    size_px: int | None = None,
    like: str | Path | None = None,
    start: str | Path | None = None,
    limits: Sequence[str] = (),
    skip_broken: bool = False,
    progress: Progress = silent,
) -> Begun:
    """Write a recipe with comments that fits a folder of pictures; nothing is trained.

    Args:
        pictures: a folder with one folder a class, or with folders of splits; see docs/images.md.
        out: the recipe; default: ``<name of the folder>.yaml`` here. A file that is there stays.
        devices: names or folders of device profiles; default: ``local-cpu``.
        size_px: largest resolution; default: the pictures' own, at most 128.
        like: a recipe whose network, training and search are taken, such as ``ofa-mbv3-w1.0``.
        start: weights to begin with: a folder of a run, or a checkpoint of once-for-all (then also give ``like``).
        limits: what the models must keep, such as ``latency_ms<=5`` or ``edge-tpu:latency_ms<=3``; they stand in the
            recipe as its constraints.
        skip_broken: leave pictures out that cannot be read (``data.broken_images: skip``), now and in every run.
        progress: told how many pictures are decoded.

    Raises:
        DataError: the pictures cannot be used; the message says what to do.
        RecipeError, DeviceError: ``out`` is there, or something that was asked for is unknown.
        SearchError: a limit that cannot be read.
    """
    folder = Path(pictures)
    if not os.path.isdir(folder):
        raise DataError(
            f"{shown(str(pictures))} is no folder; give one that holds a folder of pictures for each class, or copy a "
            "recipe for other sources"
        )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "pictures"
    path = Path(out) if out is not None else Path(f"{name}.yaml")
    if path.suffix not in (".yaml", ".yml"):
        raise RecipeError(f"a recipe ends in .yaml, got {path}; give --out {path}.yaml")
    if path.exists():
        raise OutputError(f"{path} is there already and is not overwritten; remove it, or give another --out")
    if size_px is not None and size_px < SMALLEST_PX:
        raise RecipeError(
            f"pictures of {size_px} pixels are too small for a network; give --size {SMALLEST_PX} or more"
        )
    named = list(devices) if devices is not None else ["local-cpu"]
    read_limits(limits, [load_profile(device).name for device in named])
    if start is not None and like is None:
        like = _recipe_of(Path(start))
    config = DataConfig(source="folder", path=str(pictures), broken_images="skip" if skip_broken else "stop")
    dataset = _opened(config)
    own_px = _own_size(dataset)
    px = _fitting(size_px or min(own_px, LARGEST_PX))
    warnings = []
    if own_px < px:
        smaller = "a smaller --size costs less and loses nothing" if px > SMALLEST_PX else "a network needs as many"
        warnings.append(
            f"half of the pictures are smaller than {px} pixels (their shorter edge has {own_px}) and are enlarged; "
            f"{smaller}"
        )
    config = config.model_copy(update={"validation_percent": float(_validation_percent(dataset))})
    dataset = _opened(config)
    values = recipe_values(name, folder, pictures, dataset, config, named, px, like, start, limits)
    write_text(path, commented_yaml(values, path, dataset, own_px, like))
    try:
        recipe = load_recipe(path)
        warnings += _looked_at(recipe, dataset, progress)
    except BaseException:
        path.unlink(missing_ok=True)  # a recipe that cannot be used is not left behind
        raise
    images: dict[str, int] = {split: len(part) for split, part in dataset.splits().items()}
    return Begun(path, recipe, images, dataset.classes, max(recipe.supernet.resolutions), tuple(warnings))


def _opened(config: DataConfig) -> Dataset:
    """The pictures, as many classes as they have."""
    task = TASKS.get("classification")
    _, opened = opened_source(config, SMALL_PX)
    return open_dataset(config, task, 3, max(2, len(opened.classes)), SMALL_PX)


def _own_size(dataset: Dataset) -> int:
    """Median of the shorter edges of some training pictures, in pixels; those that cannot be read do not count."""
    edges = []
    n = len(dataset.train)
    for index in np.unique(np.linspace(0, n - 1, min(SAMPLED, n)).astype(int)).tolist():
        try:
            with Image.open(dataset.train.place(index)) as picture:
                edges.append(min(picture.size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # it is named when all are decoded
    return int(np.median(edges)) if edges else LARGEST_PX


def _fitting(px: int) -> int:
    """A resolution that a network can halve several times without remainder, not larger where possible."""
    unit = 4 if px <= SMALL_PX else 16
    return max(SMALLEST_PX, px // unit * unit)


def _validation_percent(dataset: Dataset) -> int:
    """Share to hold out so that validation says something, where the folder has no validation pictures of its own."""
    pool = len(dataset.train) + len(dataset.validation)
    usual = round(DataConfig.model_fields["validation_percent"].default)
    return int(min(MOST_VALIDATION_PERCENT, max(usual, np.ceil(100 * WANTED_VALIDATION / pool))))


def _recipe_of(start: Path) -> Path:
    """The recipe of a run whose weights are to be begun with."""
    found = start / "recipe.yaml"
    if not found.is_file():
        raise RecipeError(
            f"{start} does not say which network its weights are of; give --like with the recipe of that network, such "
            "as --like ofa-mbv3-w1.0"
        )
    return found


def _looked_at(recipe: Recipe, dataset: Dataset, progress: Progress) -> list[str]:
    """Warnings about the pictures; where there are not too many of them, all are decoded.

    Raises:
        DataError: something would stop a run.
    """
    net = recipe.supernet
    n = sum(map(len, dataset.splits().values()))
    if n > LOOKED_AT:
        skips = recipe.data.broken_images == "skip"
        then = "" if skips else ", at which a run would stop; --skip-broken leaves them out"
        return [f"{n:,} pictures were counted and not decoded; `hwnas data` decodes all and finds broken ones{then}"]
    found = look(recipe.data, recipe.task_object, net.in_channels, net.classes, max(net.resolutions), progress)
    if found.problems and recipe.data.broken_images == "stop" and len(found.problems) <= len(found.unreadable):
        raise DataError(
            f"{len(found.unreadable):,} of {n:,} pictures cannot be read: {some(list(found.unreadable))}; "
            f"repair or remove them, or leave them out with --skip-broken. The first one: "
            f"{next(iter(found.unreadable.values()))}"
        )
    if found.problems:
        raise DataError(found.problems[0])
    left_out = [f"{one}; every run leaves them out (data.broken_images)" for one in broken_images(found.unreadable)]
    return [*left_out, *found.warnings]
