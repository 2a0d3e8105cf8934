"""`hwnas fleet`: few models for all devices of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from hwnas.errors import RecipeError


def fleet(
    folder: Annotated[Path, typer.Argument(help="Run folder, such as runs/quickstart.")],
    models: Annotated[int, typer.Option("--models", help="At most this many models.")],
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            help="Latency limit of a device, such as local-cpu=5 (ms); default: its knee.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")] = False,
) -> None:
    """Pick at most k evaluated models that serve all devices of a run with the least worst-case regret."""
    from hwnas.cli.main import _table
    from hwnas.runs.analysis.fleet import plan_fleet
    from hwnas.runs.run import open_run

    found = plan_fleet(open_run(folder), models, dict(_limit(text) for text in limit or ()))
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2))
        return
    rows = [
        [d.device, f"{d.limit_ms:.4g}", d.key, f"{d.latency_ms:.4g}", f"{d.top1_percent:.2f}",
         f"{d.best_top1_percent:.2f}", f"{d.regret_points:.2f}"]
        for d in found.devices
    ]  # fmt: skip
    heading = ["device", "limit ms", "model", "latency ms", "val %", "own best %", "regret"]
    how = "no other choice is better" if found.exact else "chosen greedily: the exact program took too long"
    worst = ", ".join(
        f"{k}: {r:.2f}" if math.isfinite(r) else f"{k}: limits cannot be kept"
        for k, r in enumerate(found.regret_by_models, 1)
    )
    typer.echo(
        f"{_table(heading, rows)}\n\n{len(found.keys)} model(s), worst regret {found.worst_regret_points:.2f} points "
        f"of accuracy ({how})\nworst regret by number of models: {worst}\n"
        f"next: hwnas export {folder} --key {found.keys[0]} --out DIR"
    )


def _limit(text: str) -> tuple[str, float]:
    device, _, value = text.partition("=")
    try:
        ms = float(value)
    except ValueError:
        ms = math.nan
    if not device or not ms > 0:
        raise RecipeError(f"limit {text!r} is not of the form DEVICE=MILLISECONDS, such as local-cpu=5")
    return device, ms
