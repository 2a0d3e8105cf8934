"""How does a recipe become a run folder, and how is one opened again?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas.arguments import checked_arguments
from hwnas.data import Splits
from hwnas.data.left_out import told
from hwnas.errors import CheckpointError, RecipeError, ResumeError
from hwnas.files import first_rank, write_json, write_text
from hwnas.progress import Progress, silent
from hwnas.reading import sha256_of
from hwnas.runs.budget import FEWEST_EVALUATIONS, check_sizable, parse_duration
from hwnas.runs.context import RunContext
from hwnas.runs.devices import check_some, load_devices
from hwnas.runs.folder import RunFolder
from hwnas.runs.kept import read_kept
from hwnas.runs.manifest import make_manifest
from hwnas.runs.plan import Plan, make_plan, planned, planned_search, read_plan, what_is_asked, write_plan
from hwnas.runs.problem import check_latencies, check_searchable, read_limits
from hwnas.runs.reach import check_reachable, reach_of
from hwnas.runs.recipe import Recipe, load_recipe, with_values
from hwnas.runs.run import Run
from hwnas.runs.staged import check_strategy, operators_of
from hwnas.search.specialise import Specialisation


@checked_arguments
def start_run(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    progress: Progress = silent,
    plan: Plan | None = None,
    splits: Splits | None = None,
) -> Run:
    """Open or create a run folder for a recipe; nothing is computed yet.

    Args:
        recipe: a YAML file, the name of a shipped recipe, or a recipe.
        out: the folder; default: ``runs/<name of the recipe>``.
        overrides: dotted settings such as ``train.batch_size=32``.
        progress: told of everything that takes time.
        plan: how the work is divided; kept in the folder.
        splits: the images, where they are loaded already.

    Raises:
        ResumeError: the folder holds a run whose task, supernet, training, data or evaluation differ.
        OutputError: it cannot be written, or another process writes there.
        DeviceError, DataError: devices or data of the recipe cannot be used; nothing is written then.
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    folder = RunFolder(Path(out) if out is not None else Path("runs") / loaded.name)
    run = Run(RunContext(folder, loaded, progress))
    if splits is not None:
        run.context.splits = splits
    run.context.check_phases()
    given = load_devices(folder, loaded.devices, loaded.supernet.precisions)
    read_limits(loaded.constraints, given)
    check_latencies(loaded.finish, given)
    wanted = {n: run.context.recipe_settings(n, d) for n, d in zip(given, loaded.devices, strict=True)}
    check_searchable(run.context, wanted)
    check_strategy(run.context, wanted)
    for name, settings in wanted.items():
        check_reachable(run.context, run.context.devices[name], settings)  # now, not after hours of training
    if folder.recipe.exists():
        known = _recipe_of(folder)
        if known.values_hash() != loaded.values_hash():
            sections = ("task", "supernet", "train", "data", "evaluation")
            differing = [s for s in sections if getattr(known, s) != getattr(loaded, s)]
            if plan is not None and (resized := _resized_by_budget(run.context, known, plan)):
                raise ResumeError(resized)
            raise ResumeError(
                f"{folder.root} holds a run with other settings of {', '.join(differing)}; "
                "use another --out, or the same recipe"
            )
    left_out = told(run.splits.left_out)  # data that cannot be used is found before anything is written
    if left_out:
        progress("images", 1, 1, left_out)
    if not first_rank():  # another process of the same training writes
        return run
    with folder.lock():
        # Before the recipe, whose phases follow from it. Without a budget it follows from the recipe at any time.
        if plan is not None and (not folder.plan.exists() or (plan.timed and read_plan(run.context) != plan)):
            write_plan(run.context, plan)
        if not folder.recipe.exists():
            write_text(folder.recipe, loaded.as_yaml())
        if not folder.manifest.exists():
            about = make_manifest(loaded, run.splits) | {RECIPE_SHA256: sha256_of(folder.recipe)}
            write_json(folder.manifest, about)
    return run


def _resized_by_budget(context: RunContext, known: Recipe, plan: Plan) -> str:
    """Say that a budget makes the phases of a run longer or shorter than it was begun with; empty: that is not it."""
    begun = read_plan(context)
    begun_factor = 1.0 if begun is None else begun.phase_factor
    if begun_factor == plan.phase_factor == 1.0 or _of_any_length(known) != _of_any_length(context.recipe):
        return ""
    way = "leave out --budget, and the supernet is trained for as long as the recipe says"
    if begun is not None and begun_factor != 1.0:
        way = f"give --budget {begun.asked['budget_s']:g}s, as it was begun"
    budget_s = plan.asked["budget_s"]
    with_budget = "without a budget" if budget_s is None else f"with a budget of {budget_s:g} s"
    was, now = (sum(phase.epochs for phase in one.train.phases) for one in (known, context.recipe))
    return (
        f"{context.folder.root} was begun with {was:.4g} epochs of training for its supernet, and {with_budget} there "
        f"would be {now:.4g}; they are fixed when a run begins: {way}, or use another --out"
    )


