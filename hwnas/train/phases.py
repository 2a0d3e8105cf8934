"""In which order are a supernet's choices opened, and with which settings? Phases are data of the recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from hwnas.errors import RecipeError, SpaceError
from hwnas.space import Arch, SearchSpace
from hwnas.space.choice import WIDTH, Option
from hwnas.supernet.layout import PRECISION, Layout
from hwnas.train.device import DeviceName

NonNegative = Annotated[float, Field(ge=0, le=1e6)]
# Rates have no other bound than that of float32: who looks for the largest that works tries larger ones.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What NumPy and PyTorch both take."""
Scalar = int | float | str
ALWAYS_VARY = ("resolution", WIDTH)
"""Fields that phases open without naming them: no subnet is a part of another in them."""
ExitWeights = Literal["ascending", "descending", "uniform"]


class PhaseConfig(BaseModel):
    """One phase of training."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    name: str
    """As progress, logs and checkpoints call it."""
    epochs: Annotated[float, Field(gt=0, le=1e5)]
    """Passes over the training images; fractions are allowed."""
    lr: Annotated[float, Field(gt=0, le=1e38)]
    """Peak learning rate for the batch size of the recipe."""
    warmup_epochs: NonNegative = 0.0
    """In which the rate rises from 0; they are part of ``epochs``."""
    elastic: dict[str, Literal["all"] | tuple[Scalar, ...]] = Field(default_factory=dict)
    """Fields that vary, such as ``kernel_size``, with ``all`` or the allowed values; fields that are not named stay
    at their largest value. Resolution, and the width where supernets of several stand side by side
    (``separate_widths``), always vary unless they are named."""
    subnets_per_step: Annotated[int, Field(gt=0, le=1000)] = 1
    """Subnets whose gradients are added before one step of the optimiser."""
    sampling: Literal["uniform", "sandwich"] = "uniform"
    """``sandwich``: of the subnets of a step, the first is the largest and the last the smallest of the phase."""
    teacher: Literal["none", "fixed", "inplace", "pet"] = "none"
    """Whose outputs the subnets also learn: ``fixed`` is the largest net as it was at the end of the first phase
    (or in ``start_from``, where the recipe names one); ``inplace`` is the largest net of the same step (sandwich
    only); ``pet``, progressively extracted, is the largest net as it is when this phase begins, its batch norms
    recalibrated."""
    teacher_exits: Literal["last", "all"] = "last"
    """``all``: the teacher's outputs are the weighted sum of those of all its exits (ENS-KD of OFAv2)."""
    divergence: Literal["kl", "alpha"] = "kl"
    """How far a subnet is from its teacher: ``kl`` is the task's own distillation loss (of classes the cross entropy);
    ``alpha`` the adaptive alpha-divergence of AlphaNet, for tasks whose outputs are a distribution."""
    distill_ratio: NonNegative = 1.0
    """Weight of the distillation loss beside the label loss (``kd_ratio`` of once-for-all)."""
    exits: Literal["own", "all"] = "own"
    """``own``: a subnet learns at its own exit; ``all``: its loss is the weighted sum over its exit and all earlier
    ones."""
    coupled: tuple[str, ...] = ()
    """Fields, such as ``[depth, expand_ratio]``, whose values in a stage are drawn together, all at the same share of
    their range (CompOFA)."""
    sort_channels: bool = False
    """Order the channels of every block by importance before the phase begins; those of widths that earlier phases
    trained stay first."""
    open_stages: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """Numbers of the stages whose choices vary, as ``elastic`` says; in the others stands what ``held`` says. Empty:
    all stages vary."""
    held: Literal["largest", "smallest"] = "largest"
    """Which option of every choice stands in the stages that do not vary: the last or the first."""
    only: dict[str, tuple[Scalar | tuple[Scalar | None, ...], ...]] = Field(default_factory=dict)
    """Options that a choice may have at all in this phase, by the choice's name, such as the operators that are worth
    their time on a device, or the winners of a search."""
    frozen_stages: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Stages whose weights do not learn in this phase; 0 is what stands before the first stage."""
    shares: dict[str, tuple[NonNegative, ...]] = Field(default_factory=dict)
    """How often each option of a choice is drawn, by the choice's name, in the order of the options that the phase
    leaves it, such as the shares that the best archs of a search have (NAT). Choices that are not named are drawn
    evenly."""

    @model_validator(mode="after")
    def _fits(self) -> PhaseConfig:
        if self.teacher == "inplace" and self.sampling != "sandwich":
            raise ValueError("teacher inplace needs sampling sandwich, whose first subnet is the largest")
        if self.teacher == "inplace" and self.teacher_exits == "all":
            raise ValueError("teacher_exits all needs the teacher fixed or pet")
        return self

    @model_serializer(mode="wrap")
    def _without_defaults_added_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Files and hashes of trainings that do without these stay what they were before there were any.
        values: dict[str, Any] = handler(self)
        for name in ("shares", "coupled"):
            if not values.get(name):
                values.pop(name, None)
        if self.divergence == "kl":
            values.pop("divergence", None)
        return values


class TrainConfig(BaseModel):
    """How a supernet is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    batch_size: Annotated[int, Field(gt=1, le=2**20)] = 64
    """Images in a step, over all ranks together."""
    phases: tuple[PhaseConfig, ...] = Field(max_length=100)
    """One after the other; none, with ``start_from``: its weights are taken as they are."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD with Nesterov's correction."""
    weight_decay: NonNegative = 3e-5
    """On weights of convolutions and linear layers only."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of a label that is spread over all classes."""
    clip_grad_norm: NonNegative = 0.0
    """Largest norm of all gradients together; 0: no limit."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of an exponential moving average of all weights within a phase; the phase ends with the average. 0: none."""
    exit_loss: ExitWeights = "ascending"
    """Weights of the losses of the exits, first to last, where a phase trains all of them."""
    exit_ensemble: ExitWeights = "ascending"
    """Weights of the outputs of a teacher's exits."""
    mixup_alpha: NonNegative = 0.0
    """Images and labels are mixed in pairs with a share drawn from Beta(alpha, alpha); 0: none."""
    moex_percent: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Share of the steps in which images exchange their feature moments after the stem, and labels with them."""
    moex_label_percent: Annotated[float, Field(ge=0, le=100)] = 90.0
    """Weight of an image's own label in such a step."""
    device: DeviceName = "auto"
    """``auto``: a GPU where PyTorch sees one."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of most operators in forward and backward passes (autocast); weights, losses and updates are float32."""
    sync_batch_norm: bool = True
    """With several ranks: batch norms see the whole batch; off: each rank its own part."""
    start_from: str | Annotated[tuple[str, ...], Field(min_length=2, max_length=8)] | None = None
    """Folder of a run or supernet of the same settings, or a checkpoint of once-for-all, whose weights the first phase
    begins with (for other classes with a new head); for supernets of several widths side by side also a list, one for
    each width. Default: random weights."""
    monitor_epochs: NonNegative = 0.0
    """Every so many epochs, the validation score of the smallest, middle and largest subnet goes to the log."""
    tensorboard: bool = False
    """Write losses and scores for TensorBoard, too (extra ``tensorboard``)."""
    seed: Seed = 0
    """Of first weights, batches, augmentation and drawn subnets."""
    checkpoint_every_s: Annotated[float, Field(gt=0, le=1e9)] = 20.0
    """Least time between two checkpoints."""

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if self.mixup_alpha and self.moex_percent:
            raise ValueError("mixup_alpha and moex_percent both mix labels; set one of them")
        if not self.phases and self.start_from is None:
            raise ValueError("phases is empty; give at least one phase, or the weights to use in start_from")
        return self


