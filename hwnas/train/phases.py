"""In which order are a supernet's choices opened, and with which settings? Phases are data of the recipe."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hwnas.errors import RecipeError, SpaceError
from hwnas.space import Arch, SearchSpace

NonNegative = Annotated[float, Field(ge=0)]
Scalar = int | float | str


class PhaseConfig(BaseModel):
    """One phase of training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    epochs: Annotated[float, Field(gt=0)]
    """Passes over the training images; fractions are allowed."""
    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate for the batch size of the recipe."""
    warmup_epochs: NonNegative = 0.0
    elastic: dict[str, Literal["all"] | tuple[Scalar, ...]] = Field(default_factory=dict)
    """Fields that vary, such as ``kernel_size``, with ``all`` or the allowed values; fields that are not named stay
    at their largest value. Resolution always varies unless it is named."""
    subnets_per_step: Annotated[int, Field(gt=0)] = 1
    """Subnets whose gradients are added before one step of the optimiser."""
    sampling: Literal["uniform", "sandwich"] = "uniform"
    """``sandwich``: of the subnets of a step, the first is the largest and the last the smallest of the phase."""
    teacher: Literal["none", "fixed", "inplace"] = "none"
    """Whose logits the subnets also learn: ``fixed`` is the largest net as it was at the end of the first phase;
    ``inplace`` is the largest net of the same step (sandwich only)."""
    distill_ratio: NonNegative = 1.0
    """Weight of the distillation loss beside the label loss (``kd_ratio`` of once-for-all)."""
    sort_channels: bool = False
    """Order the channels of every block by importance before the phase begins."""


class TrainConfig(BaseModel):
    """How a supernet is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: Annotated[int, Field(gt=1)] = 64
    phases: tuple[PhaseConfig, ...] = Field(min_length=1)
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD with Nesterov's correction."""
    weight_decay: NonNegative = 3e-5
    """On weights of convolutions and linear layers only."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    clip_grad_norm: NonNegative = 0.0
    """Largest norm of all gradients together; 0: no limit."""
    seed: int = 0
    checkpoint_every_s: Annotated[float, Field(gt=0)] = 20.0


def phase_space(phase: PhaseConfig, space: SearchSpace) -> SearchSpace:
    """Return the part of ``space`` that a phase draws from.

    Raises:
        RecipeError: the phase names a field or value that the space does not have.
    """
    fields = {f for c in space.choices for f in c.fields}
    largest = {f: [_largest(space, f)] for f in fields if f not in phase.elastic and f != "resolution"}
    given = {f: v for f, v in phase.elastic.items() if v != "all"}
    if unknown := sorted(set(phase.elastic) - fields):
        raise RecipeError(
            f"train.phases {phase.name!r}: unknown fields {unknown} in elastic; known are {sorted(fields)}"
        )
    try:
        return space.where(**largest, **given)
    except SpaceError as error:
        raise RecipeError(f"train.phases {phase.name!r}: {error}") from None


def _largest(space: SearchSpace, field: str) -> Scalar:
    values = [c.field_value(o, field) for c in space.choices if field in c.fields for o in c.options]
    return max((v for v in values if v is not None), key=lambda v: v if isinstance(v, int | float) else 0)


def sample_step(phase: PhaseConfig, space: SearchSpace, rng: np.random.Generator) -> list[Arch]:
    """Draw the subnets of one step, all of one resolution.

    Args:
        phase: how many and how.
        space: of the phase, from `phase_space`.
        rng: source of randomness; its state is all that decides.
    """
    if "resolution" in space:
        options = space["resolution"].options
        space = space.restrict({"resolution": [options[int(rng.integers(len(options)))]]})
    n = phase.subnets_per_step
    if phase.sampling == "uniform":
        return space.sample(rng, n)
    ends = [space.largest(), space.smallest()][:n]
    middle = space.sample(rng, n - len(ends))
    return [ends[0], *middle, *ends[1:]]
