"""Radial basis functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from hwnas.predictors.encoder import Inputs
from hwnas.predictors.ensemble import Ensemble, all_but_one_fold, need_archs
from hwnas.predictors.predictor import Model

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class RBF:
    """Cubic radial basis functions with a linear tail; its spread over ten folds is the uncertainty.

    Reference:
        Lu et al., 2020, NSGANetV2 (RBF surrogate); the ensemble over folds is ours.
    """

    smoothing: float = 1e-3

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values; fewer archs than features leave the linear tail out."""
        need_archs(values, 3)
        return Ensemble(tuple(self._one(inputs.features[r], values[r]) for r in all_but_one_fold(len(values))))

    def _one(self, x: FloatArray, y: FloatArray) -> Any:
        tail = 1 if len(np.unique(x, axis=0)) > x.shape[1] + 1 and np.linalg.matrix_rank(x - x[0]) == x.shape[1] else 0
        kernel = "cubic" if tail else "linear"
        return scipy.interpolate.RBFInterpolator(x, y, kernel=kernel, degree=tail, smoothing=self.smoothing)
