"""What is optimised: a named value per arch, and which way it should go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import RecipeError
from hwnas.space import Arch

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Objective:
    """One value of every arch; the unit is part of the name."""

    name: str
    """Such as ``top1_percent``, ``latency_ms``, ``macs``."""
    direction: Literal["min", "max"]
    evaluate: Callable[[Sequence[Arch]], Sequence[float] | FloatArray]
    """Archs to one float each; NaN where the evaluation failed."""
    cheap: bool = False
    """Exact and fast: computed for every candidate, before anything expensive is."""
    evaluate_genomes: Callable[[IntArray], FloatArray] | None = None
    """The same for ``(n, n_choices)`` genomes of the searched space, where that is faster."""

    def __post_init__(self) -> None:
        if self.direction not in ("min", "max"):
            raise RecipeError(f"objective {self.name!r} has direction {self.direction!r}; use 'min' or 'max'")
        if not callable(self.evaluate):
            raise RecipeError(
                f"objective {self.name!r} has no provider: evaluate must be a function of archs, got {self.evaluate!r}"
            )

    @property
    def sign(self) -> float:
        """1 where smaller is better, -1 where larger is."""
        return 1.0 if self.direction == "min" else -1.0


def as_losses(values: FloatArray, objectives: Sequence[Objective]) -> FloatArray:
    """Flip maximised columns of ``(n, m)``; the only place in the package where a sign changes."""
    losses: FloatArray = np.asarray(values, dtype=float) * np.array([o.sign for o in objectives])
    return losses


def as_values(losses: FloatArray, objectives: Sequence[Objective]) -> FloatArray:
    """Undo `as_losses`."""
    return as_losses(losses, objectives)
