"""What if a predictor cannot be fitted? The mean of the values stands in, and the search says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.predictors.encoder import Inputs
from hwnas.predictors.predictor import Model, Predictor

FloatArray = NDArray[np.float64]


def fit_or_fall_back(predictor: Predictor, inputs: Inputs, values: FloatArray) -> tuple[Model, str]:
    """Fit ``predictor``, or the mean of the values where it cannot be fitted.

    Returns:
        The model, and why it is not the one asked for (empty: it is).
    """
    try:
        return predictor.fit(inputs, values), ""
    except (ValueError, np.linalg.LinAlgError) as error:
        spread = float(values.std()) if len(values) else 1.0
        name = type(predictor).__name__
        centre = float(values.mean()) if len(values) else 0.0
        return _Constant(centre, spread or 1.0), f"predictor {name} was replaced by the mean: {error}"


@dataclass(frozen=True)
class _Constant:
    mean: float
    std: float

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        return np.full(len(inputs), self.mean), np.full(len(inputs), self.std)
