"""Several fits to parts of the archs: their mean is the prediction, their spread how unsure it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.predictors.encoder import Inputs

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
OfFeatures = Callable[[FloatArray], FloatArray]
"""``(n, k)`` features to ``(n,)`` predictions."""


@dataclass(frozen=True)
class Ensemble:
    """Functions of `Inputs.features` whose mean and spread are the prediction."""

    functions: tuple[OfFeatures, ...]
    mean: float = 0.0
    scale: float = 1.0
    """Functions predict the values less ``mean``, divided by ``scale``."""

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        """Return ``(n,)`` means and ``(n,)`` deviations over the functions, in the unit of the fitted values."""
        x = inputs.features
        each = self.mean + self.scale * np.stack([np.asarray(f(x), dtype=float) for f in self.functions])
        return each.mean(axis=0), each.std(axis=0) + 1e-12


def all_but_one_fold(n: int, folds: int = 10) -> list[IntArray]:
    """Return, for each of at most ``folds`` fits to ``n`` archs, the rows that it learns from: all but one fold."""
    folds = min(folds, n)
    order = np.random.default_rng(0).permutation(n)
    return [np.sort(np.delete(order, np.s_[i::folds])) for i in range(folds)]


def need_archs(values: FloatArray, n: int) -> None:
    """Raise where ``(k,)`` values are fewer than ``n``.

    Raises:
        ValueError: they are.
    """
    if len(values) < n:
        raise ValueError(f"this predictor needs {n} archs or more, got {len(values)}")
