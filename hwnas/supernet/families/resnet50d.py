"""The Once-For-All ResNet50-D family: elastic depth, expand ratio of every bottleneck, and width of every stage.

Reference:
    Cai et al., 2020, Once-for-All (OFAResNets): depth counts the blocks beyond a stage's base, the stem's middle layer
    can be left out, widths are multipliers, and the expand ratio is that of the middle to the output channels.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hwnas.space import Choice, SearchSpace
from hwnas.supernet.blocks.block import BlockSpec
from hwnas.supernet.blocks.bottleneck import BottleneckSpec
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.layers import make_divisible
from hwnas.supernet.blocks.pool import PoolSpec
from hwnas.supernet.families.builder import size_after
from hwnas.supernet.families.family import FamilyConfig, Layers, Positive
from hwnas.supernet.layout import Layout, Slot
from hwnas.supernet.weights.ofa_names import resnet_names

Fraction = Annotated[float, Field(gt=0, le=64)]


class ResNetStageConfig(BaseModel):
    """One stage of bottlenecks."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    width: Positive
    """Output channels at width multiplier 1."""
    stride: Literal[1, 2]
    """Of the first block."""
    base_depth: Layers
    """Blocks that every subnet has."""


class ResNet50DConfig(FamilyConfig):
    """Sizes of a resnet50d supernet."""

    family: str
    """Name of the family."""
    stem_width: Positive = 64
    """Channels of the stem at width multiplier 1."""
    stem_pool: bool = True
    """Max pooling after the stem."""
    stages: tuple[ResNetStageConfig, ...] = Field(min_length=1, max_length=64)
    """First to last."""
    extra_depths: Annotated[tuple[Annotated[int, Field(ge=0, le=128)], ...], Field(max_length=128)] = (0, 1, 2)
    """Blocks beyond the base of each stage."""
    expand_ratios: tuple[Fraction, ...] = (0.2, 0.25, 0.35)
    """Middle channels of a bottleneck over its output channels."""
    width_multipliers: tuple[Fraction, ...] = (0.65, 0.8, 1.0)
    """That a stage may have."""


class ResNet50D:
    """The family ``resnet50d``; see `hwnas.supernet.families.family.Family`."""

    config = ResNet50DConfig

    @staticmethod
    def layout(config: ResNet50DConfig) -> Layout:
        """Return space and slots of a resnet50d supernet."""
        slots = tuple(_slots(config))
        return Layout(_space(config), slots, config.bn_eps, first_stage=0, ofa_names=resnet_names(slots))


def _space(config: ResNet50DConfig) -> SearchSpace:
    widths = config.width_multipliers
    choices = [
        Choice("resolution", config.resolutions),
        Choice("stem.depth", (0, 1)),
        Choice("stem.mid_width", widths, ("width",)),
        Choice("stem.width", widths),
    ]
    groups = [tuple(c.name for c in choices[1:])]
    for s, stage in enumerate(config.stages, 1):
        depth = Choice(f"stage{s}.depth", config.extra_depths)
        made = [Choice(f"stage{s}.width", widths), depth]
        for b in range(1, stage.base_depth + max(config.extra_depths) + 1):
            active_for = tuple(d for d in config.extra_depths if stage.base_depth + d >= b)
            made.append(Choice(f"stage{s}.block{b}", config.expand_ratios, ("expand_ratio",), depth.name, active_for))
        choices += made
        groups.append(tuple(c.name for c in made))
    return SearchSpace(tuple(choices), tuple(groups))


def _slots(config: ResNet50DConfig) -> list[Slot]:
    def stem_width(multiplier: float) -> int:
        return make_divisible(config.stem_width * multiplier)

    def mid_width(multiplier: float) -> int:
        return make_divisible(stem_width(multiplier) // 2)

    def first(resolution: int, mid: float) -> BlockSpec:
        return ConvSpec(config.in_channels, mid_width(mid), resolution, 3, 2, "relu")

    def second(resolution: int, depth: int, mid: float) -> BlockSpec | None:
        size, channels = size_after(resolution, (2,)), mid_width(mid)
        return ConvSpec(channels, channels, size, 3, 1, "relu", residual=True) if depth else None

    def third(resolution: int, mid: float, width: float) -> BlockSpec:
        return ConvSpec(mid_width(mid), stem_width(width), size_after(resolution, (2,)), 3, 1, "relu")

    def pool(resolution: int, width: float) -> BlockSpec:
        return PoolSpec(stem_width(width), stem_width(width), size_after(resolution, (2,)), 3, 2)

    slots = [
        Slot("stem.first", ("resolution", "stem.mid_width"), first, 0),
        Slot("stem.second", ("resolution", "stem.depth", "stem.mid_width"), second, 0),
        Slot("stem.third", ("resolution", "stem.mid_width", "stem.width"), third, 0),
    ]
    strides: tuple[int, ...] = (2,)
    if config.stem_pool:
        slots.append(Slot("stem.pool", ("resolution", "stem.width"), pool, 0))
        strides = (2, 2)
    before, width_before = "stem.width", config.stem_width
    for s, stage in enumerate(config.stages, 1):
        for b in range(1, stage.base_depth + max(config.extra_depths) + 1):
            slots.append(_block_slot(s, b, stage, strides, before, width_before))
            strides = (*strides, stage.stride if b == 1 else 1)
        before, width_before = f"stage{s}.width", stage.width

    def head(resolution: int, width: float) -> BlockSpec:
        channels = make_divisible(width_before * width)
        return HeadSpec(channels, config.classes, size_after(resolution, strides), 0, "none", config.dropout_percent)

    slots.append(Slot("head", ("resolution", before), head))
    return slots


def _block_slot(
    s: int, b: int, stage: ResNetStageConfig, strides: tuple[int, ...], before: str, width_before: int
) -> Slot:
    """The b-th block of stage s; the first reads the channels of the stage before it."""
    names = (f"stage{s}.width", f"stage{s}.block{b}")

    def make(resolution: int, width: float, expand_ratio: float, width_in: float | None = None) -> BlockSpec:
        out_channels = make_divisible(stage.width * width)
        in_channels = out_channels if width_in is None else make_divisible(width_before * width_in)
        mid = make_divisible(round(out_channels * expand_ratio))
        stride = stage.stride if b == 1 else 1
        return BottleneckSpec(in_channels, out_channels, size_after(resolution, strides), mid, stride, b == 1)

    choices = ("resolution", *names, before) if b == 1 else ("resolution", *names)
    return Slot(f"stage{s}.block{b}", choices, make, s, b == 1)
