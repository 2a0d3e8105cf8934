"""Are the times of a table milliseconds? Tables of others come in other units, and do not always say in which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwnas.export.op import Op
from hwnas.latency.cost_model import CostModel
from hwnas.latency.device import DeviceProfile
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


def network_unit_warning(
    networks: Sequence[Sequence[Op]], values_ms: Sequence[float], devices: Sequence[DeviceProfile], kind: str
) -> str | None:  # fmt: skip
    """Return why times of whole networks do not look like milliseconds, beside known devices; None where they do.

    Args:
        networks: operators of each.
        values_ms: their times.
        devices: profiles; those of the kind that have a cost model count, all where there is none of the kind.
        kind: of the device that was timed.
    """
    modelled = [p for p in devices if p.cost_model is not None]
    alike = [p for p in modelled if p.kind == kind] or modelled
    ratios = {}
    for profile in alike:
        assert profile.cost_model is not None
        expected = [profile.cost_model.latency_ms(ops) for ops in networks]
        ratios[profile.name] = float(np.exp(np.median(np.log(np.asarray(values_ms) / expected))))
    if not ratios:
        return None
    slowest, fastest = min(ratios, key=lambda n: ratios[n]), max(ratios, key=lambda n: ratios[n])
    if ratios[slowest] > NETWORK_RATIO:
        found = ratios[slowest], slowest, "microseconds", "us"
    elif ratios[fastest] < 1 / NETWORK_RATIO:
        found = ratios[fastest], fastest, "seconds", "s"
    else:
        return None
    return (
        f"times are about {found[0]:.3g} times those of {found[1]}, the {'slowest' if found[3] == 'us' else 'fastest'} "
        f"{kind} known; they look like {found[2]}: give --unit {found[3]}, or --unit ms if they are milliseconds"
    )


NETWORK_RATIO = 15.0
"""Whole networks that take this many times longer than on the slowest known device of a kind, or shorter than on the
fastest, are taken to be in another unit."""
