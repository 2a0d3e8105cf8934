"""Which commands are there? Each is one typed function; what is slow to import is imported inside it."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.bench import app as bench_app
from hwnas.cli.fleet import fleet
from hwnas.cli.profile import profile
from hwnas.cli.tables import app as tables_app
from hwnas.cli.tables import warn_of_mismatches
from hwnas.errors import HwnasError, OutputError
from hwnas.files import first_rank

if TYPE_CHECKING:
    from hwnas.runs.run import Run

app = typer.Typer(
    name="hwnas",
    help="Hardware-aware neural architecture search: one supernet, a Pareto archive of real models per device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
devices_app = typer.Typer(help="List device profiles, or show one.", invoke_without_command=True)
app.add_typer(devices_app, name="devices")
app.add_typer(tables_app, name="tables")
app.command()(profile)
app.add_typer(bench_app, name="bench")
app.command()(fleet)

Evaluations = Annotated[int | None, typer.Option("--evaluations", help="Archs to evaluate per device.")]
Budget = Annotated[
    str | None,
    typer.Option("--budget", help="Time for the search of all devices, such as 20min; it sizes everything itself."),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", help="Hard limit on an objective in its unit, such as latency_ms<=5; repeatable.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder; default: runs/<recipe name>.")]
Devices = Annotated[
    str | None, typer.Option("--devices", help="Comma-separated names or folders; see `hwnas devices`.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings of the recipe, such as train.batch_size=32.", show_default=False)
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse a latency table of another machine or runtime.")]
RunFolder = Annotated[Path, typer.Argument(help="Run folder, such as runs/quickstart.")]


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option("--out", help="Run folder.")] = Path("runs/quickstart"),
    devices: Devices = None,
    as_json: Json = False,
) -> None:
    """Train a small supernet on real digits and search three devices, in minutes on two cores."""
    _run("digits-mbv3", None, devices, out, as_json)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="YAML file or name of a shipped recipe.")],
    overrides: Overrides = None,
    devices: Devices = None,
    evaluations: Evaluations = None,
    budget: Budget = None,
    limit: Limits = None,
    out: Out = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Do the whole chain: train, search every device, export, check latency, report. Continues what is there."""
    size = [] if evaluations is None else [f"search.evaluations={evaluations}"]
    size += [f"constraints={json.dumps(limit)}"] if limit else []
    _run(recipe, [*(overrides or ()), *size], devices, out, as_json, _seconds(budget, evaluations), strict)


def _seconds(budget: str | None, evaluations: int | None) -> float | None:
    from hwnas.errors import RecipeError
    from hwnas.runs.budget import parse_duration

    if budget is not None and evaluations is not None:
        raise RecipeError("--budget and --evaluations both size the search; give one of them")
    return None if budget is None else parse_duration(budget)


def _run(
    recipe: str, overrides: list[str] | None, devices: str | None, out: Path | None, as_json: bool,
    budget_s: float | None = None, strict: bool = False,
) -> None:  # fmt: skip
    from hwnas.runs.recipe import load_recipe
    from hwnas.runs.run import run as run_recipe

    warn_of_mismatches(_split(devices) or load_recipe(recipe, overrides or ()).devices, strict)
    with _progress(as_json) as progress:
        done = run_recipe(recipe, _split(devices), out, overrides or (), progress, budget_s)
    _print_run(done, as_json)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="YAML file or name of a shipped recipe.")],
    overrides: Overrides = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Train the supernet of a recipe; continues where an earlier start stopped."""
    from hwnas.runs.recipe import load_recipe
    from hwnas.runs.run import start_run

    loaded = load_recipe(recipe, overrides or ())
    with _progress(as_json) as progress:
        started = start_run(loaded, out or Path("runs") / loaded.name, progress)
        started.train()
    folder = started.folder / "train"
    _print(as_json, {"supernet": str(folder)}, f"supernet: {folder}\nnext: hwnas search {started.folder}")


@app.command()
def search(
    folder: RunFolder,
    devices: Devices = None,
    evaluations: Evaluations = None,
    budget: Budget = None,
    limit: Limits = None,
    algorithm: Annotated[str | None, typer.Option(help="hurricane, natv2, nsga2 or random.")] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Search the trained supernet of a run for every device and write their fronts."""
    from hwnas.runs.recipe import check_recipe
    from hwnas.runs.run import open_run, start_run

    budget_s = _seconds(budget, evaluations)
    values = open_run(folder).recipe.model_dump(mode="json")
    if devices is not None:
        values["devices"] = _split(devices)
    if evaluations is not None:
        values["search"]["evaluations"] = evaluations
    if limit:
        values["constraints"] = limit
    if algorithm is not None:
        values["search"]["algorithm"] = algorithm
    warn_of_mismatches(values["devices"], strict)
    with _progress(as_json) as progress:
        opened = start_run(check_recipe(values, "search"), folder, progress)
        opened.budget_s = budget_s
        opened.supernet  # noqa: B018 (an untrained run is an error before tables are measured)
        opened.tables()
        opened.search()
    found = {name: len(opened.front(name)) for name in opened.devices}
    _print(as_json, {"fronts": found}, f"models on the fronts: {found}\nnext: hwnas export {folder}")


