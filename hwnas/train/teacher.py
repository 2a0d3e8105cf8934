"""Whose outputs do subnets learn besides the targets, and how are the outputs of several exits weighed?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from hwnas.supernet import SuperNet
from hwnas.task import Task
from hwnas.train.phases import ExitWeights


def exit_weights(scheme: ExitWeights, n: int) -> list[float]:
    """Return the weights of ``n`` exits, first to last; they add up to 1.

    Reference:
        Sarti et al., 2023, Anticipate, Ensemble and Prune (AEP): ascending, descending and uniform weights.
    """
    shares = {"ascending": range(1, n + 1), "descending": range(n, 0, -1), "uniform": [1] * n}[scheme]
    return [share / sum(shares) for share in shares]


@torch.no_grad()
def soft_targets(teacher: SuperNet, x: Tensor, task: Task, all_exits: bool, weights: ExitWeights) -> Tensor:
    """Return what the teacher's largest net at the resolution of ``x`` tells its students; see `Task.soft_targets`.

    Args:
        teacher: in eval mode.
        x: ``(B, C, H, W)`` images.
        task: makes soft targets of outputs.
        all_exits: take the weighted sum of the outputs of all its exits instead of those of the last.
        weights: of the exits.

    Reference:
        Sarti et al., 2023, OFAv2, section 4 (ensemble knowledge distillation, ENS-KD).
    """
    largest = teacher.space.restrict({"resolution": [x.shape[2]]}).largest()
    if not all_exits:
        return task.soft_targets(teacher(x, largest).float())
    outputs = [z.float() for z in teacher.exits(x, largest)]
    return task.soft_targets(weighted_sum(outputs, exit_weights(weights, len(outputs))))


def weighted_sum(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the sum of ``values``, each times its weight."""
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + value * weight
    return total


@torch.no_grad()
def calibrate_largest(supernet: SuperNet, batches: Iterable[Tensor]) -> None:
    """Recompute, in place, the BN statistics that the largest net uses; the supernet ends in eval mode.

    Args:
        supernet: its largest net (with all exits, where it has several) is run.
        batches: ``(B, C, H, W)`` images each, at any of its resolutions; statistics are means over the batches.
    """
    norms = [m for m in supernet.eval().modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for number, batch in enumerate(batches, 1):
        for norm in norms:
            norm.train()
            norm.momentum = 1.0 / number  # elastic batch norms have no cumulative mean of their own
        supernet.exits(batch, supernet.space.restrict({"resolution": [batch.shape[2]]}).largest())
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    supernet.eval()
