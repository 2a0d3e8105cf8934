"""How well does a network do on given images?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.data import NetworkInputs
from hwnas.supernet import fold_bn
from hwnas.task import Task

_BATCH_PIXELS = 400_000
"""Pixels of a batch: activations of larger ones leave the caches of a CPU, smaller ones wait for overheads."""


def inference_batch_size(n_pixels: int) -> int:
    """Return how many images of so many pixels are best computed at a time, 16 to 500."""
    return max(16, min(500, _BATCH_PIXELS // n_pixels))


@torch.inference_mode()
def predict(net: nn.Module, inputs: Tensor, batch_size: int | None = None) -> Tensor:
    """Return ``(N, k)`` outputs of ``net`` for ``(N, C, H, W)`` inputs.

    Args:
        net: in eval mode; its batch norms are folded in a copy.
        inputs: images.
        batch_size: images at a time; None: `inference_batch_size`.
    """
    folded = fold_bn(net)
    size = batch_size or inference_batch_size(inputs.shape[2:].numel())
    return torch.cat([folded(part) for part in inputs.split(size)])


def scores(
    net: nn.Module, inputs: Tensor, targets: Tensor, task: Task, batch_size: int | None = None
) -> dict[str, float]:  # fmt: skip
    """Return the scores of a task and their standard errors, by name; NaN if an output is not finite.

    Args:
        net: in eval mode.
        inputs: ``(N, C, H, W)`` images as the network takes them.
        targets: of the same images, such as ``splits.test.labels``.
        task: such as ``splits.task``; its main score is ``scores(...)[task.score.name]``.
        batch_size: images at a time; None: `inference_batch_size`.
    """
    meter = task.meter()
    meter.add(predict(net, inputs, batch_size), targets)
    return meter.values()


@torch.inference_mode()
def scores_of(net: nn.Module, inputs: NetworkInputs, task: Task) -> dict[str, float]:
    """Return the same as `scores` for images that are made batch by batch; memory does not grow with their number.

    Args:
        net: in eval mode; a copy runs on the device of the inputs.
        inputs: images and targets.
        task: such as ``splits.task``.
    """
    meter, folded = task.meter(), fold_bn(net).to(inputs.device)
    size = inference_batch_size(inputs.resolution**2)
    outputs = [(folded(x), targets) for x, targets in inputs.batches(size)]
    meter.add(torch.cat([o for o, _ in outputs]), torch.cat([t for _, t in outputs]))
    return meter.values()
