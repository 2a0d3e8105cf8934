"""How does one model of a run become better? It is trained alone, with the supernet's largest net as its teacher."""

from __future__ import annotations

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
from hwnas.runs.export import write_model
from hwnas.runs.history import DeviceSearch
from hwnas.runs.problem import evaluated_values
from hwnas.space import Arch
from hwnas.supernet import count_params


def finetune_model(
    evaluations: Evaluations, device: Device, settings: DeviceSearch, model: Candidate, out: Path,
    config: FinetuneConfig,
) -> tuple[FinetuneResult, Bundle]:  # fmt: skip
    """Fine-tune one evaluated model and write its bundle.

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
    result = finetune(
        evaluator.subnet(arch), resolution, context.splits, config, context.recipe.data.augment, teacher,
        context.progress,
    )  # fmt: skip
    network, score, precision = result.network, context.score, evaluations.of_device(device).precision_of(arch)
    assert isinstance(network, nn.Sequential)
    metrics = {
        "key": arch.key,
        "device": device.name,
        "latency_ms": float(device.compile(context.layout).of_archs([arch])[0]),
        "latency_origin": device.profile.origin,
        score.named("before"): result.score_before,
        **_scores(context, precision, network, arch, evaluated_values(context, settings)),
        "params": count_params(network),
        "macs": fvcore_macs(network, context.layout.input_shape(arch)),
        "finetuned_from": model.weights_version,
        "best_epoch": result.best_epoch,
    }
    if result.saw_validation:  # what it does on them now says nothing
        metrics |= {score.name: result.score, "trained_on_validation": True}
    formats = context.recipe.export.formats()
    return result, write_model(context, network, arch, out, metrics, formats, device, precision)


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
