"""What leaves a run for a device? A bundle for each model of its front, whole, checked, and none that is stale."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from hwnas.errors import OutputError, SearchError
from hwnas.export.bundle import INT8_FILE, Bundle, write_bundle
from hwnas.latency.table import Device
from hwnas.objectives.exact import fvcore_macs
from hwnas.progress import Progress
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.runs.folder import DeviceFolder
from hwnas.runs.front import Front, FrontModel, SearchedDevice
from hwnas.runs.history import DeviceSearch
from hwnas.runs.problem import evaluated_values
from hwnas.space import Arch
from hwnas.supernet import count_params

PARITY_IMAGES = 64
CALIBRATION_IMAGES = 128
"""Training images on which INT8 versions are calibrated."""


def export_front(evaluations: Evaluations, device: SearchedDevice, int8: bool, progress: Progress) -> None:
    """Write the bundles of a front that are not there, and remove those of models that left it.

    Args:
        evaluations: of the run.
        device: whose front it is.
        int8: whether every bundle has an INT8 version, too.
        progress: told after every model.
    """
    models = candidates_of_front(evaluations, device.front)
    for done, (row, model) in enumerate(zip(device.front, models, strict=True), 1):
        if not is_exported(row, model.weights_version, int8):
            export_model(evaluations, device.device, device.settings, model, row.folder, int8)
        progress("export", done, len(models), row.key)
    remove_stale(evaluations.context.folder.device(device.name), device.front)


def candidates_of_front(evaluations: Evaluations, front: Front) -> list[Candidate]:
    """Return the models of a front with their weights."""
    archs = evaluations.archive.archs_of([m.key for m in front])
    trained = evaluations.weights.trained
    return [Candidate(a, m.weights_version or trained) for a, m in zip(archs, front, strict=True)]


def is_exported(model: FrontModel, weights: str, int8: bool) -> bool:
    """Say whether a model's bundle is whole: of these weights, with the front's latency, INT8 where asked for."""
    bundle = Bundle(model.folder)
    if not bundle.is_whole or (int8 and not (model.folder / INT8_FILE).exists()):
        return False
    metrics = bundle.metrics
    latency_ms = metrics.get("latency_ms")
    return bool(
        metrics.get("weights_version", weights) == weights
        and isinstance(latency_ms, int | float)
        and math.isclose(latency_ms, model.values["latency_ms"], rel_tol=1e-5)  # as front.csv rounds it
    )


def remove_stale(folder: DeviceFolder, front: Front) -> None:
    """Remove bundles of models that are no longer on the front.

    Raises:
        OutputError: one cannot be removed.
    """
    keys = {m.key for m in front}
    for path in sorted(folder.models.glob("*")) if folder.models.is_dir() else ():
        if path.name not in keys:
            try:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            except OSError as error:
                raise OutputError(f"cannot remove the stale bundle {path}: {error.strerror}; remove it") from None


def export_model(
    evaluations: Evaluations, device: Device, settings: DeviceSearch, model: Candidate, folder: Path, int8: bool
) -> Bundle:
    """Write the bundle of one model, with its values on validation images and, computed once, its test score."""
    context, wanted = evaluations.context, evaluated_values(evaluations.context, settings)
    evaluations.evaluate([model], wanted)
    values = evaluations.known(model, wanted.values())
    subnet = evaluations.weights.evaluator(model.weights_version).subnet(model.arch)
    test = evaluations.test(model, subnet)
    score = context.score
    named = [score.name, score.named("stderr"), *wanted.values()]
    metrics = {
        "key": model.arch.key,
        "device": device.name,
        "latency_ms": float(device.compile(context.layout).of_archs([model.arch])[0]),
        "latency_origin": device.profile.origin,
        **{name: values[name] for name in dict.fromkeys(named) if name in values},
        f"test_{score.name}": test[score.name],
        "params": count_params(subnet),
        "macs": fvcore_macs(subnet, context.layout.input_shape(model.arch)),
        "weights_version": model.weights_version,
    }
    return write_model(context, subnet, model.arch, folder, metrics, int8)


def write_model(
    context: RunContext, network: nn.Sequential, arch: Arch, folder: Path, metrics: Mapping[str, Any], int8: bool
) -> Bundle:
    """Write a bundle of any network of the run's family, with an INT8 version where ``int8`` asks for one."""
    networks, splits = context.networks, context.splits
    bundle = write_bundle(
        folder, network, arch, context.recipe.supernet, splits.classes, splits.mean_std, metrics,
        networks.inputs(splits.validation.first(PARITY_IMAGES), arch).tensors()[0].cpu(),
        int8_calibration=(
            networks.inputs(splits.train.first(CALIBRATION_IMAGES), arch).tensors()[0].cpu() if int8 else None
        ),
    )  # fmt: skip
    return bundle


def chosen_models(front: Front, key: str | None, limits: Sequence[str], knee: bool, fastest: bool, best: bool) -> Front:
    """Return the models of a front that keep limits and, of these, the one that a rule picks.

    Raises:
        SearchError: no model keeps the limits, or several rules are given.
    """
    rules = {"key": key is not None, "knee": knee, "fastest": fastest, "best": best}
    if len(given := [name for name, on in rules.items() if on]) > 1:
        raise SearchError(f"{' and '.join(given)} each choose a model; give one of {', '.join(rules)}")
    kept = front.within(*limits)
    if key is not None:
        return Front(front.device, tuple(m for m in kept if m.key.startswith(key)), front.score)
    for wanted, pick in ((knee, kept.knee), (fastest, kept.fastest), (best, kept.best)):
        if wanted:
            return Front(front.device, (pick(),), front.score)
    return kept
