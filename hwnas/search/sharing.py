"""Which networks are trained for which latencies, where one may serve several and the compute is given?

Every network that is trained takes time from all others. With little compute few networks, each trained for long, are
better at every latency than one network of its own for each; with much of it, the other way round.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LEAST_GAIN = 1e-9
"""Below it a change is rounding."""

UNSERVED = -1e6
"""Value of a latency that has no network yet."""


def short_training(epochs: FloatArray | float) -> FloatArray:
    """Return what a training of so many passes over the images costs, in units of `hwnas.search.capacity.capacity`.

    ``17 / (sqrt(epochs) * (1 + epochs / 200))``, where a unit is worth 4.5 points. From single networks on 5,400 images
    of CIFAR-10 (seed 10, test top-1): one of 5.8 million multiply-adds 48.3, 58.2 and 69.7 % after 7.4, 22 and 67
    epochs; one of 6.3 million 68.8 and 76.5 % after 35 and 108. A unit is worth 6 points where two networks differ in
    size and are trained for 7 to 35 epochs, nothing where they differ in size and are trained for 108, and 4 where they
    differ in depth. That a training of several hundred epochs costs next to nothing is an assumption, as is that other
    images are alike.
    """
    epochs = np.asarray(epochs, dtype=float)
    return np.asarray(17 / (np.sqrt(epochs) * (1 + epochs / 200)))


def share(value: FloatArray, cost: FloatArray, compute: float) -> IntArray:
    """Choose the network of each of several latencies, where all that are chosen are trained equally long.

    Looks for the greatest mean value less what the length of the training costs: networks are added while that helps,
    each time the best one, and exchanged while that helps. (The sum of values alone is the problem of facility
    location, where adding one by one is at most 37 % from the best: Nemhauser, Wolsey and Fisher, 1978.)

    Args:
        value: ``(networks, latencies)``; what a network is worth at a latency, -inf where it is too slow.
        cost: ``(networks,)``; compute of one pass over the images.
        compute: of all trainings together, in the same unit.

    Returns:
        ``(latencies,)`` row numbers; -1 where no network is fast enough.
    """
    served = np.asarray(np.isfinite(value).any(axis=0))
    given = np.full(len(served), -1, dtype=np.int64)
    if not served.any():
        return given
    value = np.where(np.isfinite(value), value, UNSERVED)[:, served]
    rows: list[int] = []
    score = -np.inf
    while True:
        scores = _scores(value, cost, rows, compute)
        if not scores.max() > score + LEAST_GAIN:
            break
        rows, score = _exchanged(value, cost, [*rows, int(np.argmax(scores))], compute)
    chosen = np.array(rows)
    given[served] = chosen[value[chosen].argmax(axis=0)]
    return given


def _scores(value: FloatArray, cost: FloatArray, rows: list[int], compute: float) -> FloatArray:
    """``(networks,)`` score of these rows with one more network, for every such network."""
    have = value[rows].max(axis=0) if rows else np.full(value.shape[1], UNSERVED)
    total = cost[rows].sum() + np.where(np.isin(np.arange(len(cost)), rows), 0.0, cost)
    return np.asarray(np.maximum(value, have).mean(axis=1) - short_training(compute / total))


def _exchanged(value: FloatArray, cost: FloatArray, rows: list[int], compute: float) -> tuple[list[int], float]:
    """Exchange one network for another while that helps; return the rows and their score."""
    score = -np.inf
    while True:
        moves = []
        for row in rows:
            others = [r for r in rows if r != row]
            scores = _scores(value, cost, others, compute)
            moves.append((float(scores.max()), [*others, int(np.argmax(scores))]))
        best, exchanged = max(moves, key=lambda move: move[0])
        if not best > score + LEAST_GAIN:
            return rows, score
        score, rows = best, exchanged
