"""What does the page know? The report as JSON for its scripts: rounded, thinned where there is too much of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hwnas.report.data import Column, DeviceReport, RunReport

MOST_POINTS = 6000
"""Evaluated archs that are drawn, over all devices: a page of a million would be slow and large."""
MOST_STEPS = 1000
"""Points of one training phase that are drawn."""
DIGITS = 6
"""Significant digits of numbers that are not whole, as in ``front.csv``."""
NARROW = 2.0
"""Times the profile's error: a front of a smaller relative width cannot be told apart by its latencies."""
OUTSIDE_PERCENT = 10.0
"""Of a latency; where more rests on what a profile was not fitted to, it is outside of its domain."""


def payload(report: RunReport) -> dict[str, Any]:
    """Return everything that the scripts of the page need, as plain JSON values."""
    numeric = [c for c in report.columns if _is_numeric(report, c)]
    return {
        "name": report.name,
        "score": {**asdict(report.score), "direction": report.score_direction},
        "columns": [{"name": c.name, "title": c.title, "unit": c.unit, "range": _range(report, c)} for c in numeric],
        "devices": [_device(report, d, numeric) for d in report.devices],
        "blocks": [dict(block) for block in report.blocks],
        "pieces": {
            key: {"blocks": [list(b) for b in p.blocks], "in_8_bits": p.in_8_bits, "by_layer": _rounded(p.by_layer)}
            for key, p in report.pieces.items()
        },
    }


def _device(report: RunReport, device: DeviceReport, numeric: Sequence[Column]) -> dict[str, Any]:
    error = None if device.error is None else float(device.error["mape_percent"])
    share = _thinned(len(device.evaluated_ms), MOST_POINTS // max(1, len(report.devices)))
    evaluated = {"latency_ms": device.evaluated_ms, report.score.name: device.evaluated_scores, **device.evaluated}
    models = []
    for i, model in enumerate(device.models):
        latency = model["latency_ms"]
        stderr = model.get("latency_stderr_ms")
        models.append({
            "key": model["key"], "shape": model["shape"], "knee": bool(model["knee"]),
            "values": {c.name: _round(model.get(c.name)) for c in numeric if c.name in model},
            "score_stderr": _round(model.get(report.score_stderr)),
            "latency_error_ms": _round(stderr if error is None else latency * error / 100),
            "outside_percent": round(100 * device.unfitted[i], 1) if i < len(device.unfitted) else 0.0,
            "stages": [_rounded(asdict(s)) for s in device.stages.get(model["key"], ())],
            "commands": [list(c) for c in device.commands.get(model["key"], ())],
        })  # fmt: skip
    return {
        "name": device.name, "title": device.title, "origin": device.origin, "models": models,
        "evaluated": {
            c.name: [_round(evaluated[c.name][j]) for j in share] for c in numeric if c.name in evaluated
        },
        "by_hand": _rounded([list(p) for p in device.by_hand]),
        "overlays": [
            {
                "run": o.run,
                "models": [
                    {"key": m["key"], "values": {c.name: _round(m.get(c.name)) for c in numeric if c.name in m}}
                    for m in o.models
                ],
            }
            for o in device.overlays
        ],
        "times": {"block_ms": _rounded(list(device.block_ms)), "constant_ms": _round(device.constant_ms)},
        "times_in_8_bits": {
            "block_ms": _rounded(list(device.block_ms_in_8_bits)), "constant_ms": _round(device.constant_ms_in_8_bits),
        } if device.block_ms_in_8_bits else None,
        "error_percent": error,
    }  # fmt: skip


def warnings_of(device: DeviceReport) -> list[str]:
    """Return what a reader of a device's latencies must be told, in sentences."""
    found = []
    latencies = [m["latency_ms"] for m in device.models]
    if device.error is not None and len(latencies) > 1 and min(latencies) > 0:
        width = 100 * (max(latencies) / min(latencies) - 1)
        error = float(device.error["mape_percent"])
        if width < NARROW * error:
            found.append(
                f"The latencies of this front differ by {width:.1f} % from the fastest to the slowest model, and the "
                f"profile is {error:.1f} % off on average: which of them is faster is not certain."
            )
    found += [f"{text}." for text in device.warnings]
    outside = 100 * max(device.unfitted, default=0.0)
    if outside > OUTSIDE_PERCENT:
        found.append(
            f"Up to {outside:.0f} % of the estimated latency of a model is outside of what the profile was fitted to "
            "(operators whose constants are assumed, or interpolated sizes): the published error does not cover it; "
            "time an exported model on the device."
        )
    return found


def thinned_training(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return at most `MOST_STEPS` lines of each phase, evenly spread, the last among them."""
    by_phase: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_phase.setdefault(line["phase"], []).append(line)
    return [phase[i] for phase in by_phase.values() for i in _thinned(len(phase), MOST_STEPS)]


def _thinned(n: int, most: int) -> list[int]:
    """At most ``most`` of ``n`` numbers, evenly spread, the last among them."""
    if n <= most:
        return list(range(n))
    return sorted({round(i * (n - 1) / (most - 1)) for i in range(most)})


def _is_numeric(report: RunReport, column: Column) -> bool:
    return bool(_known(report, column))


def _range(report: RunReport, column: Column) -> list[float]:
    """Smallest and largest value of a column over all models."""
    known = _known(report, column)
    return [min(known), max(known)]


def _known(report: RunReport, column: Column) -> list[float]:
    """Numbers of a column over all models."""
    values = (_round(m.get(column.name)) for d in report.devices for m in d.models)
    return [value for value in values if value is not None]


def _round(value: Any) -> float | int | None:
    """A number with few digits, whole ones as they are; None for what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.{DIGITS}g}")


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return _round(value) if isinstance(value, float) else value
