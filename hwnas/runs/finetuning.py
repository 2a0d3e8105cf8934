"""How does one model of a run become better? It is trained alone, with the supernet's largest net as its teacher."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from hwnas.export.bundle import Bundle, check_replaceable
from hwnas.files import make_folder
from hwnas.finetune import FinetuneConfig, FinetuneResult, finetune
from hwnas.latency.number_format import Precision
from hwnas.latency.table import Device
from hwnas.objectives.exact import fvcore_macs
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Candidate, Evaluations, beside
from hwnas.runs.export import began_of, write_model
from hwnas.runs.finished import FinishedModel
from hwnas.runs.history import DeviceSearch
from hwnas.runs.problem import evaluated_values
from hwnas.space import Arch
from hwnas.supernet import count_params
from hwnas.train.checkpoint import save_tensors, weights_version

TRAINING = "training"
"""Folder of the checkpoints from which a training that was stopped goes on."""


def finetune_model(
    evaluations: Evaluations, device: Device, settings: DeviceSearch, model: Candidate, out: Path,
    config: FinetuneConfig,
) -> tuple[FinetuneResult, Bundle]:  # fmt: skip
    """Fine-tune one evaluated model, write its bundle, and keep it with the run as one that may be on a front.

    Not kept are models of which no epoch was better than the start, and those that have learnt from the validation
    images: there is nothing by which they could be compared.

    Args:
        evaluations: of the run.
        device: whose latency the bundle states.
        settings: of the device's search; the values that they name are computed anew.
        model: arch, and the weights that it starts from.
        out: folder of the bundle.
        config: how it is trained.

    Raises:
        TrainingError: the loss is not finite.
        OutputError: ``out`` holds something that is no bundle, or cannot be made; nothing is trained then.
    """
    check_replaceable(out)
    make_folder(out.parent)  # now, not after hours
    context, arch = evaluations.context, model.arch
    evaluator = evaluations.weights.evaluator(model.weights_version)
    resolution = arch.int("resolution")
    largest = context.layout.space.restrict({"resolution": [resolution]}).largest()
    teacher = evaluations.weights.teacher(model.weights_version, largest) if config.distill_ratio else None
    digest = _settings(context, model, config)
    group = context.folder.finished / f"finetuned-{digest}"
    result = finetune(
        evaluator.subnet(arch), resolution, context.splits, config, context.recipe.data.augment, teacher,
        context.progress, make_folder(group / TRAINING),
    )  # fmt: skip
    comparable = result.best_epoch > 0 and not result.saw_validation
    kept = _keep(evaluations, model, result, config.epochs, group, digest) if comparable else ""
    network, score, seen = result.network, context.score, evaluations.of_device(device)
    precision = seen.precision_of(arch)
    assert isinstance(network, nn.Sequential)
    seen.evaluate([model], {score.name: score.name})  # before and after are compared in one precision
    metrics = {
        "key": arch.key,
        "device": device.name,
        "latency_ms": float(device.compile(context.layout).of_archs([arch])[0]),
        "latency_origin": device.profile.origin,
        score.named("before"): seen.known(model, [score.name])[score.name],
        **_scores(context, precision, network, arch, evaluated_values(context, settings)),
        "params": count_params(network),
        "macs": fvcore_macs(network, context.layout.input_shape(arch)),
        "finetuned_from": model.weights_version,
        **began_of(evaluations, model),
        **({"weights_version": kept} if kept else {}),
        "best_epoch": result.best_epoch,
    }
    trained_in = score.name
    if precision != "fp32":
        trained_in = score.named("fp32")
        metrics[score.named("before_fp32")] = result.score_before
    if result.saw_validation:  # what it does on them now says nothing; the first step was scored as it was trained
        for name in (score.name, score.named("stderr")):
            metrics.pop(name, None)
        metrics |= {trained_in: result.score, "trained_on_validation": True}
    bundle = write_model(context, network, arch, out, metrics, context.recipe.export.formats(), device, precision)
    shutil.rmtree(group / TRAINING if kept else group, ignore_errors=True)
    return result, bundle


def _settings(context: RunContext, model: Candidate, config: FinetuneConfig) -> str:
    """Digest of what decides how a model is trained; the same command goes on with the same training."""
    values = {
        "config": config.binding(), "augment": context.recipe.data.augment.model_dump(mode="json"),
        "images": context.splits.sha256, "parent": model.weights_version, "key": model.arch.key,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _keep(
    evaluations: Evaluations, model: Candidate, result: FinetuneResult, epochs: float, group: Path, digest: str
) -> str:
    """Write the weights beside those of the run's other finished models, and return their version."""
    key, root = model.arch.key, evaluations.context.folder.finished
    path = group / f"{key}-{digest}.safetensors"
    about = {"arch": model.arch.as_dict(), "parent": model.weights_version, "settings": digest}
    save_tensors(path, result.network.state_dict(), about)
    made = FinishedModel(
        key, weights_version(path), str(path.relative_to(root)), model.weights_version, digest, epochs,
        result.best_epoch, result.score_before, result.score, finetuned=True,
    )  # fmt: skip
    evaluations.weights.finished.add(group, [made])
    return made.weights_version


def _scores(
    context: RunContext, precision: Precision, network: nn.Sequential, arch: Arch, names: Iterable[str]
) -> dict[str, Any]:  # fmt: skip
    """Values of a network in a precision, on validation and test images; those in float stand beside."""
    full, score = context.networks.score(lambda: network, arch, names), context.score
    tested = context.test_scores(network, arch)
    test = {f"test_{name}": tested[name] for name in (score.name, score.named("stderr")) if name in tested}
    if precision == "fp32":
        return {**full, **test}
    return {
        **beside(full, context.networks.score_in_8_bits(lambda: network, arch), context.task),
        f"test_{score.name}": context.test_scores_in_8_bits(network, arch)[score.name],
        f"test_{score.named('fp32')}": test[f"test_{score.name}"], "precision": precision,
    }  # fmt: skip
