"""Do exported models take as long as the search believed? They are timed, and the front learns from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.export.bundle import Bundle
from hwnas.files import write_json
from hwnas.latency.build import known_networks, measure_beside
from hwnas.latency.measure import MeasureConfig
from hwnas.latency.table import Device, relative_errors
from hwnas.pipeline.front import FrontModel
from hwnas.progress import Progress
from hwnas.supernet import Layout

INT8_FILE = "model.int8.onnx"
CHECK = MeasureConfig(sessions=6, burst_s=0.03)


def check_models(
    layout: Layout, device: Device, table: Path, models: Sequence[FrontModel], progress: Progress
) -> dict[str, Any]:
    """Time exported models on this machine, write each measurement into its bundle, and return all beside estimates.

    The machine may run faster or slower now than when the table was made; networks of the table that are timed again
    say by how much, and the table is judged at its own speed.
    """
    config = CHECK.model_copy(update={"threads": device.profile.threads or 1})
    provider = device.profile.provider or "CPUExecutionProvider"
    quantised = [m for m in models if (m.folder / INT8_FILE).exists()]
    files = [m.folder / "model.onnx" for m in models] + [m.folder / INT8_FILE for m in quantised]
    known = known_networks(table, layout.space)
    found, slowdown = measure_beside(layout, files, known, config, provider, progress)
    timed, int8 = found[: len(models)], dict(zip((m.key for m in quantised), found[len(models) :], strict=True))
    predicted = np.array([m.values["latency_ms"] for m in models])
    measured = np.array([t.median_ms for t in timed])
    for model, t in zip(models, timed, strict=True):
        metrics = {**Bundle(model.folder).metrics, "measured_latency": t.as_dict()}
        if model.key in int8:
            metrics["measured_latency_int8"] = int8[model.key].as_dict()
        write_json(model.folder / "metrics.json", metrics)
    return {
        "keys": [m.key for m in models], "predicted_ms": predicted.tolist(), "measured_ms": measured.tolist(),
        "machine_slowdown": round(slowdown, 4), **relative_errors(predicted * slowdown, measured),
        "mape_percent_as_timed": relative_errors(predicted, measured)["mape_percent"],
        "int8_ms": [int8[m.key].median_ms if m.key in int8 else None for m in models],
    }  # fmt: skip


def checked_keys(path: Path) -> list[str]:
    """Return the keys of the models that a check was made of."""
    return list(json.loads(path.read_text(encoding="utf-8"))["keys"]) if path.exists() else []
