"""The condition number of the neural tangent kernel (TE-NAS)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hwnas.data.random_state import seeded
from hwnas.objectives.proxies.networks import training_copy, weights_of


def ntk_condition(net: nn.Module, images: Tensor, seed: int = 0, repeats: int = 1) -> float:
    """Return the condition number of the neural tangent kernel, mean over initialisations; smaller is better.

    The kernel is ``J J^T`` with J ``(B, n_weights)`` the gradients of each image's summed logits, inside one batch.

    Args:
        net: its weights are drawn anew (He normal, fan out) on a copy.
        images: ``(B, C, H, W)``; TE-NAS uses 72 for NAS-Bench-201, and every image costs a backward pass of the batch.
        seed: of the initialisations.
        repeats: how many; TE-NAS uses 3.

    Reference:
        Chen et al., 2021, TE-NAS.
    """
    found = []
    for repeat in range(repeats):
        fresh = training_copy(net)
        with seeded(seed + repeat):
            for m in fresh.modules():
                if isinstance(m, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        weights = weights_of(fresh)
        logits = fresh(images).sum(1)
        rows = []
        for i in range(len(images)):
            gradients = torch.autograd.grad(logits[i], weights, retain_graph=True, allow_unused=True)
            rows.append(torch.cat([g.flatten() for g in gradients if g is not None]))
        jacobian = torch.stack(rows).double()
        eigenvalues = torch.linalg.eigvalsh(jacobian @ jacobian.T)
        smallest = float(eigenvalues[0])
        found.append(float(eigenvalues[-1]) / smallest if smallest > 0 else math.inf)
    return sum(found) / len(found)
