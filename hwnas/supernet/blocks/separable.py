"""Depthwise-separable convolution: its spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from hwnas.supernet.blocks.block import BlockSpec
from hwnas.supernet.blocks.layers import ActName, ConvBnAct
from hwnas.supernet.blocks.squeeze_excite import SqueezeExcite


@dataclass(frozen=True, slots=True)
class SeparableSpec(BlockSpec):
    """Depthwise and 1x1 convolution, both activated (MobileNetV1), with optional squeeze-excite between them."""

    kind: ClassVar[str] = "separable"

    kernel_size: int
    stride: int
    se: bool
    act: ActName

    def build(self) -> nn.Module:
        """Return the two convolutions."""
        c = self.in_channels
        return nn.Sequential(
            ConvBnAct(c, c, self.kernel_size, self.stride, groups=c, act=self.act),
            *([SqueezeExcite(c)] if self.se else []),
            ConvBnAct(c, self.out_channels, 1, act=self.act),
        )
