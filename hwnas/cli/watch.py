"""The verbs that look on: watch, compare, track."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import Json, RunFolder
from hwnas.cli.output import duration, show, table

if TYPE_CHECKING:
    from hwnas.runs.analysis.compare import RunComparison
    from hwnas.runs.analysis.gains import DeviceGains
    from hwnas.runs.progress_log import ProgressLine
    from hwnas.runs.watch import RunState

WatchedFolder = Annotated[Path, typer.Argument(help="Run folder; it may be made later.")]


def watch(
    folder: WatchedFolder,
    once: Annotated[bool, typer.Option("--once", help="Say how far the run is, and end.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=1, help="Seconds between two lines of one phase or generation.")
    ] = 30,
    as_json: Json = False,
) -> None:
    """Say how far a run is that another terminal has begun or will begin: a line a phase, generation or model."""
    from hwnas.runs.watch import follow, run_state

    if once or as_json:
        state = run_state(folder)
        show(as_json, state.as_dict(), _state_text(state))
        return
    try:
        for line in follow(folder, every):
            typer.echo(_line_text(line))
    except KeyboardInterrupt:  # how one stops watching
        typer.echo("no longer watching; the run goes on", err=True)


def _state_text(state: RunState) -> str:
    said = {
        "waiting": f"{state.verb} is done, and no command is at work on it" if state.verb else "no command has begun",
        "running": f"{state.verb} is running",
        "stopped": f"{state.verb} was stopped: {state.error}",
    }
    parts = [f"{state.folder}: {said.get(state.state, state.state)}"]
    parts += [_task_text(task) for task in state.tasks]
    if state.fronts:
        rows = [[f.device, str(f.models), f"{f.best_score:.2f}", f"{f.fastest_ms:.4g}"] for f in state.fronts]
        parts.append("\n" + table(["front of", "models", f"best {state.score}", "fastest ms"], rows))
    return "\n".join(parts)


def _line_text(line: ProgressLine) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(line.at))
    if line.kind == "begin":
        return f"{clock} {line.what} begins"
    if line.kind == "end":
        return f"{clock} {line.what} {f'stopped: {line.note}' if line.note else 'is done'}"
    return f"{clock} {_task_text(line)}"


def _task_text(line: ProgressLine) -> str:
    note = f" ({line.note})" if line.note else ""
    if line.ended:
        return f"{line.what}: {line.done:g}/{line.total:g}{note}, {duration(line.at - line.started)}"
    left = "" if line.left_s is None else f", {duration(line.left_s)} left"
    return f"{line.what}: {line.done:g}/{line.total:g}{note}{left}"


def compare(
    folder: RunFolder,
    others: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs on the same data to compare it with; default: none.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare runs; of one run, what each device gains from a front of its own, and its models before and after."""
    from hwnas.runs.start import open_run

    opened = open_run(folder)
    if others:
        found = opened.compare(*map(open_run, others))
        show(as_json, found.as_dict(), _comparison_text(found))
        return
    gains = opened.gains()
    score = opened.context.score
    text = "\n\n".join(_gains_text(one, f"{score.title} {score.unit}".strip()) for one in gains.values())
    text += (
        "\n\nlatencies: estimate ± mean error of the profile; scores ± one standard error; gains against the own front "
        "within the latency of its knee, and on average within the latencies of all its models (of those that can be "
        "served)"
    )
    show(as_json, {name: one.as_dict() for name, one in gains.items()}, text)


def track(
    folder: RunFolder,
    tool: Annotated[str, typer.Argument(help="optuna, mlflow or tensorboard.")],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            help="File (optuna, mlflow), folder (tensorboard) or address of a server (mlflow); default: RUN/tracking.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write what a run has found for another tool, from its archive; also again, and while the run goes on."""
    from hwnas.runs.start import open_run

    command = open_run(folder).track(tool, out)
    show(as_json, {"open": command}, f"open it with: {command}")


def _comparison_text(found: RunComparison) -> str:
    title = f"{found.score.title} {found.score.unit}".strip()
    heading = ["run", "models", "hypervolume", f"best {title}", "at estimated ms", "fastest, estimated", "not beaten"]
    parts = []
    for device in found.devices:
        rows = [
            [one.run, str(one.models), _plus_minus(one.hypervolume, one.hypervolume_stderr, 3),
             _plus_minus(one.best_score, one.best_stderr, 2), f"{one.best_latency_ms:.4g}", f"{one.fastest_ms:.4g}",
             f"{one.models_kept} of {one.models}"]
            for one in device.runs
        ]  # fmt: skip
        reference = f"reference point {device.reference_score:.2f} {found.score.unit}, {device.reference_ms:.4g} ms"
        parts.append(f"{device.device} ({reference})\n{table(heading, rows)}")
        listed = [
            [run, str(m["key"]), f"{m[found.score.name]:.2f}", f"{m['latency_ms']:.4g}"]
            for run, models in device.fronts.items()
            for m in models
        ]
        parts.append(table(["front of", "key", title, "estimated ms"], listed))
    if found.differences:
        settings = [[name, *values] for name, values in found.differences]
        parts.append(table(["setting", *found.runs], settings))
    else:
        parts.append("settings are the same")
    return "\n\n".join(parts)


def _gains_text(found: DeviceGains, title: str) -> str:
    rows = [
        [g.source, g.key or "none keeps it", _plus_minus(g.latency_ms, g.latency_error_ms), _number(g.measured_ms),
         _plus_minus(g.score, g.score_stderr, 2), _plus_minus(g.difference, g.difference_stderr, 2, "+"),
         _plus_minus(g.mean_difference, g.mean_stderr, 2, "+"), f"{100 * g.served_share:.0f} %"]
        for g in found.gains
    ]  # fmt: skip
    heading = ["from", "model", "estimated ms", "measured ms", f"val {title}", "gain", "mean gain", "served"]
    limit = f"within {found.gains[0].limit_ms:.4g} ms" if found.gains else ""
    steps = [
        [key if not i else "", s.name, _plus_minus(s.score, s.score_stderr, 2),
         _plus_minus(s.test_score, s.test_stderr, 2), _plus_minus(s.latency_ms, s.latency_stderr_ms),
         _number(s.size_mb), s.note]
        for key, stages in found.steps.items()
        for i, s in enumerate(stages)
    ]  # fmt: skip
    before = ["model", "step", f"val {title}", f"test {title}", "measured ms", "MB", ""]
    return f"{found.device}, {limit}\n{table(heading, rows)}\n\n{table(before, steps)}"


def _plus_minus(value: float | None, error: float | None, digits: int | None = None, sign: str = "") -> str:
    """A number with its error, to so many digits after the point, or to four significant ones."""
    if value is None or value != value:
        return "-"
    text = f"{value:{sign}.4g}" if digits is None else f"{value:{sign}.{digits}f}"
    if error is None or error != error:
        return text
    return f"{text} ± {error:.2g}" if digits is None else f"{text} ± {error:.{digits}f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


VERBS = (watch, compare, track)
"""Commands of this file, in the order of the help."""
