"""What does a device gain from a front of its own? Its models beside those of other devices and of a small fleet.

Every source of models is asked for its best one within the device's limits, first within the latency of the device's
own knee, then within the latency of each of its own models. Scores are those of the device's precision on validation
images, as they were searched with, or are finished; nothing is computed here but sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.archive import Archive
from hwnas.errors import SearchError
from hwnas.latency.table import Device
from hwnas.objectives import as_losses
from hwnas.report.data import Gain, Stage
from hwnas.runs.analysis.fleet import plan_fleet
from hwnas.runs.analysis.stages import stages_of
from hwnas.runs.choose import candidates_of, model_columns
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.runs.export import candidates_of_front
from hwnas.runs.front import MEASURED, SearchedDevice
from hwnas.runs.latency_check import measured_on
from hwnas.runs.problem import make_problem

FloatArray = NDArray[np.float64]

ROUNDED = 1 + 1e-5
"""Latencies that are taken from a front have the six digits of its file."""


LARGEST_FLEET = 3
"""Models of the fleets that are compared, at most: larger ones take long to choose and are hardly fleets."""
USUAL = ("fastest", "knee", "best")
"""Models of a front that are looked at step by step."""


@dataclass(frozen=True)
class DeviceGains:
    """One device: what it gets from where, and what became of its usual models."""

    device: str
    score: str
    """Name of what models are compared by, with its unit."""
    gains: tuple[Gain, ...]
    steps: Mapping[str, tuple[Stage, ...]]
    """Of the fastest, the knee and the best model, by key: before and after training to the end, fine-tuning and
    quantisation."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def device_gains(evaluations: Evaluations, devices: Sequence[SearchedDevice]) -> dict[str, DeviceGains]:
    """Return `gains_of` every device, with the steps of its usual models.

    Args:
        evaluations: of the run.
        devices: that were searched.
    """
    gains, score = gains_of(evaluations, devices), evaluations.context.score.name
    found = {}
    for device in devices:
        models = device.front.select(*USUAL)
        steps = {model.key: tuple(stages_of(evaluations, model)) for model in models}
        found[device.name] = DeviceGains(device.name, score, tuple(gains[device.name]), steps)
    return found


@dataclass(frozen=True)
class _Offer:
    """Models that a device could take from one source, and what is known of them on it."""

    source: str
    models: Sequence[Candidate]
    latency_ms: FloatArray
    score: FloatArray
    stderr: FloatArray
    allowed: NDArray[np.bool_]
    """Within the limits of the device's search."""
    sign: float

    def best(self, limit_ms: float) -> int | None:
        """Row of the best model within a latency; of equal ones the fastest. None: there is none."""
        rows = np.flatnonzero(self.allowed & (self.latency_ms <= limit_ms * ROUNDED))
        if not len(rows):
            return None
        return int(rows[np.lexsort((self.latency_ms[rows], -self.sign * self.score[rows]))[0]])


def gains_of(evaluations: Evaluations, devices: Sequence[SearchedDevice]) -> dict[str, list[Gain]]:
    """Return, for every device, its best model from each source: the own front first, then others, then fleets.

    Args:
        evaluations: of the run.
        devices: that were searched.
    """
    fleets = _fleets(evaluations, devices)
    return {device.name: _of_device(evaluations, device, devices, fleets) for device in devices}


def _of_device(
    evaluations: Evaluations, device: SearchedDevice, devices: Sequence[SearchedDevice],
    fleets: Mapping[str, Sequence[str]],
) -> list[Gain]:  # fmt: skip
    """What one device gets from everybody."""
    own = _offer(evaluations, device, "own front", candidates_of_front(evaluations, device.front))
    offers = [
        _offer(evaluations, device, f"front of {other.name}", candidates_of_front(evaluations, other.front))
        for other in devices
        if other.name != device.name
    ]
    every = {c.arch.key: c for c in candidates_of(evaluations, device.name, device.settings)}
    offers += [
        _offer(evaluations, device, source, [every[key] for key in keys if key in every])
        for source, keys in fleets.items()
    ]
    limits = [m.values["latency_ms"] for m in device.front]
    limit_ms = device.front.knee().values["latency_ms"]
    return [_gain(evaluations.archive, device, own, offer, limit_ms, limits) for offer in (own, *offers)]


