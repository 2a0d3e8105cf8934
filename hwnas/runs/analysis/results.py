"""What has a run found? Plain values for the report and for tables on the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.errors import RecipeError, ResumeError
from hwnas.export.bundle import Bundle
from hwnas.latency.table import Device
from hwnas.objectives.exact import FALLBACK_LAYERS
from hwnas.objectives.resolve import objective_of
from hwnas.pareto import attainment_bands
from hwnas.report.data import Bands, Column, DeviceReport, Overlay, Pieces, Removed, RunReport
from hwnas.runs.analysis.baseline import read_baseline
from hwnas.runs.analysis.curves import curves_of
from hwnas.runs.analysis.decisions import decisions_of, differences
from hwnas.runs.analysis.gains import gains_of
from hwnas.runs.analysis.pieces import by_layer_of, pieces_of, unfitted_shares
from hwnas.runs.analysis.stages import commands_of, stages_of
from hwnas.runs.choose import candidates_of, inherited_candidates, model_columns
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Evaluations
from hwnas.runs.folder import RunFolder
from hwnas.runs.front import Front, FrontModel, SearchedDevice
from hwnas.runs.history import STAGE, History, read_history
from hwnas.runs.kept import read_kept
from hwnas.runs.latency_check import read_check
from hwnas.runs.licences import licences_of
from hwnas.runs.problem import evaluated_values, exact_values, make_problem
from hwnas.search.specialise import Specialisation
from hwnas.space import Arch
from hwnas.supernet import BlockSpec
from hwnas.supernet.layout import PRECISION
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
    check_comparable(context.folder.root, [device.name for device in devices], others or {})
    specs, pieces = _pieces(evaluations, devices)
    gains = gains_of(evaluations, devices) if len(devices) > 1 else {}
    reports = tuple(
        replace(_device(evaluations, device, others or {}, specs), gains=gains.get(device.name, ()))
        for device in devices
    )
    keys = {d.name: {m["key"] for m in d.models} for d in reports}
    shared = {f"{a} & {b}": len(keys[a] & keys[b]) for a, b in itertools.combinations(keys, 2)}
    versions = [evaluations.weights.trained, *evaluations.weights.finished.by_version]
    names = list(dict.fromkeys(name for d in devices for name in d.settings.objectives))
    views = {view.precision: view for view in (evaluations.of_device(d.device) for d in devices)}
    evaluated = {a for v in versions for e in views.values() for a in e.evaluated(v, [context.score.name])}
    return RunReport(
        context.recipe.name, context.recipe.description, tuple(names), _columns(evaluations, devices),
        Column(context.score.name, context.score.title, context.score.unit), context.layout.space.size, len(evaluated),
        context.images, reports, shared, _training(context), _manifest(context.folder.root),
        context.score.named("stderr"), context.score.direction,
        [{"kind": spec.kind, **spec.columns} for spec in specs], pieces,
        decisions_of(context.recipe, context.folder, [d.name for d in devices]),
        differences({root: [d.name for d in devices] for root in (context.folder.root, *others)}) if others else (),
        names_of([context.folder.root, *others]) if others else (), licences_of(context.recipe),
    )  # fmt: skip


def names_of(roots: Sequence[Path]) -> list[str]:
    """Return a name for each of several run folders: the last parts of their paths, as many as tell them apart."""
    parts = [path.resolve().parts for path in roots]
    for n in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-n:]) for p in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def _pieces(
    evaluations: Evaluations, devices: Sequence[SearchedDevice]
) -> tuple[list[BlockSpec], dict[str, Pieces]]:  # fmt: skip
    """Every different block of the models on all fronts, and each model as its blocks."""
    layout = evaluations.context.layout
    models = {model.key: model for device in devices for model in device.front}
    by_layer: dict[str, dict[str, dict[str, float]]] = {}
    for model in (m for d in devices for m in d.front):
        by_layer.setdefault(model.key, {}).update(by_layer_of(_metrics(model), layout))
    return pieces_of(layout, evaluations.archive.archs_of(models), by_layer)


def _metrics(model: FrontModel) -> dict[str, Any]:
    return Bundle(model.folder).metrics if (model.folder / "metrics.json").exists() else {}


def _columns(evaluations: Evaluations, devices: Sequence[SearchedDevice]) -> tuple[Column, ...]:
    """Columns of the tables of models: scores, latencies, sizes, and what else was evaluated."""
    context = evaluations.context
    score = context.score
    wanted = {name: value for d in devices for name, value in evaluated_values(context, d.settings).items()}
    inherited = score.named("inherited")
    finished = any(inherited in model.values for d in devices for model in d.front)
    in_float = score.named("fp32")
    quantised = any(in_float in model.values for d in devices for model in d.front)
    chosen = any("precision_bits" in model.values for d in devices for model in d.front)
    titles = {v: objective_of(n, context.task).title for n, v in wanted.items() if v != score.name}
    exact: dict[str, str] = {}
    for device in devices:
        exact |= exact_values(context, device.settings)
        if device.device.profile.missing_operators:
            exact[FALLBACK_LAYERS.name] = FALLBACK_LAYERS.title
    titles |= exact
    titles = {name: title for name, title in titles.items() if name not in ("latency_ms", "params", "macs")}
    seen = f"computed on {context.validation_images} validation images, which the search saw and chose by"
    counted = "counted exactly from the network"
    return (
        Column(score.name, f"validation {score.title}", score.unit, seen),
        Column(
            f"test_{score.name}", f"test {score.title}", score.unit,
            f"computed once on {context.images['test']} test images, for exported models only",
        ),
        *([Column(in_float, f"{score.title} in float", score.unit, f"{seen}, as the network is before quantisation")]
          if quantised else []),
        *([Column(inherited, f"inherited {score.title}", score.unit, f"{seen}, before the models were trained alone")]
          if finished else []),
        *([Column("precision_bits", "precision", "bits", "32: float, 8: int8, as the search chose")] if chosen else []),
        Column("latency_ms", "latency", "ms", "estimate of the device's profile, for one image; see its device below"),
        Column("measured_ms", "measured", "ms", "the exported file, timed on the device after the search"),
        Column("params", "params", "", counted), Column("macs", "MACs", "", counted),
        *(
            Column(value, title, "KiB" if value.endswith("_kib") else "", counted if value in exact else seen)
            for value, title in titles.items()
        ),
        Column("shape", "resolution | depths | kernels", "", "the model's own description"),
    )  # fmt: skip


def check_comparable(root: Path, names: Sequence[str], others: Mapping[Path, Fronts]) -> None:
    """Raise where a run cannot be compared with the one in ``root``, which was searched for devices ``names``.

    Raises:
        RecipeError: it is of other data, or has no device in common.
    """
    data = _data_of(root)
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


def _removed(evaluations: Evaluations, device: SearchedDevice) -> tuple[list[Removed], str]:
    """What the search left out of the space before it evaluated anything, and how much smaller the space became."""
    problem = make_problem(evaluations.context, device.device, device.settings)
    searcher = device.settings.search.searcher(problem)
    found = getattr(searcher, "specialisation", None)
    # Where a space is small enough to be listed, nothing is left out of it.
    if not isinstance(found, Specialisation) or found.summary() not in getattr(searcher, "notes", ()):
        return [], ""
    rows = []
    for choice, kept in zip(found.space.choices, found.kept, strict=True):
        stays = set(kept.tolist())
        if len(stays) < len(choice.options):
            kinds = [
                [str(o) for i, o in enumerate(choice.options) if (i in stays) is wanted] for wanted in (True, False)
            ]
            rows.append(Removed(choice.name, ", ".join(kinds[0]), ", ".join(kinds[1])))
    return rows, found.summary()


def _overlays(name: str, root: Path, others: Mapping[Path, Fronts]) -> list[Overlay]:
    """Fronts of other runs on a device."""
    names = names_of([root, *others])[1:]
    return [
        Overlay(run, [{"key": m.key, **m.values} for m in fronts[name]])
        for run, fronts in zip(names, others.values(), strict=True)
        if name in fronts
    ]


def _device(
    evaluations: Evaluations, device: SearchedDevice, others: Mapping[Path, Fronts], specs: Sequence[BlockSpec]
) -> DeviceReport:  # fmt: skip
    context, profile, front = evaluations.context, device.device.profile, device.front
    folder = context.folder.device(device.name)
    history = read_history(folder)
    check = read_check(folder.latency_check)
    measured = {} if check is None else dict(zip(check.keys, check.at_table_speed_ms, strict=True))
    knee, test = front.knee().key, f"test_{context.score.name}"
    archs = evaluations.archive.archs_of([m.key for m in front])
    models: list[dict[str, Any]] = []
    for model, arch in zip(front, archs, strict=True):
        models.append({
            "key": model.key, **model.values, test: _metrics(model).get(test), "measured_ms": measured.get(model.key),
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
        device.warnings,
        tuple(device.settings.constraints),
        check,
        adapted[-1].weights_version if adapted else "",
        {} if last is None else {objective: str(quality) for objective, quality in last.predictor.items()},
        [(m["latency_ms"], m["score"]) for m in (read_baseline(context, device.name) or {}).get("models", ())],
        _bands(device, context.folder.root, others), _overlays(device.name, context.folder.root, others),
        {name: column.tolist() for name, column in columns.items()},
        *_times(device.device, specs), *_times(device.device.in_8_bits, specs),
        unfitted_shares(context.layout, device.device, archs),
        curves_of(evaluations, device.device, device.settings, inherited), *_removed(evaluations, device),
        {m.key: stages_of(evaluations, m) for m in front}, {m.key: commands_of(m) for m in front},
    )  # fmt: skip


def _times(device: Device | None, specs: Sequence[BlockSpec]) -> tuple[list[float], float]:
    """What each block adds to a network on a device, and what every network pays once."""
    return ([], 0.0) if device is None else ([device.block_ms(spec) for spec in specs], device.constant_ms)


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
    precision = f" | {arch[PRECISION]}" if PRECISION in arch else ""
    return f"{arch['resolution']} px | {'-'.join(depths)} | {''.join(kernels)}{precision}"


def _training(context: RunContext) -> list[dict[str, Any]]:
    path = context.folder.train / "metrics.jsonl"
    if not path.exists() or not context.recipe.train.phases:  # its weights are those of train.start_from
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
