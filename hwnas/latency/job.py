"""How is `hwnas.latency.time_onnx` run in another process? Its job lies in a folder; it prints a JSON value a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hwnas.errors import MeasurementError
from hwnas.export.onnx_facts import external_files, with_open_axes
from hwnas.latency import time_onnx
from hwnas.latency.time_onnx import Burst, BurstConfig, Facts

SCRIPT = "time_onnx.py"
JOB = "job.json"


def script() -> bytes:
    """Return what runs there; it needs numpy and onnxruntime only."""
    return Path(time_onnx.__file__).read_bytes()


def job_of_facts() -> bytes:
    """Return the job that only asks what the machine is."""
    return b"{}"


def job_of_timings(
    models: Sequence[str], names: Sequence[str], reference: str, config: BurstConfig,
    schedule: Sequence[tuple[int, int]],
) -> bytes:  # fmt: skip
    """Return the job of timing models.

    Args:
        models: their files, from the folder of the job.
        names: for messages.
        reference: file of the reference model.
        config: how.
        schedule: (number of the model, number of its session), in order.
    """
    values = {
        "models": list(models), "names": list(names), "reference": reference, "config": asdict(config),
        "schedule": list(schedule),
    }  # fmt: skip
    return json.dumps(values).encode()


def files_of_model(model: str | bytes, number: int) -> dict[str, bytes | Path]:
    """Return what a model needs in the folder of a job, by file name: itself first, then the files of its weights.

    Raises:
        MeasurementError: a file of its weights is missing or lies elsewhere.
    """
    if isinstance(model, bytes):
        return {f"{number}/model.onnx": model}
    path = Path(model)
    return {
        f"{number}/model.onnx": with_open_axes(path) or path,
        **{f"{number}/{n}": file for n, file in external_files(path).items()},
    }


def read_lines(stream: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield what the other process prints; a line that was cut off is left out."""
    for text in stream:
        with suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict):
                yield line


def facts_in(line: dict[str, Any]) -> Facts | None:
    """Return what a line says of the machine; None where it says something else."""
    return Facts(**line["facts"]) if "facts" in line else None


def burst_in(line: dict[str, Any], whose: str = "") -> Burst | None:
    """Return the timing in a line; None where it says something else.

    Raises:
        MeasurementError: it says that a model cannot be timed; ``whose`` stands before the message.
    """
    if "error" in line:
        raise MeasurementError(f"{whose}{line['error']}")
    if "burst" not in line:
        return None
    values = line["burst"]
    return Burst(**{**values, **{k: tuple(values[k]) for k in ("values_ms", "input_shape")}})


def last_line(text: bytes) -> str:
    """Return the last line of what a process said."""
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
