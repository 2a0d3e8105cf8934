"""`hwnas devices`: which device profiles there are, and where their numbers come from."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli.options import Json
from hwnas.cli.output import show, table

app = typer.Typer(help="List device profiles, or show one.", invoke_without_command=True)


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
    lines += [f"conditions  {k}: {v}" for k, v in (p.conditions or {}).items()]
    lines += [f"note        {note}" for note in p.notes]
    show(as_json, p.model_dump(mode="json"), "\n".join(lines))
