"""How are plain networks trained? Several on one stream of images, each image decoded and varied once for all of them.

Everything a step does follows from (settings, seed, step number) and the networks, so a training that was killed ends
with the same bits.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.data import AugmentConfig, NetworkInputs, Splits, TrainBatches
from hwnas.data.network_inputs import KEPT_BYTES
from hwnas.data.random_state import seeded
from hwnas.errors import CheckpointError, TrainingError, UnreadableError
from hwnas.finetune.config import FinetuneConfig
from hwnas.progress import Progress, silent
from hwnas.reading import made_of
from hwnas.reading.memory import freed_memory_kept
from hwnas.supernet.exits import ExitNetwork
from hwnas.task import Task
from hwnas.train.checkpoint import load_weights
from hwnas.train.device import chosen_device
from hwnas.train.evaluate import scores_of
from hwnas.train.last_good import load_checkpoint, save_checkpoint
from hwnas.train.mixing import draw_mixup, mixed_loss
from hwnas.train.phases import PhaseConfig
from hwnas.train.state import MOMENTUM, check_settings, restore_state_of_optimiser, state_of_optimiser, under_prefix
from hwnas.train.step import learning_rate, make_optimiser
from hwnas.train.teacher import weighted_sum

MOST_SCORINGS = 25
"""Epochs after which the validation images are looked at, at most: in long trainings neighbours differ by noise."""

OPTIMISER_STATE = {
    "sgd": {"momentum": MOMENTUM},
    "adamw": {"steps": "step", "mean": "exp_avg", "square": "exp_avg_sq"},
}
"""What an optimiser keeps of every parameter, by the name under which checkpoints hold it."""

MIXUP_STREAM = 1
"""Sets the random numbers of mixup apart from others of the same seed and step."""

SMALLEST_PX = 16
"""Images are never made smaller than this: little is left to be seen on them."""


@dataclass(frozen=True)
class Student:
    """One network that is trained."""

    name: str
    network: nn.Module
    resolution: int
    """Edge of its images in pixels."""
    teacher: str | None = None
    """Name of a student that stands before it in the list, whose outputs on the same images it also learns."""


@dataclass(frozen=True)
class FinetuneResult:
    """A trained network and how it did."""

    network: nn.Module
    """In eval mode, with the weights of the epoch that was best on validation; the given weights if none was better."""
    score_before: float
    """Main score of the task (``splits.task.score``) of the network as it came, in float, on validation images."""
    score: float
    """The same of ``network``."""
    best_epoch: int
    """0: the weights as they came."""
    saw_validation: bool = False
    """Whether ``network`` has learnt the validation images, too (`FinetuneConfig.two_step`): ``score`` is then that of
    the first step, whose epoch was chosen by them."""


def train_together(
    students: Sequence[Student],
    splits: Splits,
    config: FinetuneConfig | None = None,
    augment: AugmentConfig | None = None,
    teacher: tuple[nn.Module, int] | None = None,
    folder: Path | None = None,
    progress: Progress = silent,
    task: str = "finish",
    last_epoch: int | None = None,
) -> list[FinetuneResult]:
    """Train several plain networks on the same batches; the given ones are left as they are.

    A batch is varied once, at the largest resolution, and resized for those that take a smaller one.

    Args:
        students: of different names.
        splits: ``train`` is learnt, ``validation`` chooses the epoch of each; ``test`` is not touched.
        config: of all of them; default: `FinetuneConfig()`.
        augment: default: none.
        teacher: network and resolution, for students that have no teacher among the students.
        folder: receives ``checkpoint.safetensors``, from which a second start goes on; a finished training is read
            from it. None: nothing is kept.
        progress: told after every step.
        task: what it says is being done.
        last_epoch: after which it ends, before its schedule does, with the weights of then, whatever validation says;
            None: the schedule says.

    Returns:
        One result a student.

    Raises:
        TrainingError: the loss is not finite; or a student's teacher does not stand before it.
        ResumeError: the checkpoint is of a training with other settings.
    """
    trainer = _Together(
        tuple(students), splits, config or FinetuneConfig(), augment or AugmentConfig(), teacher,
        None if folder is None else folder / "checkpoint.safetensors", progress, task, last_epoch,
    )  # fmt: skip
    with trainer.batches, freed_memory_kept():
        trainer.start()
        trainer.run()
    return [one.result() for one in trainer.learners]


def seconds_per_epoch(
    students: Sequence[Student],
    splits: Splits,
    config: FinetuneConfig,
    augment: AugmentConfig | None = None,
    teacher: tuple[nn.Module, int] | None = None,
    steps: int = 4,
) -> float:
    """Return how long `train_together` takes for one pass over the images, scoring included, from a few timed steps.

    The first step, which prepares what later ones reuse, does not count; the given networks are left as they are.
    """
    trainer = _Together(tuple(students), splits, config, augment or AugmentConfig(), teacher, None, silent, "timing")
    began = time.perf_counter()
    for learner in trainer.learners:
        learner.score()
    scoring_s = time.perf_counter() - began
    small = config.small_percent / 100
    per_step_s = 0.0
    for first, share in ((0, small), (trainer.n_steps, 1 - small)):
        seconds = []
        for step in range(1 + steps) if share else ():
            trainer.step = first + step if first else 0  # small images come first
            began = time.perf_counter()
            trainer.take_step(1e-6)
            seconds.append(time.perf_counter() - began)
        per_step_s += share * float(np.median(seconds[1:])) if seconds else 0.0
    per_epoch = trainer.batches.per_epoch
    scored = config.scored_percent / 100 / trainer.scored_every  # of the steps
    return per_epoch * (per_step_s + scoring_s * scored)


@dataclass
class _Learner:
    """A student's copy that learns, and what it has reached."""

    student: Student
    config: FinetuneConfig
    task: Task
    validation: NetworkInputs
    network: nn.Module = field(init=False)
    before: float = field(default=math.nan, init=False)
    best: float = field(default=math.nan, init=False)
    best_epoch: int = field(default=0, init=False)
    best_state: dict[str, Tensor] = field(default_factory=dict, init=False)
    """Empty: nothing is kept yet, as where the last epoch is what counts."""

    def __post_init__(self) -> None:
        self.network = copy.deepcopy(self.student.network).to(self.validation.device)
        self.optimiser = _optimiser(self.network, self.config)

    def begin(self) -> None:
        """Note what the network can do as it came."""
        self.before = self.best = self.score()
        self.best_state = copy.deepcopy(self.network.state_dict())

    def score(self) -> float:
        """Main score on validation images."""
        found = scores_of(self.network.eval(), self.validation, self.task)
        return found[self.task.score.name]

    def keep_if_better(self, epoch: int) -> None:
        """Look at the validation images, and keep the weights where they are the best so far."""
        reached, sign = self.score(), self.task.score.sign
        if sign * reached > sign * self.best:
            self.best, self.best_epoch = reached, epoch
            self.best_state = copy.deepcopy(self.network.state_dict())

    def keep(self, epoch: int) -> None:
        """Keep the weights as they are now, whatever validation images say."""
        self.best, self.best_epoch, self.best_state = math.nan, epoch, copy.deepcopy(self.network.state_dict())

    def learn(self, loss: Tensor, lr: float) -> None:
        """Take one step of the optimiser."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.clip_grad_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_grad_norm)
        self.optimiser.step()

    def result(self) -> FinetuneResult:
        """The network of the best epoch."""
        self.network.load_state_dict(self.best_state)
        return FinetuneResult(self.network.cpu().eval(), self.before, self.best, self.best_epoch)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint needs."""
        groups = {"now": self.network.state_dict(), "best": self.best_state}
        for group, name in OPTIMISER_STATE[self.config.optimiser].items():
            groups[group] = state_of_optimiser(self.network, self.optimiser, name)
        return {f"{self.student.name}/{group}.{k}": v for group, named in groups.items() for k, v in named.items()}

    def read(self, tensors: dict[str, Tensor], values: Mapping[str, Any], where: str) -> None:
        """Go on from a checkpoint."""
        own = under_prefix(tensors, f"{self.student.name}/")
        load_weights(self.network, under_prefix(own, "now."), where)
        self.best_state = under_prefix(own, "best.")
        for group, name in OPTIMISER_STATE[self.config.optimiser].items():
            restore_state_of_optimiser(self.network, self.optimiser, name, under_prefix(own, f"{group}."))
        self.before, self.best = (math.nan if values[k] is None else values[k] for k in ("before", "best"))
        self.best_epoch = values["best_epoch"]


