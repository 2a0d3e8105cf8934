"""What is worth saying when a run ends?"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any
from hwnas.export.bundle import Bundle
from hwnas.runs.run import Run


def summarise(run: Run) -> dict[str, Any]:
    """Return one row a device, and where the report is."""
    rows = []
    for name, device in run.devices.items():
        front = run.front(name)
        tests = [Bundle(m.folder).metrics["test_top1_percent"] for m in front]
        check = run.folder / "devices" / name / "latency_check.json"
        rows.append({
            "device": name,
            "origin": device.profile.origin,
            "models": len(front),
            "fastest_ms": front[0].latency_ms,
            "slowest_ms": front[-1].latency_ms,
            "best_top1_percent": max(m.values["top1_percent"] for m in front),
            "best_test_top1_percent": max(tests),
            "knee": front.knee().key,
            "weights_version": run.weights_of(name),
            "predictor": {objective: asdict(q) for objective, q in run.predictor_quality(name).items()},
            "latency_mape_percent": json.loads(check.read_text())["mape_percent"] if check.exists() else None,
        })  # fmt: skip
    return {"folder": str(run.folder), "report": str(run.folder / "report.html"), "devices": rows}
