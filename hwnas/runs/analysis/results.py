"""What has a run found? Plain values for the report and for tables on the terminal."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
import numpy as np
from hwnas.archive import Archive
from hwnas.errors import RecipeError
from hwnas.export.bundle import Bundle
from hwnas.pareto import attainment_bands
from hwnas.report.data import Bands, DeviceReport, LatencyCheck, RunReport
from hwnas.space import Arch
if TYPE_CHECKING:
    from hwnas.runs.run import Run


def collect(run: Run, archive: Archive, others: Sequence[Run] = ()) -> RunReport:
    """Gather everything that a report shows from the files of a run.

    Args:
        run: searched.
        archive: of the run.
        others: runs on the same data, such as ones of other seeds; devices that they have, too, are compared.

    Raises:
        RecipeError: a run on other data, or one that has no device in common.
    """
    _comparable(run, others)
    devices = tuple(_device(run, name, archive, others) for name in run.devices)
    keys = {d.name: {m["key"] for m in d.models} for d in devices}
    shared = {f"{a} & {b}": len(keys[a] & keys[b]) for a, b in itertools.combinations(keys, 2)}
    splits = run.splits
    images = {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)}
    return RunReport(
        run.recipe.name, run.recipe.description, run.recipe.objectives, run.layout.space.size,
        len(archive.requested(run.devices)), images, devices, shared, _training(run.folder / "train" / "metrics.jsonl"),
        _json(run.folder / "manifest.json"),
    )  # fmt: skip

def _comparable(run: Run, others: Sequence[Run]) -> None:
    data = _json(run.folder / "manifest.json").get("data", {}).get("sha256")
    for other in others:
        if _json(other.folder / "manifest.json").get("data", {}).get("sha256") != data:
            raise RecipeError(f"{other.folder} is of other data than {run.folder}; compare runs of the same data")
        if not set(other.recipe.devices) & set(run.recipe.devices):
            raise RecipeError(
                f"{other.folder} has no device of {run.folder}; these are {', '.join(run.recipe.devices)}"
            )

def _bands(run: Run, name: str, others: Sequence[Run]) -> Bands | None:
    """What the runs that have a device reached on it."""
    runs = [run, *(other for other in others if name in other.devices)]
    if len(runs) < 2:
        return None
    fronts = [[[m.values["latency_ms"], -m.values["top1_percent"]] for m in one.front(name)] for one in runs]
    best, median, worst = (
        tuple((float(ms), float(-loss)) for ms, loss in band)
        for band in attainment_bands([np.array(f) for f in fronts], [1 / len(runs), 0.5, 1.0])
    )
    return Bands(tuple(one.folder.name for one in runs), best, median, worst)

def _device(run: Run, name: str, archive: Archive, others: Sequence[Run]) -> DeviceReport:
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
        _bands(run, name, others),
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
