"""Gaussian processes: few archs, and how sure they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from hwnas.predictors.encoder import Inputs
from hwnas.predictors.predictor import Model

FloatArray = NDArray[np.float64]

_TUNE_ON = 200
"""Archs on which the kernel's settings are tuned; all archs are used for the prediction itself."""
_BLOCK = 256
"""Archs predicted at once: what is computed of them stays in a processor's cache."""
_PRIOR_MEAN = (np.log(0.3), np.log(0.3), np.log(0.02))
"""Logarithms of a relevance, of the linear part and of the noise before any data."""
_PRIOR_GROUP = (0.0, 0.0, 0.0)
"""The same of a group: weights of the linear and the squared-exponential kernel, squared length of the latter."""
_PRIOR_DEVIATION = 1.5


@dataclass(frozen=True)
class _Posterior:
    """What a Gaussian process keeps of the ``n`` archs that it was fitted to."""

    weights: FloatArray
    """``(n,)``: of the kernel's values, for the mean."""
    whiten: FloatArray
    """``(n, n)``: inverse of the kernel matrix's lower factor."""
    noise: float
    """What the features do not tell, as a variance beside the kernel's."""
    amplitude: float
    mean: float
    scale: float

    @classmethod
    def of(cls, kernel: FloatArray, noise: float, y: FloatArray, mean: float, scale: float) -> _Posterior:
        """Solve for ``(n,)`` values ``y``, which are those of the objective less ``mean``, divided by ``scale``."""
        lower = _cholesky(kernel, noise)
        weights = scipy.linalg.cho_solve((lower, True), y)
        whiten = scipy.linalg.solve_triangular(lower, np.eye(len(y)), lower=True)
        return cls(weights, whiten, noise, max(float(y @ weights) / len(y), 1e-12), mean, scale)

    def predict(self, cross: FloatArray, prior: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Means and deviations from the ``(m, n)`` kernel to the archs fitted, and the ``(m,)`` kernel to oneself.

        Deviations are those of what an evaluation would give, noise included: the best archs of a space are
        better than what their features tell, and a search that is too sure of its means never tries them.
        """
        explained = cross.astype(np.float32) @ self.whiten.T.astype(np.float32)
        variance = np.maximum(prior - np.einsum("ij,ij->i", explained, explained), 1e-6) + self.noise
        return self.mean + self.scale * (cross @ self.weights), self.scale * np.sqrt(self.amplitude * variance)


def _misfit(matrix: FloatArray, y: FloatArray) -> tuple[float, FloatArray]:
    """Negative logarithm of the marginal likelihood (amplitude solved for), and its slope by each entry of the matrix.

    A matrix that has no Cholesky factor is as unlikely as can be.
    """
    n = len(y)
    try:
        lower = scipy.linalg.cholesky(matrix, lower=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return 1e10, np.zeros_like(matrix)
    weights = scipy.linalg.cho_solve((lower, True), y, check_finite=False)
    amplitude = max(float(y @ weights) / n, 1e-12)
    half, _ = scipy.linalg.lapack.dpotri(lower, lower=1)
    inverse = np.tril(half) + np.tril(half, -1).T
    value = 0.5 * n * np.log(amplitude) + np.log(np.diag(lower)).sum()
    return float(value), 0.5 * (inverse - np.outer(weights, weights) / amplitude)


def _most_likely(
    misfit: Callable[[FloatArray], tuple[float, FloatArray]],
    prior: FloatArray,
    bounds: list[tuple[float, float]],
    iterations: int,
) -> FloatArray:
    """Return the logarithms of settings of the smallest misfit and distance from ``prior``, where the search begins."""

    def loss(settings: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = misfit(settings)
        away = (settings - prior) / _PRIOR_DEVIATION
        return value + 0.5 * float(away @ away), gradient + away / _PRIOR_DEVIATION

    best = scipy.optimize.minimize(
        loss, prior, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": iterations}
    )
    return np.asarray(best.x, dtype=float)


@dataclass(frozen=True)
class GaussianProcess:
    """A squared-exponential kernel with one relevance a feature, plus a linear kernel, plus noise.

    The linear part carries trends (more params, fewer errors) beyond the archs seen, where a stationary
    kernel alone falls back to the mean; relevances switch features off. Settings maximise the marginal
    likelihood times a log-normal prior, so that ten archs are enough; the amplitude is solved for.

    Reference:
        Rasmussen and Williams, 2006, Gaussian Processes for Machine Learning, section 5.4.1.
    """

    iterations: int = 25
    """Steps of L-BFGS for the settings."""

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values."""
        if len(values) < 2:
            raise ValueError(f"a Gaussian process needs 2 archs or more, got {len(values)}")
        x = inputs.features
        mean, scale = float(values.mean()), float(values.std())
        y = (values - mean) / (scale if scale > 0 else 1.0)
        settings = self._tune(x, y)
        relevance, slope, noise = np.exp(settings[:-2]), np.exp(settings[-2]), np.exp(settings[-1])
        points = x * np.sqrt(relevance)
        posterior = _Posterior.of(_kernel(points, points, x, x, slope), float(noise), y, mean, scale)
        return _FittedProcess(settings, x, points, posterior)

    def _tune(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return the logarithms of the relevances, the slope and the noise."""
        if len(y) > _TUNE_ON:
            rows = np.linspace(0, len(y) - 1, _TUNE_ON).astype(np.int64)
            x, y = x[rows], y[rows]
        n, k = x.shape
        distances = (x.T[:, :, None] - x.T[:, None, :]).reshape(k, n * n) ** 2
        products = (x @ x.T).ravel()
        prior = np.concatenate([np.full(k, _PRIOR_MEAN[0]), _PRIOR_MEAN[1:]])

        def misfit(settings: FloatArray) -> tuple[float, FloatArray]:
            relevance, slope, noise = np.exp(settings[:-2]), np.exp(settings[-2]), np.exp(settings[-1])
            stationary = np.exp(-(relevance @ distances))
            matrix = (stationary + slope * products).reshape(n, n)
            matrix[np.diag_indices(n)] += noise
            value, slopes = _misfit(matrix, y)
            inner = slopes.ravel()
            gradient = np.empty_like(settings)
            gradient[:-2] = -(distances @ (inner * stationary)) * relevance
            gradient[-2] = (products @ inner) * slope
            gradient[-1] = inner[:: n + 1].sum() * noise
            return value, gradient

        return _most_likely(misfit, prior, [(-7.0, 3.0)] * k + [(-7.0, 4.0), (-9.0, 1.0)], self.iterations)


@dataclass(frozen=True)
class _FittedProcess:
    settings: FloatArray
    x: FloatArray
    points: FloatArray
    posterior: _Posterior

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        x = inputs.features
        slope = np.exp(self.settings[-2])
        points = x * np.sqrt(np.exp(self.settings[:-2]))
        cross = _kernel(points, self.points, x, self.x, slope)
        return self.posterior.predict(cross, 1.0 + slope * (x**2).sum(axis=1))


@dataclass(frozen=True)
class GroupedProcess:
    """A linear and a squared-exponential kernel for each group of features (`Inputs.groups`).

    Three settings a group, and the noise, however many features there are, so that effects of a hundred genes add up
    beyond the archs seen, which one relevance a feature (`GaussianProcess`) cannot learn from as few. Settings maximise
    the marginal likelihood times a log-normal prior; the amplitude is solved for.

    Reference:
        Duvenaud et al., 2013, Structure Discovery in Nonparametric Regression (sums of kernels); the groups are ours.
    """

    iterations: int = 30
    """Steps of L-BFGS for the settings."""

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite values."""
        if len(values) < 2:
            raise ValueError(f"a Gaussian process needs 2 archs or more, got {len(values)}")
        groups = inputs.groups
        mean, scale = float(values.mean()), float(values.std())
        y = (values - mean) / (scale if scale > 0 else 1.0)
        settings = self._tune(groups, y)
        noise = float(np.exp(settings[-1]))
        posterior = _Posterior.of(_grouped(groups, groups, settings), noise, y, mean, scale)
        return _FittedGroups(settings, groups, posterior)

    def _tune(self, groups: tuple[FloatArray, ...], y: FloatArray) -> FloatArray:
        """Return logarithms: for each group the weights of both kernels and the squared length; the noise."""
        if len(y) > _TUNE_ON:
            rows = np.linspace(0, len(y) - 1, _TUNE_ON).astype(np.int64)
            groups, y = tuple(x[rows] for x in groups), y[rows]
        n = len(y)
        products = [x @ x.T for x in groups]
        distances = [_squared_distances(x, x) for x in groups]
        prior = np.array([*_PRIOR_GROUP * len(groups), _PRIOR_MEAN[2]])

        def misfit(settings: FloatArray) -> tuple[float, FloatArray]:
            noise = np.exp(settings[-1])
            matrix, parts = noise * np.eye(n), []
            for g, (product, distance) in enumerate(zip(products, distances, strict=True)):
                slope, bump, length = np.exp(settings[3 * g : 3 * g + 3])
                near = bump * np.exp(-distance / (2.0 * length))
                parts += [slope * product, near, near * distance / (2.0 * length)]
                matrix += parts[-3] + near
            value, slopes = _misfit(matrix, y)
            return value, np.array([*((slopes * part).sum() for part in parts), np.trace(slopes) * noise])

        bounds = [(-8.0, 4.0), (-8.0, 4.0), (-3.0, 3.0)] * len(groups) + [(-9.0, 1.0)]
        return _most_likely(misfit, prior, bounds, self.iterations)


@dataclass(frozen=True)
class _FittedGroups:
    settings: FloatArray
    groups: tuple[FloatArray, ...]
    posterior: _Posterior

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        groups = inputs.groups
        prior = np.zeros(len(inputs))
        for g, x in enumerate(groups):
            slope, bump = np.exp(self.settings[3 * g : 3 * g + 2])
            prior += slope * (x**2).sum(axis=1) + bump
        mean, std = np.empty(len(inputs)), np.empty(len(inputs))
        for begin in range(0, len(inputs), _BLOCK):
            rows = slice(begin, begin + _BLOCK)
            cross = _grouped(tuple(x[rows] for x in groups), self.groups, self.settings)
            mean[rows], std[rows] = self.posterior.predict(cross, prior[rows])
        return mean, std


def _grouped(a: tuple[FloatArray, ...], b: tuple[FloatArray, ...], settings: FloatArray) -> FloatArray:
    """``(n, m)``: the sum of both kernels of every group."""
    out = np.zeros((len(a[0]), len(b[0])))
    for g, (x, z) in enumerate(zip(a, b, strict=True)):
        slope, bump, length = np.exp(settings[3 * g : 3 * g + 3])
        product = x @ z.T
        near = product / length
        near -= ((x**2).sum(axis=1) / (2.0 * length))[:, None]
        near -= (z**2).sum(axis=1) / (2.0 * length)
        np.exp(np.minimum(near, 0.0, out=near), out=near)
        near *= bump
        product *= slope
        out += near
        out += product
    return out


def _squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """``(n, m)`` squared Euclidean distances of the rows."""
    out = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2.0 * a @ b.T
    return np.asarray(np.maximum(out, 0.0, out=out), dtype=float)


def _kernel(a: FloatArray, b: FloatArray, x: FloatArray, z: FloatArray, slope: float) -> FloatArray:
    """``(n, m)``: squared-exponential of the scaled points plus ``slope`` times the linear kernel."""
    out = _squared_distances(a, b)
    np.negative(out, out=out)
    np.exp(out, out=out)
    out += slope * (x @ z.T)
    return np.asarray(out, dtype=float)


def _cholesky(matrix: FloatArray, noise: float) -> FloatArray:
    """Lower factor of ``matrix`` plus noise; the noise grows until there is one."""
    for jitter in (0.0, 1e-6, 1e-4, 1e-2):
        try:
            shifted = matrix + (noise + jitter) * np.eye(len(matrix))
            return np.asarray(scipy.linalg.cholesky(shifted, lower=True), dtype=float)
        except scipy.linalg.LinAlgError:
            continue
    raise ValueError("the kernel matrix of the Gaussian process has no Cholesky factor")
