"""How does an extracted subnet become better than what the supernet gave it? By training it alone, with a teacher."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from hwnas.data import AugmentConfig, Splits, TrainBatches, as_input
from hwnas.errors import TrainingError
from hwnas.progress import Progress, silent
from hwnas.train.evaluate import top1_percent
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
    """Weight of the teacher's soft labels; 0: no teacher."""
    seed: int = 0


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned network and how it did."""

    network: nn.Module
    """In eval mode, with the weights of the epoch that was best on validation; the given weights if none was better."""
    top1_before_percent: float
    """Validation accuracy of the network as it came."""
    top1_percent: float
    """Validation accuracy of ``network``."""
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
        splits: ``train`` is learnt, ``validation`` chooses the epoch; ``test`` is not touched.
        config: default: `FinetuneConfig()`.
        augment: default: none.
        teacher: a better network for images of the same resolution, usually the largest subnet of the supernet.
        progress: told after every step.

    Raises:
        TrainingError: the loss is not finite.

    Reference:
        Sarti et al., 2023, NATv2, post-processing step 1 (the epoch of best validation accuracy is kept).
    """
    config = config or FinetuneConfig()
    student = copy.deepcopy(network)
    batches = TrainBatches(splits.train, *splits.mean_std, config.batch_size, augment or AugmentConfig(), config.seed)
    validation = as_input(splits.validation.images, resolution, *splits.mean_std)
    labels = splits.validation.labels
    before = top1_percent(student.eval(), validation, labels)
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
        torch.manual_seed(config.seed + step)  # dropout draws from the global generator
        logits = student.train()(x)
        loss = F.cross_entropy(logits, y, label_smoothing=config.label_smoothing)
        if teacher is not None and config.distill_ratio:
            with torch.no_grad():
                soft = F.softmax(teacher.eval()(x), dim=1)
            loss = loss + config.distill_ratio * F.cross_entropy(logits, soft)
        if not math.isfinite(float(loss.detach())):
            raise TrainingError(f"fine-tuning loss is not finite at step {step}; lower --lr (it is {config.lr})")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        progress("finetune", step + 1, n_steps, f"loss {float(loss.detach()):.3f}")
        if (step + 1) % batches.per_epoch == 0 or step + 1 == n_steps:
            reached = top1_percent(student.eval(), validation, labels)
            if reached > best:
                best, best_epoch = reached, math.ceil((step + 1) / batches.per_epoch)
                best_state = copy.deepcopy(student.state_dict())
    student.load_state_dict(best_state)
    return FinetuneResult(student.eval(), before, best, best_epoch)
