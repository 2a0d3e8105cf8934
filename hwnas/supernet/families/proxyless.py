"""The Once-For-All ProxylessNAS family: MobileNetV2-like blocks with ReLU6, without squeeze-excite.

Reference:
    Cai et al., 2019, ProxylessNAS; Cai et al., 2020, Once-for-All (OFAProxylessNASNets). The last stage has one block.
"""

from __future__ import annotations

from typing import Literal

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


class ProxylessConfig(MobileConfig):
    """Sizes of a proxyless supernet."""

    family: str
    """Name of the family."""
    stem_width: Positive = 32
    """Channels of the first convolution."""
    stem_stride: Literal[1, 2] = 2
    """Of the first convolution."""
    first_width: Positive = 16
    """Channels after the first, fixed block (expand ratio 1, kernel 3)."""
    feature_width: Positive = 1280
    """Channels of the last 1x1 convolution, before pooling."""
    act: ActName = "relu6"
    """Of stem, first block and last convolution; stages have their own."""


class Proxyless:
    """The family ``proxyless``; see `hwnas.supernet.families.family.Family`."""

    config = ProxylessConfig
    scaled = staticmethod(scaled_stages)

    @staticmethod
    def layout(config: ProxylessConfig) -> Layout:
        """Return space and slots of a proxyless supernet."""
        choices, groups = stage_choices(config.stages)
        space = SearchSpace((Choice("resolution", config.resolutions), *choices), groups)
        stem, first = config.width(config.stem_width), config.width(config.first_width)
        feature = config.width(config.feature_width)
        builder = SlotBuilder(config.in_channels)
        builder.add(
            "stem",
            (),
            lambda c, size: ConvSpec(c, stem, size, 3, config.stem_stride, config.act),
            stem,
            config.stem_stride,
            stage=0,
        )
        builder.add(
            "first_block",
            (),
            lambda c, size: MBConvSpec(c, first, size, c, False, 3, 1, False, config.act, False),
            first,
            stage=0,
        )
        add_stages(builder, config)
        builder.add("feature_mix", (), lambda c, size: ConvSpec(c, feature, size, 1, 1, config.act), feature)
        builder.add(
            "head",
            (),
            lambda c, size: HeadSpec(c, config.classes, size, 0, "none", config.dropout_percent),
            config.classes,
        )
        slots = tuple(builder.slots)
        return Layout(space, slots, config.bn_eps, first_stage=1, ofa_names=mobile_names(slots))
