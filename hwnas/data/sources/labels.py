"""How do labels of several splits become numbers of the same classes? By their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwnas.data.source import Labels
from hwnas.errors import DataError, some

MISSING = -1
"""The label of an image that has none, as in datasets whose test labels are kept secret."""


def mapped(labels: NDArray[np.int64], own: Sequence[str], classes: Sequence[str], where: str) -> NDArray[np.int64]:
    """Return labels that count in the names ``own`` as numbers of ``classes``; `MISSING` stays.

    Raises:
        DataError: a label that ``own`` has no name for, or a class in use that ``classes`` lacks.
    """
    if len(labels) and int(labels.max()) >= len(own):
        raise DataError(f"{where} has the label {int(labels.max())}, but names of {len(own)} classes; name them all")
    place = {name: number for number, name in enumerate(classes)}
    unknown = [own[i] for i in np.unique(labels[labels >= 0]).tolist() if own[i] not in place]
    if unknown:
        raise DataError(
            f"{where} has images of {some(unknown)}, which is no class of the training images (these are "
            f"{some(classes, 12)}); give training images of it, rename it, or remove its images"
        )
    numbers = np.array([place.get(name, MISSING) for name in own] or [MISSING], dtype=np.int64)
    return np.where(labels < 0, MISSING, numbers[np.maximum(labels, 0)])


def names_of(values: Sequence[str | bytes | None]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the sorted names among some values, and the number of each value in them, `MISSING` for None."""
    texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values]
    own = tuple(sorted({str(t) for t in texts if t is not None}))
    place = {name: number for number, name in enumerate(own)}
    return own, np.array([MISSING if t is None else place[str(t)] for t in texts], dtype=np.int64)


def numbered(labels: Labels, where: str) -> tuple[str, ...]:
    """Return names for classes or outputs that have none: ``0``, ``1``, ...; as many as ``labels`` need.

    Raises:
        DataError: integers that are no numbers of classes, as there are more of them than images.
    """
    if labels.ndim == 2:
        return tuple(str(i) for i in range(labels.shape[1]))
    highest = int(labels.max()) if len(labels) else -1
    if highest >= max(2 * len(labels), 1000):  # before as many names are made
        raise DataError(
            f"{where} has {len(labels):,} labels, which reach {highest:,}; they must be numbers of classes from 0 on, "
            "so number them without gaps"
        )
    return tuple(str(i) for i in range(highest + 1))


def unlabelled(labels: Labels) -> bool:
    """Whether there are images, and none of them has a label."""
    return labels.ndim == 1 and len(labels) > 0 and bool((labels < 0).all())
