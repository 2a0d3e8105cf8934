"""How do runs differ? In their settings, and in what they reached on the devices that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.pareto import hypervolume, normalise
from hwnas.runs.analysis.decisions import differences
from hwnas.runs.analysis.results import Fronts, check_comparable, names_of
from hwnas.runs.front import Front, FrontModel
from hwnas.task import Score

FloatArray = NDArray[np.float64]

REFERENCE = 1.1
"""The reference point, after scaling to 0 at the best and 1 at the worst of all runs: the worst counts a little."""
DRAWS = 200
"""Of scores with their standard errors, from which the error of a hypervolume follows."""


@dataclass(frozen=True)
class RunOnDevice:
    """What one run reached on one device."""

    run: str
    models: int
    hypervolume: float
    """Of score and latency, as a share of the box from the best of all runs to the reference point."""
    hypervolume_stderr: float
    """From the standard errors of the scores; NaN: they are not known."""
    best_key: str
    best_score: float
    """On validation images."""
    best_stderr: float
    """NaN: not known."""
    best_latency_ms: float
    fastest_ms: float
    models_kept: int
    """Models that no model of another run beats in score and latency at once."""


@dataclass(frozen=True)
class DeviceComparison:
    """All runs on one device."""

    device: str
    reference_score: float
    """With `reference_ms` the reference point of every hypervolume here."""
    reference_ms: float
    runs: tuple[RunOnDevice, ...]
    fronts: Mapping[str, Sequence[Mapping[str, Any]]]
    """By run: the models of its front, ``key``, the score and ``latency_ms``."""


@dataclass(frozen=True)
class RunComparison:
    """Several runs beside each other."""

    runs: tuple[str, ...]
    score: Score
    devices: tuple[DeviceComparison, ...]
    """That at least two of the runs have searched."""
    differences: tuple[tuple[str, tuple[str, ...]], ...]
    """Settings in which they differ: name, and the value in each run."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; what is not known is None."""
        values: dict[str, Any] = _without_nan(asdict(self))
        return values


def compare_runs(fronts: Mapping[Path, Fronts], score: Score) -> RunComparison:
    """Compare runs on the same data by their fronts and settings.

    Latencies are the estimates that were searched with. On a device whose table every run measured for itself, they
    are of different measurements.

    Args:
        fronts: of every run, by its folder; the first run is the one that others are compared with.
        score: of their task.

    Raises:
        RecipeError: a run on other data, or one that has no device in common with the first.
    """
    roots = list(fronts)
    check_comparable(roots[0], list(fronts[roots[0]]), {root: fronts[root] for root in roots[1:]})
    names = names_of(roots)
    devices = list(dict.fromkeys(device for found in fronts.values() for device in found))
    compared = []
    for device in devices:
        here = {name: fronts[root][device] for name, root in zip(names, roots, strict=True) if device in fronts[root]}
        if len(here) > 1:
            compared.append(_on_device(device, here, score))
    settings = differences({root: [c.device for c in compared if c.device in fronts[root]] for root in roots})
    return RunComparison(tuple(names), score, tuple(compared), tuple((name, tuple(v)) for name, v in settings))


def _on_device(device: str, fronts: Mapping[str, Front], score: Score) -> DeviceComparison:
    losses = {run: _losses(front, score) for run, front in fronts.items()}
    together = np.concatenate(list(losses.values()))
    low, high = together.min(axis=0), together.max(axis=0)
    corner = low + REFERENCE * np.where(high > low, high - low, 1.0)
    runs = []
    for run, front in fronts.items():
        others = np.concatenate([found for name, found in losses.items() if name != run])
        best = front.best()
        stderr = score.named("stderr")
        runs.append(
            RunOnDevice(
                run, len(front), _share(losses[run], low, high), _share_stderr(front, score, low, high), best.key,
                best.values[score.name], best.values.get(stderr, float("nan")), best.values["latency_ms"],
                min(m.values["latency_ms"] for m in front), _kept(losses[run], others),
            )
        )  # fmt: skip
    listed = {run: [_plain(m, score) for m in front] for run, front in fronts.items()}
    return DeviceComparison(device, float(-score.sign * corner[0]), float(corner[1]), tuple(runs), listed)


def _plain(model: FrontModel, score: Score) -> dict[str, Any]:
    return {"key": model.key, score.name: model.values[score.name], "latency_ms": model.values["latency_ms"]}


def _losses(front: Front, score: Score) -> FloatArray:
    """``(n, 2)`` losses of score and estimated latency."""
    return np.array([[-score.sign * m.values[score.name], m.values["latency_ms"]] for m in front])


def _share(losses: FloatArray, low: FloatArray, high: FloatArray) -> float:
    """Hypervolume as a share of the box from the best of all runs to the reference point."""
    return hypervolume(normalise(losses, low, high), np.full(2, REFERENCE)) / REFERENCE**2


def _share_stderr(front: Front, score: Score, low: FloatArray, high: FloatArray) -> float:
    """Standard deviation of `_share` where scores are drawn with their standard errors, each for itself."""
    stderr = np.array([m.values.get(score.named("stderr"), np.nan) for m in front])
    if np.isnan(stderr).any():
        return float("nan")
    losses, rng = _losses(front, score), np.random.default_rng(0)
    shares = []
    for _ in range(DRAWS):
        drawn = losses.copy()
        drawn[:, 0] += stderr * rng.standard_normal(len(stderr))
        shares.append(_share(drawn, low, high))
    return float(np.std(shares))


def _kept(losses: FloatArray, others: FloatArray) -> int:
    """How many rows no row of ``others`` beats: is as good in both and better in one."""
    as_good = np.all(others[None] <= losses[:, None], axis=2)
    better = np.any(others[None] < losses[:, None], axis=2)
    return int(np.sum(~np.any(as_good & better, axis=1)))


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and value != value else value
