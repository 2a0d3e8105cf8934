"""Proxies from activation patterns and Jacobians: NASWOT, jacob-cov, linear regions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hwnas.objectives.proxies.networks import activation_patterns, training_copy

JACOBIAN_OFFSET = 1e-5


@torch.no_grad()
def naswot(net: nn.Module, images: Tensor) -> float:
    """Return the log-determinant of the kernel that counts equal activation bits of two images.

    Args:
        net: freshly initialised.
        images: ``(B, C, H, W)``; the score depends on B.

    Reference:
        Mellor et al., 2021, Neural Architecture Search without Training.
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)
    for bits in activation_patterns(training_copy(net, images.device), images):
        on = bits.float()
        kernel += (on @ on.T + (1 - on) @ (1 - on).T).double()
    return float(torch.linalg.slogdet(kernel).logabsdet)


def jacob_cov(net: nn.Module, images: Tensor) -> float:
    """Return ``-sum(log(v + k) + 1 / (v + k))`` over eigenvalues v of the correlations of input Jacobians.

    Reference:
        Mellor et al., 2020, Neural Architecture Search without Training, version 1; k is 1e-5.
    """
    net = training_copy(net, images.device)
    x = images.clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(net(x).sum(), x)
    correlations = torch.corrcoef(jacobian.flatten(1).double())
    if not bool(torch.isfinite(correlations).all()):
        return math.nan
    v = torch.linalg.eigvalsh(correlations) + JACOBIAN_OFFSET
    return float(-(v.log() + 1 / v).sum())


@torch.no_grad()
def linear_regions(net: nn.Module, images: Tensor) -> int:
    """Return the number of distinct activation patterns that images cause; at most their number.

    A network of usual width gives every image a pattern of its own; `thin_network` makes one that does not.

    Reference:
        Chen et al., 2021, TE-NAS; Xiong et al., 2020, On the Number of Linear Regions of CNNs.
    """
    bits = torch.cat(list(activation_patterns(training_copy(net, images.device), images)), dim=1)
    return len(torch.unique(bits, dim=0))
