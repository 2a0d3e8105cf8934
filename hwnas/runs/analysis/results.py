"""What has a run found? Plain values for the report and for tables on the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.errors import RecipeError, ResumeError
from hwnas.export.bundle import Bundle
from hwnas.objectives.exact import FALLBACK_LAYERS
from hwnas.objectives.resolve import objective_of
from hwnas.pareto import attainment_bands
from hwnas.report.data import Bands, Column, DeviceReport, RunReport
from hwnas.runs.analysis.baseline import read_baseline
from hwnas.runs.choose import candidates_of, inherited_candidates, model_columns
from hwnas.runs.evaluations import Evaluations
from hwnas.runs.folder import RunFolder
from hwnas.runs.front import Front, SearchedDevice
from hwnas.runs.history import STAGE, History, read_history
from hwnas.runs.kept import read_kept
from hwnas.runs.latency_check import read_check
from hwnas.runs.problem import evaluated_values, exact_values
from hwnas.space import Arch
from hwnas.train.monitor import read_log

Fronts = Mapping[str, Front]
"""Fronts of another run by the device's name."""


def collect(
    evaluations: Evaluations, devices: Sequence[SearchedDevice], others: Mapping[Path, Fronts] | None = None
) -> RunReport:
    """Gather everything that a report shows from the files of a run.

    Args:
        evaluations: of the run.
        devices: searched.
        others: fronts of runs on the same data, such as ones of other seeds, by folder; devices that they have,
            too, are compared.

    Raises:
        RecipeError: a run on other data, or one that has no device in common.
    """
    context = evaluations.context
    _check_comparable(context.folder.root, devices, others or {})
    reports = tuple(_device(evaluations, device, others or {}) for device in devices)
    keys = {d.name: {m["key"] for m in d.models} for d in reports}
    shared = {f"{a} & {b}": len(keys[a] & keys[b]) for a, b in itertools.combinations(keys, 2)}
    versions = [evaluations.weights.trained, *evaluations.weights.finished.by_version]
    splits = context.splits
    images = {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)}
    names = list(dict.fromkeys(name for d in devices for name in d.settings.objectives))
    evaluated = {a for v in versions for a in evaluations.evaluated(v, [context.score.name])}
    return RunReport(
        context.recipe.name, context.recipe.description, tuple(names), _columns(evaluations, devices),
        Column(context.score.name, context.score.title, context.score.unit), context.layout.space.size, len(evaluated),
        images, reports, shared, _training(context.folder.train / "metrics.jsonl"), _manifest(context.folder.root),
        context.score.named("stderr"), context.score.direction,
    )  # fmt: skip


def _columns(evaluations: Evaluations, devices: Sequence[SearchedDevice]) -> tuple[Column, ...]:
    """Columns of the tables of models: scores, latencies, sizes, and what else was evaluated."""
    context = evaluations.context
    score = context.score
    wanted = {name: value for d in devices for name, value in evaluated_values(context, d.settings).items()}
    inherited = score.named("inherited")
    finished = any(inherited in model.values for d in devices for model in d.front)
    titles = {v: objective_of(n, context.task).title for n, v in wanted.items() if v != score.name}
    for device in devices:
        titles |= exact_values(context, device.settings)
        if device.device.profile.missing_operators:
            titles[FALLBACK_LAYERS.name] = FALLBACK_LAYERS.title
    titles = {name: title for name, title in titles.items() if name not in ("latency_ms", "params", "macs")}
    return (
        Column(score.name, f"validation {score.title}", score.unit),
        Column(f"test_{score.name}", f"test {score.title}", score.unit),
        *([Column(inherited, f"inherited {score.title}", score.unit)] if finished else []),
        Column("latency_ms", "latency", "ms"), Column("measured_ms", "measured", "ms"),
        Column("params", "params", ""), Column("macs", "MACs", ""),
        *(Column(value, title, "KiB" if value.endswith("_kib") else "") for value, title in titles.items()),
        Column("shape", "resolution | depths | kernels", ""),
    )  # fmt: skip


def _check_comparable(root: Path, devices: Sequence[SearchedDevice], others: Mapping[Path, Fronts]) -> None:
    data = _data_of(root)
    names = [device.name for device in devices]
    for other, fronts in others.items():
        if _data_of(other) != data:
            raise RecipeError(f"{other} is of other data than {root}; compare runs of the same data")
        if not set(fronts) & set(names):
            raise RecipeError(
                f"{other} was searched for {', '.join(fronts) or 'no device'}, none of which is a device of {root} "
                f"({', '.join(names)}); search both for one device"
            )


