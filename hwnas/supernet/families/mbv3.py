"""The Once-For-All MobileNetV3 family, at any size.

Elastic: resolution, depth of each stage, and per block the pair (kernel size, expand ratio).

Reference:
    Cai et al., 2020, Once-for-All, section 3.2; Howard et al., 2019, MobileNetV3. The full-size recipes
    ``ofa-mbv3-w1.0`` and ``ofa-mbv3-w1.2`` are the published space; every size here comes from the recipe.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hwnas.space import Choice, SearchSpace
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.layers import ActName
from hwnas.supernet.blocks.mbconv import MBConvSpec
from hwnas.supernet.families.builder import SlotBuilder
from hwnas.supernet.families.family import Positive
from hwnas.supernet.families.mobile import MobileConfig, add_stages, scaled_stages, stage_choices
from hwnas.supernet.layout import Layout
from hwnas.supernet.weights.ofa_names import mobile_names


class MBV3Config(MobileConfig):
    """Sizes of an mbv3 supernet."""

    family: str
    """Name of the family."""
    stem_width: Positive = 16
    """Channels of the first convolution."""
    stem_stride: Literal[1, 2] = 2
    """Of the first convolution."""
    stem_act: ActName = "hswish"
    """Activation of the first convolution."""
    first_block: bool = True
    """A fixed depthwise-separable block (expand ratio 1, kernel 3, ReLU) after the stem."""
    expand_width: Positive = 960
    """Channels of the last 1x1 convolution."""
    feature_width: Annotated[int, Field(ge=0, le=65_536)] = 1280
    """Channels of the feature mix after pooling; 0: none."""
    head_act: ActName = "hswish"
    """Activation of the last convolution and of the feature mix."""


class MBV3:
    """The family ``mbv3``; see `hwnas.supernet.families.family.Family`."""

    config = MBV3Config
    scaled = staticmethod(scaled_stages)

    @staticmethod
    def layout(config: MBV3Config) -> Layout:
        """Return space and slots of an mbv3 supernet."""
        choices, groups = stage_choices(config.stages)
        space = SearchSpace((Choice("resolution", config.resolutions), *choices), groups)
        builder = SlotBuilder(config.in_channels)
        add_stem(builder, config)
        add_stages(builder, config)
        expand_width = config.width(config.expand_width)
        feature_width = config.width(config.feature_width) if config.feature_width else 0
        builder.add(
            "final_expand", (), lambda c, size: ConvSpec(c, expand_width, size, 1, 1, config.head_act), expand_width
        )
        builder.add(
            "head",
            (),
            lambda c, size: HeadSpec(c, config.classes, size, feature_width, config.head_act, config.dropout_percent),
            config.classes,
        )
        slots = tuple(builder.slots)
        return Layout(space, slots, config.bn_eps, first_stage=1, ofa_names=mobile_names(slots))


def add_stem(builder: SlotBuilder, config: MBV3Config) -> None:
    """Append the stem and the first, fixed block."""
    width = config.width(config.stem_width)
    builder.add(
        "stem",
        (),
        lambda c, size: ConvSpec(c, width, size, 3, config.stem_stride, config.stem_act),
        width,
        config.stem_stride,
        stage=0,
    )
    if config.first_block:
        builder.add(
            "first_block",
            (),
            lambda c, size: MBConvSpec(c, c, size, c, False, 3, 1, False, "relu", True),
            width,
            stage=0,
        )
