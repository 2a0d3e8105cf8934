"""Which candidates are worth an evaluation?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hwnas.pareto import non_dominated, non_dominated_rank
from hwnas.predictors import Inputs, Model, Predictor
from hwnas.search.settings import NATv2Settings
from hwnas.space import SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Warp:
    """A monotone map of losses that gives a predictor more to tell near the best than far from it.

    Two parts: the logarithm of the distance to ``floor``, a loss below the best; and beyond ``breakpoint`` a smaller
    slope of that logarithm.

    The logarithm, because the losses of a search lie close together near the best and far apart where archs failed to
    learn. The smaller slope, because nothing is gained by telling poor archs apart. Both are gentle where losses have
    no such tail: the floor is three spreads below the best (a spread is how far the median of archs drawn without a
    model is above it), so effects of genes still add up. The cheap end of a front must lie before the breakpoint, also
    where the first archs happen to be good: losses beyond it seem to differ less than they do, and the predictor then
    thinks that archs near the best differ less, too.

    Reference:
        Snelson, Rasmussen and Ghahramani, 2004, Warped Gaussian Processes; this map and its constants are ours.
    """

    floor: float
    """In the loss's unit."""
    breakpoint: float
    """Warped loss beyond which the slope is smaller."""
    slope_beyond: float = 0.2
    """As a share of the slope before it, above 0, at most 1."""

    @classmethod
    def of(cls, losses: FloatArray, reference: FloatArray, settings: NATv2Settings | None = None) -> Warp:
        """Choose the map for ``(n,)`` finite losses; ``reference``: ``(k,)`` of archs drawn without a model."""
        settings = settings or NATv2Settings()
        best = float(losses.min())
        spreads = (float(np.median(reference)) - best, float(np.ptp(losses)), 1e-3 * abs(best))
        spread = next((s for s in spreads if s > 0), 1e-6)
        floor, (nearest, farthest) = best - settings.warp_floor * spread, settings.warp_breakpoint
        flat_from = np.clip(reference.max(), best + nearest * spread, best + farthest * spread)
        return cls(floor, float(np.log(flat_from - floor)), settings.warp_slope_beyond)

    def __call__(self, losses: FloatArray) -> FloatArray:
        """Return warped ``(n,)`` losses."""
        out = np.log(np.maximum(losses - self.floor, 1e-12))
        return np.where(out > self.breakpoint, self.breakpoint + self.slope_beyond * (out - self.breakpoint), out)

    def undo(self, warped: FloatArray) -> FloatArray:
        """Return ``(n,)`` losses in their own unit."""
        beyond = self.breakpoint + (warped - self.breakpoint) / self.slope_beyond
        out = np.where(warped > self.breakpoint, beyond, warped)
        return self.floor + np.exp(np.minimum(out, 700.0))


@dataclass(frozen=True)
class Warped:
    """A predictor that learns warped losses and predicts in their own unit.

    Unwarping stretches the poor end without bound, so predictions end as far beyond the worst fitted loss as that is
    from the best.
    """

    predictor: Predictor
    reference: FloatArray
    """``(k,)`` losses of archs that were drawn without a model; see `Warp.of`."""
    settings: NATv2Settings | None = None

    def fit(self, inputs: Inputs, values: FloatArray) -> Model:
        """Fit ``(n,)`` finite losses."""
        warp = Warp.of(values, self.reference, self.settings)
        return _Unwarped(self.predictor.fit(inputs, warp(values)), warp, 2 * values.max() - values.min())


@dataclass(frozen=True)
class _Unwarped:
    model: Model
    warp: Warp
    most: float

    def predict(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        mean, std = self.model.predict(inputs)
        low, high = (np.minimum(self.warp.undo(w), self.most) for w in (mean, mean + std))
        return low, high - low


def expected_improvement(
    mean: FloatArray, std: FloatArray, beside: FloatArray, evaluated: FloatArray, reference: tuple[float, float]
) -> FloatArray:
    """Return ``(n,)``: the hypervolume that each candidate is expected to add.

    With one uncertain loss and one that is known, the integral over the strips below the front's stairs is a
    sum of one-dimensional expected improvements, so it is exact and fast.

    Args:
        mean: ``(n,)`` predicted loss.
        std: ``(n,)`` its standard deviation, above 0.
        beside: ``(n,)`` the other loss, known.
        evaluated: ``(k, 2)`` both losses of evaluated archs.
        reference: both losses from which on nothing counts.

    Reference:
        Emmerich, Giannakoglou and Naujoks, 2006, expected hypervolume improvement; the reduction is ours.
    """
    inside = evaluated[(evaluated < reference).all(axis=1)]
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
    evaluated: FloatArray,
    reference: tuple[float, float],
    k: int,
    shortlist: int = 1000,
) -> IntArray:
    """Return ``k`` rows, one after another by `expected_improvement`, each taken to turn out as predicted.

    After each choice improvement is computed again for ``shortlist`` candidates only, those that were best at first.
    """
    gain = expected_improvement(mean, std, beside, evaluated, reference)
    short = np.argsort(-gain, kind="stable")[: max(shortlist, 2 * k)]
    gain, chosen = gain[short], []
    for _ in range(min(k, len(short))):
        best = int(np.argmax(gain))
        chosen.append(int(short[best]))
        evaluated = np.concatenate([evaluated, [[mean[short[best]], beside[short[best]]]]])
        gain = expected_improvement(mean[short], std[short], beside[short], evaluated, reference)
        gain[np.isin(short, chosen)] = -1.0
    return np.array(chosen, dtype=np.int64)


