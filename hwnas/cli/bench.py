"""How good is what a run has made? Comparisons that take longer than a look at its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Compare what a run has made with a reference.", no_args_is_help=True)


@app.command()
def supernet(
    folder: Annotated[Path, typer.Argument(help="Run folder with a trained supernet.")],
    subnets: Annotated[int, typer.Option(min=1, help="Random subnets to compare.")] = 6,
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the training images for each, alone.")] = 10,
    lr: Annotated[
        float | None, typer.Option(min=1e-9, help="Peak rate alone; default: of the first training phase.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the subnets and of their first weights.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")] = False,
) -> None:
    """Test accuracy that subnets inherit from the supernet, against the same networks trained alone."""
    from hwnas.cli.main import _print, _progress, _table
    from hwnas.runs.analysis import quality
    from hwnas.runs.run import open_run

    with _progress(as_json) as progress:
        found = quality.supernet_quality(open_run(folder, progress), subnets, epochs, lr, seed)
    rows = [
        [q.key, str(q.resolution_px), f"{q.params:,}", f"{q.inherited_percent:.2f}", f"{q.alone_percent:.2f}",
         f"{q.alone_percent - q.inherited_percent:+.2f}"]
        for q in found.subnets
    ]  # fmt: skip
    _print(
        as_json, quality.as_json(found),
        _table(["subnet", "px", "params", "inherited %", f"alone, {epochs:g} epochs %", "gap"], rows)
        + f"\n\nmean gap {found.mean_gap_percent:+.3f} points, Kendall's tau {found.kendall_tau:.3f}, "
        f"standard error of one accuracy {found.mean_stderr_percent:.2f} points",
    )  # fmt: skip
