"""Reduction between the stages of NAS-Bench-201: spec and plain form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from hwnas.supernet.blocks.block import BlockSpec
from hwnas.supernet.blocks.cell import ReluConvBn


@dataclass(frozen=True, slots=True)
class ReductionSpec(BlockSpec):
    """Residual block between the stages of cells: two 3x3 convolutions, the first with stride 2."""

    kind: ClassVar[str] = "reduction"

    def build(self) -> nn.Module:
        """Return a `Reduction`."""
        return Reduction(self)


class Reduction(nn.Module):
    """The plain block of a `ReductionSpec`.

    Reference:
        Dong and Yang, 2020, NAS-Bench-201, section 2.1: the shortcut is 2x2 average pooling and a 1x1 convolution.
    """

    def __init__(self, spec: ReductionSpec) -> None:
        super().__init__()
        c, out = spec.in_channels, spec.out_channels
        self.first = ReluConvBn(c, out, 3, 2)
        self.second = ReluConvBn(out, out, 3)
        # An odd edge is rounded up, as the strided convolution does; published sizes are even.
        pool = nn.AvgPool2d(2, 2, ceil_mode=True)
        self.shortcut = nn.Sequential(pool, nn.Conv2d(c, out, 1, bias=False))
        self.residual = True

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H / 2, W / 2)``, rounded up."""
        y: Tensor = self.second(self.first(x))
        return self.shortcut(x) + y if self.residual else y
