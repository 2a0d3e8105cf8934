"""Squeeze-excite: plain and elastic form."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.supernet.blocks import fused
from hwnas.supernet.blocks.elastic_layers import ElasticPixelConv2d
from hwnas.supernet.blocks.layers import PixelConv2d, make_divisible


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means.

    Reference:
        Hu et al., 2018, Squeeze-and-Excitation; hard sigmoid and ``make_divisible(channels // 4)`` hidden units
        as in MobileNetV3 (Howard et al., 2019) and once-for-all.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = se_hidden(channels)
        self.reduce = PixelConv2d(channels, hidden)
        self.act = nn.ReLU()
        self.expand = PixelConv2d(hidden, channels)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        means = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(means))))
        return x * gate


def se_hidden(channels: int) -> int:
    """Return the hidden units of a squeeze-excite over ``channels``."""
    return make_divisible(channels // 4)


class ElasticSqueezeExcite(nn.Module):
    """The elastic form of `SqueezeExcite`: it works on the first channels, as many as its input has."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = se_hidden(channels)
        self.reduce = ElasticPixelConv2d(channels, hidden)
        self.expand = ElasticPixelConv2d(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        c = x.shape[1]
        gate = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        gate = self.expand(F.relu(self.reduce(gate, se_hidden(c))), c)
        return x * F.hardsigmoid(gate)

    def slices(self, channels: int) -> fused.Gate:
        """Return the weights for the first channels, for a fused block."""
        hidden = se_hidden(channels)
        assert self.reduce.bias is not None
        assert self.expand.bias is not None
        return fused.Gate(
            self.reduce.kernel(channels, hidden), self.reduce.bias[:hidden],
            self.expand.kernel(hidden, channels), self.expand.bias[:channels],
        )  # fmt: skip

    def fill(self, plain: SqueezeExcite) -> None:
        """Copy the slices of ``plain``'s shape into it."""
        self.reduce.fill(plain.reduce)
        self.expand.fill(plain.expand)
