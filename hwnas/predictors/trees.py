"""Regression trees: an extremely randomised forest, and gradient boosting of the package lightgbm."""

from __future__ import annotations

import copy
import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.tree import ExtraTreeRegressor
from sklearn.utils import check_random_state

from hwnas.errors import PluginError
from hwnas.predictors.encoder import Inputs
from hwnas.predictors.ensemble import all_but_one_fold, need_archs
from hwnas.predictors.predictor import Model

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class CART:
    """Extremely randomised regression trees; the spread over the trees is the uncertainty.

    Leaves of three archs and a third of the features a split: smoother than the libraries' defaults, which
    ranks better when archs are few.

    Reference:
        Geurts, Ernst and Wehenkel, 2006, Extremely randomized trees.
    """

    trees: int = 64

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values."""
        need_archs(values, 2)
        x, y = tree_features(inputs).astype(np.float32), np.asarray(values, dtype=float)[:, None]
        # Tree by tree: scikit-learn's forest spends most of its time on checking parameters when archs are few.
        draws = check_random_state(0)
        with sklearn.config_context(skip_parameter_validation=True):
            tree = ExtraTreeRegressor(max_features=0.3, min_samples_leaf=3, random_state=draws)
            trees = [copy.copy(tree.fit(x, y, check_input=False)) for _ in range(self.trees)]
        return _Trees(tuple(tree.tree_ for tree in trees))


@dataclass(frozen=True)
class _Trees:
    trees: tuple[Any, ...]

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        x = tree_features(inputs).astype(np.float32)
        each = np.stack([tree.predict(x).reshape(len(x)) for tree in self.trees])
        return each.mean(axis=0), each.std(axis=0) + 1e-12


def tree_features(inputs: Inputs) -> FloatArray:
    """Return ``(n, k + d)``: exact values and option counts, and one-hot genes, all as they are."""
    return np.concatenate([inputs.smooth, inputs.one_hot], axis=1)


@dataclass(frozen=True)
class LightGBM:
    """Gradient boosting of the package lightgbm (extra ``lightgbm``), ten folds averaged as in NATv2.

    Reference:
        Sarti, Lomurno and Matteucci, 2023, NATv2 (LightGBM, Huber loss, integer genes); ours adds the exact values.
    """

    rounds: int = 100
    """Trees of each fit."""

    def __post_init__(self) -> None:
        _lightgbm()  # what is missing is said before anything is evaluated

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values."""
        need_archs(values, 10)
        lightgbm = _lightgbm()
        settings = {
            "objective": "huber",
            "num_leaves": 8,
            "min_data_in_leaf": 3,
            "learning_rate": 0.1,
            "num_threads": 1,
            "verbosity": -1,
            "deterministic": True,
            "seed": 0,
        }
        mean, scale = float(values.mean()), float(values.std()) or 1.0
        x, y = tree_features(inputs), (values - mean) / scale
        fits = (
            lightgbm.train(settings, lightgbm.Dataset(x[r], y[r]), num_boost_round=self.rounds)
            for r in all_but_one_fold(len(y))
        )
        return _Boosted(tuple(fits), mean, scale)


@dataclass(frozen=True)
class _Boosted:
    fits: tuple[Any, ...]
    mean: float
    scale: float

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        x = tree_features(inputs)
        each = self.mean + self.scale * np.stack([np.asarray(fit.predict(x), dtype=float) for fit in self.fits])
        return each.mean(axis=0), each.std(axis=0) + 1e-12


def _lightgbm() -> Any:
    try:
        return importlib.import_module("lightgbm")
    except ImportError:
        raise PluginError(
            "predictor 'lightgbm' needs the package lightgbm; run pip install 'hwnas[lightgbm]' "
            "or choose another predictor"
        ) from None
