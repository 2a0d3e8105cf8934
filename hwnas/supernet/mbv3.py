"""The Once-For-All MobileNetV3 family, at any size.

Elastic: resolution, depth of each stage, and per block the pair (kernel size, expand ratio).

Reference:
    Cai et al., 2020, Once-for-All, section 3.2; Howard et al., 2019, MobileNetV3. The full-size recipes
    ``ofa-mbv3-w1.0`` and ``ofa-mbv3-w1.2`` are the published space; every size here comes from the recipe.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hwnas.space import Choice, SearchSpace
from hwnas.supernet.blocks import ActName, BlockSpec, ConvSpec, HeadSpec, MBConvSpec, make_divisible
from hwnas.supernet.elastic import ElasticBlock, ElasticConvBnAct, ElasticHead, ElasticMBConv
from hwnas.supernet.network import Layout, Slot, SuperNet

Positive = Annotated[int, Field(gt=0)]


class StageConfig(BaseModel):
    """One stage: blocks of one width; the first may halve the feature map."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: Positive
    """Output channels, before the width multiplier."""
    stride: Literal[1, 2]
    depths: tuple[Positive, ...]
    kernel_sizes: tuple[Positive, ...]
    expand_ratios: tuple[Annotated[float, Field(gt=0)] | Positive, ...]
    act: ActName = "relu"
    se: bool = False

    @model_validator(mode="after")
    def _check(self) -> StageConfig:
        for name in ("depths", "kernel_sizes", "expand_ratios"):
            values = getattr(self, name)
            if not values or sorted(set(values)) != list(values):
                raise ValueError(f"{name} must be ascending, without repeats and not empty, got {list(values)}")
        if any(k % 2 == 0 for k in self.kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd, got {list(self.kernel_sizes)}")
        return self


class MBV3Config(BaseModel):
    """Sizes of an mbv3 supernet."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: Literal["mbv3"]
    in_channels: Positive = 3
    classes: Annotated[int, Field(ge=2)]
    resolutions: tuple[Positive, ...]
    """Image edges in pixels, ascending."""
    width_multiplier: Annotated[float, Field(gt=0)] = 1.0
    stem_width: Positive = 16
    stem_stride: Literal[1, 2] = 2
    stem_act: ActName = "hswish"
    first_block: bool = True
    """A fixed depthwise-separable block (expand ratio 1, kernel 3, ReLU) after the stem."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    expand_width: Positive = 960
    """Channels of the last 1x1 convolution."""
    feature_width: Annotated[int, Field(ge=0)] = 1280
    """Channels of the feature mix after pooling; 0: none."""
    head_act: ActName = "hswish"
    dropout_percent: Annotated[int, Field(ge=0, lt=100)] = 10

    @model_validator(mode="after")
    def _check(self) -> MBV3Config:
        if not self.resolutions or sorted(set(self.resolutions)) != list(self.resolutions):
            raise ValueError(f"resolutions must be ascending and not empty, got {list(self.resolutions)}")
        return self

    def width(self, channels: int) -> int:
        """Apply the width multiplier."""
        return make_divisible(channels * self.width_multiplier)


def layout(config: MBV3Config) -> Layout:
    """Return space and slots of an mbv3 supernet."""
    return Layout(_space(config), _slots(config))


def supernet(config: MBV3Config) -> SuperNet:
    """Return an mbv3 supernet with fresh weights."""
    plan = layout(config)
    largest = plan.space.largest()
    parts: dict[str, ElasticBlock] = {}
    for name, spec in plan.chain(largest):
        if isinstance(spec, ConvSpec):
            parts[name] = ElasticConvBnAct(spec)
        elif isinstance(spec, HeadSpec):
            parts[name] = ElasticHead(spec)
        else:
            assert isinstance(spec, MBConvSpec)
            kernel_sizes = (3,) if name == "first_block" else _stage_of(config, name).kernel_sizes
            parts[name] = ElasticMBConv(spec, kernel_sizes)
    return SuperNet(config, plan, parts)


def _stage_of(config: MBV3Config, name: str) -> StageConfig:
    return config.stages[int(name.split(".")[0].removeprefix("stage")) - 1]


def _space(config: MBV3Config) -> SearchSpace:
    choices = [Choice("resolution", config.resolutions)]
    stages = []
    for s, stage in enumerate(config.stages, 1):
        depth = f"stage{s}.depth"
        operators = tuple((k, e) for k in stage.kernel_sizes for e in stage.expand_ratios)
        choices.append(Choice(depth, stage.depths))
        names = [depth]
        for b in range(1, max(stage.depths) + 1):
            names.append(f"stage{s}.block{b}")
            active_for = tuple(d for d in stage.depths if d >= b)
            choices.append(Choice(names[-1], operators, ("kernel_size", "expand_ratio"), depth, active_for))
        stages.append(tuple(names))
    return SearchSpace(tuple(choices), tuple(stages))


def _slots(config: MBV3Config) -> tuple[Slot, ...]:
    def conv_out(size: int, stride: int) -> int:
        return (size - 1) // stride + 1  # odd kernels with padding k // 2

    stem_width = config.width(config.stem_width)

    def stem(resolution: int) -> BlockSpec:
        return ConvSpec(config.in_channels, stem_width, resolution, 3, config.stem_stride, config.stem_act)

    slots = [Slot("stem", ("resolution",), stem)]
    strides: tuple[int, ...] = (config.stem_stride,)

    def size_after(strides: tuple[int, ...], resolution: int) -> int:
        for stride in strides:
            resolution = conv_out(resolution, stride)
        return resolution

    channels = stem_width
    if config.first_block:

        def first(resolution: int) -> BlockSpec:
            size = size_after((config.stem_stride,), resolution)
            return MBConvSpec(stem_width, stem_width, size, stem_width, False, 3, 1, False, "relu", True)

        slots.append(Slot("first_block", ("resolution",), first))

    def block(
        stage: StageConfig, in_channels: int, stride: int, before: tuple[int, ...], resolution: int,
        operator: tuple[int, float],
    ) -> BlockSpec:  # fmt: skip
        kernel_size, expand_ratio = operator
        out_channels = config.width(stage.width)
        mid = make_divisible(round(in_channels * expand_ratio))
        residual = stride == 1 and in_channels == out_channels
        size = size_after(before, resolution)
        return MBConvSpec(
            in_channels, out_channels, size, mid, True, kernel_size, stride, stage.se, stage.act, residual
        )

    for s, stage in enumerate(config.stages, 1):
        for b in range(1, max(stage.depths) + 1):
            stride = stage.stride if b == 1 else 1

            def spec(
                resolution: int, operator: tuple[int, float],
                stage: StageConfig = stage, channels: int = channels, stride: int = stride,
                strides: tuple[int, ...] = strides,
            ) -> BlockSpec:  # fmt: skip
                return block(stage, channels, stride, strides, resolution, operator)

            slots.append(Slot(f"stage{s}.block{b}", ("resolution", f"stage{s}.block{b}"), spec))
            channels = config.width(stage.width)
            strides = (*strides, stride)

    last, expand_width = channels, config.width(config.expand_width)
    feature_width = config.width(config.feature_width) if config.feature_width else 0

    def final_expand(resolution: int) -> BlockSpec:
        return ConvSpec(last, expand_width, size_after(strides, resolution), 1, 1, config.head_act)

    def head(resolution: int) -> BlockSpec:
        size = size_after(strides, resolution)
        return HeadSpec(expand_width, config.classes, size, feature_width, config.head_act, config.dropout_percent)

    slots.append(Slot("final_expand", ("resolution",), final_expand))
    slots.append(Slot("head", ("resolution",), head))
    return tuple(slots)
