"""`hwnas bench`: how good is what a run has made? Comparisons that take longer than a look at its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import Devices, Json, RunFolder, split
from hwnas.cli.output import progress, show, table

if TYPE_CHECKING:
    from hwnas.runs.analysis.quality import Ranking

app = typer.Typer(help="Compare what a run has made with a reference.", no_args_is_help=True)


@app.command()
def supernet(
    folder: RunFolder,
    subnets: Annotated[int, typer.Option(min=1, help="Random subnets to compare.")] = 6,
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the training images for each, alone.")] = 10,
    lr: Annotated[
        float | None, typer.Option(min=1e-9, help="Peak rate alone; default: of the first training phase.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the subnets and of their first weights.")] = 0,
    finish_epochs: Annotated[
        float, typer.Option(min=0, help="Also train each subnet so long from what it inherits.")
    ] = 0,
    device: Annotated[
        str | None, typer.Option(help="Rank subnets within 10 % of its latency, too; default: none.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Test scores that subnets inherit from the supernet, against the same networks trained alone."""
    from hwnas.runs.start import open_run

    with progress(as_json) as told:
        found = open_run(folder, told).supernet_quality(subnets, epochs, lr, seed, finish_epochs, device)
    rows = [
        [q.key, str(q.resolution_px), f"{q.params:,}", f"{q.inherited:.2f}", f"{q.alone:.2f}",
         f"{q.alone - q.inherited:+.2f}"]
        for q in found.subnets
    ]  # fmt: skip
    unit = found.score_unit
    heading = ["subnet", "px", "params", f"inherited {unit}", f"alone, {epochs:g} epochs {unit}", "gap"]
    show(
        as_json, found.as_dict(),
        f"{table(heading, rows)}\n\nmean gap {found.mean_gap:+.3f} {unit}, Kendall's tau {found.kendall_tau:.3f}, "
        f"standard error of one {found.score_title} {found.mean_stderr:.2f} {unit}{_ranking(found.ranking)}",
    )  # fmt: skip


def _ranking(found: Ranking | None) -> str:
    """Rank correlations, but that of inherited scores over all subnets."""
    if found is None:
        return ""
    lines = []
    if found.finished_tau is not None:
        lines.append(f"Kendall's tau of finished subnets {found.finished_tau:.3f}")
    if found.device:
        finished = "" if found.finished_tau_in_bands is None else f", finished {found.finished_tau_in_bands:.3f}"
        lines.append(
            f"within 10 % of the latency on {found.device} ({found.n_pairs} pairs): inherited "
            f"{found.inherited_tau_in_bands:.3f}{finished}"
        )
    return "".join(f"\n{line}" for line in lines)


@app.command()
def baseline(
    folder: RunFolder,
    devices: Devices = None,
    lr: Annotated[float | None, typer.Option(min=1e-9, help="Peak rate; default: of the first training phase.")] = None,
    networks: Annotated[
        int | None, typer.Option(min=1, help="At most so many, each trained for longer; default: one a latency.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The family scaled by hand: as many networks as the front has, trained alone with what the run's plan had."""
    from hwnas.runs.start import open_run

    with progress(as_json) as told:
        opened = open_run(folder, told)
        found = opened.baseline(split(devices), lr, networks)
        opened.report()
    score = opened.context.score
    rows = [
        [one.device, f"{m.width:g}", f"{m.latency_ms:.4g}", f"{m.params:,}", f"{m.epochs:g}", f"{m.score:.2f}",
         f"{m.test_score:.2f}"]
        for one in found
        for m in one.models
    ]  # fmt: skip
    heading = [
        "device", "width", "latency ms", "params", "epochs", f"val {score.title} {score.unit}",
        f"test {score.title} {score.unit}",
    ]  # fmt: skip
    show(
        as_json,
        [one.as_dict() for one in found],
        f"{table(heading, rows)}\n\nbeside the fronts in {folder}/report.html",
    )
