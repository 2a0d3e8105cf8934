"""What do families of MobileNets have in common? Stages of inverted bottlenecks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hwnas.space import Choice
from hwnas.supernet.blocks.layers import ActName, make_divisible
from hwnas.supernet.blocks.mbconv import MBConvSpec
from hwnas.supernet.families.builder import SlotBuilder
from hwnas.supernet.families.family import FamilyConfig, KernelSize, Layers, Positive

Ratio = Annotated[int, Field(gt=0, le=64)] | Annotated[float, Field(gt=0, le=64)]


MobileT = TypeVar("MobileT", bound="MobileConfig")


class StageConfig(BaseModel):
    """One stage of inverted bottlenecks: blocks of one width; the first may halve the feature map."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    width: Positive
    """Output channels, before the width multiplier."""
    stride: Literal[1, 2]
    """Of the first block."""
    depths: Annotated[tuple[Layers, ...], Field(max_length=128)]
    """How many blocks the stage may have, ascending."""
    kernel_sizes: Annotated[tuple[KernelSize, ...], Field(max_length=32)]
    """Of the depthwise convolutions, odd, ascending."""
    expand_ratios: Annotated[tuple[Ratio, ...], Field(max_length=64)]
    """Middle channels of a block over its input channels, ascending."""
    act: ActName = "relu"
    """Activation."""
    se: bool = False
    """Whether blocks have squeeze-and-excitation."""

    @model_validator(mode="after")
    def _check(self) -> StageConfig:
        for name in ("depths", "kernel_sizes", "expand_ratios"):
            values = getattr(self, name)
            if not values or sorted(set(values)) != list(values):
                raise ValueError(f"{name} must be ascending, without repeats and not empty, got {list(values)}")
        if any(k % 2 == 0 for k in self.kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd, got {list(self.kernel_sizes)}")
        return self


class MobileConfig(FamilyConfig):
    """Settings of a family whose networks are stages of inverted bottlenecks."""

    added_later: ClassVar[tuple[str, ...]] = (*FamilyConfig.added_later, "separate_widths")

    width_multiplier: Annotated[float, Field(gt=0, le=100)] = 1.0
    """On all channels, rounded to multiples of 8."""
    separate_widths: Annotated[tuple[Annotated[float, Field(gt=0, le=100)], ...], Field(max_length=8)] = ()
    """Several width multipliers, ascending, such as ``[1.0, 1.2]``: a supernet of each, with weights of its own, side
    by side, and the search chooses between them for every arch (NATv2). Left out: one supernet, of
    ``width_multiplier``."""
    stages: tuple[StageConfig, ...] = Field(min_length=1, max_length=64)
    """First to last."""

    @model_validator(mode="after")
    def _check_widths(self) -> MobileConfig:
        widths = self.separate_widths
        if widths and (len(widths) < 2 or sorted(set(widths)) != list(widths)):
            raise ValueError(f"separate_widths must be ascending, without repeats and at least two, got {list(widths)}")
        if widths and self.width_multiplier != 1.0:
            raise ValueError("width_multiplier and separate_widths both say how wide networks are; give one of them")
        return self

    def width(self, channels: int) -> int:
        """Apply the width multiplier."""
        return make_divisible(channels * self.width_multiplier)


def stage_choices(stages: Sequence[StageConfig]) -> tuple[list[Choice], tuple[tuple[str, ...], ...]]:
    """Return the choices of stages (depth, then the operator of each block) and their names stage by stage."""
    choices, groups = [], []
    for s, stage in enumerate(stages, 1):
        depth = Choice(f"stage{s}.depth", stage.depths)
        operators = tuple((k, e) for k in stage.kernel_sizes for e in stage.expand_ratios)
        blocks = [
            Choice(
                f"stage{s}.block{b}", operators, ("kernel_size", "expand_ratio"), depth.name,
                tuple(d for d in stage.depths if d >= b),
            )
            for b in range(1, max(stage.depths) + 1)
        ]  # fmt: skip
        choices += [depth, *blocks]
        groups.append(tuple(c.name for c in (depth, *blocks)))
    return choices, tuple(groups)


def add_stages(builder: SlotBuilder, config: MobileConfig) -> None:
    """Append the inverted bottlenecks of all stages."""
    for s, stage in enumerate(config.stages, 1):
        out_channels = config.width(stage.width)
        for b in range(1, max(stage.depths) + 1):
            stride = stage.stride if b == 1 else 1
            name = f"stage{s}.block{b}"
            builder.add(name, (name,), inverted_bottleneck(stage, out_channels, stride), out_channels, stride, s)


def inverted_bottleneck(
    stage: StageConfig, out_channels: int, stride: int
) -> Callable[[int, int, tuple[int, float]], MBConvSpec]:
    """Return the function from input channels, size and (kernel size, expand ratio) to the block."""

    def make(in_channels: int, size_px: int, operator: tuple[int, float]) -> MBConvSpec:
        kernel_size, expand_ratio = operator
        mid = make_divisible(round(in_channels * expand_ratio))
        residual = stride == 1 and in_channels == out_channels
        return MBConvSpec(
            in_channels, out_channels, size_px, mid, True, kernel_size, stride, stage.se, stage.act, residual
        )

    return make


def scaled_stages(config: MobileT, width: float) -> MobileT:
    """Return settings of one network of inverted bottlenecks: the width multiplier scaled, the rest in the middle.

    Depths are the middle ones (the lower of two), kernels the smallest, expansion the middle ones (the upper of two),
    images the largest: what published networks of this kind have.
    """
    stages = tuple(
        s.model_copy(
            update={
                "depths": (s.depths[(len(s.depths) - 1) // 2],), "kernel_sizes": s.kernel_sizes[:1],
                "expand_ratios": (s.expand_ratios[len(s.expand_ratios) // 2],),
            }
        )
        for s in config.stages
    )  # fmt: skip
    multiplier = (config.separate_widths or (config.width_multiplier,))[-1] * width
    return config.model_copy(
        update={
            "stages": stages,
            "resolutions": config.resolutions[-1:],
            "width_multiplier": multiplier,
            "separate_widths": (),
        }
    )