def _fleets(evaluations: Evaluations, devices: Sequence[SearchedDevice]) -> dict[str, Sequence[str]]:
    """Keys of the best small fleets, of fewer models than there are devices, by name; those that can be looked up."""
    found: dict[str, Sequence[str]] = {}
    for k in range(1, min(LARGEST_FLEET + 1, len(devices))):
        try:
            found[f"fleet of {k}"] = plan_fleet(evaluations, devices, k, look_up=True).keys
        except SearchError:  # so few cannot keep every device's limits, or devices have weights of their own
            continue
    return found


def _offer(evaluations: Evaluations, device: SearchedDevice, source: str, models: Sequence[Candidate]) -> _Offer:
    context = evaluations.context
    score = context.score
    if not models:
        empty = np.empty(0)
        return _Offer(source, models, empty, empty, empty, empty.astype(bool), score.sign)
    columns = model_columns(evaluations, device.device, device.settings, models)
    problem = make_problem(context, device.device, device.settings)
    losses = as_losses(evaluations.of_device(device.device).values(problem, models), problem.columns)
    known = np.isfinite(losses).all(axis=1) & np.isfinite(columns[score.name])
    allowed = known & (problem.violation(losses) <= 0)
    stderr = columns[score.named("stderr")]
    return _Offer(
        source, models, columns["latency_ms"], columns[score.name], stderr, np.asarray(allowed, dtype=bool), score.sign
    )  # fmt: skip


def _gain(
    archive: Archive, device: SearchedDevice, own: _Offer, offer: _Offer, limit_ms: float, limits: Sequence[float]
) -> Gain:  # fmt: skip
    """What a source gives within a latency, and on average within the latencies of the own models."""
    row, mine = offer.best(limit_ms), own.best(limit_ms)
    pairs = [(own.best(ms), offer.best(ms)) for ms in limits]
    served = [(a, b) for a, b in pairs if a is not None and b is not None]
    mean, mean_stderr = _mean_difference(own, offer, served)
    share = len(served) / len(pairs) if pairs else 0.0
    if row is None or mine is None:
        return Gain(offer.source, limit_ms, mean_difference=mean, mean_stderr=mean_stderr, served_share=share)
    difference, stderr = _mean_difference(own, offer, [(mine, row)])
    model = offer.models[row]
    measured_ms = measured_on(archive, device.name, model).get(MEASURED)
    return Gain(
        offer.source, limit_ms, model.arch.key, float(offer.latency_ms[row]),
        latency_error_ms(device.device, model, float(offer.latency_ms[row])), measured_ms, float(offer.score[row]),
        _known(offer.stderr[row]), difference, stderr, mean, mean_stderr, share,
    )  # fmt: skip


def latency_error_ms(device: Device, model: Candidate, latency_ms: float) -> float | None:
    """Return how far an estimate is off on average, by what the device's profile publishes; None: it publishes none."""
    error = device.profile.error
    return None if error is None else latency_ms * error.mape_percent / 100


def _mean_difference(
    own: _Offer, offer: _Offer, pairs: Sequence[tuple[int, int]]
) -> tuple[float | None, float | None]:  # fmt: skip
    """Mean of how much worse the offered models score than the own ones, and its standard error.

    Errors of different models are taken as independent. They share their images, so the true error is smaller. What
    stands on both sides cancels.
    """
    if not pairs:
        return None, None
    weights: dict[Candidate, float] = {}
    variance: dict[Candidate, float] = {}
    total = 0.0
    for mine, theirs in pairs:
        total += own.sign * float(offer.score[theirs] - own.score[mine])
        for side, row, weight in ((own, mine, -1.0), (offer, theirs, 1.0)):
            model = side.models[row]
            weights[model] = weights.get(model, 0.0) + weight / len(pairs)
            variance[model] = float(side.stderr[row]) ** 2
    stderr = math.sqrt(sum(weights[m] ** 2 * variance[m] for m in weights if weights[m]))
    return total / len(pairs), _known(stderr)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
