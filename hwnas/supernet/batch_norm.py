"""How do batch norms of a plain network get their statistics, and how do they leave it?"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


@torch.no_grad()
def calibrate_bn(subnet: nn.Module, batches: Iterable[Tensor]) -> None:
    """Recompute the BN statistics of a plain network, in place, as the mean over batches of images.

    Args:
        subnet: any network; only its batch norms change, and it ends in the mode it came in.
        batches: ``(B, C, H, W)`` images each, of the training split, one held at a time; once-for-all uses 2,000 images
            in all.

    Reference:
        Cai et al., 2020, Once-for-All, section 3; as there, the variance is the mean of the batches' variances.
    """
    norms = [m for m in subnet.modules() if isinstance(m, nn.BatchNorm2d)]
    batches = iter(batches)
    first = next(batches, None)
    if not norms or first is None:
        return
    was_training = subnet.training
    momenta = [m.momentum for m in norms]
    subnet.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean over the batches
        norm.train()
    fresh = [act for act in _activations_of_norms(subnet) if not act.inplace]
    for act in fresh:
        act.inplace = True  # spares a new tensor each
    for batch in itertools.chain([first], batches):
        subnet(batch)
    for act in fresh:
        act.inplace = False
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    subnet.train(was_training)


def fold_bn(network: nn.Module) -> nn.Module:
    """Return a copy for inference alone: batch norms folded into convolutions, activations after them in place.

    What it computes differs by rounding. Hooks on its convolutions would see folded outputs.

    Args:
        network: in eval mode; only what follows one another in a `nn.Sequential` is joined.
    """
    network = copy.deepcopy(network)
    for act in _activations_of_norms(network):
        act.inplace = True
    for sequence in [m for m in network.modules() if isinstance(m, nn.Sequential)]:
        for (name, conv), (norm_name, norm) in itertools.pairwise(list(sequence.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and not norm.training:
                setattr(sequence, name, fuse_conv_bn_eval(conv, norm))
                setattr(sequence, norm_name, nn.Identity())
    return network


def _activations_of_norms(network: nn.Module) -> list[Any]:
    """Activations that directly follow a batch norm, whose output nothing else reads, and that can work in place."""
    sequences = [m for m in network.modules() if isinstance(m, nn.Sequential)]
    pairs = [pair for sequence in sequences for pair in itertools.pairwise(sequence)]
    return [act for norm, act in pairs if isinstance(norm, nn.BatchNorm2d) and hasattr(act, "inplace")]
