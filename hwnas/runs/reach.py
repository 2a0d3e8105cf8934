"""What can the archs of a recipe be on its devices, before anything is trained? Which limits can none of them meet?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.arguments import checked_arguments
from hwnas.errors import SearchError
from hwnas.latency.build import needs_table
from hwnas.latency.device import beyond_measured
from hwnas.latency.table import Device
from hwnas.objectives.resolve import objective_of
from hwnas.runs.context import RunContext
from hwnas.runs.devices import load_devices
from hwnas.runs.folder import RunFolder
from hwnas.runs.history import DeviceSearch
from hwnas.runs.problem import read_limits
from hwnas.runs.recipe import load_recipe, with_values
from hwnas.search.limits import Limit
from hwnas.supernet.slot_sum import SlotSum
from hwnas.task import Task

SAMPLED = 2000
"""Archs that are looked at, beside the smallest and the largest."""
VALUES = ("latency_ms", "params", "macs", "peak_memory_kib", "model_size_kib")
"""What is said of a device: values that need no network."""


@dataclass(frozen=True)
class DeviceReach:
    """What archs can be on one device."""

    device: str
    values: Mapping[str, tuple[float, float, float]]
    """By name: least, median and largest value of sampled archs, the smallest and the largest arch among them."""
    space_size: int
    """Archs of the space."""
    within_percent: float | None
    """Share of the sampled archs that keep every limit which can be checked now; 100 where there is no limit, None
    where none can be checked yet."""
    unchecked: tuple[str, ...] = ()
    """Limits on values that only trained networks or later measurements have."""
    measured_later: bool = False
    """Whether its latencies are measured when a run begins, and are not known yet."""
    beyond: str = ""
    """Which latencies are unlike those of all networks that the profile was judged by; empty: none are."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@checked_arguments
def reach(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    devices: Sequence[str] | None = None,
    limits: Sequence[str] | None = None,
) -> list[DeviceReach]:
    """Return what the archs of a recipe can be on its devices: latency, size and memory, before anything is trained.

    Args:
        recipe: a YAML file or the name of a shipped recipe.
        overrides: dotted settings such as ``constraints=[latency_ms<=5]``.
        devices: names or folders of device profiles; default: those of the recipe.
        limits: such as ``latency_ms<=5``; default: those of the recipe.

    Raises:
        SearchError: a limit that no arch of the space can meet.
        HwnasError: anything else the user can correct, in one line.
    """
    given_values = {"devices": devices, "constraints": limits}
    values = {name: list(given) for name, given in given_values.items() if given is not None}
    loaded = with_values(load_recipe(recipe, overrides), values, str(recipe))
    context = RunContext(RunFolder(Path("runs") / loaded.name), loaded)
    context.devices = load_devices(context.folder, loaded.devices, loaded.supernet.precisions)
    read_limits(loaded.constraints, context.devices)
    return [
        reach_of(context, device, context.recipe_settings(name, given))
        for (name, device), given in zip(context.devices.items(), loaded.devices, strict=True)
    ]


def reach_of(context: RunContext, device: Device, settings: DeviceSearch) -> DeviceReach:
    """Return what archs can be on one device; see `reach`."""
    check_reachable(context, device, settings)
    space = context.layout.space
    ends = space.encode_many([space.smallest(), space.largest()])
    genomes = np.concatenate([ends, space.sample_genomes(np.random.default_rng(0), SAMPLED)])
    later = needs_table(device)
    limits = tuple(Limit.parse(text) for text in settings.constraints)
    names = dict.fromkeys([*VALUES, *(limit.value for limit in limits)])
    known: dict[str, NDArray[np.float64]] = {}
    for name in names:
        plugin = objective_of(name, context.task)
        if plugin.cost != "exact":
            continue
        if later and name == "latency_ms":
            continue
        compiled = plugin.compile(context.layout, device)
        known[name] = np.asarray(compiled.of_genomes(genomes), dtype=float)
    within = np.ones(len(genomes), dtype=bool)
    unchecked = tuple(str(limit) for limit in limits if limit.value not in known)
    for limit in limits:
        if limit.value in known:
            within &= [limit.holds(v) for v in known[limit.value].tolist()]
    values = {
        name: (float(found.min()), float(np.median(found)), float(found.max()))
        for name, found in known.items()
        if np.isfinite(found).all()
    }
    latencies = known.get("latency_ms", np.zeros(0))
    return DeviceReach(
        device.name, values, space.size,
        round(100 * float(within.mean()), 3) if not limits or len(unchecked) < len(limits) else None, unchecked, later,
        beyond_measured(device.profile.error, latencies[np.isfinite(latencies)].tolist()),
    )  # fmt: skip


def check_reachable(context: RunContext, device: Device, settings: DeviceSearch) -> None:
    """Raise, before anything is evaluated, where no arch can keep a limit on a value that needs no network.

    Nor can any keep a limit on a score of the task beyond the score's range. Latencies that are measured when a run
    begins are looked at once they are known.

    Raises:
        SearchError: see `reach`.
    """
    limits = tuple(map(Limit.parse, settings.constraints))
    for limit in limits:
        _check_range(limit, context.task, device.name)
    if not limits:
        return
    genomes = context.layout.space.sample_genomes(np.random.default_rng(0), SAMPLED)
    for limit in limits:
        plugin = objective_of(limit.value, context.task)
        if plugin.cost != "exact" or (needs_table(device) and limit.value == "latency_ms"):
            continue
        compiled = plugin.compile(context.layout, device)
        if isinstance(compiled, SlotSum):
            _check(limit, device.name, compiled, np.asarray(compiled.of_genomes(genomes), dtype=float))


def _check_range(limit: Limit, task: Task, device: str) -> None:
    """Raise where a limit on a score of the task is beyond every value that the score can have."""
    for score in task.scores:
        if score.name == limit.value and score.range is not None and not any(map(limit.holds, score.range)):
            low, high = score.range
            raise SearchError(
                f"no network can keep {limit} on {device}: {score.title} is between {low:g} and {high:g} {score.unit}; "
                "change the limit"
            )


def _check(limit: Limit, device: str, compiled: SlotSum, sampled: NDArray[np.float64]) -> None:
    """Raise where it is certain that no arch meets a limit: where a bound over the whole space breaks it."""
    low, high = compiled.bounds()
    nearest = low if limit.comparison == "<=" else high
    if not limit.holds(nearest):
        least = float(sampled.min() if limit.comparison == "<=" else sampled.max())
        shown = Limit(None, limit.value, limit.comparison, limit.bound)
        way = "at least" if limit.comparison == "<=" else "at most"
        raise SearchError(
            f"no arch of this space keeps {shown} on {device}: every one has {way} {nearest:.4g} {limit.value}, and "
            f"the nearest of {len(sampled):,} that were looked at {least:.4g}; loosen the limit or change supernet"
        )
