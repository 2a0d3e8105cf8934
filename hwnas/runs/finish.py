"""How do the models that a run hands over become as good as they can? They are trained to their end, all together.

What a subnet inherits from the supernet is a start: nothing has trained it for itself. The chosen models of several
devices are trained on one stream of images; each finished model is a new evaluation, with its parent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from hwnas.data import AugmentConfig
from hwnas.errors import TrainingError
from hwnas.files import make_folder, write_json
from hwnas.finetune import FinetuneConfig, FinetuneResult, FinishConfig, Student, seconds_per_epoch, train_together
from hwnas.latency.table import Device
from hwnas.runs.choose import ToFinish, front_stands
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.runs.finished import FinishedModel
from hwnas.runs.history import DeviceSearch
from hwnas.runs.kept import read_kept
from hwnas.supernet import fresh_subnet
from hwnas.task.task import PredictsClasses
from hwnas.train.checkpoint import save_tensors, weights_version
from hwnas.train.last_good import remove_checkpoint
from hwnas.train.phases import TrainConfig

SCORED_PERCENT = 20.0
"""Share of the steps, the last ones, of whose epochs the best on validation is kept.

Before, the rate is so high that a lead on a few hundred images is luck."""

Chooser = Callable[[Evaluations, Device, DeviceSearch], ToFinish]


def finish_front(
    evaluations: Evaluations, devices: Mapping[str, tuple[Device, DeviceSearch]], choose: Chooser
) -> None:  # fmt: skip
    """Train the models to their end that these devices are to get, those of equal settings together.

    Devices whose front stands already, and those whose settings ask for no finished models, are left as they are.

    Args:
        evaluations: of the run.
        devices: with their settings, by name.
        choose: which models, with which weights they begin, and for how long they are trained.

    Raises:
        SearchError: no model of a device is within the limits.
        TrainingError: the loss is not finite.
    """
    wanted: dict[str, list[tuple[FinishConfig, Sequence[Candidate]]]] = {}
    for device, settings in devices.values():
        if settings.finish.models and not front_stands(evaluations, device, settings):
            chosen = choose(evaluations, device, settings)
            finish = settings.finish
            if chosen.longer != 1:
                finish = finish.model_copy(update={"epochs": round(finish.epochs * chosen.longer, 2)})
            how = finish.model_copy(update={"models": 1, "latencies_ms": {}, "time_s": None})
            wanted.setdefault(how.model_dump_json(), []).append((finish, chosen.models))
    for alike in wanted.values():
        models = [model for _, chosen in alike for model in chosen]
        times = [finish.time_s for finish, _ in alike if finish.time_s is not None]
        how = alike[0][0].model_copy(update={"time_s": sum(times) if times else None})
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

    teacher = _teacher(evaluations, missing, finish)
    if finish.time_s is not None:
        config = config.model_copy(update={"epochs": _epochs(group, context, finish, students, config, teacher)})
    augment = augment_of(context, finish, config.epochs)
    if not any(candidate.weights_version for candidate in missing):
        config = warmed_up(config, context.recipe.train)
    try:
        results = train_together(students, context.splits, config, augment, teacher, group, told)
    except TrainingError as error:
        raise TrainingError(f"finish{whose}: {str(error).split(';', 1)[0]}; lower finish.lr") from None
    models = [
        _keep(context, group, name, candidate, result, digests[candidate], config.epochs)
        for name, candidate, result in zip(names, missing, results, strict=True)
    ]
    finished.add(group, models)
    remove_checkpoint(group / "checkpoint.safetensors")


@dataclass(frozen=True)
class Epochs:
    """What ``epochs.json`` holds: for how long models are trained in a given time."""

    epochs: Annotated[float, Field(ge=1, le=1e6)]


def _epochs(
    group: Path, context: RunContext, finish: FinishConfig, students: Sequence[Student], config: FinetuneConfig,
    teacher: tuple[nn.Module, int] | None,
) -> float:  # fmt: skip
    """Return for how many epochs ``finish.time_s`` is enough, found once and kept; at least one."""
    path = group / "epochs.json"
    if not path.exists():
        assert finish.time_s is not None
        epochs = max(1.0, round(epochs_in(finish.time_s, context, finish, students, config, teacher), 2))
        write_json(path, {"epochs": epochs, "time_s": finish.time_s})
    return read_kept(Epochs, path, f"remove {path.parent} and run `hwnas search` to train its models again").epochs


def epochs_in(
    time_s: float, context: RunContext, finish: FinishConfig, students: Sequence[Student], config: FinetuneConfig,
    teacher: tuple[nn.Module, int] | None = None,
) -> float:  # fmt: skip
    """Return for how many passes over the images a time is enough, from a few timed steps.

    Images of a long training are varied more (`augment_of`), which takes time, too. A time that is enough for a long
    one only without that gets a short one, of as many passes as there is time for with it: too few, never too many.
    """

    def of(augment: AugmentConfig) -> float:
        return time_s / seconds_per_epoch(students, context.splits, config, augment, teacher)

    short = augment_of(context, finish, 0.0)
    epochs = of(short)
    long = augment_of(context, finish, epochs)
    return epochs if long == short else of(long)


def training_of(train: TrainConfig, finish: FinishConfig) -> FinetuneConfig:
    """Return how models are trained to their end: what ``finish`` does not say is as in the supernet's training."""
    config = FinetuneConfig.like(
        train, epochs=finish.epochs, warmup_epochs=finish.warmup_epochs, scored_percent=SCORED_PERCENT,
        small_percent=finish.small_percent,
        distill_ratio=0.0 if finish.teacher == "none" else finish.distill_ratio,
    )  # fmt: skip
    return config if finish.lr is None else config.model_copy(update={"lr": finish.lr})


