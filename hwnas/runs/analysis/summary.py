"""What is worth saying when a run ends?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hwnas.export.bundle import Bundle
from hwnas.runs.folder import RunFolder
from hwnas.runs.front import SearchedDevice
from hwnas.runs.history import read_history
from hwnas.runs.latency_check import read_check


def summarise(folder: RunFolder, devices: Sequence[SearchedDevice]) -> dict[str, Any]:
    """Return one row a device, and where the report is.

    Args:
        folder: of the run.
        devices: searched and exported.
    """
    rows = []
    for device in devices:
        front, files = device.front, folder.device(device.name)
        score, last = front.score, read_history(files).last
        best = front.best()
        check = read_check(files.latency_check)
        rows.append({
            "device": device.name,
            "origin": device.device.profile.origin,
            "models": len(front),
            "fastest_ms": front[0].latency_ms,
            "slowest_ms": front[-1].latency_ms,
            f"best_{score.name}": best.values[score.name],
            f"test_{score.name}_of_best": Bundle(best.folder).metrics[f"test_{score.name}"],
            "knee": front.knee().key,
            "predictor": {} if last is None else {name: asdict(q) for name, q in last.predictor.items()},
            "latency_mape_percent": None if check is None else check.mape_percent,
            "warnings": list(device.warnings),
        })  # fmt: skip
    return {"folder": str(folder.root), "report": str(folder.report), "devices": rows}
