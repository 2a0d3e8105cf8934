"""Whose logits do subnets learn besides the labels, and how are the logits of several exits weighed?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.supernet import SuperNet
from hwnas.train.phases import ExitWeights


def exit_weights(scheme: ExitWeights, n: int) -> list[float]:
    """Return the weights of ``n`` exits, first to last; they add up to 1.

    Reference:
        Sarti et al., 2023, Anticipate, Ensemble and Prune (AEP): ascending, descending and uniform weights.
    """
    shares = {"ascending": range(1, n + 1), "descending": range(n, 0, -1), "uniform": [1] * n}[scheme]
    return [share / sum(shares) for share in shares]


@torch.no_grad()
def soft_labels(teacher: SuperNet, x: Tensor, all_exits: bool, weights: ExitWeights) -> Tensor:
    """Return ``(B, classes)`` probabilities of the teacher's largest net at the resolution of ``x``.

    With ``all_exits`` they are those of the weighted sum of the logits of all its exits.

    Reference:
        Sarti et al., 2023, OFAv2, section 4 (ensemble knowledge distillation, ENS-KD).
    """
    largest = teacher.space.restrict({"resolution": [x.shape[2]]}).largest()
    if not all_exits:
        return F.softmax(teacher(x, largest).float(), dim=1)
    logits = [z.float() for z in teacher.exits(x, largest)]
    return F.softmax(weighted_sum(logits, exit_weights(weights, len(logits))), dim=1)


def weighted_sum(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the sum of ``values``, each times its weight."""
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + value * weight
    return total


@torch.no_grad()
def calibrate_largest(supernet: SuperNet, batches: Sequence[Tensor]) -> None:
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
