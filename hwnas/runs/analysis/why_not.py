"""Why is a model not on the front of a device? What breaks its limits, and which models beat it by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hwnas.objectives import as_losses
from hwnas.runs.choose import candidates_of, inherited_candidates
from hwnas.runs.evaluations import Evaluations
from hwnas.runs.front import SearchedDevice, choose_front
from hwnas.runs.problem import make_problem
from hwnas.search.problem import Problem
from hwnas.space import Arch

MOST = 5
"""Models that are named, at most."""


@dataclass(frozen=True)
class Better:
    """A model that is better in something and worse in nothing."""

    key: str
    on_front: bool
    differences: dict[str, float]
    """By objective, its value minus that of the model that was asked about."""


@dataclass(frozen=True)
class WhyNot:
    """Why a model is on the front of a device or not."""

    device: str
    key: str
    on_front: bool
    values: dict[str, float]
    """Objectives and limited values, in own units."""
    broken: tuple[str, ...]
    """Limits that it does not keep."""
    dominated_by: tuple[Better, ...]
    """Models within the limits that are better, those of the front first; a few of them."""
    n_dominating: int
    reason: str
    """In one sentence."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def why_not(evaluations: Evaluations, device: SearchedDevice, arch: Arch) -> WhyNot:
    """Return what stands between an evaluated arch and the front of a device.

    Args:
        evaluations: of the run.
        device: whose front it is.
        arch: evaluated.
    """
    evaluations = evaluations.of_device(device.device)  # models are compared in the device's own precision
    problem = make_problem(evaluations.context, device.device, device.settings)
    names = [column.name for column in problem.columns]
    keys = [m.key for m in device.front]
    candidates = candidates_of(evaluations, device.name, device.settings)
    unfinished = arch.key not in {c.arch.key for c in candidates}
    if unfinished:  # only models that were trained to their end are handed over; it is compared as all of them came
        candidates = inherited_candidates(evaluations, device.name, device.settings)
    elsewhere = unfinished and arch.key in {m.key for m in evaluations.weights.finished.by_version.values()}
    rows = [i for i, c in enumerate(candidates) if c.arch.key == arch.key]
    if not rows:
        reason = f"it was not evaluated with weights that {device.name} can have; search the device"
        return WhyNot(
            device.name, arch.key, False, {}, (), (), 0, _unscored(device) if elsewhere else reason
        )  # fmt: skip
    (row,) = rows
    values = evaluations.values(problem, candidates)
    losses = as_losses(values, problem.columns)[:, : problem.n_objectives]
    mine = dict(zip(names, values[row].tolist(), strict=True))
    broken = tuple(str(limit) for limit in problem.limits if not limit.holds(mine[limit.value]))
    if elsewhere:  # its score is that of other weights
        broken = tuple(str(one) for one in problem.limits if str(one) in broken and one.value in _exact(problem))
    allowed = (problem.violation(as_losses(values, problem.columns)) <= 0) & np.isfinite(values).all(axis=1)
    better = allowed & (losses <= losses[row]).all(axis=1) & (losses < losses[row]).any(axis=1)
    found = sorted(np.flatnonzero(better).tolist(), key=lambda i: (candidates[i].arch.key not in keys, i))
    dominated_by = tuple(
        Better(
            candidates[i].arch.key, candidates[i].arch.key in keys,
            {n: float(values[i, j] - values[row, j]) for j, n in enumerate(names[: problem.n_objectives])},
        )
        for i in found[:MOST]
    )  # fmt: skip
    on_front = arch.key in keys
    if elsewhere and not broken and not on_front:
        return WhyNot(device.name, arch.key, False, mine, (), (), 0, _unscored(device))
    chosen = choose_front(values[:, : problem.n_objectives], problem.objectives, allowed, device.settings.front_size)
    later = not unfinished and row in chosen.tolist()
    return WhyNot(
        device.name, arch.key, on_front, mine, broken, dominated_by, len(found),
        _reason(device, on_front, unfinished, later, broken, dominated_by, len(found)),
    )  # fmt: skip


def _exact(problem: Problem) -> set[str]:
    """Values of a problem that need no network."""
    return {column.name for column in problem.columns if column.evaluate_genomes is not None}


def _unscored(device: SearchedDevice) -> str:
    """Why a model is not on a front that was finished for another device and never looked at for this one."""
    return f"it was trained to its end for another device, and not evaluated for {device.name}; {_again(device)}"


def _again(device: SearchedDevice) -> str:
    """How a front comes to be chosen from all models that are finished now."""
    return (
        f"the front of {device.name} stands as it was chosen before, until {device.name} is searched with other "
        "settings, such as another export.front_size, or a model is fine-tuned"
    )


def _reason(
    device: SearchedDevice, on_front: bool, unfinished: bool, later: bool, broken: Sequence[str],
    better: Sequence[Better], n: int,
) -> str:  # fmt: skip
    if on_front:
        return f"it is on the front of {device.name}"
    if broken:
        return f"it does not keep {', '.join(broken)}"
    if n:
        others = "1 model is" if n == 1 else f"{n} models are"
        return f"{others} better in something and worse in nothing, such as {better[0].key}"
    if later:
        return f"it became known after this front was chosen, and no model is better; {_again(device)}"
    if unfinished:
        return (
            "it was not trained to its end, as the models that are handed over were; fine-tune it, or search again "
            "with a larger finish.models"
        )
    return (
        f"no model is better in everything, but the front has room for {device.settings.front_size} and others cover "
        "more; raise export.front_size"
    )
