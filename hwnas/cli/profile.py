"""`hwnas profile`: time a model on this machine or on another target."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import Json
from hwnas.cli.output import progress, show, warn
from hwnas.cli.target_options import Host, TargetName, TargetOptions, chosen_target
from hwnas.errors import MeasurementError

if TYPE_CHECKING:
    from hwnas.latency.measurement import Measurement


def profile(
    model: Annotated[Path, typer.Argument(help="ONNX file or model folder; with an INT8 model in it, both are timed.")],
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one inference.")] = 1,
    provider: Annotated[
        str | None, typer.Option(help="Execution provider of ONNX Runtime; default: CPUExecutionProvider.")
    ] = None,
    sessions: Annotated[int, typer.Option(min=1, help="Fresh sessions, at least.")] = 3,
    session_s: Annotated[float, typer.Option("--session-time", help="Seconds in each session.")] = 2.5,
    ci_percent: Annotated[float, typer.Option(help="Add sessions while the interval of the median is wider.")] = 2.0,
    time_limit_s: Annotated[
        float, typer.Option("--time-limit", help="... and less than these seconds are spent.")
    ] = 20,
    cores: Annotated[
        str | None, typer.Option(help="Pin to these cores, such as 0 or 0,1; default: not pinned.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="Input of a model with open axes, such as 3x224x224 or, whole, 1x3x224x224; default: the model's."
        ),
    ] = None,
    count_copies: Annotated[bool, typer.Option("--count-copies", help="Count copies to and from a GPU too.")] = False,
    target: TargetName = None,
    target_option: TargetOptions = None,
    host: Host = None,
    as_json: Json = False,
) -> None:
    """Time an ONNX model on this machine, or on another with --host or --target."""
    from hwnas.latency.placement import node_placement
    from hwnas.latency.profile import profile_all

    quantised = model / "model.int8.onnx"
    models = [model, quantised] if os.path.isfile(quantised) else [model]
    pins, size = _numbers(cores, ",", "cores"), _numbers(shape, "x", "shape")
    timer, options = chosen_target(target, target_option, host)
    with progress(as_json) as told:
        found = profile_all(
            models, threads, batch_size, provider, sessions, session_s, ci_percent, time_limit_s, pins, size,
            count_copies, timer or "process", options, told,
        )  # fmt: skip
    first = found[0]
    values = first.as_dict()
    text = _said(first)
    if len(found) > 1:
        values["int8"] = found[1].as_dict()
        ratio = found[1].median_ms / first.median_ms
        verdict = f"{ratio:.2f} times as long as" if ratio > 1 else f"{1 / ratio:.2f} times faster than"
        text += f"\n\nINT8: {_said(found[1])}\nINT8 is {verdict} the float model here"
    if timer is None:
        # The model has been timed; that its nodes cannot be told must not lose the times.
        try:
            placed = node_placement(model, provider, threads, batch_size, size)
            values["placement"] = placed.as_dict()
            text += f"\n{placed}"
        except MeasurementError as error:
            warn(f"where its nodes run is not known: {error}")
    show(as_json, values, text)


def _said(m: Measurement) -> str:
    c = m.conditions
    runtime = f"{c.runtime} {c.provider}".rstrip()
    lines = [
        f"median {m.median_ms:.4f} ms  (p10 {m.p10_ms:.4f}, p90 {m.p90_ms:.4f}, p99 {m.p99_ms:.4f}; {m.n} runs in "
        f"{m.sessions} sessions, 95 % interval of the median {m.ci_percent:.1f} % wide)",
        f"{runtime}, {c.precision}, {c.threads} thread(s), batch {c.batch_size}, "
        f"input {'x'.join(map(str, c.input_shape))}, cores {c.cores or 'not known'}",
        c.device,
    ]
    if m.peak_memory_mb is not None:
        lines.append(f"peak memory {m.peak_memory_mb:.1f} MB beyond the process itself")
    lines.append("stable" if m.stable else "unstable: " + "; ".join(m.warnings))
    return "\n".join(lines)


def _numbers(text: str | None, separator: str, what: str) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(separator)]
    except ValueError:
        raise MeasurementError(f"--{what} {text!r}: give numbers with {separator!r} between them") from None
