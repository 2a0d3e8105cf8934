"""How flat is the loss around trained weights (GeNAS)?"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hwnas.data.random_state import seeded
from hwnas.supernet import calibrate_bn
from hwnas.task import Task

FLATNESS_SIGMAS = (0.001, 0.003, 0.006)

FLATNESS_OFFSET = 1e-5


@torch.no_grad()
def flatness(
    net: nn.Module, images: Tensor, targets: Tensor, task: Task, calibration: Sequence[Tensor], seed: int = 0
) -> float:  # fmt: skip
    """Return how little the loss changes when noise is added to all parameters, step by step; larger is flatter.

    ``1 / (|L(s1) / s1| + sum |L(s_t+1) - L(s_t)| / (s_t+1 - s_t) + 1e-5)`` with L the loss under the noise added up to
    there, and s = 0.001, 0.003, 0.006 its standard deviations.

    Args:
        net: trained, such as a subnet of a trained supernet.
        images: ``(B, C, H, W)`` validation images; GeNAS uses 25,000.
        targets: of the same images.
        task: whose loss is looked at.
        calibration: batches of training images, from which batch norm is recalibrated after every step.
        seed: of the noise.

    Reference:
        Jeong et al., 2023, GeNAS.
    """
    net = copy.deepcopy(net).eval()
    losses = []
    with seeded(seed):
        for sigma in FLATNESS_SIGMAS:
            for p in net.parameters():
                p.add_(torch.randn(p.shape).to(p.device) * sigma)  # the same noise on every device
            calibrate_bn(net, calibration)
            losses.append(float(task.loss(net(images), targets)))
    slopes = [abs(losses[0] / FLATNESS_SIGMAS[0])]
    slopes += [
        abs((losses[i + 1] - losses[i]) / (FLATNESS_SIGMAS[i + 1] - FLATNESS_SIGMAS[i])) for i in range(len(losses) - 1)
    ]
    return 1.0 / (sum(slopes) + FLATNESS_OFFSET)
