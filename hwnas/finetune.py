"""How does an extracted subnet become better than what the supernet gave it? By training it alone, with a teacher."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from hwnas.data import AugmentConfig, Splits, TrainBatches, as_input
from hwnas.data.random_state import seeded
from hwnas.errors import TrainingError
from hwnas.progress import Progress, silent
from hwnas.train.evaluate import scores
from hwnas.train.phases import PhaseConfig
from hwnas.train.step import learning_rate

NonNegative = Annotated[float, Field(ge=0)]


class FinetuneConfig(BaseModel):
    """How a subnet is fine-tuned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Annotated[float, Field(gt=0)] = 10
    lr: Annotated[float, Field(gt=0)] = 0.01
    warmup_epochs: NonNegative = 0.0
    batch_size: Annotated[int, Field(gt=1)] = 64
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 3e-5
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    distill_ratio: NonNegative = 1.0
    """Weight of the loss against the teacher's outputs; 0: no teacher."""
    seed: int = 0


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned network and how it did."""

    network: nn.Module
    """In eval mode, with the weights of the epoch that was best on validation; the given weights if none was better."""
    score_before: float
    """Main score of the task (``splits.task.score``) of the network as it came, on validation images."""
    score: float
    """The same of ``network``."""
    best_epoch: int
    """0: the weights as they came."""


def finetune(
    network: nn.Module,
    resolution: int,
    splits: Splits,
    config: FinetuneConfig | None = None,
    augment: AugmentConfig | None = None,
    teacher: nn.Module | None = None,
    progress: Progress = silent,
) -> FinetuneResult:
    """Train a plain network alone; ``network`` itself is left as it is.

    Args:
        network: an extracted subnet or a loaded bundle.
        resolution: edge of its images in pixels.
        splits: ``train`` is learnt, ``validation`` chooses the epoch; ``test`` is not touched. They say which task.
        config: default: `FinetuneConfig()`.
        augment: default: none.
        teacher: a better network for images of the same resolution, usually the largest subnet of the supernet.
        progress: told after every step.

    Raises:
        TrainingError: the loss is not finite.

    Reference:
        Sarti et al., 2023, NATv2, post-processing step 1 (the epoch of best validation accuracy is kept; here of the
        task's main score).
    """
    config = config or FinetuneConfig()
    student = copy.deepcopy(network)
    batches = TrainBatches(splits.train, *splits.mean_std, config.batch_size, augment or AugmentConfig(), config.seed)
    validation = as_input(splits.validation.images, resolution, *splits.mean_std)
    task = splits.task

    def scored() -> float:
        return scores(student.eval(), validation, splits.validation.labels, task)[task.score.name]

    before = scored()
    best, best_epoch, best_state = before, 0, copy.deepcopy(student.state_dict())
    decayed = [p for p in student.parameters() if p.ndim > 1]
    plain = [p for p in student.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    schedule = PhaseConfig(name="finetune", epochs=config.epochs, lr=config.lr, warmup_epochs=config.warmup_epochs)
    n_steps = max(1, round(config.epochs * batches.per_epoch))
    for step in range(n_steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(schedule, step, n_steps, batches.per_epoch)
        x, y = batches.batch(step, resolution)
        with seeded(config.seed + step, x.device):  # dropout draws from the global generators
            outputs = student.train()(x)
        loss = task.loss(outputs, y, config.label_smoothing)
        if teacher is not None and config.distill_ratio:
            with torch.no_grad():
                soft = task.soft_targets(teacher.eval()(x))
            loss = loss + config.distill_ratio * task.distillation_loss(outputs, soft)
        if not math.isfinite(float(loss.detach())):
            raise TrainingError(f"fine-tuning loss is not finite at step {step}; lower --lr (it is {config.lr})")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        progress("finetune", step + 1, n_steps, f"loss {float(loss.detach()):.3f}")
        if (step + 1) % batches.per_epoch == 0 or step + 1 == n_steps:
            reached = scored()
            if task.score.sign * reached > task.score.sign * best:
                best, best_epoch = reached, math.ceil((step + 1) / batches.per_epoch)
                best_state = copy.deepcopy(student.state_dict())
    student.load_state_dict(best_state)
    return FinetuneResult(student.eval(), before, best, best_epoch)
