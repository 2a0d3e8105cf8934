"""`hwnas devices`: which device profiles there are, and where their numbers come from."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli.options import Devices, Json, Overrides, RecipeName, split
from hwnas.cli.output import show, table, warn

app = typer.Typer(help="List device profiles, show one, or say how differently they rank.", invoke_without_command=True)


@app.callback()
def devices(context: typer.Context, as_json: Json = False) -> None:
    """List device profiles, or show one with `hwnas devices show NAME`."""
    if context.invoked_subcommand is not None:
        return
    from hwnas.latency import device

    profiles = device.devices()
    rows = [[p.name, p.kind, p.origin, f"{p.error.mape_percent:.1f} %" if p.error else "-", p.title] for p in profiles]
    show(
        as_json, [p.model_dump(mode="json", exclude={"cost_model"}) for p in profiles],
        table(["name", "kind", "origin", "error", "device"], rows)
        + "\n\nerror: mean absolute error on held-out networks; `hwnas devices show NAME` says which",
    )  # fmt: skip


@app.command("show")
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
    if p.family_error:
        lines.append(
            f"families    {p.family_error.mape_percent:g} % mean on families of networks that no constant was fitted to"
        )
    lines += [f"limit       {name}<={size:g}" for name, size in p.limits.items()]
    lines += [f"operators   {said}" for said in p.missing_operators]
    lines += [f"conditions  {k}: {v}" for k, v in (p.conditions or {}).items()]
    lines += [f"note        {note}" for note in p.notes]
    show(as_json, p.model_dump(mode="json"), "\n".join(lines))


@app.command("rank")
def devices_rank(
    recipe: RecipeName,
    overrides: Overrides = None,
    devices: Devices = None,
    archs: Annotated[int, typer.Option("--archs", min=10, help="Random archs that are ranked.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the archs.")] = 0,
    as_json: Json = False,
) -> None:
    """Show how differently devices rank a recipe's archs, so that nobody searches the same device twice."""
    from hwnas.latency.rank import ALIKE, rank_devices
    from hwnas.runs.recipe import load_recipe
    from hwnas.supernet import make_layout

    layout = make_layout(load_recipe(recipe, overrides or ()).supernet)
    found = rank_devices(layout, split(devices), archs, seed)
    for why in found.not_ranked.values():
        warn(why)
    rows = [[f"{i} {name}", *(f"{tau:.2f}" for tau in found.tau[i - 1, :i])] for i, name in enumerate(found.devices, 1)]
    width = len(rows)
    lines = [
        f"Kendall's tau of the latencies of {found.n_archs} random archs: 1 is the same order, 0 none, -1 the reverse",
        table(["", *map(str, range(1, width + 1))], [[*row, *[""] * (width + 1 - len(row))] for row in rows]),
        *(f"alike: {a} and {b} ({tau:.3f}); search one of them" for a, b, tau in found.alike),
    ]
    if not found.alike:
        lines.append(f"no two devices rank these archs alike (tau of {ALIKE} or more)")
    show(as_json, found.as_dict(), "\n".join(lines))
