"""What does a training carry from step to step?"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hwnas.supernet import SuperNet


@dataclass
class TrainState:
    """What a training carries from step to step."""

    supernet: SuperNet
    optimiser: torch.optim.SGD
    scaler: torch.amp.GradScaler
    """Of float16 losses; switched off for other precisions."""
    phase: int = 0
    step: int = 0
    """Next step inside the phase."""
    teacher: dict[str, Tensor] = field(default_factory=dict)
    """State of the largest net at the end of the first phase, or at the start; empty where no phase needs it."""
    pet: dict[str, Tensor] = field(default_factory=dict)
    """State of the largest net at the beginning of this phase, where it is the teacher."""
    average: dict[str, Tensor] = field(default_factory=dict)
    """Moving average of the supernet's state within this phase."""


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of their own with the same values."""
    return {k: v.detach().clone() for k, v in tensors.items()}


def under_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
