"""What is searched for a device? Objectives and limits of its settings, with everything that is exact compiled for the space."""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.errors import RecipeError
from hwnas.latency.table import Device
from hwnas.objectives import Objective
from hwnas.objectives.plugin import ExactObjective, ObjectivePlugin, objective_of
from hwnas.predictors import CellFeatures
from hwnas.runs.context import RunContext
from hwnas.runs.history import DeviceSearch
from hwnas.search.limits import Limit
from hwnas.search.problem import Problem
from hwnas.space import Arch

CAPACITY = ("macs", "params")
"""Exact values that stand for what an arch can learn; they inform predictors and the choice of operators."""


def make_problem(context: RunContext, device: Device, settings: DeviceSearch) -> Problem:
    """Return the search problem of a device.

    Raises:
        PluginError: an objective or a limited value has no such name.
        RecipeError: limits contradict each other.
        MissingBlockError: the device has no time for a block.
    """
    limits = tuple(Limit.parse(text) for text in settings.constraints)
    names = list(settings.objectives)
    limited = [name for name in dict.fromkeys(limit.value for limit in limits) if name not in names]
    capacity = [name for name in CAPACITY if name not in (*names, *limited)]

    def compiled(name: str) -> Objective:
        return _compiled(context, device, objective_of(name, context.task))

    features = None
    if (edges := context.layout.cell_edges) is not None:
        features = CellFeatures(context.layout.space, edges)
    return Problem(
        context.layout.space, tuple(map(compiled, names)), limits, tuple(map(compiled, capacity)), features,
        tuple(map(compiled, limited)),
    )  # fmt: skip


def evaluated_names(context: RunContext, settings: DeviceSearch) -> list[str]:
    """Return what an evaluation has to give: the task's score, and evaluated objectives and limited values."""
    named = [*settings.objectives, *(Limit.parse(text).value for text in settings.constraints)]
    evaluated = [name for name in named if objective_of(name, context.task).cost == "evaluated"]
    return list(dict.fromkeys([context.score.name, *evaluated]))


def _compiled(context: RunContext, device: Device, plugin: ObjectivePlugin) -> Objective:
    if isinstance(plugin, ExactObjective) or plugin.cost == "exact":
        sums = plugin.compile(context.layout, device)
        return Objective(plugin.name, plugin.direction, sums.of_archs, cheap=True, evaluate_genomes=sums.of_genomes)
    return Objective(plugin.name, plugin.direction, _by_the_run)


def _by_the_run(archs: Sequence[Arch]) -> list[float]:
    raise RecipeError("evaluated objectives are computed by the run, through its archive")
