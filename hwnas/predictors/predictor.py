"""What is a predictor?"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwnas.predictors.inputs import Inputs

FloatArray = NDArray[np.float64]


class Model(Protocol):
    """A fitted predictor."""

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        """Return ``(n,)`` means and ``(n,)`` standard deviations, in the unit of the fitted values."""
        ...


class Predictor(Protocol):
    """A way to learn one objective from evaluated archs; fitting makes a new `Model` and changes nothing."""

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values.

        Raises:
            ValueError: the predictor cannot be fitted to these (too few archs, say).
        """
        ...
