"""What was evaluated for a device? One trial an evaluation, in the order of evaluation, for tools of others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.archive import Evaluation
from hwnas.latency.table import Device
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.runs.front import Front
from hwnas.runs.history import DeviceSearch
from hwnas.runs.problem import make_problem
from hwnas.search.problem import Problem
from hwnas.space import Arch
from hwnas.space.choice import Option

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class TrackedDevice:
    """A device whose search has begun."""

    device: Device
    settings: DeviceSearch
    front: Front | None
    """None: its first search has not ended."""

    @property
    def name(self) -> str:
        """Name of the device."""
        return self.device.name


@dataclass(frozen=True)
class Trial:
    """One evaluation of one model."""

    name: str
    """Key, weights and images: the same whenever the archive is read."""
    arch: Arch
    values: tuple[float, ...]
    """Of the objectives, in their order and units; those of a device are that device's."""
    columns: tuple[float, ...]
    """The same and, behind them, limited values that are no objectives (`Problem.columns`)."""
    violations: tuple[float, ...]
    """Of each limit: 0 or less where it is kept, in the unit of the limited value."""
    failed: bool
    trained: str
    """Where its weights come from: ``supernet`` or ``finished``."""
    images: int
    """Validation images of its scores."""
    weights_version: str
    duration_s: float
    seed: int


def problem_of(evaluations: Evaluations, device: TrackedDevice) -> Problem:
    """Return what was searched for a device: its objectives and limits."""
    return make_problem(evaluations.context, device.device, device.settings)


def trials_of(evaluations: Evaluations, device: TrackedDevice) -> list[Trial]:
    """Return every evaluation on validation images whose objectives are known on a device, or which failed.

    Args:
        evaluations: of the run.
        device: whose search has begun.
    """
    view, problem = evaluations.of_device(device.device), problem_of(evaluations, device)
    finished = view.weights.finished.by_version
    versions = {*view.weights.of_device(device.name), *finished}
    seen: dict[tuple[str, str, str], Evaluation] = {}
    for one in view.archive.evaluations():
        if one.weights_version not in versions or not view.images_of(one.split) or not view.may_have(one.arch):
            continue
        if one.precision in ("fp32", view.precision_of(one.arch)):
            seen.setdefault((one.arch.key, one.weights_version, one.split), one)
    by_images: dict[int, list[tuple[str, str, str]]] = {}
    for place in seen:
        by_images.setdefault(view.images_of(place[2]), []).append(place)
    values: dict[tuple[str, str, str], FloatArray] = {}
    for images, places in by_images.items():
        candidates = [Candidate(seen[p].arch, p[1]) for p in places]
        values |= dict(zip(places, view.values(problem, candidates, images), strict=True))
    found = []
    for (key, version, split), one in seen.items():
        row = values[key, version, split]
        failed = any(map(math.isnan, one.values.values()))
        trained = "finished" if version in finished else "supernet"
        if failed or np.isfinite(row).all():  # else not evaluated for this device, or not in its precision
            found.append(
                Trial(
                    f"{key} {version} {split}", one.arch, tuple(map(float, row[: problem.n_objectives])),
                    tuple(map(float, row)), _beyond(problem, row), failed, trained,
                    view.images_of(split), version, one.duration_s, one.seed,
                )
            )  # fmt: skip
    return found


def _beyond(problem: Problem, row: FloatArray) -> tuple[float, ...]:
    """How far one row of values is beyond each limit."""
    by_name = dict(zip((column.name for column in problem.columns), map(float, row), strict=True))
    return tuple(
        by_name[limit.value] - limit.bound if limit.comparison == "<=" else limit.bound - by_name[limit.value]
        for limit in problem.limits
    )


def parameters(arch: Arch) -> dict[str, str]:
    """Return the choices of an arch as texts."""
    return {name: str(parameter(option)) for name, option in arch.items}


def parameter(option: Option) -> str | float | int | bool:
    """Return an option as other tools take parameters: lists become texts."""
    if isinstance(option, tuple):
        return ", ".join("-" if entry is None else str(entry) for entry in option)
    return option
