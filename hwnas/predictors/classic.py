"""The predictors of the literature: ridge, RBF, SVR, trees, MLP, LightGBM and pairwise ranking."""

from __future__ import annotations

import copy
import importlib
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.interpolate
import sklearn
from numpy.typing import NDArray
from sklearn.linear_model import BayesianRidge as SklearnBayesianRidge
from sklearn.svm import SVR as SklearnSVR
from sklearn.tree import ExtraTreeRegressor
from sklearn.utils import check_random_state

from hwnas.errors import RecipeError
from hwnas.predictors.encoder import Inputs
from hwnas.predictors.predictor import Model

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class BayesianRidge:
    """Bayesian linear regression on one-hot genes, their pairs and the exact values."""

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values."""
        _need(values, 2)
        return _Ridge(SklearnBayesianRidge().fit(_pairs(inputs), values))


@dataclass(frozen=True)
class _Ridge:
    model: Any

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        mean, std = self.model.predict(_pairs(inputs), return_std=True)
        return np.asarray(mean, dtype=float), np.asarray(std, dtype=float)


def _pairs(inputs: Inputs) -> FloatArray:
    return np.concatenate([inputs.pairs, inputs.smooth], axis=1)


@dataclass(frozen=True)
class RBF:
    """Cubic radial basis functions with a linear tail; its spread over ten folds is the uncertainty.

    Reference:
        Lu et al., 2020, NSGANetV2 (RBF surrogate); the ensemble over folds is ours.
    """

    smoothing: float = 1e-3

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values; fewer archs than features leave the linear tail out."""
        _need(values, 3)
        return _Members(tuple(self._one(inputs.features[r], values[r]) for r in _folds(len(values))))

    def _one(self, x: FloatArray, y: FloatArray) -> Any:
        tail = 1 if len(np.unique(x, axis=0)) > x.shape[1] + 1 and np.linalg.matrix_rank(x - x[0]) == x.shape[1] else 0
        kernel = "cubic" if tail else "linear"
        return scipy.interpolate.RBFInterpolator(x, y, kernel=kernel, degree=tail, smoothing=self.smoothing)


@dataclass(frozen=True)
class SVR:
    """Support vector regression with a Gaussian kernel; its spread over folds is the uncertainty."""

    cost: float = 10.0
    folds: int = 10
    """Fits, each without one part of the archs; 1: a single fit to all, which states no uncertainty (0)."""

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values."""
        _need(values, 3)
        mean, scale = float(values.mean()), float(values.std()) or 1.0
        y, x = (values - mean) / scale, inputs.features
        fits = (SklearnSVR(C=self.cost, epsilon=0.02).fit(x[r], y[r]) for r in _folds(len(y), self.folds))
        return _Members(tuple(m.predict for m in fits), mean, scale)


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
        _need(values, 2)
        x, y = _tree_features(inputs).astype(np.float32), np.asarray(values, dtype=float)[:, None]
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
        x = _tree_features(inputs).astype(np.float32)
        each = np.stack([tree.predict(x).reshape(len(x)) for tree in self.trees])
        return each.mean(axis=0), each.std(axis=0) + 1e-12


def _tree_features(inputs: Inputs) -> FloatArray:
    return np.concatenate([inputs.smooth, inputs.one_hot], axis=1)


@dataclass(frozen=True)
class MLP:
    """Five small multilayer perceptrons with early weight decay; their spread is the uncertainty."""

    members: int = 5
    hidden: int = 64

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values."""
        _need(values, 4)
        mean, scale = float(values.mean()), float(values.std()) or 1.0
        x, y = inputs.features, (values - mean) / scale

        def squared(predicted: FloatArray) -> FloatArray:
            return 2.0 * (predicted - y) / len(y)

        nets = tuple(_train_net(x, squared, self.hidden, seed) for seed in range(self.members))
        return _Members(nets, mean, scale)