def phase_space(phase: PhaseConfig, space: SearchSpace) -> SearchSpace:
    """Return the part of ``space`` that a phase draws from.

    Raises:
        RecipeError: the phase names a field, value, stage or choice that the space does not have.
    """
    n = len(space.stages)
    if wrong := [s for s in (*phase.open_stages, *phase.frozen_stages) if s > n]:
        raise RecipeError(f"train.phases {phase.name!r}: stages {wrong} do not exist; the supernet has stages 1 to {n}")
    try:
        space = space.restrict(phase.only)
    except SpaceError as error:
        raise RecipeError(f"train.phases {phase.name!r}: {error}") from None
    if phase.open_stages:
        end = -1 if phase.held == "largest" else 0
        names = [c for s, stage in enumerate(space.stages, 1) if s not in phase.open_stages for c in stage]
        space = space.restrict({name: [space[name].options[end]] for name in names})
    if (phase.exits == "all" or phase.teacher_exits == "all") and "exit" not in space:
        raise RecipeError(f"train.phases {phase.name!r}: exits all needs a supernet with early exits")
    fields = {f for c in space.choices for f in c.fields}
    largest = {f: [_largest(space, f)] for f in fields if f not in phase.elastic and f not in ALWAYS_VARY}
    given = {f: v for f, v in phase.elastic.items() if v != "all"}
    if unknown := sorted(set(phase.coupled) - fields):
        raise RecipeError(
            f"train.phases {phase.name!r}: unknown fields {unknown} in coupled; known are {sorted(fields)}"
        )
    if unknown := sorted(set(phase.elastic) - fields):
        raise RecipeError(
            f"train.phases {phase.name!r}: unknown fields {unknown} in elastic; known are {sorted(fields)}"
        )
    try:
        space = space.where(**largest, **given)
        space.sample_genomes(np.random.default_rng(0), 1, shares=phase.shares)
    except SpaceError as error:
        raise RecipeError(f"train.phases {phase.name!r}: {error}") from None
    return space


