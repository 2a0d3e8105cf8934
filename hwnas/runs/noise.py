"""Which differences between models are more than noise?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.latency.table import Device
from hwnas.search.problem import Problem
from hwnas.supernet import BlockSpec, Layout
from hwnas.supernet.slot_sum import SlotSum

FloatArray = NDArray[np.float64]

BoolArray = NDArray[np.bool_]

MEDIAN_STDERR = 1.2533 / 1.349
"""Standard error of a median of normal values, times sqrt(n), for an interquartile range of 1."""


def latency_variance(device: Device, layout: Layout) -> SlotSum:
    """Return the variance of latencies (square milliseconds) of a whole space as look-ups.

    Each row of a table has the standard error of its median, from spread and number of timings; rows are independent.
    Cost models have no such noise: their error is that of the model, and stands in the profile.
    """

    def look_ups(device: Device) -> SlotSum:
        scale = device.profile.correction.scale if device.profile.correction is not None else 1.0

        def variance(block: BlockSpec) -> float:
            row = device.rows.get(block.signature)
            return 0.0 if row is None else (scale * MEDIAN_STDERR * row.iqr_ms) ** 2 / max(row.n, 1)

        return SlotSum.of(layout, variance)

    return device.in_each_precision(layout, look_ups)


def may_be_on_front(problem: Problem, losses: FloatArray, stderr: FloatArray) -> BoolArray:
    """Return ``(n,)``: which rows would not be dominated if they alone were one standard error better.

    Args:
        problem: limits hold for a row before it is improved.
        losses: ``(n, columns)`` of the problem; rows with NaN are never on a front.
        stderr: ``(n, columns)`` standard errors, 0 where a value is exact.
    """
    complete = ~np.isnan(losses).any(axis=1)
    able = complete & (problem.violation(losses) <= 0)
    m = problem.n_objectives
    others = losses[able, :m]
    hopeful = (losses - stderr)[:, :m]
    out = np.zeros(len(losses), dtype=bool)
    for i in np.flatnonzero(able):
        no_worse = (others <= hopeful[i]).all(axis=1)
        out[i] = not bool((no_worse & (others < hopeful[i]).any(axis=1)).any())
    return out


def near_ties(
    losses: FloatArray, stderr: FloatArray, latency: FloatArray, latency_stderr: FloatArray, members: BoolArray
) -> BoolArray:
    """Return ``(n,)``: which members of a score-latency front differ from another one by noise only.

    Along ascending latency a model ties where its score is not better than that of the last distinct model by more than
    the standard error of the difference; and a distinct model ties where a better one is not slower by more than that.

    Args:
        losses: ``(n,)`` scores, minimised (maximised ones negated).
        stderr: ``(n,)`` in the unit of the score.
        latency: ``(n,)`` milliseconds.
        latency_stderr: ``(n,)`` milliseconds.
        members: ``(n,)`` which rows are on the front.
    """
    ties = np.zeros(len(losses), dtype=bool)
    order = [i for i in np.lexsort((losses, latency)) if members[i]]
    last = order[0] if order else 0
    for i in order[1:]:
        better = losses[last] - losses[i] > np.hypot(stderr[i], stderr[last])
        slower = latency[i] - latency[last] > np.hypot(latency_stderr[i], latency_stderr[last])
        if not better:
            ties[i] = True
        else:
            ties[last] |= not slower
            last = i
    return ties