def pick_by_front(candidates: FloatArray, k: int, rng: np.random.Generator) -> IntArray:
    """Return ``k`` rows of the candidates' best fronts; of the last front that is not taken whole, rows at random.

    What was evaluated does not count: at every cost the arch that looks best now is tried, even where an evaluated one
    is predicted to be better. A predictor is too pessimistic about the best archs, so the next best are where it learns
    most, and no region is given up because it once looked poor.

    Args:
        candidates: ``(n, m)`` predicted losses.
        k: how many.
        rng: source of randomness.
    """
    left = np.arange(len(candidates))
    chosen: list[int] = []
    while len(chosen) < k and len(left):
        layer = np.flatnonzero(non_dominated(candidates[left]))
        fits = len(chosen) + len(layer) <= k
        picked = layer if fits else rng.choice(layer, k - len(chosen), replace=False)
        chosen.extend(left[picked].tolist())
        left = np.delete(left, layer)
    return np.array(chosen, dtype=np.int64)


def pick_by_hypervolume(
    candidates: FloatArray, evaluated: FloatArray, k: int, rng: np.random.Generator, samples: int = 4096
) -> IntArray:
    """Return ``k`` rows that together add the most hypervolume, one after another.

    Hypervolume is counted at points drawn evenly in the box up to the reference, which is as fast for six
    objectives as for three.

    Args:
        candidates: ``(n, m)`` predicted losses, scaled; the reference is 1.1 in every column, the ideal 0.
        evaluated: ``(t, m)`` losses of evaluated archs, in the same scale.
        k: how many.
        rng: source of randomness.
        samples: points drawn.

    Reference:
        Bader and Zitzler, 2011, HypE (sampled hypervolume).
    """
    points = rng.uniform(min(0.0, float(candidates.min(initial=0.0))), 1.1, (samples, candidates.shape[1]))
    for row in evaluated[non_dominated(evaluated)] if len(evaluated) else evaluated:
        points = points[(points < row).any(axis=1)]
    rows = np.flatnonzero((candidates < 1.1).all(axis=1))
    gains = np.ones((len(rows), len(points)), dtype=bool)
    for column in range(candidates.shape[1]):
        gains &= candidates[rows, column, None] <= points[None, :, column]
    chosen: list[int] = []
    while len(chosen) < k and len(rows):
        total = gains.sum(axis=1)
        best = int(np.argmax(total))
        if total[best] == 0:
            break
        chosen.append(int(rows[best]))
        gains = gains[:, ~gains[best]]
    rest = np.setdiff1d(np.arange(len(candidates)), chosen)
    more = rest[pick_by_front(candidates[rest], k - len(chosen), rng)]
    return np.concatenate([np.array(chosen, dtype=np.int64), more])


def pick_by_gaps(candidates: FloatArray, evaluated: FloatArray, k: int) -> IntArray:
    """Return ``k`` rows of the candidates' best fronts that fill the widest gaps of the evaluated front.

    Candidates are ranked together with what was evaluated, and as many ranks as needed are taken; among them the
    one farthest from the evaluated front and from those chosen comes next. NATv2 minimises the deviation of the
    gaps along each cheap objective by a genetic algorithm; this is its greedy form over all losses at once.

    Args:
        candidates: ``(n, m)`` predicted losses, scaled to comparable ranges.
        evaluated: ``(t, m)`` losses of evaluated archs, in the same scale.
        k: how many.

    Reference:
        Lu et al., 2020, NSGANetV2, subset selection.
    """
    n, k = len(candidates), min(k, len(candidates))
    rank = non_dominated_rank(np.concatenate([candidates, evaluated]))[:n]
    order = np.argsort(rank, kind="stable")
    rows = np.flatnonzero(rank <= rank[order[k - 1]])
    front = evaluated[non_dominated(evaluated)] if len(evaluated) else evaluated
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


def pick_evenly(space: SearchSpace, candidates: IntArray, k: int) -> IntArray:
    """Return ``k`` rows, one after another, in which the options of every choice occur as evenly as they can.

    Choices with the same options share one weight, so that a single choice that changes everything (resolution) counts
    as much as the operators of twenty layers together.

    Args:
        space: of the candidates.
        candidates: ``(n, n_choices)`` genomes, in random order.
        k: how many.
    """
    active, several = space.active(candidates), space.n_options > 1
    alike = Counter(choice.options for choice in space.choices)
    share = np.array([1.0 / alike[choice.options] for choice in space.choices]) * several
    times = [np.zeros(n) for n in space.n_options]
    chosen = np.zeros(0, dtype=np.int64)
    for _ in range(min(k, len(candidates))):
        rarity = np.stack([0.5 ** seen[candidates[:, i]] for i, seen in enumerate(times)], axis=1)
        worth = (np.where(active, rarity, 0.0) @ share) / np.maximum(active @ share, 1e-12)
        worth[chosen] = -1.0
        best = int(np.argmax(worth))
        chosen = np.append(chosen, best)
        for i in np.flatnonzero(active[best]):
            times[i][candidates[best, i]] += 1
    return chosen
