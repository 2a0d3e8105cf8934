"""The verbs that make a run: quickstart, run, plan, train, search, fleet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.options import (
    Address,
    Budget,
    Devices,
    Evaluations,
    ExecutorName,
    ExecutorOptions,
    Json,
    Limits,
    NewLimits,
    Out,
    Overrides,
    RecipeName,
    RunFolder,
    Strict,
    chosen_executor,
    split,
)
from hwnas.cli.output import duration, following, progress, show, table, warn, warn_of_devices

if TYPE_CHECKING:
    from hwnas.runs.plan import Plan
    from hwnas.runs.reach import DeviceReach
    from hwnas.runs.run import Run


def quickstart(
    out: Annotated[Path, typer.Option("--out", help="Run folder.")] = Path("runs/quickstart"),
    devices: Devices = None,
    as_json: Json = False,
) -> None:
    """Train a small supernet on real digits in clutter and search three devices, in minutes on two cores."""
    from hwnas.runs.start import QUICKSTART

    run(QUICKSTART, devices=devices, out=out, as_json=as_json)


def run(
    recipe: RecipeName,
    overrides: Overrides = None,
    devices: Devices = None,
    evaluations: Evaluations = None,
    budget: Budget = None,
    limit: Limits = None,
    executor: ExecutorName = None,
    executor_option: ExecutorOptions = None,
    address: Address = None,
    out: Out = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Do the whole chain: train, search every device, export, check latency, report. Continues what is there."""
    from hwnas.runs.recipe import load_recipe
    from hwnas.runs.start import run as run_recipe

    settings = overrides or ()
    warn_of_other_machines(split(devices) or load_recipe(recipe, settings).devices, strict)
    who = chosen_executor(executor, executor_option, address)
    with progress(as_json) as told:
        done = run_recipe(recipe, settings, split(devices), evaluations, budget, limit, out, told, *who)
    _show_run(done, as_json)


def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    devices: Devices = None,
    budget: Budget = None,
    models: Annotated[
        int | None, typer.Option(min=0, help="Models for each device; default: as the recipe says.")
    ] = None,
    limit: NewLimits = None,
    as_json: Json = False,
) -> None:
    """Say beforehand what archs can be on the devices, how long a run takes, and whether a supernet pays."""
    from hwnas.runs.reach import reach
    from hwnas.runs.recipe import load_recipe
    from hwnas.runs.start import plan as plan_recipe

    with progress(as_json) as told:
        found = plan_recipe(recipe, overrides or (), split(devices), budget, models, limit, told)
    reached = reach(recipe, overrides or (), split(devices), limit)
    for one in reached:
        if one.beyond and not as_json:
            warn(f"{one.device}: {one.beyond}")
    limited = limit is not None or bool(load_recipe(recipe, overrides or ()).constraints)
    show(
        as_json, {**found.as_dict(), "devices": [one.as_dict() for one in reached]},
        f"{_reached(reached, limited)}\n\n{found}\n\n{_divided(found)}\n"
        + ("" if budget else "for another time add --budget, such as --budget 30min\n")
        + following("run", recipe, *_same(overrides, devices, budget, models, limit)),
    )  # fmt: skip


def _divided(found: Plan) -> str:
    """What each part of a run costs; in a run without a supernet there is one."""
    parts = [
        ("train the supernet", found.train_gmacs * found.phase_factor, "train"),
        ("search all devices", found.search_gmacs, "search"),
        ("train the chosen models to their end", found.finish_gmacs, "finish"),
    ]
    if found.strategy == "direct":
        parts = [("train each model alone", sum(gmacs for _, gmacs, _ in parts), "finish")]
    if found.estimated_s is None:
        return table(["what", "GMACs"], [[name, f"{gmacs:,.0f}"] for name, gmacs, _ in parts])
    times = found.estimated_s
    rows = [[name, duration(times[part])] for name, _, part in parts]
    if times["tables"]:
        rows.append(["time blocks and networks on this machine", duration(times["tables"])])
    rows.append(["together, with exports", duration(1.05 * sum(times.values()))])
    return table(["what a run does", "about"], rows)


def _reached(found: Sequence[DeviceReach], limited: bool) -> str:
    """Ranges of values on each device, and where there are limits, how many archs keep them."""
    names = list(dict.fromkeys(name for one in found for name in one.values))
    rows = [
        [one.device, *(f"{_number(v[0])} - {_number(v[2])}" if (v := one.values.get(n)) else "-" for n in names),
         *([_kept(one)] if limited else [])]
        for one in found
    ]  # fmt: skip
    later = [one.device for one in found if one.measured_later]
    note = f"\nlatencies of {', '.join(later)} are measured when the run begins" if later else ""
    size = found[0].space_size if found else 0
    heading = ["can have, on", *names, *(["keep the limits"] if limited else [])]
    return f"{size:,} archs\n\n{table(heading, rows)}{note}"


def _kept(one: DeviceReach) -> str:
    """Share of archs that keep the limits, but for those that cannot be checked before something is trained."""
    later = ", ".join(one.unchecked)
    if one.within_percent is None:
        return f"known later: {later}"
    return f"{one.within_percent:g} %{f', but for {later}' if later else ''}"


def _number(value: float) -> str:
    """Four digits that count, without an exponent where it can be read so."""
    return f"{float(f'{value:.4g}'):,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"


def _same(
    overrides: Sequence[str] | None, devices: str | None, budget: str | None, models: int | None,
    limits: Sequence[str] | None,
) -> list[str]:  # fmt: skip
    """What makes a command mean the same run."""
    given = [*(overrides or ()), *([] if models is None else [f"finish.models={models}"])]
    named = (("--devices", devices), ("--budget", budget), *(("--limit", one) for one in limits or ()))
    return [*given, *(word for option, value in named if value is not None for word in (option, value))]


