"""ShuffleNetV2 unit: spec and plain form."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from hwnas.supernet.blocks.block import BlockSpec
from hwnas.supernet.blocks.layers import ActName, ConvBnAct
from hwnas.supernet.blocks.squeeze_excite import SqueezeExcite


@dataclass(frozen=True, slots=True)
class ShuffleSpec(BlockSpec):
    """ShuffleNetV2 unit, or its Xception form with three depthwise convolutions."""

    kind: ClassVar[str] = "shuffle"

    kernel_size: int
    stride: int
    se: bool
    xception: bool
    act: ActName

    def build(self) -> nn.Module:
        """Return a `ShuffleUnit`."""
        return ShuffleUnit(self)


class ShuffleUnit(nn.Module):
    """The plain block of a `ShuffleSpec`.

    With stride 1 and equal channels half of the channels pass untouched; else a second branch changes them.

    Reference:
        Ma et al., 2018, ShuffleNetV2; Guo et al., 2020, Single Path One-Shot (Xception form).
    """

    def __init__(self, spec: ShuffleSpec) -> None:
        super().__init__()
        k, s, act = spec.kernel_size, spec.stride, spec.act
        self.splits = s == 1 and spec.in_channels == spec.out_channels
        inside = spec.in_channels // 2 if self.splits else spec.in_channels
        mid, out = spec.out_channels // 2, spec.out_channels - (inside if self.splits else spec.out_channels // 2)
        layers: list[nn.Module] = []
        if spec.xception:
            widths = [inside, mid, mid, out]
            for i, (a, b) in enumerate(itertools.pairwise(widths)):
                layers += [ConvBnAct(a, a, k, s if i == 0 else 1, groups=a), ConvBnAct(a, b, 1, act=act)]
        else:
            layers += [ConvBnAct(inside, mid, 1, act=act), ConvBnAct(mid, mid, k, s, groups=mid)]
            layers.append(ConvBnAct(mid, out, 1, act=act))
        if spec.se:
            layers.append(SqueezeExcite(out))
        self.main = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if not self.splits:
            c = spec.in_channels
            self.shortcut = nn.Sequential(
                ConvBnAct(c, c, k, s, groups=c), ConvBnAct(c, spec.out_channels - out, 1, act=act)
            )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H / stride, W / stride)``."""
        if self.splits:
            kept, inside = x.chunk(2, dim=1)
            joined = torch.cat([kept, self.main(inside)], dim=1)
        else:
            joined = torch.cat([self.shortcut(x), self.main(x)], dim=1)
        y: Tensor = self.shuffle(joined)
        return y
