"""Support vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVR as SklearnSVR

from hwnas.predictors.encoder import Inputs
from hwnas.predictors.ensemble import Ensemble, all_but_one_fold, need_archs
from hwnas.predictors.predictor import Model

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SVR:
    """Support vector regression with a Gaussian kernel; its spread over ten folds is the uncertainty.

    Reference:
        Sarti, Lomurno and Matteucci, 2023, NATv2 (among the predictors compared); the ensemble over folds is ours.
    """

    cost: float = 10.0
    """Of an error beyond 0.02 deviations of the values, beside smoothness (scikit-learn's ``C``)."""

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values."""
        need_archs(values, 3)
        mean, scale = float(values.mean()), float(values.std()) or 1.0
        y, x = (values - mean) / scale, inputs.features
        fits = (SklearnSVR(C=self.cost, epsilon=0.02).fit(x[r], y[r]) for r in all_but_one_fold(len(y)))
        return Ensemble(tuple(m.predict for m in fits), mean, scale)
