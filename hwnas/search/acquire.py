"""Which candidates are worth an evaluation?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hwnas.pareto import non_dominated, non_dominated_rank

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


_SHARES = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""How far below the best loss the logarithm may start, as shares of the distance from best to median."""


@dataclass(frozen=True)
class Warp:
    """A monotone map that makes losses of a search look Gaussian.

    Losses pile up near the best and have a long tail of failures to learn. The logarithm of the distance to
    below the best spreads the first (how far below is the likeliest of a few under a normal distribution: far
    below is nearly a straight line), and beyond ``bend`` the slope is a fifth, so that a predictor
    spends its effort where the front is. Ours.
    """

    floor: float
    """A little below the best loss, in the loss's unit."""
    bend: float
    """Warped loss from which the slope is `flatten`."""
    flatten: float = 0.2

    @classmethod
    def of(cls, losses: FloatArray, reference: FloatArray) -> Warp:
        """Choose the map for ``(n,)`` finite losses; ``reference``: those that were drawn without a model."""
        best = float(losses.min())
        spread = float(np.median(reference)) - best
        spread = spread if spread > 0 else float(np.ptp(losses))
        spread = spread if spread > 0 else max(1e-6, 1e-3 * abs(best))
        likelihoods = []
        for share in _SHARES:
            warped = np.log(reference - best + share * spread)
            likelihoods.append(-len(reference) * np.log(warped.std() + 1e-9) - warped.sum())
        floor = best - _SHARES[int(np.argmax(likelihoods))] * spread
        return cls(floor, float(np.log(np.quantile(reference, 0.75) - floor)))

    def __call__(self, losses: FloatArray) -> FloatArray:
        """Return warped ``(n,)`` losses."""
        out = np.log(np.maximum(losses - self.floor, 1e-12))
        return np.where(out > self.bend, self.bend + self.flatten * (out - self.bend), out)

    def undo(self, warped: FloatArray) -> FloatArray:
        """Return ``(n,)`` losses in their own unit."""
        out = np.where(warped > self.bend, self.bend + (warped - self.bend) / self.flatten, warped)
        return self.floor + np.exp(np.minimum(out, 700.0))


def expected_improvement(
    mean: FloatArray, std: FloatArray, beside: FloatArray, told: FloatArray, reference: tuple[float, float]
) -> FloatArray:
    """Return ``(n,)``: the hypervolume that each candidate is expected to add.

    With one uncertain loss and one that is known, the integral over the strips below the front's stairs is a
    sum of one-dimensional expected improvements, so it is exact and fast.

    Args:
        mean: ``(n,)`` predicted loss.
        std: ``(n,)`` its standard deviation, above 0.
        beside: ``(n,)`` the other loss, known.
        told: ``(k, 2)`` both losses of evaluated archs.
        reference: both losses from which on nothing counts.

    Reference:
        Emmerich, Giannakoglou and Naujoks, 2006, expected hypervolume improvement; the reduction is ours.
    """
    inside = told[(told < reference).all(axis=1)]
    front = inside[non_dominated(inside)] if len(inside) else inside
    front = front[np.argsort(front[:, 1], kind="stable")]
    edges = np.concatenate([[-np.inf], front[:, 1], [reference[1]]])
    stairs = np.concatenate([[reference[0]], front[:, 0]])
    width = np.clip(edges[1:] - np.maximum(edges[:-1], beside[:, None]), 0.0, None)
    z = (stairs - mean[:, None]) / std[:, None]
    gain = std[:, None] * (z * ndtr(z) + np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi))
    return np.asarray((width * np.maximum(gain, 0.0)).sum(axis=1), dtype=float)


def pick_by_improvement(
    mean: FloatArray,
    std: FloatArray,
    beside: FloatArray,
    told: FloatArray,
    reference: tuple[float, float],
    k: int,
) -> IntArray:
    """Return ``k`` rows, one after another by `expected_improvement`, each taken to turn out as predicted."""
    gain = expected_improvement(mean, std, beside, told, reference)
    short = np.argsort(-gain, kind="stable")[: max(1000, 2 * k)]
    gain, chosen = gain[short], []
    for _ in range(min(k, len(short))):
        best = int(np.argmax(gain))
        chosen.append(int(short[best]))
        told = np.concatenate([told, [[mean[short[best]], beside[short[best]]]]])
        gain = expected_improvement(mean[short], std[short], beside[short], told, reference)
        gain[np.isin(short, chosen)] = -1.0
    return np.array(chosen, dtype=np.int64)


def pick_by_gaps(candidates: FloatArray, told: FloatArray, k: int) -> IntArray:
    """Return ``k`` rows of the candidates' best fronts that fill the widest gaps of the told front.

    Candidates are ranked together with what was told, and as many ranks as needed are taken; among them the
    one farthest from the told front and from those chosen comes next. NATv2 minimises the deviation of the
    gaps along each cheap objective by a genetic algorithm; this is its greedy form over all losses at once.

    Args:
        candidates: ``(n, m)`` predicted losses, scaled to comparable ranges.
        told: ``(t, m)`` losses of evaluated archs, in the same scale.
        k: how many.

    Reference:
        Lu et al., 2020, NSGANetV2, subset selection.
    """
    n, k = len(candidates), min(k, len(candidates))
    rank = non_dominated_rank(np.concatenate([candidates, told]))[:n]
    order = np.argsort(rank, kind="stable")
    rows = np.flatnonzero(rank <= rank[order[k - 1]])
    front = told[non_dominated(told)] if len(told) else told
    away = np.full(len(rows), np.inf)
    for point in front:
        away = np.minimum(away, ((candidates[rows] - point) ** 2).sum(axis=1))
    chosen: list[int] = []
    for _ in range(k):
        best = int(np.argmax(away))
        chosen.append(int(rows[best]))
        away = np.minimum(away, ((candidates[rows] - candidates[rows[best]]) ** 2).sum(axis=1))
        away[np.isin(rows, chosen)] = -1.0
    return np.array(chosen, dtype=np.int64)
