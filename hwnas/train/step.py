"""What does one step of a supernet's training do?"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Protocol

import torch
from torch import Tensor, nn

from hwnas.space import Arch
from hwnas.supernet import SuperNet
from hwnas.task import HasAlphaDivergence, Task
from hwnas.train.mixing import Mix, exchanged_moments, mixed_loss
from hwnas.train.phases import PhaseConfig, TrainConfig
from hwnas.train.ranks import Ranks
from hwnas.train.teacher import exit_weights, soft_targets, weighted_sum


def train_step(
    supernet: SuperNet,
    optimiser: torch.optim.SGD,
    x: Tensor,
    y: Tensor,
    archs: list[Arch],
    phase: PhaseConfig,
    config: TrainConfig,
    lr: float,
    task: Task,
    teacher: SuperNet | None = None,
    mix: Mix | None = None,
    scaler: torch.amp.GradScaler | None = None,
    ranks: Ranks | None = None,
) -> float:
    """Add the gradients of every subnet of a step, then take one step of the optimiser.

    As in once-for-all the gradients are summed, not averaged, over the subnets of a step.

    Args:
        supernet: in train mode.
        optimiser: over its parameters.
        x: ``(B, C, H, W)`` images at the archs' resolution; with several ranks this rank's part.
        y: targets of the same images, see `hwnas.task.Task.targets`.
        archs: the subnets; under the sandwich rule the first is the largest.
        phase: teacher, its weight and exits.
        config: label smoothing, clipping, precision and weights of exits.
        lr: learning rate of this step.
        task: whose loss is learnt.
        teacher: the fixed or progressively extracted teacher, where the phase has one.
        mix: how images and targets of this step are mixed, if they are.
        scaler: of float16 losses.
        ranks: which part of how many.

    Returns:
        Mean loss over the subnets, and over the ranks.
    """
    ranks = ranks or Ranks()
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.zero_grad(set_to_none=True)
    if mix is not None:
        x = mix.images(x)
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(config.precision)
    soft: Tensor | None = None
    total = 0.0
    with ExitStack() as stack:
        if dtype is not None:
            stack.enter_context(torch.autocast(x.device.type, dtype))
        if mix is not None and mix.moments:
            stack.enter_context(exchanged_moments([supernet, *([] if teacher is None else [teacher])], mix))
        if teacher is not None and phase.distill_ratio:
            soft = soft_targets(teacher, x, task, phase.teacher_exits == "all", config.exit_ensemble)
        for arch in archs:
            outputs = supernet.exits(x, arch) if phase.exits == "all" else [supernet(x, arch)]
            losses = [_loss(task, z.float(), y, mix, soft, phase, config.label_smoothing) for z in outputs]
            loss = weighted_sum(losses, exit_weights(config.exit_loss, len(losses)))
            if soft is None and phase.teacher == "inplace":
                # The first subnet of a sandwich is the largest.
                soft = task.soft_targets(outputs[-1].detach().float())
            (loss if scaler is None else scaler.scale(loss)).backward()
            total += float(loss.detach())
    total = ranks.mean(total)
    # Walking through the modules of a pool of operators takes as long as a tenth of a step; the optimiser has a list.
    learning = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    ranks.average([p.grad for p in learning])
    if scaler is not None:
        scaler.unscale_(optimiser)
    if config.clip_grad_norm:
        nn.utils.clip_grad_norm_(learning, config.clip_grad_norm)
    if math.isfinite(total):
        if scaler is None:
            optimiser.step()
        else:
            scaler.step(optimiser)  # not where float16 gradients overflowed
            scaler.update()
    return total / len(archs)


def _loss(
    task: Task, outputs: Tensor, y: Tensor, mix: Mix | None, soft: Tensor | None, phase: PhaseConfig, smoothing: float
) -> Tensor:
    """Loss of one exit: targets, and the teacher where there is one."""
    loss = mixed_loss(task, outputs, y, mix, smoothing)
    if soft is None:
        return loss
    if phase.divergence == "alpha":
        assert isinstance(task, HasAlphaDivergence), "checked before the first step"
        return loss + phase.distill_ratio * task.alpha_divergence(outputs, soft)
    return loss + phase.distill_ratio * task.distillation_loss(outputs, soft)


def learning_rate(phase: PhaseConfig, step: int, n_steps: int, steps_per_epoch: int) -> float:
    """Return the rate of one step: linear warm-up, then half a cosine down to zero."""
    warmup = round(phase.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return phase.lr * (step + 1) / warmup
    return phase.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


class OptimiserConfig(Protocol):
    """What an optimiser needs to know."""

    @property
    def momentum(self) -> float:
        """Of SGD, with Nesterov's correction."""
        ...

    @property
    def weight_decay(self) -> float:
        """On weights of convolutions and linear layers."""
        ...


def make_optimiser(net: nn.Module, config: OptimiserConfig) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum; biases and batch norms are not decayed. Every step sets its rate."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=1.0, momentum=config.momentum, nesterov=config.momentum > 0)
