"""The HURRICANE family: in every layer one operator of a large pool, with weights of its own (single path).

Reference:
    Zhang et al., 2020, HURRICANE, whose pool has 32 operators. Its full text was not at hand: the enumeration
    (MBConv 18, separable 6, ShuffleNetV2 unit 6, its Xception form 2) is re-derived and gives exactly 32; sizes of
    layers come from the recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hwnas.space import Choice, SearchSpace
from hwnas.supernet.blocks.block import BlockSpec
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.layers import ActName
from hwnas.supernet.blocks.mbconv import MBConvSpec
from hwnas.supernet.blocks.separable import SeparableSpec
from hwnas.supernet.blocks.shuffle import ShuffleSpec
from hwnas.supernet.families.builder import SlotBuilder
from hwnas.supernet.families.family import FamilyConfig, KernelSize, Layers, Positive
from hwnas.supernet.layout import Layout

OperatorName = Literal["mbconv", "separable", "shuffle", "xception"]

FIELDS = ("operator", "expand_ratio", "kernel_size", "se")


class OperatorPool(BaseModel):
    """Which operators a layer may have: every combination of the lists."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    operators: tuple[OperatorName, ...] = ("separable", "shuffle", "xception", "mbconv")
    """The last one comes last in every order, so the largest arch is made of it."""
    expand_ratios: Annotated[tuple[Annotated[int, Field(gt=0, le=64)], ...], Field(max_length=64)] = (1, 3, 6)
    """Of mbconv."""
    kernel_sizes: Annotated[tuple[KernelSize, ...], Field(max_length=32)] = (3, 5, 7)
    """Of all but xception, which has kernel 3."""
    se: tuple[Literal[0, 1], ...] = (0, 1)
    """Whether operators have squeeze-and-excitation: 0, 1 or both."""

    def options(self) -> tuple[tuple[Any, ...], ...]:
        """Return the operators as ``(operator, expand_ratio, kernel_size, se)``; None where a field means nothing."""
        out: list[tuple[Any, ...]] = []
        for name in self.operators:
            expands = self.expand_ratios if name == "mbconv" else (None,)
            kernels = (None,) if name == "xception" else self.kernel_sizes
            out += [(name, e, k, s) for e in expands for k in kernels for s in self.se]
        return tuple(out)


class LayerStageConfig(BaseModel):
    """One stage: layers of one width; the first may halve the feature map."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    width: Positive
    """Output channels."""
    stride: Literal[1, 2]
    """Of the first layer."""
    layers: Layers
    """Of the stage; each has one operator of the pool."""
    act: ActName = "relu"
    """Activation."""


class HurricaneConfig(FamilyConfig):
    """Sizes of a hurricane supernet."""

    family: str
    """Name of the family."""
    stem_width: Positive = 16
    """Channels of the first convolution."""
    stem_stride: Literal[1, 2] = 2
    """Of the first convolution."""
    stages: tuple[LayerStageConfig, ...] = Field(min_length=1, max_length=64)
    """First to last."""
    pool: OperatorPool = OperatorPool()
    """Operators that a layer may have."""
    feature_width: Positive = 1024
    """Channels of the last 1x1 convolution, before pooling."""


class Hurricane:
    """The family ``hurricane``; see `hwnas.supernet.families.family.Family`."""

    config = HurricaneConfig

    @staticmethod
    def layout(config: HurricaneConfig) -> Layout:
        """Return space and slots of a hurricane supernet."""
        options = config.pool.options()
        choices, groups = [Choice("resolution", config.resolutions)], []
        builder = SlotBuilder(config.in_channels)
        builder.add(
            "stem",
            (),
            lambda c, size: ConvSpec(c, config.stem_width, size, 3, config.stem_stride, "relu"),
            config.stem_width,
            config.stem_stride,
            stage=0,
        )
        for s, stage in enumerate(config.stages, 1):
            names = [f"stage{s}.layer{b}" for b in range(1, stage.layers + 1)]
            choices += [Choice(name, options, FIELDS) for name in names]
            groups.append(tuple(names))
            for b, name in enumerate(names, 1):
                stride = stage.stride if b == 1 else 1
                builder.add(name, (name,), _operator(stage, stride), stage.width, stride, s)
        width = config.feature_width
        builder.add("feature_mix", (), lambda c, size: ConvSpec(c, width, size, 1, 1, "relu"), width)
        builder.add(
            "head",
            (),
            lambda c, size: HeadSpec(c, config.classes, size, 0, "none", config.dropout_percent),
            config.classes,
        )
        space = SearchSpace(tuple(choices), tuple(groups))
        return Layout(space, tuple(builder.slots), config.bn_eps, shares_weights=False, first_stage=1)


def _operator(stage: LayerStageConfig, stride: int) -> Callable[[int, int, tuple[Any, ...]], BlockSpec]:
    """Return the function from input channels, size and operator to the block."""

    def make(in_channels: int, size_px: int, operator: tuple[Any, ...]) -> BlockSpec:
        name, expand_ratio, kernel_size, se = operator
        out, act = stage.width, stage.act
        if name == "mbconv":
            residual = stride == 1 and in_channels == out
            mid = in_channels * expand_ratio
            return MBConvSpec(in_channels, out, size_px, mid, True, kernel_size, stride, bool(se), act, residual)
        if name == "separable":
            return SeparableSpec(in_channels, out, size_px, kernel_size, stride, bool(se), act)
        return ShuffleSpec(in_channels, out, size_px, kernel_size or 3, stride, bool(se), name == "xception", act)

    return make