@app.command()
def export(
    folder: RunFolder,
    device: Annotated[str | None, typer.Option(help="Device whose front is meant; default: every device.")] = None,
    key: Annotated[str | None, typer.Option(help="One model by the first digits of its key.")] = None,
    knee: Annotated[bool, typer.Option("--knee", help="The model nearest to best accuracy and latency.")] = False,
    min_top1: Annotated[
        float | None, typer.Option(help="The fastest model with at least this validation accuracy, percent.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also copy the chosen bundles here.")] = None,
    as_json: Json = False,
) -> None:
    """Write the model bundles of the fronts, or choose models and copy them."""
    from hwnas.runs.run import open_run

    with _progress(as_json) as progress:
        opened = open_run(folder, progress)
        opened.export()
        fronts = [opened.front(device)] if device else [opened.front(name) for name in opened.devices]
        chosen = [m for front in fronts for m in _choose(front, key, knee, min_top1)]
        if key is not None and not chosen:
            with opened.archive() as archive:
                arch = opened.find(key, archive)
                target = opened.devices[device] if device else next(iter(opened.devices.values()))
                bundle = opened.export_model(arch, target, (out or opened.folder / "models") / arch.key, archive)
            folders = [bundle.folder]
        else:
            folders = [m.export(out).folder if out else m.folder for m in chosen]
    _print(as_json, {"bundles": [str(f) for f in folders]}, "\n".join(str(f) for f in folders))


def _choose(front: Any, key: str | None, knee: bool, min_top1: float | None) -> list[Any]:
    if key is not None:
        return [m for m in front if m.key.startswith(key)]
    if knee:
        return [front.knee()]
    return [front.fastest(min_top1)] if min_top1 is not None else list(front)


