"""`hwnas tables`: build a latency table, check it, read one of others, fit a profile to a few measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.options import Json, Overrides
from hwnas.cli.output import following, progress, show, warn
from hwnas.cli.target_options import Host, TargetName, TargetOptions, chosen_target
from hwnas.errors import TableError

if TYPE_CHECKING:
    from hwnas.latency.table import Device

app = typer.Typer(help="Make, check and import latency tables.", no_args_is_help=True)

RecipeOption = Annotated[str, typer.Option("--recipe", help="YAML file or name of a shipped recipe.")]


@app.command()
def build(
    recipe: RecipeOption,
    out: Annotated[Path, typer.Option("--out", help="Folder of the table; it becomes a device profile.")],
    overrides: Overrides = None,
    device: Annotated[
        str, typer.Option("--device", help="Profile whose kind, provider and threads are used.")
    ] = "local-cpu",
    name: Annotated[str | None, typer.Option("--name", help="Of the device; default: the folder's name.")] = None,
    target: TargetName = None,
    target_option: TargetOptions = None,
    host: Host = None,
    as_json: Json = False,
) -> None:
    """Measure the blocks of a recipe, learn how they add up, and publish the error. Continues what is there."""
    from hwnas.latency.build import build_table
    from hwnas.runs.recipe import load_recipe
    from hwnas.supernet import make_layout

    loaded = load_recipe(recipe, overrides or ())
    timer, options = chosen_target(target, target_option, host)
    with progress(as_json) as told:
        made = build_table(
            make_layout(loaded.supernet), out, device, name, timer, options, loaded.tables, loaded.as_yaml(), told
        )
    show(
        as_json,
        {"table": str(out), **_summary(made)},
        f"table: {out}\n{_said(made)}\n{following('tables', 'check', out)}",
    )


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of a measured table.")],
    networks: Annotated[int, typer.Option("--networks", min=3, max=10_000, help="Fresh random subnets to time.")] = 60,
    seed: Annotated[int, typer.Option("--seed", help="Of the subnets.")] = 1000,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Default: the recipe it was built for.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a table of another machine or runtime.")] = False,
    target: TargetName = None,
    target_option: TargetOptions = None,
    host: Host = None,
    as_json: Json = False,
) -> None:
    """Time fresh random subnets and compare them with the table's estimates."""
    from hwnas.latency.check import check_table
    from hwnas.runs.recipe import load_recipe
    from hwnas.supernet import make_layout

    loaded = load_recipe(recipe or _recipe_of(folder))
    timer, options = chosen_target(target, target_option, host)
    with progress(as_json) as told:
        found = check_table(
            make_layout(loaded.supernet), folder, networks, seed, strict, timer, options, loaded.tables, told
        )
    for mismatch in found["mismatches"]:
        warn(mismatch)
    worst = found["worst"]
    show(
        as_json, found,
        f"{found['n_networks']} fresh subnets at resolutions {', '.join(map(str, found['resolutions']))}\n"
        f"mean absolute error {found['mape_percent']:.2f} %; within 5 %: {found['within_5_percent']:.0f} %, "
        f"within 10 %: {found['within_10_percent']:.0f} %; rank correlation {found['spearman']:.4f}\n"
        f"worst: {worst['arch']}, {worst['predicted_ms']:.4g} ms estimated, {worst['measured_ms']:.4g} ms measured\n"
        f"networks take {found['machine_slowdown']:.2f} times as long now as when the table was made; without that "
        f"taken out the error is {found['mape_percent_as_timed']:.2f} %",
    )  # fmt: skip


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="The table: a .yaml, .json or .csv file, or a folder of them.")],
    table_format: Annotated[str, typer.Option("--format", help="once-for-all, nn-meter, nsganetv2 or csv.")],
    recipe: RecipeOption,
    licence: Annotated[str, typer.Option("--licence", help="Licence of the table.")],
    source: Annotated[str, typer.Option("--source", help="Whose measurements these are.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the table; it becomes a device profile.")],
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the device; default: the folder's name.")] = None,
    unit: Annotated[str, typer.Option("--unit", help="Of the values: ms, us or s.")] = "ms",
    as_json: Json = False,
) -> None:
    """Read a block table of others for the blocks of a recipe; licence and source are kept with it."""
    from hwnas.latency.importers import import_table
    from hwnas.runs.recipe import load_recipe
    from hwnas.supernet import make_layout

    layout = make_layout(load_recipe(recipe, overrides or ()).supernet)
    made, notes = import_table(layout, path, table_format, source, licence, out, name, unit)
    for note in notes:
        warn(note)
    show(
        as_json, {"table": str(out), **_summary(made), "notes": notes},
        f"table: {out}\n{len(made.rows)} blocks, imported from {source} ({licence})",
    )  # fmt: skip