def train(recipe: RecipeName, overrides: Overrides = None, out: Out = None, as_json: Json = False) -> None:
    """Train the supernet of a recipe; continues where an earlier start stopped."""
    from hwnas.runs.start import start_run

    with progress(as_json) as told:
        started = start_run(recipe, out, overrides or (), told)
        started.train()
    folder = started.context.folder.train
    show(as_json, {"supernet": str(folder)}, f"supernet: {folder}\n{following('search', started.folder)}")


def search(
    folder: RunFolder,
    devices: Devices = None,
    evaluations: Evaluations = None,
    budget: Budget = None,
    limit: Limits = None,
    searcher: Annotated[
        str | None,
        typer.Option(
            "--searcher",
            help="Algorithm: a name that `hwnas plugins` lists, or package.module:object; default: as before.",
        ),
    ] = None,
    executor: ExecutorName = None,
    executor_option: ExecutorOptions = None,
    address: Address = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Search devices, also new ones, from everything that is known, and write their fronts."""
    from hwnas.runs.start import open_run

    who = chosen_executor(executor, executor_option, address)
    with progress(as_json) as told:
        opened = open_run(folder, told, *who)
        given = opened.context.given_devices
        meant = [given.get(name, name) for name in split(devices) or given]
        warn_of_other_machines([name for name in meant if name not in opened.devices or name in given], strict)
        opened.search(split(devices), evaluations, budget, limit, searcher)
    searched = [opened.searched_device(name) for name in opened.searched()]
    found = {one.name: len(one.front) for one in searched}
    warnings = {one.name: list(one.warnings) for one in searched}
    warn_of_devices(warnings, as_json)
    show(
        as_json,
        {"fronts": found, "warnings": warnings},
        f"models on the fronts: {', '.join(f'{name} {n}' for name, n in found.items())}\n{following('export', folder)}",
    )


def fleet(
    folder: RunFolder,
    models: Annotated[int, typer.Option("--models", help="At most this many models.")],
    limit: Limits = None,
    as_json: Json = False,
) -> None:
    """Pick at most k evaluated models that serve all devices of a run with the least worst-case regret."""
    from hwnas.runs.start import open_run

    found = open_run(folder).fleet(models, limit or ())
    title, unit = found.score_title, found.score_unit
    rows = [
        [d.device, f"{d.limit_ms:.4g}", d.key, f"{d.latency_ms:.4g}", f"{d.score:.2f}", f"{d.best_score:.2f}",
         f"{d.regret:.2f}"]
        for d in found.devices
    ]  # fmt: skip
    heading = ["device", "limit ms", "model", "estimated ms", f"val {title} {unit}", f"own best {unit}", "regret"]
    how = "no other choice is better" if found.exact else "chosen greedily: the exact program took too long"
    worst = ", ".join(
        f"{k}: {r:.2f}" if math.isfinite(r) else f"{k}: limits cannot be kept"
        for k, r in enumerate(found.regret_by_models, 1)
    )
    show(
        as_json, found.as_dict(),
        f"{table(heading, rows)}\n"
        "limits are for the estimates that were searched with: few of the models were timed\n\n"
        f"{len(found.keys)} model(s), worst regret {found.worst_regret:.2f} {unit} of {title}"
        f" ({how})\nworst regret by number of models: {worst}\n"
        + following("export", folder, "--key", found.keys[0], "--out", "chosen"),
    )  # fmt: skip


def warn_of_other_machines(devices: Sequence[str], strict: bool) -> None:
    """Warn of tables that do not hold here.

    Raises:
        TableMismatchError: there is such a table, and ``strict``.
    """
    from hwnas.latency.device import load_profile

    measured = [name for name in devices if load_profile(name).conditions is not None]
    if not measured:
        return
    from hwnas.latency.table import load_device
    from hwnas.latency.validity import mismatches

    for name in measured:
        for mismatch in mismatches(load_device(name), strict=strict):
            warn(mismatch)


def _show_run(done: Run, as_json: bool) -> None:
    from hwnas.runs.analysis.summary import summarise

    summary = summarise(done.context.folder, [done.searched_device(name) for name in done.searched()])
    score = done.context.score
    rows = [
        [d["device"], d["origin"], str(d["models"]), f"{d['fastest_ms']:.4g} - {d['slowest_ms']:.4g}",
         f"{d[f'best_{score.name}']:.2f}", f"{d[f'test_{score.name}_of_best']:.2f}", d["knee"],
         "-" if d["latency_mape_percent"] is None else f"{d['latency_mape_percent']:.1f} %",
         _predicted(d["predictor"], score.name)]
        for d in summary["devices"]
    ]  # fmt: skip
    heading = [
        "device", "origin", "models", "latency ms", f"best val. {score.title} {score.unit}",
        f"its test {score.title} {score.unit}", "knee", "latency error", "predictor",
    ]  # fmt: skip
    warn_of_devices({d["device"]: d["warnings"] for d in summary["devices"]}, as_json)
    follows = following("pareto", done.folder)
    show(as_json, summary, f"{table(heading, rows)}\n\nreport: {summary['report']}\n{follows}")


def _predicted(judged: dict[str, Any], score: str) -> str:
    """Kendall's tau of a search's predictor: of the score where it was predicted, else of the first objective."""
    if not judged:
        return "-"
    found = judged.get(score) or next(iter(judged.values()))
    m = found["metrics"]
    return f"tau {m['kendall_tau']:.2f} ± {m['kendall_tau_deviation']:.2f} on {found['archs']}"


VERBS = (quickstart, run, plan, train, search, fleet)
"""Commands of this file, in the order of the help."""