def augment_of(context: RunContext, finish: FinishConfig, epochs: float) -> AugmentConfig:
    """Return how the images are varied of models that are trained for so long (``finish.trivial_epochs``)."""
    augment = context.recipe.data.augment
    long = finish.trivial_epochs is not None and epochs >= finish.trivial_epochs
    if long and augment.varies and isinstance(context.task, PredictsClasses):
        return augment.model_copy(update={"trivial": True})
    return augment


def warmed_up(config: FinetuneConfig, train: TrainConfig) -> FinetuneConfig:
    """Return how networks of fresh weights are trained: their rate rises as in the supernet's first phase, at least.

    At most a tenth of the training goes by with it.
    """
    first = train.phases[0].warmup_epochs if train.phases else 0.0
    return config.model_copy(update={"warmup_epochs": max(config.warmup_epochs, min(first, config.epochs / 10))})


def _start(evaluations: Evaluations, candidate: Candidate, seed: int) -> nn.Module:
    """The network that is trained: what a subnet inherits, or one of fresh weights."""
    if candidate.weights_version:
        return evaluations.weights.evaluator(candidate.weights_version).subnet(candidate.arch)
    return fresh_subnet(evaluations.context.layout, candidate.arch, seed)


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
    epochs: float,
) -> FinishedModel:  # fmt: skip
    """Write the weights of one model."""
    path = group / f"{name}.safetensors"
    about = {"arch": candidate.arch.as_dict(), "parent": candidate.weights_version, "settings": settings}
    save_tensors(path, result.network.state_dict(), about)
    return FinishedModel(
        candidate.arch.key, weights_version(path), str(path.relative_to(context.folder.finished)),
        candidate.weights_version, settings, epochs, result.best_epoch, result.score_before, result.score,
    )  # fmt: skip


def _settings(evaluations: Evaluations, candidate: Candidate, finish: FinishConfig, config: FinetuneConfig) -> str:
    """Digest of what decides how a model is trained."""
    context = evaluations.context
    binding = config.binding()
    if finish.time_s is not None:  # the epochs follow from it
        binding.pop("epochs")
    augment = augment_of(context, finish, config.epochs) if finish.time_s is None else context.recipe.data.augment
    values: dict[str, Any] = {
        "config": binding, "teacher": finish.teacher,
        "augment": augment.model_dump(mode="json"), "images": context.splits.sha256,
        "parent": candidate.weights_version, "time_s": finish.time_s,
        "trained": evaluations.weights.trained if finish.teacher == "largest" else "",
    }  # fmt: skip
    if finish.time_s is not None and finish.trivial_epochs != FinishConfig.model_fields["trivial_epochs"].default:
        values["trivial_epochs"] = finish.trivial_epochs  # how images are varied follows from it and the epochs
    return _digest(values)


def _digest(values: Mapping[str, Any] | Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
