"""How fast does a target run now, against when its table was made? A few networks of the table are timed again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hwnas.latency.measure import MeasureConfig, measure
from hwnas.latency.measurement import Measurement
from hwnas.latency.number_format import Precision
from hwnas.latency.onnx_models import network_onnx
from hwnas.latency.table_networks import TableNetwork
from hwnas.latency.target import Target
from hwnas.progress import Progress, silent
from hwnas.supernet import Layout

N_REPEATS = 16
"""Networks of the table that are timed again."""


def choose_repeats(known: Sequence[TableNetwork]) -> list[TableNetwork]:
    """Return the networks of a table that are timed again: a few, spread over their latencies."""
    ordered = sorted(known, key=lambda k: k.measured_ms)
    if len(ordered) <= N_REPEATS:
        return ordered
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, N_REPEATS).round().astype(int)]


def measure_beside(
    layout: Layout, models: Sequence[Path | bytes], known: Sequence[TableNetwork], config: MeasureConfig,
    provider: str | None, progress: Progress = silent, target: Target | None = None, precision: Precision = "fp32",
) -> tuple[list[Measurement], float]:  # fmt: skip
    """Time models, and in the same passes a few networks of a table, which say how fast the machine runs now.

    A fixed block alone would not do: at another speed of the processor a large network changes by another factor.

    Args:
        layout: the space.
        models: files or serialised models.
        known: networks of the table; see `hwnas.latency.table_networks.read_networks`.
        config: how.
        provider: execution provider; default: the target's own.
        progress: told after every timing.
        target: what times them; default: ONNX Runtime on this machine.
        precision: of the table.

    Returns:
        The models' measurements, and how many times longer networks take now than when the table was made.

    Raises:
        MeasurementError: see `hwnas.latency.measure.measure`.
    """
    repeats = choose_repeats(known)
    extra = [network_onnx(layout, k.arch, config.batch_size, precision) for k in repeats]
    found = measure([*models, *extra], config, provider, target, "time networks", progress)
    ratios = [m.median_ms / k.measured_ms for m, k in zip(found[len(models) :], repeats, strict=True)]
    return found[: len(models)], float(np.exp(np.median(np.log(ratios)))) if ratios else 1.0