@dataclass(frozen=True)
class ReNAS:
    """A network that learns which of two archs is better, not how good they are.

    The pairwise hinge of the paper on our features (one-hot genes and exact values) in place of its per-layer
    tensors and LeNet-5, and without its second-order term. Scores are mapped back to values by the least-squares
    line, so means have a unit.

    Reference:
        Xu et al., 2021, ReNAS, equation 3.
    """

    members: int = 3
    hidden: int = 64
    margin: float = 0.1

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values."""
        _need(values, 4)
        x, n = inputs.features, len(values)
        sign = np.sign(values[:, None] - values[None])
        pairs = max(1.0, float(np.abs(sign).sum()))

        def hinge(predicted: FloatArray) -> FloatArray:
            short = (self.margin - (predicted[:, None] - predicted[None]) * sign) > 0
            return np.asarray(-2.0 * (sign * short).sum(axis=1) / pairs, dtype=float)

        nets = []
        for seed in range(self.members):
            net = _train_net(x, hinge, self.hidden, seed)
            scores = net(x)
            line = np.linalg.lstsq(np.stack([scores, np.ones(n)], axis=1), values, rcond=None)[0]
            nets.append(_Line(net, float(line[0]), float(line[1])))
        return _Members(tuple(nets))


@dataclass(frozen=True)
class LightGBM:
    """Gradient boosting of the package lightgbm (extra ``lightgbm``), ten folds averaged as in NATv2.

    Reference:
        Sarti, Lomurno and Matteucci, 2023, NATv2 (LightGBM, Huber loss, integer genes); ours adds the exact values.
    """

    rounds: int = 100

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values."""
        _need(values, 10)
        try:
            lightgbm = importlib.import_module("lightgbm")
        except ImportError:
            raise RecipeError(
                "predictor 'lightgbm' needs the package lightgbm; run pip install 'hwnas[lightgbm]' "
                "or choose another predictor"
            ) from None
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
        x, y = _tree_features(inputs), (values - mean) / scale
        fits = (
            lightgbm.train(settings, lightgbm.Dataset(x[r], y[r]), num_boost_round=self.rounds) for r in _folds(len(y))
        )
        return _Members(tuple(m.predict for m in fits), mean, scale, trees=True)


@dataclass(frozen=True)
class _Line:
    net: Any
    slope: float
    offset: float

    def __call__(self, x: FloatArray) -> FloatArray:
        return np.asarray(self.slope * self.net(x) + self.offset, dtype=float)


@dataclass(frozen=True)
class _Members:
    """Functions of features whose mean and spread are the prediction."""

    functions: tuple[Any, ...]
    mean: float = 0.0
    scale: float = 1.0
    trees: bool = False

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        x = _tree_features(inputs) if self.trees else inputs.features
        each = self.mean + self.scale * np.stack([np.asarray(f(x), dtype=float) for f in self.functions])
        return each.mean(axis=0), each.std(axis=0) + 1e-12


def _folds(n: int, k: int = 10) -> list[NDArray[np.int64]]:
    """Rows that each of at most ``k`` members is fitted on: all but one fold; of a single member all."""
    if k == 1:
        return [np.arange(n)]
    k = min(k, n)
    order = np.random.default_rng(0).permutation(n)
    return [np.sort(np.delete(order, np.s_[i::k])) for i in range(k)]


def _need(values: FloatArray, n: int) -> None:
    if len(values) < n:
        raise ValueError(f"this predictor needs {n} archs or more, got {len(values)}")


def _train_net(x: FloatArray, slope: Any, hidden: int, seed: int, steps: int = 300) -> _Net:
    """Train two tanh layers by Adam with weight decay; ``slope`` is the loss's derivative by the outputs."""
    rng = np.random.default_rng(seed)
    sizes = (x.shape[1], hidden, hidden, 1)
    weights = [rng.standard_normal((a, b)) / np.sqrt(a) for a, b in itertools.pairwise(sizes)]
    biases = [np.zeros(b) for b in sizes[1:]]
    values = [*weights, *biases]
    first, second = [np.zeros_like(v) for v in values], [np.zeros_like(v) for v in values]
    for step in range(1, steps + 1):
        h1 = np.tanh(x @ weights[0] + biases[0])
        h2 = np.tanh(h1 @ weights[1] + biases[1])
        d3 = slope((h2 @ weights[2] + biases[2])[:, 0])[:, None]
        d2 = (d3 @ weights[2].T) * (1 - h2**2)
        d1 = (d2 @ weights[1].T) * (1 - h1**2)
        gradients = [x.T @ d1, h1.T @ d2, h2.T @ d3, d1.sum(axis=0), d2.sum(axis=0), d3.sum(axis=0)]
        rate = 0.01 * 0.5 * (1 + np.cos(np.pi * step / steps))
        for value, gradient, m, v in zip(values, gradients, first, second, strict=True):
            m += 0.1 * (gradient - m)
            v += 0.001 * (gradient**2 - v)
            value -= rate * (m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8) + 1e-2 * value)
    return _Net(tuple(weights), tuple(biases))


@dataclass(frozen=True)
class _Net:
    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]

    def __call__(self, x: FloatArray) -> FloatArray:
        h1 = np.tanh(x @ self.weights[0] + self.biases[0])
        h2 = np.tanh(h1 @ self.weights[1] + self.biases[1])
        return np.asarray((h2 @ self.weights[2] + self.biases[2])[:, 0], dtype=float)
