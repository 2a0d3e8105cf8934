"""Which predictor is right for these archs, and what if it cannot be fitted?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import RecipeError
from hwnas.predictors.classic import CART, MLP, RBF, SVR, BayesianRidge, LightGBM, ReNAS
from hwnas.predictors.encoder import Inputs
from hwnas.predictors.gp import GaussianProcess, GroupedProcess
from hwnas.predictors.predictor import Model, Predictor, cross_validate

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Blend:
    """The mean of several predictors; where they disagree it is less sure.

    The variance is the mean of theirs plus the spread of their means. The default joins three views of the same archs:
    relevances of features (Gaussian process), thresholds (trees) and plain likeness over all features (support
    vectors).
    """

    parts: tuple[Predictor, ...] = (GaussianProcess(), CART(), SVR(folds=1))

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values with every part."""
        return _Blended(tuple(part.fit(inputs, values) for part in self.parts))


@dataclass(frozen=True)
class _Blended:
    models: tuple[Model, ...]

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        found = [m.predict(inputs) for m in self.models]
        means = np.stack([mean for mean, _ in found])
        variances = np.stack([std**2 for _, std in found])
        return means.mean(axis=0), np.sqrt(variances.mean(axis=0) + means.var(axis=0))


@dataclass(frozen=True)
class Auto:
    """Adaptive switching: the candidate of the largest mean tau minus its deviation over five folds.

    Reference:
        Lu et al., 2020, NSGANetV2, section 3.2; ours switches among other candidates and fits the mean of
        the two best.
    """

    candidates: tuple[Predictor, ...] = (GaussianProcess(), CART(), BayesianRidge(), RBF())

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Judge every candidate and fit the two best; those that cannot be fitted are left out."""
        judged: list[tuple[float, int]] = []
        for i, candidate in enumerate(self.candidates):
            try:
                judged.append((cross_validate(candidate, inputs, values).cautious_tau, -i))
            except (ValueError, np.linalg.LinAlgError):
                continue
        best = [self.candidates[-i] for _, i in sorted(judged, reverse=True)[:2]]
        if not best:
            raise ValueError(f"none of {len(self.candidates)} predictors can be fitted to {len(values)} archs")
        return Blend(tuple(best)).fit(inputs, values)


PREDICTORS: dict[str, Callable[[], Predictor]] = {
    "auto": Auto,
    "bayesian_ridge": BayesianRidge,
    "blend": Blend,
    "cart": CART,
    "gp": GaussianProcess,
    "gp_groups": GroupedProcess,
    "lightgbm": LightGBM,
    "mlp": MLP,
    "rbf": RBF,
    "renas": ReNAS,
    "svr": SVR,
}
"""Factories by name."""


def make_predictor(name: str) -> Predictor:
    """Return the predictor called ``name``.

    Raises:
        RecipeError: there is none.
    """
    if name not in PREDICTORS:
        raise RecipeError(f"predictor {name!r} is unknown; choose one of {sorted(PREDICTORS)}")
    return PREDICTORS[name]()


def fit_or_fall_back(predictor: Predictor, inputs: Inputs, values: FloatArray) -> tuple[Model, str]:
    """Fit ``predictor``, or the mean of the values where it cannot be fitted.

    Returns:
        The model, and why it is not the one asked for (empty: it is).
    """
    try:
        return predictor.fit(inputs, values), ""
    except (ValueError, np.linalg.LinAlgError) as error:
        if isinstance(error, RecipeError):
            raise
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
