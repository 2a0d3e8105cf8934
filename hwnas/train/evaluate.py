"""How many images does a network classify correctly?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.supernet import fold_bn

_BATCH_PIXELS = 400_000
"""Pixels of a batch: activations of larger ones leave the caches of a CPU, smaller ones wait for overheads."""


def inference_batch_size(inputs: Tensor) -> int:
    """Return how many of ``(N, C, H, W)`` images are best computed at a time, 16 to 500."""
    return max(16, min(500, _BATCH_PIXELS // inputs.shape[2:].numel()))


@torch.inference_mode()
def predict(net: nn.Module, inputs: Tensor, batch_size: int | None = None) -> Tensor:
    """Return ``(N, classes)`` logits of ``net`` for ``(N, C, H, W)`` inputs.

    Args:
        net: in eval mode; its batch norms are folded in a copy.
        inputs: images.
        batch_size: images at a time; None: `inference_batch_size`.
    """
    folded = fold_bn(net)
    return torch.cat([folded(part) for part in inputs.split(batch_size or inference_batch_size(inputs))])


def top1_percent(net: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int | None = None) -> float:
    """Return the share of images whose highest logit is their label, 0 to 100; NaN if a logit is not finite."""
    logits = predict(net, inputs, batch_size)
    if not bool(torch.isfinite(logits).all()):
        return float("nan")
    return 100.0 * float((logits.argmax(1) == labels).double().mean())
