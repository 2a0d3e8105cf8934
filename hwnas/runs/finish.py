"""How do the models that a run hands over become as good as they can? They are trained to their end, all together.

What a subnet inherits from the supernet is a start: nothing has trained it for itself. The chosen models of several
devices are trained on one stream of images; each finished model is a new evaluation, with its parent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hwnas.errors import TrainingError
from hwnas.files import make_folder
from hwnas.finetune import FinetuneConfig, FinetuneResult, FinishConfig, Student, train_together
from hwnas.latency.table import Device
from hwnas.runs.choose import choose_to_finish, front_stands
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.runs.finished import FinishedModel
from hwnas.runs.history import DeviceSearch
from hwnas.train.checkpoint import save_tensors, weights_version
from hwnas.train.phases import TrainConfig


def finish_front(evaluations: Evaluations, devices: Mapping[str, tuple[Device, DeviceSearch]]) -> None:
    """Train the models to their end that these devices are to get, those of equal settings together.

    Devices whose front stands already, and those whose settings ask for no finished models, are left as they are.

    Raises:
        SearchError: no model of a device is within the limits.
        TrainingError: the loss is not finite.
    """
    wanted: dict[str, tuple[FinishConfig, list[Candidate]]] = {}
    for device, settings in devices.values():
        if settings.finish.models and not front_stands(evaluations, device, settings):
            how = settings.finish.model_copy(update={"models": 1, "latencies_ms": {}})
            alike = wanted.setdefault(how.model_dump_json(), (how, []))
            alike[1].extend(choose_to_finish(evaluations, device, settings))
    for how, models in wanted.values():
        finish_models(evaluations, models, how, f" for {', '.join(devices)}")


def finish_models(evaluations: Evaluations, wanted: Sequence[Candidate], finish: FinishConfig, whose: str) -> None:
    """Train models to their end and keep their weights, but for those that were trained so before.

    Args:
        evaluations: of the run.
        wanted: archs and the weights that they begin with; ``""``: fresh ones.
        finish: how.
        whose: follows the name of the task where progress is told, such as ``" for local-cpu"``.

    Raises:
        TrainingError: the loss is not finite.
    """
    context, finished = evaluations.context, evaluations.weights.finished
    config = training_of(context.recipe.train, finish)
    digests = {c: _settings(evaluations, c, finish, config) for c in dict.fromkeys(wanted)}
    missing = [c for c, digest in digests.items() if finished.find(c.arch.key, digest) is None]
    if not missing:
        return
    # The largest comes first: where it teaches, its outputs are there before the others need them.
    sizes = context.macs.of_archs([c.arch for c in missing])
    missing = [missing[i] for i in sorted(range(len(missing)), key=lambda i: (-sizes[i], missing[i].arch.key))]
    names = [f"{c.arch.key}-{digests[c]}" for c in missing]
    group = make_folder(context.folder.finished / _digest(sorted(names)))
    students = [
        Student(
            name, _start(evaluations, candidate, config.seed), candidate.arch.int("resolution"),
            names[0] if number and finish.teacher == "best" else None,
        )
        for number, (name, candidate) in enumerate(zip(names, missing, strict=True))
    ]  # fmt: skip

    def told(task: str, done: float, total: float, note: str = "") -> None:
        context.progress(f"{task}{whose}", done, total, f"{len(students)} model(s), {note}")

    try:
        results = train_together(
            students, context.splits, config, context.recipe.data.augment, _teacher(evaluations, missing, finish),
            group, told,
        )  # fmt: skip
    except TrainingError as error:
        raise TrainingError(f"finish{whose}: {str(error).split(';', 1)[0]}; lower finish.lr") from None
    models = [
        _keep(context, group, name, candidate, result, digests[candidate], finish)
        for name, candidate, result in zip(names, missing, results, strict=True)
    ]
    finished.add(group, models)
    (group / "checkpoint.safetensors").unlink(missing_ok=True)


def training_of(train: TrainConfig, finish: FinishConfig) -> FinetuneConfig:
    """Return how models are trained to their end: what ``finish`` does not say is as in the supernet's training."""
    return FinetuneConfig(
        epochs=finish.epochs, lr=finish.lr or train.phases[0].lr, warmup_epochs=finish.warmup_epochs,
        batch_size=train.batch_size, momentum=train.momentum, weight_decay=train.weight_decay,
        label_smoothing=train.label_smoothing, clip_grad_norm=train.clip_grad_norm,
        distill_ratio=0.0 if finish.teacher == "none" else finish.distill_ratio, seed=train.seed,
        checkpoint_every_s=train.checkpoint_every_s,
    )  # fmt: skip


def _start(evaluations: Evaluations, candidate: Candidate, seed: int) -> nn.Module:
    """The network that is trained: what a subnet inherits, or one of fresh weights."""
    if candidate.weights_version:
        return evaluations.weights.evaluator(candidate.weights_version).subnet(candidate.arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = evaluations.context.layout.build_subnet(candidate.arch)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _teacher(
    evaluations: Evaluations, models: Sequence[Candidate], finish: FinishConfig
) -> tuple[nn.Module, int] | None:  # fmt: skip
    """The supernet's largest net at the largest resolution of the models, where it teaches."""
    trained = evaluations.weights.trained
    if finish.teacher != "largest" or not trained:
        return None
    resolution = max(m.arch.int("resolution") for m in models)
    largest = evaluations.context.layout.space.restrict({"resolution": [resolution]}).largest()
    return evaluations.weights.evaluator(trained).subnet(largest), resolution


def _keep(
    context: RunContext, group: Path, name: str, candidate: Candidate, result: FinetuneResult, settings: str,
    finish: FinishConfig,
) -> FinishedModel:  # fmt: skip
    """Write the weights of one model."""
    path = group / f"{name}.safetensors"
    about = {"arch": candidate.arch.as_dict(), "parent": candidate.weights_version, "settings": settings}
    save_tensors(path, result.network.state_dict(), about)
    return FinishedModel(
        candidate.arch.key, weights_version(path), str(path.relative_to(context.folder.finished)),
        candidate.weights_version, settings, finish.epochs, result.best_epoch, result.score_before, result.score,
    )  # fmt: skip


def _settings(evaluations: Evaluations, candidate: Candidate, finish: FinishConfig, config: FinetuneConfig) -> str:
    """Digest of what decides how a model is trained."""
    context = evaluations.context
    values: dict[str, Any] = {
        "config": config.model_dump(mode="json", exclude={"checkpoint_every_s"}), "teacher": finish.teacher,
        "augment": context.recipe.data.augment.model_dump(mode="json"), "images": context.splits.sha256,
        "parent": candidate.weights_version,
        "trained": evaluations.weights.trained if finish.teacher == "largest" else "",
    }  # fmt: skip
    return _digest(values)


def _digest(values: Mapping[str, Any] | Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
