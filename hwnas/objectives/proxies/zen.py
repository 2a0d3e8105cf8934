"""The Zen score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from hwnas.data.inputs import CPU
from hwnas.data.random_state import seeded
from hwnas.objectives.proxies.networks import last_feature_map, training_copy, without_residual_links

ZEN_SHIFT = 0.01


@torch.no_grad()
def zen(
    net: nn.Module, input_shape: Sequence[int], seed: int = 0, repeats: int = 4, batch_size: int = 16,
    device: torch.device = CPU,
) -> float:  # fmt: skip
    """Return the Zen score: how far features move when Gaussian images are shifted, undoing batch norm's scaling.

    ``log E|f(x) - f(x + 0.01 e)| + sum over batch norms of log sqrt(mean variance)`` with f the feature map before
    global pooling, weights and images standard normal, and no residual link. Variances are those of the first of the
    two batches.

    Args:
        net: its weights are drawn anew on a copy, in which it has no residual links.
        input_shape: ``(C, H, W)``.
        seed: of weights and images.
        repeats: weights and images are drawn this often, and the scores averaged; the original uses 32.
        batch_size: images of one draw.
        device: computes it; everything is drawn on the CPU, so that it is the same on every device.

    Reference:
        Lin et al., 2021, Zen-NAS, section 3: the score is of the network without residual links.
    """
    net = without_residual_links(training_copy(net))
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    scores = []
    with seeded(seed):
        for _ in range(repeats):
            net.cpu()
            for m in net.modules():
                if isinstance(m, nn.Conv2d | nn.Linear):
                    nn.init.normal_(m.weight)
                    if m.bias is not None:
                        nn.init.zeros_(m.bias)
            net.to(device)
            x = torch.randn(batch_size, *input_shape).to(device)
            for norm in norms:
                norm.momentum = 1.0  # running_var becomes the variance of this batch
            features = last_feature_map(net, x)
            variances = [float(v.mean()) for n in norms if (v := n.running_var) is not None]
            scaling = sum(0.5 * math.log(v + 1e-12) for v in variances)
            shifted = last_feature_map(net, x + ZEN_SHIFT * torch.randn(x.shape).to(device))
            moved = (features - shifted).abs().flatten(1).sum(1).mean()
            scores.append(math.log(float(moved) + 1e-12) + scaling)
    return sum(scores) / len(scores)
