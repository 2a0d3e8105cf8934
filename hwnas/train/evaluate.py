"""How many images does a network classify correctly?"""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.inference_mode()
def predict(net: nn.Module, inputs: Tensor, batch_size: int = 500) -> Tensor:
    """Return ``(N, classes)`` logits of ``net``, which should be in eval mode, for ``(N, C, H, W)`` inputs."""
    return torch.cat([net(inputs[i : i + batch_size]) for i in range(0, len(inputs), batch_size)])


def top1_percent(net: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int = 500) -> float:
    """Return the share of images whose highest logit is their label, 0 to 100; NaN if a logit is not finite."""
    logits = predict(net, inputs, batch_size)
    if not bool(torch.isfinite(logits).all()):
        return float("nan")
    return 100.0 * float((logits.argmax(1) == labels).double().mean())
