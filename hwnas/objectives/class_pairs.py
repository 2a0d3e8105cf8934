"""How much does each pair of classes count in the introspectability score?

A CSV file of similarities has a heading ``class`` and the names of the classes, and a row for each class in the same
order, which is that of the data (`hwnas data` shows it): numbers of at least 0, the same on both sides of the
diagonal::

    class,cat,dog,plane
    cat,1,0.8,0.1
    dog,0.8,1,0.1
    plane,0.1,0.1,1
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from hwnas.errors import RecipeError, UnreadableError, some
from hwnas.reading import csv_rows, read_text


def read_similarities(path: str | Path) -> Tensor:
    """Return the ``(classes, classes)`` float64 similarities of a file.

    Raises:
        RecipeError: it is not there, or is no such table.
    """
    return _read(str(path), _changed(Path(path)))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except (OSError, ValueError):
        return 0.0


@lru_cache(maxsize=8)
def _read(path: str, changed: float) -> Tensor:
    try:
        rows = list(csv_rows(read_text(Path(path)), path))
        names = [name for name in rows[0] if name != "class"] if rows else []
        if not names or [row.get("class") for row in rows] != names:
            found = [row.get("class", "") for row in rows]
            raise UnreadableError(
                path, f"its heading names {some(names)} after 'class', but its rows are those of {some(found)}"
            )
        try:
            values = torch.tensor([[float(row[name]) for name in names] for row in rows], dtype=torch.float64)
        except ValueError as error:
            raise UnreadableError(path, f"it has a cell that is no number: {error}") from None
        if not bool(torch.isfinite(values).all()) or bool((values < 0).any()) or not torch.equal(values, values.T):
            raise UnreadableError(
                path, "its numbers are to be finite, at least 0 and the same for both orders of a pair"
            )
    except UnreadableError as error:
        raise RecipeError(
            f"evaluation.introspectability.pair_weights {path}: {error.reason}; give a table of similarities as "
            "hwnas.objectives.class_pairs says, or uniform"
        ) from None
    return values


def confusion_weights(confusions: Tensor) -> Tensor:
    """Return ``(classes, classes)`` weights of pairs from how often a network takes one class for the other.

    The mean of both directions' rates, with one more image for every pair so that none counts nothing; scaled so that
    the mean over all pairs of classes is 1: a network that confuses less is not worth less for that.

    Args:
        confusions: ``(classes, classes)`` images by true and predicted class.
    """
    rates = (confusions.double() + 1.0) / (confusions.double().sum(1, keepdim=True) + len(confusions))
    both = (rates + rates.T) / 2
    n = len(both)
    pairs = both[torch.triu_indices(n, n, 1).unbind()]
    return both / pairs.mean() if len(pairs) else both