def _of_any_length(recipe: Recipe) -> str:
    """Hash of a recipe's values but for the length of its training."""
    phases = tuple(p.model_copy(update={"epochs": 1.0, "warmup_epochs": 0.0}) for p in recipe.train.phases)
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"phases": phases})}).values_hash()


RECIPE_SHA256 = "recipe_sha256"
"""In the manifest: digest of ``recipe.yaml`` as it was written."""


def _recipe_of(folder: RunFolder) -> Recipe:
    """The recipe of a run, as it was begun.

    Raises:
        RecipeError: the file is damaged.
        ResumeError: it was changed, or the manifest is damaged.
    """
    loaded = load_recipe(folder.recipe)
    remedy = "restore it, or remove it and start the run's command again"
    about = read_kept(dict[str, Any], folder.manifest, remedy) if folder.manifest.exists() else {}
    if about.get(RECIPE_SHA256, sha256_of(folder.recipe)) != sha256_of(folder.recipe):
        raise ResumeError(
            f"{folder.recipe} is not as the run was begun (sha256 differs from manifest.json); restore it, or give a "
            "changed recipe another --out"
        )
    return loaded


@checked_arguments
def open_run(
    folder: str | Path, progress: Progress = silent, executor: str | None = None,
    executor_options: Mapping[str, Any] | None = None,
) -> Run:  # fmt: skip
    """Open an existing run folder with the recipe it was made with.

    Args:
        folder: of the run.
        progress: told of everything that takes time.
        executor: who evaluates, a name of `hwnas.runs.executor.EXECUTORS`; default: as the recipe says.
        executor_options: what a named executor is made with, such as ``{"address": "auto"}`` for ``ray``.

    Raises:
        CheckpointError: the folder holds no run.
    """
    path = RunFolder(Path(folder)).recipe
    if not os.path.exists(path):
        raise CheckpointError(f"{folder} is no run folder: it has no recipe.yaml; make one with `hwnas run RECIPE`")
    loaded = with_executor(_recipe_of(RunFolder(Path(folder))), executor, executor_options, str(path))
    return Run(RunContext(RunFolder(Path(folder)), loaded, progress))


@checked_arguments
def plan(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    devices: Sequence[str] | None = None,
    budget: str | float | None = None,
    models: int | None = None,
    limits: Sequence[str] | None = None,
    progress: Progress = silent,
) -> Plan:
    """Estimate how a run would be divided, how long it takes and whether a supernet pays, before anything is trained.

    A few steps of each phase are timed. What archs can be on the devices says `reach`.

    Args:
        recipe: a YAML file or the name of a shipped recipe.
        overrides: dotted settings such as ``finish.models=2``.
        devices: names or folders of device profiles; default: those of the recipe.
        budget: time for everything, such as ``2h`` or seconds.
        models: for each device; default: as the recipe says.
        limits: such as ``latency_ms<=5``; default: those of the recipe.
        progress: told of everything that takes time.

    Raises:
        SearchError: a limit that no arch can meet.
        HwnasError: anything else the user can correct, in one line.
    """
    values: dict[str, object] = {} if devices is None else {"devices": list(devices)}
    if limits is not None:
        values["constraints"] = list(limits)
    if models is not None:
        values["finish"] = {"models": models}
    loaded = with_values(load_recipe(recipe, overrides), values, str(recipe))
    check_some(loaded.devices)
    context = RunContext(RunFolder(Path("runs") / loaded.name), loaded, progress)
    context.check_phases()
    context.devices = load_devices(context.folder, loaded.devices, loaded.supernet.precisions)
    wanted = {
        name: context.recipe_settings(name, given) for name, given in zip(context.devices, loaded.devices, strict=True)
    }
    read_limits(loaded.constraints, context.devices)
    for name, settings in wanted.items():
        reach_of(context, context.devices[name], settings)  # a limit that nothing can meet costs no training
    return make_plan(context, wanted, None if budget is None else parse_duration(budget), begun=False)


@checked_arguments
def operators(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    devices: Sequence[str] | None = None,
    keep: int | None = None,
) -> dict[str, Specialisation]:
    """Say which operators each layer of a recipe's networks would keep on a device, before anything is trained.

    Args:
        recipe: a YAML file or the name of a shipped recipe; its images are not needed.
        overrides: dotted settings.
        devices: names or folders of device profiles; default: those of the recipe.
        keep: operators of a layer; default: ``search.operators_kept``.

    Returns:
        By device: the kept options of every choice, with their times in milliseconds and scores; see `keep_operators`.

    Raises:
        MissingBlockError: a device that is measured on the spot has no table yet.
        HwnasError: anything else that the user can correct, in one line.
    """
    values: dict[str, object] = {} if devices is None else {"devices": list(devices)}
    if keep is not None:
        values["search"] = {"operators_kept": keep}
    loaded = with_values(load_recipe(recipe, overrides), values, str(recipe))
    check_some(loaded.devices)
    context = RunContext(RunFolder(Path("runs") / loaded.name), loaded)
    found = load_devices(context.folder, loaded.devices, loaded.supernet.precisions)
    return {name: operators_of(context, device, loaded.search.operators_kept) for name, device in found.items()}


