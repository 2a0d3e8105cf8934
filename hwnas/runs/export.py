"""What leaves a run for a device? A bundle for each model of its front, whole, checked, and none that is stale."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from hwnas.errors import OutputError, SearchError
from hwnas.export.bundle import RUN_FILE, About, Bundle, write_bundle
from hwnas.export.card import ALONE, FORMATS, INT8_LITERT_FILE, LITERT_INT8
from hwnas.export.forms import FORMS
from hwnas.export.litert import LiteRtNetwork
from hwnas.export.onnx_check import OnnxNetwork
from hwnas.latency.device import DeviceProfile
from hwnas.latency.number_format import Precision
from hwnas.latency.table import Device
from hwnas.objectives.exact import fvcore_macs
from hwnas.progress import Progress
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.runs.folder import DeviceFolder
from hwnas.runs.front import Front, FrontModel, SearchedDevice
from hwnas.runs.history import DeviceSearch
from hwnas.runs.licences import licences_of
from hwnas.runs.problem import evaluated_values
from hwnas.runs.select import Selection
from hwnas.space import Arch
from hwnas.supernet import count_params

PARITY_IMAGES = 64


def export_front(
    evaluations: Evaluations, device: SearchedDevice, formats: Collection[str], progress: Progress
) -> None:
    """Write the bundles of a front that are not there, and remove those of models that left it.

    Args:
        evaluations: of the run.
        device: whose front it is.
        formats: number formats and forms, of `FORMATS` and `FORMS`, that every bundle has besides.
        progress: told after every model that is written.
    """
    models, view = candidates_of_front(evaluations, device.front), evaluations.of_device(device.device)
    pairs = list(zip(device.front, models, strict=True))
    missing = [
        (row, m) for row, m in pairs if not is_exported(row, m.weights_version, formats, view.precision_of(m.arch))
    ]
    for done, (row, model) in enumerate(missing, 1 + len(pairs) - len(missing)):
        export_model(evaluations, device.device, device.settings, model, row.folder, formats)
        progress("export", done, len(pairs), row.key)
    remove_stale(evaluations.context.folder.device(device.name), device.front)


def candidates_of_front(evaluations: Evaluations, front: Front) -> list[Candidate]:
    """Return the models of a front with their weights."""
    archs = evaluations.archive.archs_of([m.key for m in front])
    trained = evaluations.weights.trained
    return [Candidate(a, m.weights_version or trained) for a, m in zip(archs, front, strict=True)]


def is_exported(
    model: FrontModel, weights: str, formats: Collection[str], precision: Precision = "fp32"
) -> bool:  # fmt: skip
    """Say whether a model's bundle is whole: of these weights, with the front's latency, in the formats asked for."""
    bundle = Bundle(model.folder)
    numbers = ["model.onnx", *(FORMATS[name] for name in formats if name in FORMATS and precision == "fp32")]
    images = [file.replace(".onnx", ".image.onnx") for file in numbers if "image" in formats]
    static = [file.replace(".onnx", ".static.onnx") for file in (*numbers, *images) if "static" in formats]
    others = [FORMS[name].files[0] for name in formats if name in FORMS]
    if "litert" in formats and (precision == "int8" or "int8" in formats):
        others.append(INT8_LITERT_FILE)
    wanted = [RUN_FILE, *numbers, *images, *static, *others]
    if not bundle.is_whole or not all((model.folder / file).exists() for file in wanted):
        return False
    metrics = bundle.metrics
    if metrics.get("precision", "fp32") != precision:
        return False
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
    evaluations: Evaluations, device: Device, settings: DeviceSearch, model: Candidate, folder: Path,
    formats: Collection[str],
) -> Bundle:  # fmt: skip
    """Write the bundle of one model, with its values on validation images and, computed once, its test score.

    For a device in int8 the bundle's ``model.onnx`` is the quantised model, and the scores are its scores.
    """
    evaluations = evaluations.of_device(device)
    context, wanted = evaluations.context, evaluated_values(evaluations.context, settings)
    evaluations.evaluate([model], wanted)
    values = evaluations.known(model, wanted.values())
    subnet = evaluations.weights.evaluator(model.weights_version).subnet(model.arch)
    test = evaluations.test(model, subnet)
    layers = context.networks.by_layer(lambda: subnet, model.arch, wanted)
    score, precision = context.score, evaluations.precision_of(model.arch)
    named = [score.name, score.named("stderr"), *wanted.values()]
    in_float: dict[str, Any] = {}
    if precision != "fp32":
        evaluations.in_precision("fp32").evaluate([model], {score.name: score.name})
        named.append(score.named("fp32"))
        values = evaluations.known(model, wanted.values())
        tested = evaluations.in_precision("fp32").test(model, subnet)
        in_float = {"precision": precision, f"test_{score.named('fp32')}": tested[score.name]}
    metrics = {
        "key": model.arch.key,
        "device": device.name,
        "latency_ms": float(device.compile(context.layout).of_archs([model.arch])[0]),
        "latency_origin": device.profile.origin,
        **{name: values[name] for name in dict.fromkeys(named) if name in values},
        f"test_{score.name}": test[score.name],
        **{f"test_{name}": test[name] for name in (score.named("stderr"),) if name in test},
        **in_float,
        "params": count_params(subnet),
        "macs": fvcore_macs(subnet, context.layout.input_shape(model.arch)),
        "weights_version": model.weights_version,
        **began_of(evaluations, model),
        **{f"{name}_by_layer": values for name, values in layers.items()},
    }
    return write_model(context, subnet, model.arch, folder, metrics, formats, device, precision)


def began_of(evaluations: Evaluations, model: Candidate) -> dict[str, Any]:
    """Return what a bundle says of a model that no supernet gave its weights; nothing of others."""
    return {} if evaluations.weights.finished.origin(model.weights_version) else {ALONE: True}


def write_model(
    context: RunContext, network: nn.Sequential, arch: Arch, folder: Path, metrics: Mapping[str, Any],
    formats: Collection[str], device: Device, precision: Precision = "fp32",
) -> Bundle:  # fmt: skip
    """Write a bundle of any network of the run's family, in further number formats and forms that ``formats`` names.

    What a further format scores on the test images, in ONNX Runtime, is kept with the other numbers; formats that a
    bundle in its place has besides stay. In ``precision`` int8 the quantised model is the bundle's only one.
    """
    networks, splits, score = context.networks, context.splits, context.score
    numbers = [name for name, file in FORMATS.items() if name in formats or (folder / file).exists()]
    if precision == "int8":
        numbers = []
    forms = [name for name, form in FORMS.items() if name in formats or (folder / form.files[0]).exists()]
    images = splits.validation.first(PARITY_IMAGES)
    in_8_bits = "int8" in (*numbers, precision)
    scores = {"own": f"test_{score.name}", **{name: f"test_{score.named(name)}" for name in (*FORMATS, LITERT_INT8)}}
    px = arch.int("resolution")
    about = About(
        scores, licences_of(context.recipe), commands_for(device.profile, context.recipe.supernet.in_channels, px)
    )
    bundle = write_bundle(
        folder, network, arch, context.recipe.supernet, splits.classes, splits.mean_std, metrics,
        networks.inputs(images, arch).tensors()[0].cpu(),
        networks.in_8_bits(network, arch) if in_8_bits else None, precision == "int8",
        fp16="fp16" in numbers, decoded_px=splits.train.size_px, forms=forms,
        pixels=next(iter(images.batches(PARITY_IMAGES)))[0] if "image" in forms else None, about=about,
        calibration=networks.calibration_in_8_bits(arch)[0] if in_8_bits and "litert" in forms else None,
    )  # fmt: skip
    found = {
        scores[name]: context.test_scores(OnnxNetwork(folder / FORMATS[name]), arch)[score.name] for name in numbers
    }
    if in_8_bits and "litert" in forms:
        made = LiteRtNetwork(folder / INT8_LITERT_FILE)
        found[scores[LITERT_INT8]] = context.test_scores(made, arch)[score.name]
        found["litert_int8_input_scale"], found["litert_int8_input_zero_point"] = made.input_scale
    if found:
        bundle.add_metrics(found)
    return bundle


def commands_for(profile: DeviceProfile, in_channels: int, size_px: int) -> list[str]:
    """Return the command lines of a device's own tools for a model with an input of this shape."""
    shape = (1, in_channels, size_px, size_px)
    words = {"{shape}": ",".join(map(str, shape)), "{shape_x}": "x".join(map(str, shape))}
    found = []
    for command in profile.device_commands:
        for word, value in words.items():
            command = command.replace(word, value)
        found.append(command)
    return found


