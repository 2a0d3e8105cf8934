"""The condition number of the neural tangent kernel (TE-NAS)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hwnas.data.random_state import seeded
from hwnas.objectives.proxies.networks import training_copy


def ntk_condition(net: nn.Module, images: Tensor, seed: int = 0, repeats: int = 3) -> float:
    """Return the condition number of the neural tangent kernel, mean over initialisations; smaller is better.

    The kernel is ``J J^T`` with J ``(B, n_weights)`` the gradients of each image's summed logits, inside one batch in
    train mode, by all weights, those of batch norms too, but no biases.

    Args:
        net: its weights are drawn anew on a copy (He normal, fan out; biases 0, batch norms as new).
        images: ``(B, C, H, W)``; TE-NAS uses 72 for NAS-Bench-201, and every image costs a backward pass of the batch.
        seed: of the initialisations.
        repeats: how many; TE-NAS uses 3.

    Returns:
        At least 1; infinite where the kernel is singular. TE-NAS puts 100,000 where there is no number at all, as where
        nothing reaches the classifier; here that is no value.

    Reference:
        Chen et al., 2021, TE-NAS, and its code.
    """
    found = []
    for repeat in range(repeats):
        fresh = training_copy(net)
        with seeded(seed + repeat):
            for m in fresh.modules():
                if isinstance(m, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                    if m.bias is not None:
                        nn.init.zeros_(m.bias)
                elif isinstance(m, nn.BatchNorm2d):
                    m.reset_parameters()
        fresh.to(images.device)  # drawn on the CPU, so that weights are the same on every device
        weights = [p for name, p in fresh.named_parameters() if "weight" in name]
        logits = fresh(images).sum(1)
        rows = [
            [
                None if g is None else g.flatten()
                for g in torch.autograd.grad(y, weights, retain_graph=True, allow_unused=True)
            ]
            for y in logits
        ]
        kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)
        for columns in zip(*rows, strict=True):  # one tensor at a time, so that float64 takes little memory
            if used := [g for g in columns if g is not None]:
                jacobian = torch.stack(used).double()
                kernel += jacobian @ jacobian.T
        eigenvalues = torch.linalg.eigvalsh(kernel)
        smallest = float(eigenvalues[0])
        found.append(float(eigenvalues[-1]) / smallest if smallest > 0 else math.inf)
    return sum(found) / len(found)
