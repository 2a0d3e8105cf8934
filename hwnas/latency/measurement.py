"""What do many timings of a model say? Its latency, how certain that is, and what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from hwnas.errors import MeasurementError
from hwnas.latency.conditions import Conditions
from hwnas.latency.machine_speed import SAME_SPEED, remove_machine_speed
from hwnas.latency.time_onnx import CPU, REFERENCE, Burst

DRIFT_PERCENT = 5.0
"""A model that became this much slower or faster while it was timed is not stable."""

SPEED_CHANGE_PERCENT = 20.0
"""So is any model, where the machine's speed changed by this much."""

CPU_SHARE = 0.9
"""Below this share of a core, another process was running on it."""

CPU_SHARE_POWER = 20
"""A timing counts by its share of the core to this power: with 90 % an eighth, with 50 % next to nothing.

Its time says how long the model waited for the core, not how long it ran."""

OUTLIER_RATIO = 1.5
"""A run that took this many times the median was disturbed."""

OUTLIERS_PERCENT = 5.0
"""A model with more disturbed runs than this is not stable."""


@dataclass(frozen=True)
class Measurement:
    """Latency of one model under stated conditions, milliseconds a batch."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    p99_ms: float
    iqr_ms: float
    n: int
    """Timed runs, all sessions together."""
    ci_percent: float
    """Width of the 95 % confidence interval of the median, of the median."""
    conditions: Conditions
    sessions: int = 1
    """Fresh sessions that were timed."""
    drift_percent: float = 0.0
    """How much slower the model was at the end of a session than at its start (the session where it was worst)."""
    speed_change_percent: float = 0.0
    """How much the machine's speed changed meanwhile; it is taken out of the other values."""
    cpu_share_percent: float = 100.0
    """Share of the time in which the process was running; below 100, others ran on its core."""
    outliers_percent: float = 0.0
    """Runs that took over 1.5 times the median."""
    peak_memory_mb: float | None = None
    """What the session added to the memory of the process at most; None: not known."""
    warnings: tuple[str, ...] = ()
    """Why the measurement is not stable, in words."""

    @property
    def stable(self) -> bool:
        """Whether nothing speaks against the numbers."""
        return not self.warnings

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "stable": self.stable}


def summarise(
    timed: Sequence[Burst], conditions: Conditions, precisions: Sequence[str], ci_percent: float = 100.0
) -> list[Measurement]:
    """Return the statistics of every model that was timed, the machine's speed taken out.

    Args:
        timed: bursts in the order of time, those of the reference model among them.
        conditions: of all; shape, precision and the reference model's time are put in.
        precisions: of the models, ``fp32`` or ``int8``.
        ci_percent: a wider confidence interval is a warning.

    Returns:
        One measurement a model, all at the machine's most common speed meanwhile.

    Raises:
        MeasurementError: a model was not timed.
    """
    n_models = len(precisions)
    which = np.array([n_models if b.model == REFERENCE else b.model for b in timed], dtype=np.int64)
    known, index = np.unique(which, return_inverse=True)
    if missing := set(range(n_models)) - set(known.tolist()):
        raise MeasurementError(f"{len(missing)} of {n_models} models were not timed; time them again")
    log_ms = np.log([np.median(b.values_ms) for b in timed])
    own_core = _runs_on_a_core(conditions)
    trust = np.array([min(1.0, b.cpu_share) ** CPU_SHARE_POWER if own_core else 1.0 for b in timed])
    times, slowness = remove_machine_speed(log_ms, index, trust)
    reference_ms = float(np.exp(times[n_models])) if len(known) > n_models else 0.0
    low, high = np.percentile(slowness, [5, 95])
    change = 100 * float(np.expm1(high - low))
    out = []
    for model in range(n_models):
        own = np.flatnonzero(which == model)
        made = _statistics([timed[int(i)] for i in own], slowness[own], float(times[model]))
        changed = {
            **asdict(conditions), "input_shape": tuple(timed[int(own[0])].input_shape), "precision": precisions[model],
            "reference_ms": reference_ms,
        }  # fmt: skip
        warnings = _warnings(made, change, ci_percent, own_core)
        out.append(
            Measurement(
                **made, conditions=Conditions(**changed), speed_change_percent=round(change, 2), warnings=warnings
            )
        )
    return out


def _runs_on_a_core(conditions: Conditions) -> bool:
    """Whether models run on a core of the process that times them; an accelerator leaves that core idle."""
    return conditions.provider in (CPU, "")