@dataclass
class _Together:
    """One training of several networks."""

    students: tuple[Student, ...]
    splits: Splits
    config: FinetuneConfig
    augment: AugmentConfig
    teacher: tuple[nn.Module, int] | None
    path: Path | None
    progress: Progress
    task: str
    last_epoch: int | None = None
    step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        splits, config = self.splits, self.config
        self._check_teachers()
        device = chosen_device(config.device)
        self.batches = TrainBatches(
            splits.train.to(device), *splits.mean_std, config.batch_size, self.augment, config.seed, device
        )
        if self.teacher is not None:
            self.teacher = self.teacher[0].to(device), self.teacher[1]
        self.n_steps = max(1, round(config.epochs * self.batches.per_epoch))
        self.end = min(self.n_steps, (self.last_epoch or math.inf) * self.batches.per_epoch)
        self.scored_every = max(1, math.ceil(config.epochs / MOST_SCORINGS)) * self.batches.per_epoch
        sizes = [s.resolution for s in self.students]
        validation = {r: NetworkInputs(splits.validation, r, *splits.mean_std, device) for r in set(sizes)}
        if sum(inputs.n_bytes for inputs in validation.values()) <= KEPT_BYTES:
            validation = {r: inputs.keep() for r, inputs in validation.items()}
        self.learners = [_Learner(s, config, splits.task, validation[s.resolution]) for s in self.students]
        self.resolution = max([*sizes, *([] if self.teacher is None else [self.teacher[1]])])

    def _check_teachers(self) -> None:
        before: set[str] = set()
        for student in self.students:
            if student.name in before or student.teacher not in {None, *before}:
                raise TrainingError(
                    f"student {student.name!r} needs a name of its own and a teacher that stands before it, not "
                    f"{student.teacher!r}; before it are {sorted(before)}"
                )
            before.add(student.name)

    @property
    def settings(self) -> dict[str, Any]:
        """What must not change between two starts."""
        return {
            "config": self.config.binding(), "augment": self.augment.model_dump(mode="json"),
            "images": self.splits.sha256, "students": [[s.name, s.resolution, s.teacher] for s in self.students],
        }  # fmt: skip

    def start(self) -> None:
        """Go on from the checkpoint, or begin."""
        found = None if self.path is None else load_checkpoint(self.path, self.progress)
        if self.path is None or found is None:
            for learner in self.learners if self.last_epoch is None else ():
                learner.begin()
            return
        tensors, metadata = found
        check_settings(metadata.get("settings", {}), self.settings, self.path)
        try:
            with made_of(self.path):
                for learner in self.learners:
                    learner.read(tensors, metadata["students"][learner.student.name], str(self.path))
                self.step = int(metadata["step"])
        except UnreadableError as error:
            raise CheckpointError(
                f"{self.path} is damaged: {error.reason}; remove it: the training begins anew"
            ) from None

    def run(self) -> None:
        """Train to the end."""
        config, per_epoch = self.config, self.batches.per_epoch
        schedule = PhaseConfig(name="finetune", epochs=config.epochs, lr=config.lr, warmup_epochs=config.warmup_epochs)
        saved_at = time.monotonic()
        while self.step < self.end:
            loss = self.take_step(learning_rate(schedule, self.step, self.n_steps, per_epoch))
            self.step += 1
            self.progress(self.task, self.step, self.end, f"loss {loss:.3f}")
            if self.last_epoch is None and self._is_scored():
                for learner in self.learners:
                    learner.keep_if_better(math.ceil(self.step / per_epoch))
            elif self.step == self.end:
                for learner in self.learners:
                    learner.keep(self.last_epoch or 0)
            if time.monotonic() - saved_at > config.checkpoint_every_s or self.step == self.n_steps:
                self._save()
                saved_at = time.monotonic()

    def _is_scored(self) -> bool:
        """Whether validation images are looked at after this step."""
        late = self.step > self.n_steps * (1 - self.config.scored_percent / 100)
        return self.step == self.n_steps or (late and self.step % self.scored_every == 0)

    def _size(self, resolution: int) -> int:
        """Edge of the images at this step for a network of a resolution."""
        if self.step >= self.n_steps * self.config.small_percent / 100:
            return resolution
        return max(min(SMALLEST_PX, resolution), round(resolution * self.config.small_size_percent / 100))

    def take_step(self, lr: float) -> float:
        """One batch for all; return the mean loss."""
        config, task = self.config, self.splits.task
        x, y = self.batches.batch(self.step, self._size(self.resolution))
        mix = draw_mixup(config.mixup_alpha, np.random.default_rng((config.seed, self.step, MIXUP_STREAM)), len(y))
        x = x if mix is None else mix.images(x)
        inputs: dict[int, Tensor] = {x.shape[2]: x}
        soft: dict[str | None, Tensor] = {}
        if self.teacher is not None and config.distill_ratio and any(s.teacher is None for s in self.students):
            network, resolution = self.teacher
            with torch.no_grad():
                soft[None] = task.soft_targets(network.eval()(_resized(inputs, x, self._size(resolution))))
        taught = {s.teacher for s in self.students}
        total = 0.0
        for learner in self.learners:
            student = learner.student
            with seeded(config.seed + self.step, x.device):  # dropout draws from the global generators
                answers, weights = _answers(learner.network, _resized(inputs, x, self._size(student.resolution)))
            losses = []
            for answer in answers:
                loss = mixed_loss(task, answer, y, mix, config.label_smoothing)
                if student.teacher in soft and config.distill_ratio:
                    loss = loss + config.distill_ratio * task.distillation_loss(answer, soft[student.teacher])
                losses.append(loss)
            loss = losses[0] if len(losses) == 1 else weighted_sum(losses, weights)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self.task}: the loss of {student.name} is not finite at step {self.step}; lower the learning "
                    f"rate (it is {config.lr:g})"
                )
            if student.name in taught:
                soft[student.name] = task.soft_targets(answers[-1].detach())
            learner.learn(loss, lr)
            total += value
        return total / len(self.learners)

    def _save(self) -> None:
        if self.path is None:
            return
        tensors = {k: v for learner in self.learners for k, v in learner.tensors().items()}
        reached = {
            one.student.name: {
                "before": _or_none(one.before),
                "best": _or_none(one.best),
                "best_epoch": one.best_epoch,
            }
            for one in self.learners
        }
        save_checkpoint(self.path, tensors, {"settings": self.settings, "step": self.step, "students": reached})


def _or_none(value: float) -> float | None:
    """A score as JSON holds it: none was taken where the last epoch is what counts."""
    return None if math.isnan(value) else value


def _answers(network: nn.Module, x: Tensor) -> tuple[list[Tensor], list[float]]:
    """Outputs of every exit in training, and the weights of their losses."""
    network.train()
    return (network.exits(x), network.loss_weights) if isinstance(network, ExitNetwork) else ([network(x)], [1.0])


def _optimiser(network: nn.Module, config: FinetuneConfig) -> torch.optim.Optimizer:
    if config.optimiser == "sgd":
        return make_optimiser(network, config)
    return torch.optim.AdamW(network.parameters(), lr=1.0, weight_decay=config.weight_decay)


def _resized(inputs: dict[int, Tensor], x: Tensor, resolution: int) -> Tensor:
    """The images at a smaller resolution, computed once for all who take it."""
    if resolution not in inputs:
        resized = F.interpolate(x, (resolution, resolution), mode="bilinear", antialias=True)
        inputs[resolution] = resized.contiguous(memory_format=torch.channels_last)
    return inputs[resolution]
