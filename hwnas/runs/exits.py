"""What do earlier exits give a model of a run? Attached again, trained together, pruned, and run as a cascade."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from hwnas.data import ImageSet
from hwnas.errors import SearchError
from hwnas.export.exits import export_cascade, export_exits, export_joint_exits
from hwnas.files import make_folder, write_json
from hwnas.finetune import FinetuneConfig, finetune
from hwnas.finetune.exits import Cascade, FloatArray, cascade, choose_cascades, exit_answers, prune_exits
from hwnas.latency.exits import exit_latencies_ms
from hwnas.latency.table import Device
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.space import Arch
from hwnas.supernet.exits import ExitNetwork, Ordering, extract_exits
from hwnas.task import DEFAULT_TASK
from hwnas.train.checkpoint import save_tensors
from hwnas.train.evaluate import inference_batch_size

EXITS_FILE = "exits.json"
"""What `tune_exits` found, in its folder."""
PRUNED_BYTES = 512 * 2**20
"""Of validation images that are held in memory while every subset of the exits is scored."""


@dataclass(frozen=True)
class TunedExits:
    """Folder of `tune_exits`: ``exits.json``, ``exits.onnx``, ``pruned.onnx``, ``cascade/part1.onnx`` ..., weights."""

    folder: Path
    values: dict[str, Any]
    """What ``exits.json`` says. Scores by split; latencies are the device's, in milliseconds.

    ``alone``: the model without its earlier exits, as the run has it. ``exits``: every exit alone, after training.
    ``together``: their weighted sum, before training and after. ``pruned``: the exits that are best together.
    ``cascades``: thresholds that no others beat on validation images, and what they give on test images."""


def tune_exits(
    evaluations: Evaluations, device: Device, model: Candidate, out: Path, config: FinetuneConfig, ordering: Ordering
) -> TunedExits:  # fmt: skip
    """Attach the earlier exits of a model again, with their supernet weights, train all together and choose of them.

    Args:
        evaluations: of the run.
        device: whose latencies are stated, in its own precision; networks are trained, scored and written in float.
        model: of a supernet with early exits.
        out: a new folder.
        config: how they are trained; the exits learn from the labels alone.
        ordering: how exits are weighed.

    Raises:
        SearchError: the supernet has no exits, or the model has only one.
        TrainingError: the loss is not finite.

    Reference:
        Sarti et al., 2023, AEP (arXiv 2301.12168): joint loss, weighted sum of the outputs, the best subset of exits.
        NATv2 (arXiv 2307.00960), post-processing (b).
    """
    context, arch = evaluations.context, model.arch
    if "exit" not in arch:
        raise SearchError(
            f"model {arch.key} has one exit: family {context.recipe.supernet.family!r} has no early exits here; "
            "fine-tune it without --exits"
        )
    origin = evaluations.weights.finished.origin(model.weights_version)
    if not origin:
        raise SearchError(f"model {arch.key} was trained without a supernet, so its earlier exits have no weights")
    evaluator = evaluations.weights.supernet_evaluator(origin)
    network = extract_exits(evaluator.supernet, arch, ordering)
    if len(network.names) < 2:
        raise SearchError(f"model {arch.key} ends at the first exit; choose one that ends later (its choice `exit`)")
    evaluator.calibrate(network, arch)
    score, alone = context.score.name, evaluations.known(model, [])
    config = config.model_copy(update={"distill_ratio": 0.0})
    training = make_folder(context.folder.finished / f"exits-{_digest(model, config, ordering)}")
    result = finetune(
        network, arch.int("resolution"), context.splits, config, context.recipe.data.augment, None, context.progress,
        training,
    )  # fmt: skip
    tuned = result.network
    assert isinstance(tuned, ExitNetwork)
    latencies_ms = exit_latencies_ms(device, tuned)
    pruned = _pruned(context, tuned, arch)
    values: dict[str, Any] = {
        "key": arch.key, "device": device.name, "latency_precision": device.profile.precision,
        "weights_version": origin, "ordering": ordering, "score": score,
        "alone": {"validation": alone[score]},
        "exits": [
            {"exit": name, "latency_ms": ms, **_scores(context, tuned.with_exits([name]), arch)}
            for name, ms in zip(tuned.names.values(), latencies_ms, strict=True)
        ],
        "together": {
            "before": result.score_before, "best_epoch": result.best_epoch, "latency_ms": latencies_ms[-1],
            **_scores(context, tuned, arch),
        },
        "pruned": {
            "exits": list(pruned.names.values()), "latency_ms": exit_latencies_ms(device, pruned)[-1],
            **_scores(context, pruned, arch),
        },
        "trained_on_validation": result.saw_validation,
        "cascades": _cascades(context, tuned, arch, latencies_ms) if context.task.name == DEFAULT_TASK else [],
    }  # fmt: skip
    _write(context, tuned, pruned, arch, out, values)
    shutil.rmtree(training, ignore_errors=True)
    return TunedExits(out, values)


def _digest(model: Candidate, config: FinetuneConfig, ordering: Ordering) -> str:
    """Of what decides the training; the same command goes on with the same one."""
    values = [model.arch.key, model.weights_version, config.binding(), ordering]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _pruned(context: RunContext, tuned: ExitNetwork, arch: Arch) -> ExitNetwork:
    """The exits that are best together, on as many validation images as fit into memory."""
    validation = context.splits.validation
    channels, size, _ = context.layout.input_shape(arch)
    images = validation.first(min(len(validation), max(100, PRUNED_BYTES // (4 * channels * size * size))))
    inputs, targets = context.networks.inputs(images, arch).tensors()
    return prune_exits(tuned, inputs.cpu(), targets.cpu(), context.task).network


def _scores(context: RunContext, network: nn.Module, arch: Arch) -> dict[str, float]:
    """Main score of the task on validation and test images."""
    name = context.score.name
    return {
        "validation": context.networks.score(lambda: network, arch)[name],
        "test": context.test_scores(network, arch)[name],
    }


def _cascades(
    context: RunContext, tuned: ExitNetwork, arch: Arch, latencies_ms: Sequence[float]
) -> list[dict[str, Any]]:  # fmt: skip
    """Cascades whose thresholds no others beat on validation images, with what they give on test images."""
    chosen = choose_cascades(*_answers(context, tuned, arch, context.splits.validation), latencies_ms)
    test = _answers(context, tuned, arch, context.splits.test)
    return [_both(one, cascade(*test, latencies_ms, one.thresholds)) for one in chosen]


def _both(validation: Cascade, test: Cascade) -> dict[str, Any]:
    thresholds = [None if np.isinf(t) else t for t in validation.thresholds]  # nothing leaves there; JSON has no inf
    splits = {"validation": validation, "test": test}
    return {"thresholds": thresholds} | {
        name: {"top1_percent": one.top1_percent, "expected_ms": one.expected_ms, "shares": list(one.shares)}
        for name, one in splits.items()
    }


def _answers(
    context: RunContext, tuned: ExitNetwork, arch: Arch, images: ImageSet
) -> tuple[FloatArray, np.ndarray[Any, np.dtype[np.bool_]]]:
    """``(N, exits)`` largest class probabilities, and whether each exit's answer is right."""
    sure, right = [], []
    size = inference_batch_size(arch.int("resolution") ** 2)
    for x, y in context.networks.inputs(images, arch).batches(size):
        confidences, said = exit_answers(tuned, x.cpu())
        sure.append(confidences)
        right.append(said == y.cpu().numpy()[:, None])
    return np.concatenate(sure), np.concatenate(right)


def _write(
    context: RunContext, tuned: ExitNetwork, pruned: ExitNetwork, arch: Arch, out: Path, values: dict[str, Any]
) -> None:  # fmt: skip
    """Write the folder; ``exits.json`` last, so that what it names is there."""
    make_folder(out)
    channels, size, _ = context.layout.input_shape(arch)
    save_tensors(out / "weights.safetensors", tuned.state_dict(), {"arch": arch.as_dict()})
    export_exits(tuned, channels, size, out / "exits.onnx")
    export_joint_exits(pruned, channels, size, out / "pruned.onnx")
    export_cascade(tuned, channels, size, out / "cascade")
    write_json(out / EXITS_FILE, values)
