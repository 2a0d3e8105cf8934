"""Parallel branches of OFAv2: spec, plain and elastic form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from hwnas.supernet.blocks.block import BlockSpec, ElasticBlock, largest_of
from hwnas.supernet.blocks.layers import BN_EPS, BN_MOMENTUM, ActName, ConvBnAct, activation
from hwnas.supernet.blocks.mbconv import ElasticMBConv, MBConv, MBConvSpec


@dataclass(frozen=True, slots=True)
class ParallelSpec(BlockSpec):
    """Any of three branches, summed: inverted bottleneck, 1x1 convolution, transformation (OFAv2)."""

    kind: ClassVar[str] = "parallel"

    level: int
    """Three bits: 4 inverted bottleneck, 2 convolution, 1 transformation."""
    mid_channels: int
    kernel_size: int
    stride: int
    se: bool
    act: ActName
    residual: bool

    @property
    def bottleneck(self) -> MBConvSpec:
        """The inverted bottleneck's spec."""
        return MBConvSpec(
            self.in_channels, self.out_channels, self.in_size_px, self.mid_channels, True, self.kernel_size,
            self.stride, self.se, self.act, self.residual,
        )  # fmt: skip

    def build(self) -> nn.Module:
        """Return a `Parallel`."""
        return Parallel(self)

    @classmethod
    def elastic(cls, specs: Sequence[Self]) -> ElasticParallel:
        """Return the `ElasticParallel` that computes each of ``specs``."""
        kernel_sizes = {s.kernel_size for s in specs if s.level & 4}
        return ElasticParallel(largest_of(specs, "mid_channels"), tuple(sorted(kernel_sizes)))


class Parallel(nn.Module):
    """The plain block of a `ParallelSpec`.

    Reference:
        Sarti et al., 2023, OFAv2, section 3 (parallel blocks).
    """

    def __init__(self, spec: ParallelSpec) -> None:
        super().__init__()
        self.bottleneck = MBConv(spec.bottleneck) if spec.level & 4 else None
        self.conv = (
            ConvBnAct(spec.in_channels, spec.out_channels, 1, spec.stride, act=spec.act) if spec.level & 2 else None
        )
        self.transformation = transformation(spec) if spec.level & 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H / stride, W / stride)``."""
        branches = [b(x) for b in (self.bottleneck, self.conv, self.transformation) if b is not None]
        y: Tensor = branches[0]
        for other in branches[1:]:
            y = y + other
        return y


def transformation(spec: ParallelSpec) -> nn.Sequential:
    """Return the cheapest branch: max pool where it strides, 1x1 convolution where channels change, batch norm, act.

    The window of the pool is its stride, and a last incomplete window counts; the convolution has a bias, though a
    batch norm follows: both as in the authors' code.
    """
    layers: list[nn.Module] = []
    if spec.stride > 1:
        layers.append(nn.MaxPool2d(spec.stride, spec.stride, ceil_mode=True))
    if spec.in_channels != spec.out_channels:
        layers.append(nn.Conv2d(spec.in_channels, spec.out_channels, 1))
    return nn.Sequential(*layers, nn.BatchNorm2d(spec.out_channels, BN_EPS, BN_MOMENTUM), activation(spec.act))


class ElasticParallel(ElasticBlock):
    """The elastic form of `Parallel`: only the inverted bottleneck is elastic, for a `ParallelSpec`."""

    def __init__(self, largest: ParallelSpec, kernel_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.bottleneck = ElasticMBConv(largest.bottleneck, kernel_sizes)
        self.conv = ConvBnAct(largest.in_channels, largest.out_channels, 1, largest.stride, act=largest.act)
        self.transformation = transformation(largest)

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        assert isinstance(spec, ParallelSpec)
        branches = []
        if spec.level & 4:
            branches.append(self.bottleneck(x, spec.bottleneck))
        if spec.level & 2:
            branches.append(self.conv(x))
        if spec.level & 1:
            branches.append(self.transformation(x))
        y: Tensor = branches[0]
        for other in branches[1:]:
            y = y + other
        return y

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, Parallel)
        assert isinstance(spec, ParallelSpec)
        if plain.bottleneck is not None:
            self.bottleneck.fill(plain.bottleneck, spec.bottleneck)
        for own, theirs in ((self.conv, plain.conv), (self.transformation, plain.transformation)):
            if theirs is not None:
                theirs.load_state_dict(own.state_dict())

    def sort_channels(self, trained: Sequence[BlockSpec] = ()) -> None:
        """See `ElasticMBConv.sort_channels`."""
        self.bottleneck.sort_channels([s.bottleneck for s in trained if isinstance(s, ParallelSpec) and s.level & 4])