def _bands(device: SearchedDevice, root: Path, others: Mapping[Path, Fronts]) -> Bands | None:
    """What the runs that have a device reached on it."""
    score = device.front.score
    runs = {root: device.front, **{other: f[device.name] for other, f in others.items() if device.name in f}}
    if len(runs) < 2:
        return None
    fronts = [
        np.array([[m.values["latency_ms"], -score.sign * m.values[score.name]] for m in front])
        for front in runs.values()
    ]
    best, median, worst = (
        tuple((float(ms), float(-score.sign * loss)) for ms, loss in band)
        for band in attainment_bands(fronts, [1 / len(runs), 0.5, 1.0])
    )
    return Bands(tuple(path.name for path in runs), best, median, worst)


def _device(evaluations: Evaluations, device: SearchedDevice, others: Mapping[Path, Fronts]) -> DeviceReport:
    context, profile, front = evaluations.context, device.device.profile, device.front
    folder = context.folder.device(device.name)
    history = read_history(folder)
    check = read_check(folder.latency_check)
    measured = {} if check is None else dict(zip(check.keys, check.measured_ms, strict=True))
    knee, test = front.knee().key, f"test_{context.score.name}"
    archs = evaluations.archive.archs_of([m.key for m in front])
    models: list[dict[str, Any]] = []
    for model, arch in zip(front, archs, strict=True):
        metrics = Bundle(model.folder).metrics if (model.folder / "metrics.json").exists() else {}
        models.append({
            "key": model.key, **model.values, test: metrics.get(test), "measured_ms": measured.get(model.key),
            "shape": describe_arch(arch), "knee": model.key == knee,
        })  # fmt: skip
    inherited = inherited_candidates(evaluations, device.name, device.settings)
    candidates = list(dict.fromkeys([*inherited, *candidates_of(evaluations, device.name, device.settings)]))
    columns = model_columns(evaluations, device.device, device.settings, candidates)
    last, adapted = history.last, history.adapted
    return DeviceReport(
        device.name, profile.title, profile.kind, profile.origin, profile.source, profile.licence, profile.runtime,
        profile.precision, (*profile.notes, *profile.missing_operators),
        profile.error.model_dump() if profile.error else None, models,
        columns[context.score.name].tolist(), columns["latency_ms"].tolist(), _ended(history),
        tuple(device.settings.constraints),
        check,
        adapted[-1].weights_version if adapted else "",
        {} if last is None else {objective: str(quality) for objective, quality in last.predictor.items()},
        [(m["latency_ms"], m["score"]) for m in (read_baseline(context, device.name) or {}).get("models", ())],
        _bands(device, context.folder.root, others),
    )  # fmt: skip


def _ended(history: History) -> str:
    """How the last search ended; of a staged training every search."""
    if history.last is None:
        return ""
    staged = [record.message for record in history.searches if STAGE in record.settings]
    return "; ".join(staged) if STAGE in history.last.settings else history.last.message


def describe_arch(arch: Arch) -> str:
    """Say an arch in one short line: resolution, depths and kernel sizes where it has them, else its options."""
    space = arch.space
    depths, kernels = (
        [str(space[n].field_value(o, field)) for n, o in arch.items if field in space[n].fields] if space else []
        for field in ("depth", "kernel_size")
    )
    if not depths:
        return " ".join(f"{name}={option}" for name, option in arch.items)
    return f"{arch['resolution']} px | {'-'.join(depths)} | {''.join(kernels)}"


def _training(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines, damaged = read_log(path)
    if damaged is not None or not lines:
        damaged = damaged or 1
        raise ResumeError(f"{path}, line {damaged} is damaged; remove the file: the report then has no training curve")
    return lines


def _manifest(root: Path) -> dict[str, Any]:
    path = RunFolder(root).manifest
    remedy = "restore it, or remove it and start the run's command again"
    return read_kept(dict[str, Any], path, remedy) if path.exists() else {}


def _data_of(root: Path) -> Any:
    """Digest of a run's images."""
    data = _manifest(root).get("data")
    return data.get("sha256") if isinstance(data, dict) else None
