"""How are the slots of a family written down? Slot after slot; channels, sizes and stages are carried along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hwnas.space import Choice
from hwnas.supernet.blocks.block import BlockSpec
from hwnas.supernet.blocks.layers import ActName, make_divisible
from hwnas.supernet.blocks.mbconv import MBConvSpec
from hwnas.supernet.families.family import FamilyConfig, Positive
from hwnas.supernet.layout import Slot

Ratio = Positive | Annotated[float, Field(gt=0)]


class StageConfig(BaseModel):
    """One stage of inverted bottlenecks: blocks of one width; the first may halve the feature map."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: Positive
    """Output channels, before the width multiplier."""
    stride: Literal[1, 2]
    depths: tuple[Positive, ...]
    kernel_sizes: tuple[Positive, ...]
    expand_ratios: tuple[Ratio, ...]
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


class StagedConfig(FamilyConfig):
    """Settings of a family of stages of inverted bottlenecks."""

    width_multiplier: Annotated[float, Field(gt=0)] = 1.0
    stages: tuple[StageConfig, ...] = Field(min_length=1)

    def width(self, channels: int) -> int:
        """Apply the width multiplier."""
        return make_divisible(channels * self.width_multiplier)


class SlotBuilder:
    """Collects slots; every slot knows the channels and the size that reach it.

    For families whose widths do not vary; others write their slots themselves.
    """

    def __init__(self, in_channels: int) -> None:
        self.channels = in_channels
        self.strides: tuple[int, ...] = ()
        self.slots: list[Slot] = []

    def add(
        self,
        name: str,
        choices: Sequence[str],
        make: Callable[..., BlockSpec | None],
        out_channels: int,
        stride: int = 1,
        stage: int | None = None,
    ) -> None:
        """Append a slot.

        Args:
            name: of the slot.
            choices: what it depends on besides the resolution.
            make: input channels, input size in pixels, then the options of ``choices``, to the block.
            out_channels: channels after it.
            stride: of the block.
            stage: number of its stage, see `Slot.stage`; the first slot of a stage from 1 on begins it.
        """
        channels, strides = self.channels, self.strides

        def spec(resolution: int, *options: Any) -> BlockSpec | None:
            return make(channels, size_after(resolution, strides), *options)

        begins_stage = bool(stage) and all(slot.stage != stage for slot in self.slots)
        self.slots.append(Slot(name, ("resolution", *choices), spec, stage, begins_stage))
        self.channels, self.strides = out_channels, (*strides, stride)


def size_after(size_px: int, strides: Sequence[int]) -> int:
    """Return the edge of a feature map after layers of odd kernels with padding ``kernel_size // 2``."""
    for stride in strides:
        size_px = (size_px - 1) // stride + 1
    return size_px


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


def add_stages(builder: SlotBuilder, config: StagedConfig) -> None:
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
