"""With which settings are networks trained alone, and those that a run hands over trained to their end?"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from hwnas.train.device import DeviceName
from hwnas.train.phases import NonNegative, Seed, TrainConfig

SMALL_SIZE_PERCENT = 62.5
"""Edge of the smaller images with which a training begins, of a network's own resolution."""


class FinetuneConfig(BaseModel):
    """How a network is trained alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    epochs: Annotated[float, Field(gt=0, le=1e5)] = 10
    """Passes over the training images."""
    lr: Annotated[float, Field(gt=0, le=1e38)] = 0.01
    """Peak learning rate."""
    warmup_epochs: NonNegative = 0.0
    """In which the rate rises from 0."""
    batch_size: Annotated[int, Field(gt=1, le=2**20)] = 64
    """Images in a step."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD with Nesterov's correction."""
    weight_decay: NonNegative = 3e-5
    """On weights of convolutions and linear layers only."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of a label that is spread over all classes."""
    mixup_alpha: NonNegative = 0.0
    """Images and labels are mixed in pairs with a share drawn from Beta(alpha, alpha); 0: none."""
    clip_grad_norm: NonNegative = 0.0
    """Largest norm of all gradients of a network together; 0: no limit."""
    distill_ratio: NonNegative = 1.0
    """Weight of the loss against the teacher's outputs; 0: no teacher."""
    small_percent: Annotated[float, Field(ge=0, lt=100)] = 0.0
    """Share of the steps, the first ones, in which images are smaller, so that there is time for more; 0: none."""
    small_size_percent: Annotated[float, Field(gt=0, le=100)] = SMALL_SIZE_PERCENT
    """Edge of the smaller images, of a network's own resolution."""
    scored_percent: Annotated[float, Field(gt=0, le=100)] = 100.0
    """Share of the steps, the last ones, after whose epochs validation images are looked at."""
    two_step: bool = False
    """Find the epoch that is best on validation, then train anew for as many epochs on training and validation images
    together, with the same schedule (`finetune` only: a front is chosen by validation images)."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """NATv2 takes SGD (rate 0.0001, decay 0.0005) for subnets of supernets with one exit, AdamW (0.0001, 0.01) for
    those of supernets with several; 150 epochs of both."""
    device: DeviceName = "auto"
    """``auto``: a GPU where PyTorch sees one."""
    seed: Seed = 0
    """Of batches and augmentation."""
    checkpoint_every_s: Annotated[float, Field(gt=0, le=1e9)] = 20.0
    """Least time between two checkpoints."""

    @model_serializer(mode="wrap")
    def _without_defaults_added_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Files and hashes of trainings that do without these stay what they were before there were any.
        values: dict[str, Any] = handler(self)
        for name in ("two_step", "optimiser", "mixup_alpha"):
            if name in values and values[name] == type(self).model_fields[name].default:
                values.pop(name)
        return values

    @classmethod
    def like(cls, train: TrainConfig, **changes: Any) -> FinetuneConfig:
        """Return how a network is trained alone with a supernet's settings, but for ``changes``, without a teacher.

        Its rate is that of the first phase, where there is one; batch size, decay, smoothing, mixup, clipping, seed and
        device are the same.
        """
        same = (
            "batch_size", "momentum", "weight_decay", "label_smoothing", "mixup_alpha", "clip_grad_norm", "seed",
            "device", "checkpoint_every_s",
        )  # fmt: skip
        values = {name: getattr(train, name) for name in same} | {"distill_ratio": 0.0}
        if train.phases:
            values["lr"] = train.phases[0].lr
        return cls(**values | changes)

    def binding(self) -> dict[str, Any]:
        """Return what decides the weights: everything that must not change between two starts."""
        return self.model_dump(mode="json", exclude={"checkpoint_every_s", "device"})


def relative_cost(small_percent: float, small_size_percent: float = SMALL_SIZE_PERCENT) -> float:
    """Return what a training that begins with small images costs, of one that does not: the cost goes with the area."""
    return 1 - small_percent / 100 * (1 - (small_size_percent / 100) ** 2)


class FinishConfig(BaseModel):
    """How the models that a run hands over are trained to their end.

    What is not named here (batch size, decay, smoothing, mixup, augmentation) is as in the recipe's training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    models: Annotated[int, Field(ge=0, le=1000)] = 4
    """For each device; 0: models are handed over as the supernet gives them."""
    epochs: Annotated[float, Field(gt=0, le=1e5)] = 20
    """Passes over the training images. All models of a run are trained on the same batches. Without a supernet the plan
    of the run says how many instead: what the recipe's compute, or the budget, is enough for."""
    time_s: Annotated[float, Field(gt=0, le=366 * 86400)] | None = None
    """Time for the models of one device, in place of ``epochs``: a few steps are timed, and the number of epochs is
    computed from them once."""
    small_percent: Annotated[float, Field(ge=0, lt=100)] = 50.0
    """Share of the steps, the first ones, in which images are smaller (`FinetuneConfig.small_size_percent`)."""
    lr: Annotated[float, Field(gt=0, le=1e38)] | None = None
    """Peak learning rate; None: that of the first phase of ``train``."""
    warmup_epochs: NonNegative = 0.0
    """In which the rate rises from 0. Networks of fresh weights (``search.strategy: direct``) take at least those of
    the first phase of ``train``, up to a tenth of their epochs."""
    teacher: Literal["best", "largest", "none"] = "best"
    """Whose outputs the models also learn: ``best`` is the largest of the models that are trained, which costs nothing
    more; ``largest`` is the supernet's largest net."""
    distill_ratio: NonNegative = 1.0
    """Weight of the loss against the teacher's outputs."""
    trivial_epochs: NonNegative | None = 30.0
    """Models that are trained for at least so many epochs see images that TrivialAugment varies, too, where classes are
    learnt and ``data.augment`` varies images at all: without, larger networks learn images by heart that they see so
    often. None: images are varied as ``data.augment`` says."""
    shared: bool = True
    """Without a supernet (``search.strategy: direct``): whether one network may stand for several latencies and
    devices, and be trained for longer instead, where that is estimated to be better at all of them together."""
    latencies_ms: dict[str, Annotated[tuple[Annotated[float, Field(gt=0, le=1e9)], ...], Field(max_length=1000)]] = (
        Field(default_factory=dict)
    )
    """For which latencies models are wanted, by device: for each the best model that is as fast. Devices that are not
    named get ``models`` models, spread evenly over the logarithm of the latency."""

    @model_serializer(mode="wrap")
    def _without_defaults_added_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Plans and fronts of runs of versions without it stay what they were.
        values: dict[str, Any] = handler(self)
        for name in ("shared", "trivial_epochs"):
            if name in values and values[name] == type(self).model_fields[name].default:
                values.pop(name)
        return values