def plan_of(
    recipe: Recipe, out: str | Path | None, budget_s: float | None, progress: Progress = silent
) -> tuple[Plan, Splits, bool]:
    """Return the plan of a run, its images, and whether the plan is new: not the one that its folder was begun with.

    Nothing is written.
    """
    folder = RunFolder(Path(out) if out is not None else Path("runs") / recipe.name)
    context = RunContext(folder, recipe, progress)
    context.check_phases()
    wanted = {
        name: context.recipe_settings(name, given) for name, given in zip(context.devices, recipe.devices, strict=False)
    }
    known = read_plan(context)
    if known is not None and known.asked == what_is_asked(recipe, wanted, budget_s):
        return known, context.splits, False
    for name, settings in wanted.items():
        check_reachable(context, context.devices[name], settings)
    return make_plan(context, wanted, budget_s), context.splits, True


def with_executor(recipe: Recipe, name: str | None, options: Mapping[str, Any] | None, where: str) -> Recipe:
    """Return a recipe with another executor and its options; without a name, or with the same alone: as it is.

    Raises:
        RecipeError: an unknown executor, or options without a name.
    """
    if options and name is None:
        raise RecipeError(f"options {dict(options)} are of no executor; name it, such as --executor ray")
    if name is None or (name == recipe.executor.name and options is None):
        return recipe
    return with_values(recipe, {"executor": {"name": name, "options": dict(options or {})}}, where)


QUICKSTART = "cluttered-digits-mbv3"
"""Recipe of the quickstart."""


@checked_arguments
def quickstart(
    out: str | Path = "runs/quickstart", devices: Sequence[str] | None = None, progress: Progress = silent
) -> Run:
    """Train a small supernet on real digits in clutter and search three devices, in minutes on two cores; see `run`."""
    return run(QUICKSTART, devices=devices, out=out, progress=progress)


@checked_arguments
def run(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    devices: Sequence[str] | None = None,
    evaluations: int | None = None,
    budget: str | float | None = None,
    limits: Sequence[str] | None = None,
    out: str | Path | None = None,
    progress: Progress = silent,
    executor: str | None = None,
    executor_options: Mapping[str, Any] | None = None,
) -> Run:
    """Do the whole chain: train, search every device, export, check and report; continue what is there.

    Args:
        recipe: a YAML file or the name of a shipped recipe.
        overrides: dotted settings such as ``search.evaluations=50``.
        devices: names or folders of device profiles; default: those of the recipe.
        evaluations: archs to evaluate for each device; default: as the recipe says.
        budget: time for everything, such as ``20min`` or seconds; default: as long as the recipe takes.
        limits: such as ``latency_ms<=5``; default: those of the recipe.
        out: the run folder; default: ``runs/<name of the recipe>``.
        progress: told of everything that takes time.
        executor: who evaluates, a name of `hwnas.runs.executor.EXECUTORS`; default: as the recipe says.
        executor_options: what a named executor is made with, such as ``{"address": "auto"}`` for ``ray``.

    Returns:
        The run; ``run.front("hexagon-dsp").knee().export("out/")`` gives a model.

    Raises:
        HwnasError: anything the user can correct, in one line.
    """
    if budget is not None and evaluations is not None:
        raise RecipeError("budget and evaluations both size the search; give one of them")
    values: dict[str, object] = {}
    if devices is not None:
        values["devices"] = list(devices)
    if limits is not None:
        values["constraints"] = list(limits)
    if evaluations is not None:
        values["search"] = {"evaluations": evaluations}
    loaded = with_values(
        with_executor(load_recipe(recipe, overrides), executor, executor_options, str(recipe)), values, str(recipe)
    )
    check_some(loaded.devices)
    budget_s = None if budget is None else parse_duration(budget)
    if budget_s is not None:
        check_sizable(loaded.search)
    planned_work, splits, is_new = plan_of(loaded, out, budget_s, progress)
    started = start_run(planned(loaded, planned_work), out, progress=progress, plan=planned_work, splits=splits)
    if is_new and (planned_work.models or budget_s is not None):
        progress("plan", 1, 1, str(planned_work))
    with started.context.folder.lock(), started.context.recorded("run", budget_s):
        given = load_devices(started.context.folder, loaded.devices, loaded.supernet.precisions)
        started.context.devices.update({n: d for n, d in given.items() if n not in started.devices})
        wanted = {n: started.context.recipe_settings(n, d) for n, d in zip(given, loaded.devices, strict=True)}
        wanted = {name: planned_search(settings, planned_work) for name, settings in wanted.items()}
        if planned_work.strategy == "supernet":
            started.train()
        started.search_with(wanted, planned_work.search_s, FEWEST_EVALUATIONS)
        started.write_bundles()
        started.check_latency()
        started.report()
    return started
