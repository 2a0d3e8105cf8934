"""Under which licences are the weights of a run, what they began with, and the images that they learnt from?"""

from __future__ import annotations

from pathlib import Path

from hwnas.data.source import HasLicence
from hwnas.data.sources import SOURCES
from hwnas.errors import HwnasError
from hwnas.export.card import UNKNOWN
from hwnas.runs.folder import RunFolder
from hwnas.runs.recipe import Recipe, load_recipe

NO_START = "nothing: they were trained from random weights"


def licences_of(recipe: Recipe) -> dict[str, str]:
    """Return the licence of the ``weights``, of what they ``start`` with, and of the ``data``.

    What the recipe does not say is said by the source of the images, or by the run whose weights were the start;
    what nobody says is ``unknown``.
    """
    stated = recipe.licences
    source = SOURCES.get(recipe.data.source)
    of_source = source.licence if isinstance(source, HasLicence) else ""
    given = recipe.train.start_from
    starts = () if given is None else (given,) if isinstance(given, str) else given
    known = list(dict.fromkeys(map(_of_start, starts)))
    start = NO_START if given is None else ", ".join(known) if all(known) else ""
    return {
        "weights": stated.weights or UNKNOWN,
        "start": stated.start or start or UNKNOWN,
        "data": stated.data or of_source or UNKNOWN,
    }


def _of_start(start: str) -> str:
    """What the run says whose weights are the start; empty where it is no run, or says nothing."""
    folder = RunFolder(Path(start).expanduser())
    if not folder.recipe.is_file():
        return ""
    try:
        return load_recipe(folder.recipe).licences.weights
    except HwnasError:  # it may be of another version
        return ""
