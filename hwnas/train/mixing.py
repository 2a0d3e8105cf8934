"""How are two images of a batch made into one, pixels or features, so that a network learns between them?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.supernet import SuperNet
from hwnas.task import Task
from hwnas.train.phases import TrainConfig

MOMENT_EPS = 1e-5


@dataclass(frozen=True)
class Mix:
    """Partners of a batch's images, and how much of the loss its own target keeps."""

    order: Tensor
    """``(B,)`` index of every image's partner."""
    share: float
    """Weight of the own target, 0 to 1."""
    moments: bool
    """Features exchange their moments (MoEx); else pixels are mixed (mixup)."""

    def images(self, x: Tensor) -> Tensor:
        """Return the batch that goes into the network."""
        return x if self.moments else self.share * x + (1 - self.share) * x[self.order]


def draw_mix(config: TrainConfig, rng: np.random.Generator, n: int) -> Mix | None:
    """Draw partners and share for a step of ``n`` images; None: this step mixes nothing.

    Reference:
        Li et al., 2021, MoEx (the share of the own label is fixed there).
    """
    if config.mixup_alpha:
        return draw_mixup(config.mixup_alpha, rng, n)
    if config.moex_percent and rng.random() < config.moex_percent / 100:
        return Mix(torch.from_numpy(rng.permutation(n)), config.moex_label_percent / 100, True)
    return None


def draw_mixup(alpha: float, rng: np.random.Generator, n: int) -> Mix | None:
    """Draw partners and share for ``n`` images whose pixels are mixed; None where ``alpha`` is 0.

    Reference:
        Zhang et al., 2018, mixup.
    """
    return Mix(torch.from_numpy(rng.permutation(n)), float(rng.beta(alpha, alpha)), False) if alpha else None


def mixed_loss(task: Task, outputs: Tensor, y: Tensor, mix: Mix | None, smoothing: float) -> Tensor:
    """Return the loss against an image's own target and its partner's, each by its share."""
    loss = task.loss(outputs, y, smoothing)
    if mix is None:
        return loss
    return mix.share * loss + (1 - mix.share) * task.loss(outputs, y[mix.order], smoothing)


@contextmanager
def exchanged_moments(nets: Sequence[SuperNet], mix: Mix) -> Iterator[None]:
    """Give each image's features after the first block the moments of its partner's, in all of ``nets``.

    Reference:
        Li et al., 2021, MoEx: mean and standard deviation over the channels of every position (PONO), eps 1e-5. Teacher
        and student see the same exchange, or the teacher's answer would be about another image.
    """

    def exchange(module: nn.Module, args: Any, y: Tensor) -> Tensor:
        mean = y.mean(1, keepdim=True)
        std = (y.var(1, keepdim=True) + MOMENT_EPS).sqrt()
        return (y - mean) / std * std[mix.order] + mean[mix.order]

    handles = [next(iter(net.parts.values())).register_forward_hook(exchange) for net in nets]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
