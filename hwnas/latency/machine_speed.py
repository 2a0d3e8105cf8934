"""How fast was the machine running while each model was timed? The models that were timed around it know.

A shared machine runs at different speeds for seconds at a time: one of 2 cores can run 1.6 times faster while the
other thread of its core sleeps. Every timing is the time of the model, times the speed of the moment, times noise; the
speed of a moment is what the timings of the other models around it agree on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 8
"""Timings of other models, nearest in time, whose median says the speed of a moment."""
SAME_SPEED = 0.15
"""Speeds within this logarithm of each other count as alike."""
PASSES = 30


def remove_machine_speed(
    log_ms: NDArray[np.float64], which: NDArray[np.int64], trust: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the time of each model at one speed of the machine, by alternating medians.

    At another speed a large model changes by another factor than a small one, since memory keeps its pace; so each
    model's time comes mostly from the timings taken near the most common speed, and holds for that speed.

    Args:
        log_ms: ``(n,)`` logarithms of timings, in the order in which they were taken.
        which: ``(n,)`` which model each is of, 0 to m - 1.
        trust: ``(n,)`` 0 to 1, how far each counts; default: all alike.

    Returns:
        ``(m,)`` logarithm of each model's time at the most common speed, and ``(n,)`` logarithm of how much longer
        everything took at the moment of each timing.
    """
    n_models = int(which.max()) + 1
    groups = [np.flatnonzero(which == i) for i in range(n_models)]
    trusted = np.ones(len(log_ms)) if trust is None else trust
    times = np.array([np.median(log_ms[g]) for g in groups])
    around = _around(which)
    slowness = np.zeros(len(log_ms))
    for _ in range(PASSES):
        residual = np.append(log_ms - times[which], np.nan)
        found = np.nanmedian(residual[around], axis=1) if around.shape[1] else np.zeros(len(log_ms))
        slowness = found - _most_common(found)
        weights = trusted * np.exp(-((slowness / SAME_SPEED) ** 2)) + 1e-9
        corrected = log_ms - slowness
        new = np.array([_weighted_median(corrected[g], weights[g]) for g in groups])
        moved = np.abs(new - times).max()
        times = new
        if moved < 1e-5:
            break
    return times, slowness


def _around(which: NDArray[np.int64]) -> NDArray[np.int64]:
    """``(n, k)`` positions of the nearest timings of other models; n where there are fewer than k."""
    n = len(which)
    rows = []
    for k in range(n):
        near: list[int] = []
        low, high = k - 1, k + 1
        while len(near) < NEIGHBOURS and (low >= 0 or high < n):
            if low >= 0 and which[low] != which[k]:
                near.append(low)
            if high < n and which[high] != which[k]:
                near.append(high)
            low, high = low - 1, high + 1
        rows.append((near + [n] * NEIGHBOURS)[:NEIGHBOURS])
    found = np.array(rows, dtype=np.int64)
    return found if (found < n).any(axis=1).all() else found[:, :0]


def _most_common(values: NDArray[np.float64]) -> float:
    """Middle of the values around the one that has most others near it."""
    ordered = np.sort(values)
    reach = SAME_SPEED / 3
    count = np.searchsorted(ordered, ordered + reach) - np.searchsorted(ordered, ordered - reach)
    centre = ordered[int(np.argmax(count))]
    return float(np.median(ordered[np.abs(ordered - centre) <= reach]))


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    below = int(np.searchsorted(total, total[-1] / 2))
    if np.isclose(total[below], total[-1] / 2) and below + 1 < len(values):
        return float(values[order[below : below + 2]].mean())
    return float(values[order[below]])
