"""Which points are best together? Ranks, crowding, hypervolume, knees and subsets of minimised losses.

Arrays in, arrays out. Every column of ``losses`` is minimised; maximised values change their sign in
`hwnas.objectives.as_losses` and nowhere else. pymoo and moocore do the counting.
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def non_dominated(losses: FloatArray) -> NDArray[np.bool_]:
    """Return ``(n,)``: which rows no other row dominates; of equal rows all are kept.

    Args:
        losses: ``(n, m)``; rows with NaN are never part of the front.
    """
    losses = np.asarray(losses, dtype=float)
    mask = np.zeros(len(losses), dtype=bool)
    complete = np.flatnonzero(~np.isnan(losses).any(axis=1))
    if len(complete):
        if losses.shape[1] == 1:
            mask[complete] = losses[complete, 0] == losses[complete, 0].min()
        else:
            mask[complete] = moocore.is_nondominated(losses[complete], keep_weakly=True)
    return mask


def non_dominated_rank(losses: FloatArray) -> IntArray:
    """Return ``(n,)`` ranks by non-dominated sorting; 0 is the front, equal rows share a rank.

    Rows with NaN rank behind all others.

    Reference:
        Deb et al., 2002, NSGA-II, section III-A.
    """
    losses = np.asarray(losses, dtype=float)
    if losses.shape[1] == 1:
        return np.unique(losses[:, 0], return_inverse=True)[1].astype(np.int64)  # NaN sorts last
    complete = ~np.isnan(losses).any(axis=1)
    ranks = np.zeros(len(losses), dtype=np.int64)
    if complete.any():
        ranks[complete] = moocore.pareto_rank(losses[complete])
    ranks[~complete] = ranks[complete].max() + 1 if complete.any() else 0
    return ranks


def crowding_distance(losses: FloatArray) -> FloatArray:
    """Return ``(n,)`` distances, no unit, of one front; extreme points get ``inf``.

    Reference:
        Deb et al., 2002, NSGA-II, section III-B.
    """
    return np.asarray(calc_crowding_distance(np.asarray(losses, dtype=float)), dtype=float)


def hypervolume(losses: FloatArray, reference_point: FloatArray) -> float:
    """Return the volume between the losses and ``reference_point``; points beyond it add nothing.

    Args:
        losses: ``(n, m)``; rows with NaN are left out.
        reference_point: ``(m,)``, a loss in every column that is just not acceptable.
    """
    losses = np.asarray(losses, dtype=float)
    reference = np.asarray(reference_point, dtype=float)
    losses = losses[~np.isnan(losses).any(axis=1)]
    if losses.shape[1] == 1:
        return float(max(0.0, reference[0] - losses.min())) if len(losses) else 0.0
    losses = losses[(losses < reference).all(axis=1)]
    return float(moocore.hypervolume(losses, ref=reference)) if len(losses) else 0.0


def normalise(losses: FloatArray, ideal: FloatArray | None = None, nadir: FloatArray | None = None) -> FloatArray:
    """Return losses scaled to 0 at ``ideal`` and 1 at ``nadir`` (default: column minima and maxima)."""
    losses = np.asarray(losses, dtype=float)
    ideal = np.nanmin(losses, axis=0) if ideal is None else ideal
    nadir = np.nanmax(losses, axis=0) if nadir is None else nadir
    span = np.where(nadir > ideal, nadir - ideal, 1.0)
    return np.asarray((losses - ideal) / span, dtype=float)


def knee(losses: FloatArray) -> int:
    """Return the row nearest to the ideal point after scaling every column to 0..1 (ties: the first).

    Args:
        losses: ``(n, m)`` of one front, n at least 1.
    """
    return int(np.argmin(np.linalg.norm(normalise(losses), axis=1)))


def pseudo_weights(losses: FloatArray) -> FloatArray:
    """Return ``(n, m)``: how far every row of a front is from the worst of each column, as shares that add up to 1.

    A row that is the worst in everything has equal shares.

    Args:
        losses: ``(n, m)`` of one front.

    Reference:
        Deb, 2001, Multi-Objective Optimization Using Evolutionary Algorithms, section 10.2 (pseudo-weight vector).
    """
    merit = 1.0 - normalise(losses)
    total = merit.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, merit / np.where(total > 0, total, 1.0), 1.0 / merit.shape[1]), dtype=float)


def most_different(losses: FloatArray, k: int) -> IntArray:
    """Choose ``k`` rows that are far from each other, after scaling every column to 0..1.

    The best row of the first column comes first, then always the row that is farthest from its nearest chosen one: the
    smallest distance between two chosen rows is at least half of what is possible.

    Args:
        losses: ``(n, m)`` of one front.
        k: how many; at most all rows.

    Returns:
        Row numbers, ascending.

    Reference:
        Gonzalez, 1985, Clustering to Minimize the Maximum Intercluster Distance (farthest-first traversal).
    """
    scaled = normalise(losses)
    chosen = [int(np.lexsort(scaled.T[::-1])[0])]
    nearest = np.linalg.norm(scaled - scaled[chosen[0]], axis=1)
    while len(chosen) < min(k, len(scaled)):
        nearest[chosen] = -1.0  # equal rows are taken only where nothing else is left
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return np.array(sorted(chosen), dtype=np.int64)


def choose_subset(losses: FloatArray, k: int, start: IntArray | None = None) -> IntArray:
    """Choose at most ``k`` rows of a front that together cover the most hypervolume.

    The best row of every column comes first (while there is room), then greedily the row that adds most to
    the hypervolume of the scaled losses with the reference at 1.1: within 1 - 1/e of the best subset.

    Args:
        losses: ``(n, m)`` of one front.
        k: how many rows.
        start: row numbers that are chosen already and stay; None: none.

    Returns:
        At most ``k`` row numbers, ascending (``start``, where that has more).

    Reference:
        Guerreiro, Fonseca and Paquete, 2016, Greedy hypervolume subset selection.
    """
    losses = np.asarray(losses, dtype=float)
    n, m = losses.shape
    if n <= k:
        return np.arange(n)
    scaled = normalise(losses)
    reference = np.full(m, 1.1)
    chosen: list[int] = [] if start is None else [int(i) for i in start]
    for column in range(m):
        order = np.lexsort((*scaled.T[::-1], scaled[:, column]))
        if int(order[0]) not in chosen and len(chosen) < k:
            chosen.append(int(order[0]))
    while len(chosen) < k:
        rest = [i for i in range(n) if i not in chosen]
        volumes = [hypervolume(scaled[[*chosen, i]], reference) for i in rest]
        chosen.append(rest[int(np.argmax(volumes))])
    return np.array(sorted(chosen), dtype=np.int64)


def attainment_bands(fronts: Sequence[FloatArray], shares: Sequence[float]) -> list[FloatArray]:
    """Return, for each share, the points that this share of several fronts attains, such as fronts over seeds.

    Args:
        fronts: one ``(n, 2)`` array of losses a run, such as one a seed; rows with NaN are left out.
        shares: above 0, at most 1: 0.5 is the median front, the smallest what any run attained.

    Returns:
        One ``(k, 2)`` array a share, by ascending first loss.

    Reference:
        Fonseca, Guerreiro, Lopez-Ibanez and Paquete, 2011, On the Computation of the Empirical Attainment Function.
    """
    made = [np.asarray(f, dtype=float) for f in fronts]
    made = [f[~np.isnan(f).any(axis=1)] for f in made]
    points = np.concatenate(made)
    runs = np.repeat(np.arange(1, len(made) + 1), [len(f) for f in made])
    percentiles = [100.0 * np.ceil(s * len(made) - 1e-9) / len(made) for s in shares]
    found = np.asarray(moocore.eaf(points, runs, percentiles=sorted(set(percentiles))), dtype=float)
    bands = []
    for percentile in percentiles:
        band = found[np.isclose(found[:, -1], percentile)][:, :2]
        bands.append(band[np.lexsort((band[:, 1], band[:, 0]))])
    return bands