def chosen_models(
    fronts: Sequence[Front], select: Sequence[str], key: str | None, limits: Sequence[str], rules: Mapping[str, bool]
) -> list[FrontModel]:
    """Return the models of fronts that keep limits and, of these, the ones that are picked; without a rule all of them.

    Args:
        fronts: of the devices that are meant.
        select: selections, see `Front.select`.
        key: first digits of a key.
        limits: that every model keeps.
        rules: whether ``knee``, ``fastest`` and ``best`` are wanted.

    Raises:
        SearchError: no model keeps the limits, several ways to choose are given, or a selection is for other devices.
    """
    given = [name for name, on in {"select": bool(select), "key": key is not None, **rules}.items() if on]
    if len(given) > 1:
        allowed = ", ".join(["select", "key", *rules])
        raise SearchError(f"{' and '.join(given)} each choose a model; give one of {allowed} (select may be repeated)")
    wanted = tuple(select) or tuple(name for name, on in rules.items() if on)
    names = [front.device for front in fronts]
    for text in wanted:
        one = Selection.parse(text)
        if not any(map(one.is_for, names)):
            raise SearchError(
                f"selection {one.text!r} chooses on {', '.join(one.devices)}; meant are {', '.join(names)}"
            )
    chosen: list[FrontModel] = []
    for front in fronts:
        kept = front.within(*limits)
        if key is not None:
            chosen += [m for m in kept if m.key.startswith(key)]
        else:
            chosen += kept.select(*wanted) if wanted else kept
    return chosen


def keys_meant(select: Sequence[str], key: str | None) -> list[str]:
    """Return the first digits of the keys that are asked for, by themselves or as selections."""
    parsed = [Selection.parse(text) for text in select]
    return [*([] if key is None else [key]), *(one.argument for one in parsed if one.rule == "key")]


def left_from_before(out: str | Path, chosen: Sequence[FrontModel], fronts: Sequence[Front]) -> list[Path]:
    """Return the bundles below ``out`` of models that are neither chosen now nor on the front of their device any more.

    Args:
        out: where bundles were copied to, as ``out/<device>/<key>``.
        chosen: just copied.
        fronts: of the devices of the run.
    """
    current = {(m.device, m.key) for m in (*chosen, *(m for front in fronts for m in front))}
    found = [p.parent for front in fronts for p in sorted((Path(out) / front.device).glob("*/arch.json"))]
    return [p for p in found if (p.parent.name, p.name) not in current]
