"""What are the images of a recipe? `open_data` opens them, `look_at_data` decodes all and says what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwnas.arguments import checked_arguments
from hwnas.data import Dataset, open_dataset
from hwnas.data.look import DataSummary, look
from hwnas.data.sheet import check_sheet, write_sheet
from hwnas.progress import Progress, silent
from hwnas.runs.recipe import Recipe, load_recipe


@checked_arguments
def open_data(recipe: str | Path | Recipe, overrides: Sequence[str] = ()) -> Dataset:
    """Open the images of a recipe, divided as its runs divide them; nothing is decoded yet.

    Args:
        recipe: a YAML file, the name of a shipped recipe, or a recipe.
        overrides: dotted settings such as ``data.path=my-images``.

    Returns:
        ``.classes``, and ``.train``, ``.validation`` and ``.test``, each with ``len()``, ``.labels`` (``(N,)`` int64)
        and ``.pixels(indices, resolution)`` (``(B, C, H, W)`` uint8).

    Raises:
        DataError: they cannot be used; the message says what to do.
        RecipeError: the recipe cannot be read.
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    net = loaded.supernet
    return open_dataset(loaded.data, loaded.task_object, net.in_channels, net.classes, max(net.resolutions))


@checked_arguments
def look_at_data(
    recipe: str | Path | Recipe,
    overrides: Sequence[str] = (),
    sheet: str | Path | None = None,
    progress: Progress = silent,
) -> DataSummary:
    """Decode all images of a recipe, and say what they are and what is wrong with them.

    Args:
        recipe: a YAML file, the name of a shipped recipe, or a recipe.
        overrides: dotted settings such as ``data.path=my-images``.
        sheet: PNG file for some images of each class as a network sees them, resized and varied; it is written where
            there are no problems.
        progress: told how many images are decoded.

    Raises:
        DataError: there is nothing to look at: no such file, no images, no labels.
        RecipeError: the recipe cannot be read.
        OutputError: the sheet cannot be written.
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if sheet is not None:
        check_sheet(Path(sheet))
    net = loaded.supernet
    found = look(
        loaded.data, loaded.task_object, net.in_channels, net.classes, max(net.resolutions), progress
    )  # fmt: skip
    if sheet is not None and found.dataset is not None:
        write_sheet(found.dataset, loaded.data.augment, max(net.resolutions), loaded.train.seed, Path(sheet))
    return found