def _statistics(bursts: Sequence[Burst], slowness: NDArray[np.float64], log_ms: float) -> dict[str, Any]:
    """Statistics of one model; ``slowness`` is that of the moments of its bursts, ``log_ms`` its time without it."""
    corrected = [np.asarray(b.values_ms) / np.exp(s) for b, s in zip(bursts, slowness, strict=True)]
    alike = np.abs(slowness) <= max(SAME_SPEED, float(np.abs(slowness).min()))
    values = np.concatenate([v for v, near in zip(corrected, alike, strict=True) if near])
    values = values * (np.exp(log_ms) / np.median(values))
    p10, q1, median, q3, p90, p99 = np.percentile(values, [10, 25, 50, 75, 90, 99])
    sessions, at_speed = dict[int, list[float]](), dict[int, list[float]]()
    for burst, v, near in zip(bursts, corrected, alike, strict=True):
        log_median = float(np.log(np.median(v)))
        sessions.setdefault(burst.session, []).append(log_median)
        if near:
            at_speed.setdefault(burst.session, []).append(log_median)
    drifts = [_drift(s) for s in sessions.values()]
    # What is reported is the time at one speed, so its interval is that of the sessions which ran at it. From one alone
    # nothing can be said of how sessions differ.
    of_interval = at_speed if len(at_speed) > 1 else sessions
    between = between_sessions_ci_percent([float(np.median(s)) for s in of_interval.values()])
    return {
        "median_ms": float(median), "p10_ms": float(p10), "p90_ms": float(p90), "p99_ms": float(p99),
        "iqr_ms": float(q3 - q1), "n": sum(len(b.values_ms) for b in bursts), "sessions": len(sessions),
        "ci_percent": max(median_ci_percent(values), between),
        "drift_percent": round(100 * float(np.expm1(max(drifts, key=abs))), 2),
        "cpu_share_percent": round(100 * float(np.median([b.cpu_share for b in bursts])), 1),
        "outliers_percent": round(100 * float((values > OUTLIER_RATIO * median).mean()), 2),
        "peak_memory_mb": max((b.peak_memory_mb for b in bursts if b.peak_memory_mb is not None), default=None),
    }  # fmt: skip


def _drift(log_ms: Sequence[float]) -> float:
    """Last third of a session over its first, as a logarithm; 0 where it has too few bursts."""
    third = len(log_ms) // 3
    return float(np.median(log_ms[-third:]) - np.median(log_ms[:third])) if third >= 2 else 0.0


def _warnings(made: dict[str, Any], change_percent: float, ci_percent: float, own_core: bool) -> tuple[str, ...]:
    out = []
    if made["ci_percent"] > ci_percent:
        out.append(f"the interval of the median is {made['ci_percent']:.1f} % wide, asked was {ci_percent:g} %")
    if abs(made["drift_percent"]) > DRIFT_PERCENT:
        way = "slower" if made["drift_percent"] > 0 else "faster"
        out.append(
            f"it became {abs(made['drift_percent']):.0f} % {way} while it was timed (throttling, or slow to warm up)"
        )
    if change_percent > SPEED_CHANGE_PERCENT:
        out.append(f"the machine's speed changed by {change_percent:.0f} % meanwhile; that is taken out")
    if own_core and made["cpu_share_percent"] < 100 * CPU_SHARE:
        out.append(f"another process used its core: only {made['cpu_share_percent']:.0f} % of the time was its own")
    if made["outliers_percent"] > OUTLIERS_PERCENT:
        out.append(f"{made['outliers_percent']:.0f} % of the runs took over {OUTLIER_RATIO:g} times the median")
    return tuple(out)


def median_ci_percent(values: NDArray[np.float64]) -> float:
    """Return the width of the 95 % confidence interval of the median, in percent of the median.

    Distribution-free, from order statistics (binomial, normal approximation). `scipy.stats.quantile_test` has the exact
    interval, which is at most one value wider at either end; but it has none for fewer than 6 values, and takes 1 ms
    where this takes 20 us, for each of the hundreds of models of a table.
    """
    ordered, n = np.sort(values), len(values)
    reach = 1.96 * n**0.5 / 2
    low, high = max(0, int(n / 2 - reach)), min(n - 1, int(n / 2 + reach))
    return float(100.0 * (ordered[high] - ordered[low]) / np.median(values))


def between_sessions_ci_percent(log_medians: Sequence[float]) -> float:
    """Return the width of the 95 % confidence interval of the mean of sessions' medians, in percent; 0 for one session.

    Runs of one session share its memory layout, so many runs in few sessions say less than their number.
    Student's t over sessions.
    """
    k = len(log_medians)
    if k < 2:
        return 0.0
    low, high = scipy.stats.t.interval(0.95, k - 1)
    return float(100.0 * (high - low) * scipy.stats.sem(log_medians))
