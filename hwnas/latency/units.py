"""Are the times of a table milliseconds? Tables of others come in other units, and do not always say in which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwnas.latency.cost_model import CostModel
from hwnas.latency.table import block_ops
from hwnas.supernet import BlockSpec

MS_PER_UNIT = {"ms": 1.0, "us": 1e-3, "s": 1e3}
"""Milliseconds of one unit."""

UNIT_RATIO = 100.0
"""A table whose blocks are on the whole this many times off a cost model has other units."""


def unit_warning(blocks: Sequence[BlockSpec], values_ms: Sequence[float], model: CostModel, name: str) -> str | None:
    """Return why times do not look like milliseconds, beside a cost model of some device; None where they do.

    Args:
        blocks: what was timed.
        values_ms: their times.
        model: any device's cost model: devices differ by tens, not by a thousand.
        name: of that device.
    """
    expected = np.array([float(model.ops_ms(block_ops(b)).sum()) for b in blocks])
    if not (expected > 0).any():
        return None
    known = expected >= max(np.percentile(expected, 75), 1e-9)  # the cost of a call hides the size of small blocks
    ratio = float(np.exp(np.median(np.log(np.asarray(values_ms)[known] / expected[known]))))
    if 1 / UNIT_RATIO < ratio < UNIT_RATIO:
        return None
    unit = "microseconds" if ratio > 1 else "seconds"
    return (
        f"times are about {ratio:.3g} times those of {name}; they look like {unit}, not milliseconds: convert them, "
        "for example with --unit"
    )
