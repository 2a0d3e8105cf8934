"""Convolution, batch norm, activation: spec, plain and elastic form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from hwnas.supernet.blocks.block import BlockSpec, ElasticBlock, largest_of
from hwnas.supernet.blocks.elastic_layers import ElasticBatchNorm2d, ElasticConv2d
from hwnas.supernet.blocks.layers import ActName, ConvBnAct, activate


@dataclass(frozen=True, slots=True)
class ConvSpec(BlockSpec):
    """Convolution, batch norm, activation, and optionally the input added to it."""

    kind: ClassVar[str] = "conv"

    kernel_size: int
    stride: int
    act: ActName
    residual: bool = False

    def build(self) -> nn.Module:
        """Return a `ConvBnAct`, in a `Residual` where its input is added."""
        conv = ConvBnAct(self.in_channels, self.out_channels, self.kernel_size, self.stride, act=self.act)
        return Residual(conv) if self.residual else conv

    @classmethod
    def elastic(cls, specs: Sequence[Self]) -> ElasticConvBnAct:
        """Return the `ElasticConvBnAct` that computes each of ``specs``."""
        return ElasticConvBnAct(largest_of(specs, "in_channels", "out_channels"))


class Residual(nn.Module):
    """A layer whose input is added to its output."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.residual = True

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class ElasticConvBnAct(ElasticBlock):
    """The elastic form of `ConvBnAct`, for a `ConvSpec`; with ``residual`` its input is added."""

    def __init__(self, largest: ConvSpec) -> None:
        super().__init__()
        k = largest.kernel_size
        self.conv = ElasticConv2d(largest.in_channels, largest.out_channels, k, largest.stride, k // 2, bias=False)
        self.bn = ElasticBatchNorm2d(largest.out_channels)
        self.act: ActName = largest.act

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        assert isinstance(spec, ConvSpec)
        y = activate(self.bn(self.conv(x, spec.out_channels)), self.act)
        return x + y if spec.residual else y

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        conv = plain.conv if isinstance(plain, Residual) else plain
        assert isinstance(conv, ConvBnAct)
        self.conv.fill(conv.conv)
        self.bn.fill(conv.bn)