def trained_options(config: TrainConfig, layout: Layout) -> dict[str, tuple[Option, ...]]:
    """Return which options phases train, of every choice that has others, too.

    Those others have the weights with which they began: what a network of them scores says nothing. An option counts
    as trained where a phase varies it or, if options share weights, where phases vary each of its fields, be it one
    after the other. (In another precision a network has the same weights; that choice is never among them.) It is
    empty where the weights come from elsewhere (`TrainConfig.start_from`): all of them may have been trained there.

    Raises:
        RecipeError: see `phase_space`.
    """
    if config.start_from is not None:
        return {}
    space = layout.space
    parts = [(phase, phase_space(phase, space)) for phase in config.phases]
    found = {}
    for choice in space.choices:
        trained: set[Option] = set()
        for phase, part in parts:
            every = choice.name == "exit" and phase.exits == "all"
            trained.update(choice.options if every else part[choice.name].options)
        if layout.shares_weights:
            values = {f: {choice.field_value(o, f) for o in trained} for f in choice.fields}
            trained.update(o for o in choice.options if all(choice.field_value(o, f) in v for f, v in values.items()))
        if choice.name != PRECISION and not trained.issuperset(choice.options):
            found[choice.name] = tuple(o for o in choice.options if o in trained)
    return found


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
    shares = dict(phase.shares)
    if "resolution" in space:
        options = space["resolution"].options
        if (given := shares.pop("resolution", None)) is None:
            size = int(rng.integers(len(options)))
        else:
            size = int(rng.choice(len(options), p=np.array(given) / sum(given)))
        space = space.restrict({"resolution": [options[size]]})
    n = phase.subnets_per_step

    def draw(n: int) -> list[Arch]:
        if not phase.coupled:
            return space.sample(rng, n, shares=shares)
        return [space.sample(rng, 1, shares=shares | _coupled_shares(space, phase.coupled, rng))[0] for _ in range(n)]

    if phase.sampling == "uniform":
        return draw(n)
    ends = [space.largest(), space.smallest()][:n]
    return [ends[0], *draw(n - len(ends)), *ends[1:]]


def _coupled_shares(
    space: SearchSpace, fields: tuple[str, ...], rng: np.random.Generator
) -> dict[str, tuple[float, ...]]:  # fmt: skip
    """Shares by which the fields of every stage stand at one random share of their range.

    Reference:
        Sahni et al., 2021, CompOFA, section 3.2: depth 2, 3, 4 goes with expand ratio 3, 4, 6.
    """
    found: dict[str, tuple[float, ...]] = {}
    for stage in space.stages:
        values = {
            (name, f): sorted({v for o in space[name].options if (v := space[name].field_value(o, f)) is not None})
            for name in stage
            for f in fields
            if f in space[name].fields
        }
        levels = max((len(v) for v in values.values()), default=1)
        level = rng.integers(levels) / max(1, levels - 1)
        for name in stage:
            own = {f: v for (n, f), v in values.items() if n == name and v}
            wanted = {f: v[round(level * (len(v) - 1))] for f, v in own.items()}
            if wanted:
                choice = space[name]
                found[name] = tuple(
                    float(all(choice.field_value(o, f) == v for f, v in wanted.items())) for o in choice.options
                )
    return found