@app.command()
def finetune(
    folder: RunFolder,
    key: Annotated[str, typer.Argument(help="First digits of the model's key.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the new bundle.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training images.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    device: Annotated[str | None, typer.Option(help="Device whose latency the bundle states.")] = None,
    as_json: Json = False,
) -> None:
    """Train one extracted subnet further, with the largest subnet as its teacher."""
    from hwnas.runs.recipe import check_recipe
    from hwnas.runs.run import open_run

    with _progress(as_json) as progress:
        opened = open_run(folder, progress)
        given = {k: v for k, v in (("epochs", epochs), ("lr", lr)) if v is not None}
        values = opened.recipe.model_dump(mode="json")
        values["finetune"] |= given
        config = check_recipe(values, "finetune").finetune
        if device is not None and device not in opened.devices:
            raise _unknown(device, opened)
        result, bundle = opened.finetune(key, out or opened.folder / "finetuned" / key, config, device)
    found = {
        "bundle": str(bundle.folder), "top1_before_percent": result.score_before,
        "top1_percent": result.score, "test_top1_percent": bundle.metrics["test_top1_percent"],
    }  # fmt: skip
    _print(
        as_json, found,
        f"validation top-1 {result.score_before:.2f} % -> {result.score:.2f} %, "
        f"test {found['test_top1_percent']:.2f} %\nbundle: {bundle.folder}",
    )  # fmt: skip


@devices_app.callback()
def devices(context: typer.Context, as_json: Json = False) -> None:
    """List device profiles, or show one with `hwnas devices show NAME`."""
    if context.invoked_subcommand is not None:
        return
    from hwnas.latency.device import load_profile, shipped_devices

    profiles = [load_profile(name) for name in shipped_devices()]
    rows = [[p.name, p.kind, p.origin, f"{p.error.mape_percent:.1f} %" if p.error else "-", p.title] for p in profiles]
    _print(
        as_json, [p.model_dump(mode="json", exclude={"cost_model"}) for p in profiles],
        _table(["name", "kind", "origin", "error", "device"], rows)
        + "\n\nerror: mean absolute error on held-out networks; `hwnas devices show NAME` says which",
    )  # fmt: skip


@devices_app.command("show")
def devices_show(
    name: Annotated[str, typer.Argument(help="Device name or profile folder.")], as_json: Json = False
) -> None:
    """Show where the numbers of a device come from."""
    from hwnas.latency.device import load_profile

    p = load_profile(name)
    lines = [f"{p.name}: {p.title}", f"kind        {p.kind}", f"runtime     {p.runtime}, {p.precision}",
             f"origin      {p.origin}", f"source      {p.source}", f"licence     {p.licence}"]  # fmt: skip
    if p.error:
        lines.append(
            f"error       {p.error.mape_percent:g} % mean, {p.error.within_10_percent:g} % within 10 %, "
            f"rank correlation {p.error.spearman:g}, on {p.error.n_held_out} held-out of {p.error.networks}"
        )
    lines += [f"conditions  {k}: {v}" for k, v in (p.conditions or {}).items()]
    lines += [f"note        {note}" for note in p.notes]
    _print(as_json, p.model_dump(mode="json"), "\n".join(lines))


@app.command("import-ofa")
def import_ofa(
    checkpoint: Annotated[Path, typer.Argument(help="Supernet checkpoint of once-for-all (.pth, .tar).")],
    recipe: Annotated[str, typer.Option("--recipe", help="YAML file or name of a shipped recipe.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that receives supernet.safetensors.")],
    as_json: Json = False,
) -> None:
    """Read published Once-For-All weights into a supernet of hwnas."""
    from hwnas.runs.published import import_ofa_checkpoint

    path = import_ofa_checkpoint(checkpoint, recipe, out)
    _print(as_json, {"supernet": str(path)}, f"supernet: {path}\nnext: hwnas.load_supernet({str(out)!r})")


@app.command()
def report(
    folder: RunFolder,
    others: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs to compare it with, such as ones of other seeds.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write report.html and fronts.png of a run again, with what several runs reached where others are named."""
    from hwnas.runs.run import open_run

    path = open_run(folder).report([open_run(other) for other in others or ()])
    _print(as_json, {"report": str(path)}, str(path))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has, how quiet it is, and what is missing."""
    from hwnas.runs.doctor import examine

    found = examine()
    width = max(len(k) for k in found)
    _print(as_json, found, "\n".join(f"{k:<{width}}  {v}" for k, v in found.items()))


# -- shared --------------------------------------------------------------------------------------------


def _progress(quiet: bool) -> Any:
    from hwnas.cli.progress import TerminalProgress

    return TerminalProgress(quiet or not first_rank())


def _split(devices: str | None) -> list[str] | None:
    return None if devices is None else [d.strip() for d in devices.split(",") if d.strip()]


def _unknown(device: str, opened: Run) -> HwnasError:
    from hwnas.errors import DeviceError

    return DeviceError(f"device {device!r} is not part of {opened.folder}; it has {', '.join(opened.devices)}")


def _table(heading: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(r[i]) for r in [heading, *rows]) for i in range(len(heading))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in [heading, *rows])


def _print(as_json: bool, values: Any, text: str) -> None:
    if first_rank():
        typer.echo(json.dumps(values, indent=2) if as_json else text)


def _print_run(done: Run, as_json: bool) -> None:
    from hwnas.runs.analysis.summary import summarise

    summary = summarise(done)
    rows = [
        [d["device"], d["origin"], str(d["models"]), f"{d['fastest_ms']:.4g} - {d['slowest_ms']:.4g}",
         f"{d['best_top1_percent']:.2f}", f"{d['best_test_top1_percent']:.2f}", d["knee"],
         "-" if d["latency_mape_percent"] is None else f"{d['latency_mape_percent']:.1f} %", _predicted(d["predictor"])]
        for d in summary["devices"]
    ]  # fmt: skip
    heading = [
        "device", "origin", "models", "latency ms", "best val %", "best test %", "knee", "latency error", "predictor",
    ]  # fmt: skip
    _print(as_json, summary, f"{_table(heading, rows)}\n\nreport: {summary['report']}")


def _predicted(judged: dict[str, Any]) -> str:
    """Kendall's tau of a search's predictor: of accuracy where it was predicted, else of the first objective."""
    if not judged:
        return "-"
    found = judged.get("top1_percent") or next(iter(judged.values()))
    m = found["metrics"]
    return f"tau {m['kendall_tau']:.2f} ± {m['kendall_tau_deviation']:.2f} on {found['archs']}"


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2, never a traceback."""
    try:
        app()
    except HwnasError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        _fail(
            str(OutputError(f"cannot write {error.filename or 'a file'}: {error.strerror}; free space or choose --out"))
        )
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            typer.echo("stopped; the same command continues where it stopped", err=True)
        raise


def _fail(message: str) -> None:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(2)
