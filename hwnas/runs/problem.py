"""What is searched for a device? Objectives and limits of its settings; what is exact is compiled for the space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hwnas.errors import RecipeError, SearchError
from hwnas.finetune import FinishConfig
from hwnas.latency.build import needs_table
from hwnas.latency.device import shipped_devices
from hwnas.latency.number_format import evaluated_precision
from hwnas.latency.table import Device
from hwnas.objectives import Objective
from hwnas.objectives.class_pairs import read_similarities
from hwnas.objectives.plugin import EvaluatedObjective, ExactObjective
from hwnas.objectives.resolve import objective_of, objectives_of
from hwnas.predictors import CellFeatures
from hwnas.runs.context import RunContext
from hwnas.runs.history import DeviceSearch
from hwnas.search.limits import Limit
from hwnas.search.problem import Problem
from hwnas.space import Arch
from hwnas.supernet.layout import PRECISION

CAPACITY = ("macs", "params")
"""Exact values that stand for what an arch can learn; they inform predictors and the choice of operators."""


def make_problem(context: RunContext, device: Device, settings: DeviceSearch) -> Problem:
    """Return the search problem of a device.

    Raises:
        PluginError: an objective or a limited value has no such name.
        SearchError: limits contradict each other.
        MissingBlockError: the device has no time for a block.
    """
    limits = tuple(Limit.parse(text) for text in settings.constraints)
    objectives = objectives_of(settings.objectives, context.task)
    names = [plugin.name for plugin in objectives]
    limited = [objective_of(limit.value, context.task) for limit in limits if limit.value not in names]
    limited = list({plugin.name: plugin for plugin in limited}.values())
    known = {*names, *(plugin.name for plugin in limited)}
    capacity = [objective_of(name, context.task) for name in CAPACITY if name not in known]

    def compiled(plugins: Iterable[ExactObjective | EvaluatedObjective]) -> tuple[Objective, ...]:
        return tuple(_compiled(context, device, plugin) for plugin in plugins)

    edges = context.layout.cell_edges
    features = None if edges is None else CellFeatures(context.layout.space, edges)
    problem = Problem(
        context.layout.space, compiled(objectives), limits, compiled(capacity), features=features,
        limited=compiled(limited),
    )  # fmt: skip
    if PRECISION in problem.space and device.in_8_bits is None:  # it computes everything in its own
        problem = problem.within({PRECISION: [evaluated_precision(device.profile.precision)]})
    return problem


def read_limits(texts: Sequence[str], devices: Mapping[str, object] | Sequence[str]) -> tuple[Limit, ...]:
    """Return limits on devices of a run.

    Raises:
        SearchError: another form than ``latency_ms<=5`` or ``edge-tpu:latency_ms<=3``.
        RecipeError: one is for a device that is not meant.
    """
    limits = tuple(map(Limit.parse, texts))
    if unknown := sorted({c.device for c in limits if c.device is not None} - set(devices)):
        theirs = " and ".join(repr(str(limit)) for limit in limits if limit.device in unknown)
        raise RecipeError(
            f"limits name {unknown}; devices here are {', '.join(devices)}: add the device with --devices, or take out "
            f"{theirs} (--limit, or constraints of the recipe)"
        )
    return limits


def check_latencies(finish: FinishConfig, devices: Mapping[str, object]) -> None:
    """Raise where models are wanted for latencies of a device that there is not; shipped ones may be left out.

    Raises:
        RecipeError: such a device.
    """
    if unknown := sorted(set(finish.latencies_ms) - set(devices) - set(shipped_devices())):
        raise RecipeError(f"finish.latencies_ms names {unknown}; devices here are {', '.join(devices)}")


def check_searchable(context: RunContext, wanted: Mapping[str, DeviceSearch]) -> None:
    """Raise, before anything is computed, where devices cannot be searched with these settings.

    Raises:
        PluginError, SearchError, MissingBlockError: see `make_problem`; or the searcher lacks a setting.
        RecipeError: a file of similarities of classes that is damaged, or of other classes; or a choice of precision
            that no device has.
    """
    if context.recipe.supernet.precisions and all(context.devices[name].in_8_bits is None for name in wanted):
        raise RecipeError(
            "supernet.precisions lets the search choose the precision of every arch, but of no device here is it known "
            f"how it computes in both: {', '.join(wanted)}; leave it out, or name the profile for 8 bits in a profile "
            "(in_8_bits), as local-cpu does"
        )
    pairs, n = context.recipe.evaluation.introspectability.pair_weights, context.recipe.supernet.classes
    if pairs.endswith(".csv") and len(found := read_similarities(pairs)) != n:
        raise RecipeError(
            f"evaluation.introspectability.pair_weights {pairs} has {len(found)} classes, the recipe {n}; give a row "
            "for each class of the data"
        )
    for name, settings in wanted.items():
        if not needs_table(context.devices[name]):
            settings.search.searcher(make_problem(context, context.devices[name], settings))


def evaluated_values(context: RunContext, settings: DeviceSearch) -> dict[str, str]:
    """Return what an evaluation has to give: the task's score, and evaluated objectives and limited values.

    Returns:
        For every objective as recipes name it (such as ``package.module:object``), the name of its value.
    """
    found = {context.score.name: context.score.name}
    plugins = dict(zip(settings.objectives, objectives_of(settings.objectives, context.task), strict=True))
    by_value = {plugin.name: name for name, plugin in plugins.items()}
    for limit in (Limit.parse(text) for text in settings.constraints):
        if limit.value not in by_value:
            plugins[limit.value] = objective_of(limit.value, context.task)
    return found | {name: plugin.name for name, plugin in plugins.items() if plugin.cost == "evaluated"}


def exact_values(context: RunContext, settings: DeviceSearch) -> dict[str, str]:
    """Return the exact objectives and limited values of a device's search: the name of each value, and its title."""
    names = [*settings.objectives, *(Limit.parse(text).value for text in settings.constraints)]
    plugins = (objective_of(name, context.task) for name in dict.fromkeys(names))
    return {plugin.name: plugin.title for plugin in plugins if plugin.cost == "exact"}


def _compiled(context: RunContext, device: Device, plugin: ExactObjective | EvaluatedObjective) -> Objective:
    if plugin.cost == "exact":
        kept = context.compiled.get((plugin.name, device.name))
        if kept is None or kept[0] is not plugin or kept[1] is not device:
            kept = context.compiled[plugin.name, device.name] = plugin, device, plugin.compile(context.layout, device)
        values = kept[2]
        return Objective(plugin.name, plugin.direction, values.of_archs, cheap=True, evaluate_genomes=values.of_genomes)
    return Objective(plugin.name, plugin.direction, _by_the_run)


def _by_the_run(archs: Sequence[Arch]) -> list[float]:
    raise SearchError("evaluated objectives are computed by the run, through its archive")
