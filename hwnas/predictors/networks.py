"""Small neural networks: one that learns values, and one that learns which of two archs is better."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from hwnas.predictors.encoder import Inputs
from hwnas.predictors.ensemble import Ensemble, need_archs
from hwnas.predictors.predictor import Model

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class MLP:
    """Five multilayer perceptrons of two tanh layers with weight decay; their spread is the uncertainty.

    NSGANetV2 has layers of 300 units; here scikit-learn's L-BFGS fits small ones, which for 30 to 500 archs is faster
    than Adam and ranks better (tau 0.78 against 0.68 for 60 archs of 20 genes).

    Reference:
        Lu et al., 2020, NSGANetV2 (MLP surrogate).
    """

    members: int = 5
    hidden: int = 64
    """Units of each of the two layers."""
    decay: float = 1.0
    """Weight of the squared weights beside the squared error (scikit-learn's ``alpha``)."""
    iterations: int = 50
    """Steps of L-BFGS."""

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values."""
        need_archs(values, 4)
        mean, scale = float(values.mean()), float(values.std()) or 1.0
        x, y = inputs.features, (values - mean) / scale
        nets = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped early on purpose
            for seed in range(self.members):
                net = MLPRegressor(
                    hidden_layer_sizes=(self.hidden, self.hidden), activation="tanh", solver="lbfgs",
                    alpha=self.decay, max_iter=self.iterations, random_state=seed,
                )  # fmt: skip
                nets.append(net.fit(x, y).predict)
        return Ensemble(tuple(nets), mean, scale)


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
        need_archs(values, 4)
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
        return Ensemble(tuple(nets))


@dataclass(frozen=True)
class _Line:
    net: Any
    slope: float
    offset: float

    def __call__(self, x: FloatArray) -> FloatArray:
        return np.asarray(self.slope * self.net(x) + self.offset, dtype=float)


def _train_net(x: FloatArray, slope: Any, hidden: int, seed: int, steps: int = 300) -> _Net:
    """Train two tanh layers by Adam with weight decay; ``slope`` is the loss's derivative by the outputs.

    scikit-learn has no loss over pairs.
    """
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
