"""Can a latency table be believed here? Doubts in words: another machine's numbers, wrong units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwnas.errors import TableMismatchError
from hwnas.latency.agent import CPU
from hwnas.latency.cost_model import CostModel
from hwnas.latency.measure import MeasureConfig, conditions_of
from hwnas.latency.table import Device, block_ops
from hwnas.latency.target import Here, Target
from hwnas.supernet import BlockSpec

UNIT_RATIO = 100.0
"""A table whose blocks are on the whole this many times off a cost model has other units."""


def doubts(device: Device, target: Target | None = None, strict: bool = False) -> list[str]:
    """Return why a measured table does not hold on this machine; nothing where it does.

    Args:
        device: a table.
        target: the machine that it shall hold for; default: this one.
        strict: raise instead.

    Raises:
        TableMismatchError: with ``strict``, it was measured under other conditions.
    """
    known = device.profile.conditions
    if not known or ("host" in known and target is None):
        return []  # not measured, or meant to be of another machine
    config = MeasureConfig(threads=device.profile.threads or 1, batch_size=device.profile.batch_size)
    now = conditions_of(target or Here(), config, device.profile.provider or CPU)
    found = [
        f"{name} is {known[name]!r} in the table and {getattr(now, name)!r} here"
        for name in ("device", "runtime", "provider", "threads", "batch_size")
        if name in known and known[name] != getattr(now, name)
    ]
    if not found:
        return []
    text = (
        f"the table of {device.name!r} was measured under other conditions ({'; '.join(found)}); "
        "its latencies do not hold here; measure again with `hwnas tables build`"
    )
    if strict:
        raise TableMismatchError(text)
    return [text]


def is_here(device: Device) -> bool:
    """Say whether the device was measured, and is this machine."""
    return device.profile.conditions is not None and "host" not in device.profile.conditions and not doubts(device)


def unit_doubt(blocks: Sequence[BlockSpec], values_ms: Sequence[float], model: CostModel, name: str) -> str | None:
    """Say where times look as if they were not in milliseconds, against a cost model of some device.

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
