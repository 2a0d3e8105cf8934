"""What has a run found? Plain values for the report and for tables on the terminal."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.archive import Archive
from hwnas.export.bundle import Bundle
from hwnas.report.data import DeviceReport, LatencyCheck, RunReport
from hwnas.space import Arch

if TYPE_CHECKING:
    from hwnas.pipeline.run import Run


def collect(run: Run, archive: Archive) -> RunReport:
    """Gather everything that a report shows from the files of a run."""
    devices = tuple(_device(run, name, archive) for name in run.devices)
    keys = {d.name: {m["key"] for m in d.models} for d in devices}
    shared = {f"{a} & {b}": len(keys[a] & keys[b]) for a, b in itertools.combinations(keys, 2)}
    splits = run.splits
    images = {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)}
    return RunReport(
        run.recipe.name, run.recipe.description, run.recipe.objectives, run.layout.space.size,
        len(archive.requested(run.devices)), images, devices, shared, _training(run.folder / "train" / "metrics.jsonl"),
        _json(run.folder / "manifest.json"),
    )  # fmt: skip


def _device(run: Run, name: str, archive: Archive) -> DeviceReport:
    device = run.devices[name]
    profile = device.profile
    folder = run.folder / "devices" / name
    front = run.front(name)
    check = _json(folder / "latency_check.json")
    measured = dict(zip(check.get("keys", ()), check.get("measured_ms", ()), strict=True))
    knee = front.knee().key
    models: list[dict[str, Any]] = []
    for model in front:
        arch = archive.find(model.key)
        assert arch is not None, "the front is made from the archive"
        metrics = Bundle(model.folder).metrics if (model.folder / "metrics.json").exists() else {}
        models.append({
            "key": model.key, **model.values, "test_top1_percent": metrics.get("test_top1_percent"),
            "measured_ms": measured.get(model.key), "shape": describe_arch(arch), "knee": model.key == knee,
        })  # fmt: skip
    archs = run.considered(name, archive)
    columns = run.columns(device, archs, archive)
    return DeviceReport(
        name, profile.title, profile.kind, profile.origin, profile.source, profile.licence, profile.runtime,
        profile.precision, profile.notes, profile.error.model_dump() if profile.error else None, models,
        {n: columns[n].tolist() for n in ("top1_percent", "latency_ms")},
        _json(folder / "search.json").get("message", ""),
        LatencyCheck(**{f.name: check[f.name] for f in fields(LatencyCheck) if f.name in check}) if check else None,
        run.weights_of(name) if run.adapted(name) else "",
        {objective: str(quality) for objective, quality in run.predictor_quality(name).items()},
    )  # fmt: skip


def describe_arch(arch: Arch) -> str:
    """Say an arch in one short line: resolution, depths and kernel sizes where it has them, else its options."""
    depths = [str(option) for name, option in arch.items if name.endswith(".depth")]
    if not depths or arch.space is None:
        return " ".join(f"{name}={option}" for name, option in arch.items)
    kernels = [
        str(arch.space[name].field_value(option, "kernel_size"))
        for name, option in arch.items
        if "kernel_size" in arch.space[name].fields
    ]
    return f"{arch['resolution']} px | {'-'.join(depths)} | {''.join(kernels)}"


def _training(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found
