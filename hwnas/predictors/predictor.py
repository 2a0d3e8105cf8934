"""What is a predictor, and how well does it rank?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy
from numpy.typing import NDArray

from hwnas.predictors.encoder import Inputs

FloatArray = NDArray[np.float64]


class Model(Protocol):
    """A fitted predictor."""

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        """Return ``(n,)`` means and ``(n,)`` standard deviations, in the unit of the fitted values."""
        ...


class Predictor(Protocol):
    """A way to learn one value from evaluated archs; fitting makes a new `Model` and changes nothing.

    Its factory, such as its class, is called without arguments. `hwnas.testing.predictor.PredictorTests` tests what it
    promises.
    """

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values.

        Raises:
            ValueError: the predictor cannot be fitted to these (too few archs, say).
        """
        ...


@dataclass(frozen=True)
class RankMetrics:
    """How well predictions agree with the values of archs that the predictor was not fitted to."""

    kendall_tau: float
    """-1 to 1; 0 where either side is constant."""
    spearman: float
    """-1 to 1; 0 where either side is constant."""
    rmse: float
    """In the unit of the values."""
    kendall_tau_deviation: float = 0.0
    """Standard deviation of Kendall's tau over the folds."""
    spearman_deviation: float = 0.0
    """Of Spearman's rho over the folds."""
    rmse_deviation: float = 0.0
    """Of the error over the folds, in the unit of the values."""


def rank_metrics(predicted: FloatArray, values: FloatArray) -> RankMetrics:
    """Compare ``(n,)`` predictions with ``(n,)`` values."""
    rmse = float(np.sqrt(np.mean((predicted - values) ** 2)))
    if len(values) < 2 or np.ptp(predicted) == 0 or np.ptp(values) == 0:
        return RankMetrics(0.0, 0.0, rmse)
    tau = float(scipy.stats.kendalltau(predicted, values).statistic)
    return RankMetrics(tau, float(scipy.stats.spearmanr(predicted, values).statistic), rmse)


def cross_validate(predictor: Predictor, inputs: Inputs, values: FloatArray, folds: int = 5) -> RankMetrics:
    """Fit on all folds but one and compare on that one; return means over the folds.

    Args:
        predictor: what is judged.
        inputs: n archs.
        values: ``(n,)`` finite.
        folds: how many; at most ``n // 2``.

    Raises:
        ValueError: fewer than 4 archs, or the predictor cannot be fitted.
    """
    n = len(values)
    folds = min(folds, n // 2)
    if folds < 2:
        raise ValueError(f"cross-validation needs 4 archs or more, got {n}")
    order = np.random.default_rng(0).permutation(n)
    found = []
    for i in range(folds):
        test = order[i::folds]
        train = np.setdiff1d(order, test)
        mean, _ = predictor.fit(inputs[train], values[train]).predict(inputs[test])
        found.append(rank_metrics(mean, values[test]))
    taus, rhos, errors = np.array([(m.kendall_tau, m.spearman, m.rmse) for m in found]).T
    return RankMetrics(
        float(taus.mean()),
        float(rhos.mean()),
        float(np.sqrt((errors**2).mean())),
        float(taus.std()),
        float(rhos.std()),
        float(errors.std()),
    )