@app.command()
def sample(
    recipe: RecipeOption,
    out: Annotated[Path, typer.Option("--out", help="Folder that receives the models and measurements.csv.")],
    overrides: Overrides = None,
    networks: Annotated[int, typer.Option("--networks", min=5, max=10_000, help="How many.")] = 16,
    as_json: Json = False,
) -> None:
    """Write networks to time on a device of your own; fill their latencies into measurements.csv for `fit`."""
    from hwnas.latency.fit import sample_networks
    from hwnas.runs.recipe import load_recipe
    from hwnas.supernet import make_layout

    path = sample_networks(make_layout(load_recipe(recipe, overrides or ()).supernet), out, networks)
    show(
        as_json,
        {"measurements": str(path)},
        f"{networks} models in {out}\nfill in: {path}\n"
        + following(
            "tables",
            "fit",
            path,
            *(overrides or ()),
            "--recipe",
            recipe,
            "--source",
            "who measured, and how",
            "--licence",
            "of the measurements",
            "--out",
            "my-device",
        ),
    )


@app.command()
def fit(
    measurements: Annotated[Path, typer.Argument(help="CSV with latency_ms and, in each row, arch, network or file.")],
    licence: Annotated[str, typer.Option("--licence", help="Licence of the measurements.")],
    source: Annotated[str, typer.Option("--source", help="Who measured, and how.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the device profile.")],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="YAML file or name of a shipped recipe, whose archs are named; default: none."),
    ] = None,
    overrides: Overrides = None,
    operators: Annotated[
        Path | None,
        typer.Option("--operators", help="List of the operators of the networks that are named; default: none."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the device; default: the folder's name.")] = None,
    kind: Annotated[str, typer.Option("--kind", help="cpu, gpu, dsp, vpu, npu or fpga.")] = "npu",
    runtime: Annotated[str, typer.Option("--runtime", help="What executed the networks.")] = "not stated",
    precision: Annotated[str, typer.Option("--precision", help="Such as int8.")] = "not stated",
    unit: Annotated[
        str | None, typer.Option("--unit", help="Of the latencies: ms, us or s; default: ms, if they look like it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a device profile from 8 to 25 whole networks timed on the device, starting from every shipped device."""
    from hwnas.latency.fit import FAR, fit_profile
    from hwnas.runs.recipe import load_recipe
    from hwnas.supernet import make_layout

    if recipe is None and overrides:
        raise TableError(f"{overrides[0]!r} changes a recipe; give one with --recipe")
    layout = None if recipe is None else make_layout(load_recipe(recipe, overrides or ()).supernet)
    made = fit_profile(
        layout, measurements, source, licence, out, name, kind, runtime, precision, operators=operators, unit=unit
    )
    assert made.error is not None
    for note in made.notes:
        if FAR in note:
            warn(note)
    families = made.error.mape_percent_by_family or {}
    lines = [
        f"device: {out}\n{made.notes[0]}\nerror on left-out networks: {made.error.mape_percent:.2f} %, rank "
        f"correlation {made.error.spearman:g}",
        *([f"by family: {', '.join(f'{f} {e:g} %' for f, e in families.items())}"] if families else []),
        *([f"error on left-out families: {made.family_error.mape_percent:.2f} %"] if made.family_error else []),
        following("devices", "show", out)
        if recipe is None
        else following("run", recipe, *(overrides or ()), "--devices", out),
    ]
    show(as_json, made.model_dump(mode="json"), "\n".join(lines))


def _recipe_of(folder: Path) -> str:
    """The recipe that a table was built for: beside it, or that of the run it belongs to."""
    from hwnas.latency.build import RECIPE_FILE

    for path in (folder / RECIPE_FILE, folder / ".." / ".." / ".." / RECIPE_FILE):
        if path.exists():
            return str(path)
    raise TableError(f"{folder} does not say for which recipe it was made; give --recipe")


def _summary(device: Device) -> dict[str, Any]:
    profile = device.profile
    return {
        "device": device.name, "blocks": len(device.rows), "conditions": profile.conditions,
        "error": profile.error.model_dump() if profile.error else None,
        "interpolation": profile.interpolation.model_dump() if profile.interpolation else None,
    }  # fmt: skip


def _said(device: Device) -> str:
    profile = device.profile
    lines = [f"{len(device.rows)} blocks"]
    for what, error in (("error", profile.error), ("interpolated", profile.interpolation)):
        if error:
            lines.append(
                f"{what}: {error.mape_percent:.2f} % mean, {error.within_10_percent:g} % within 10 %, rank correlation "
                f"{error.spearman:g}, on {error.n_held_out} held-out networks"
            )
    conditions = profile.conditions or {}
    if "took_s" in conditions:
        lines.append(f"took {float(conditions['took_s']):.0f} s, planned {float(conditions['planned_s']):.0f} s")
    return "\n".join(lines)
