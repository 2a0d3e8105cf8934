"""Inverted bottleneck: spec, plain and elastic form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from hwnas.supernet.blocks import fused
from hwnas.supernet.blocks.block import BlockSpec, ElasticBlock, largest_of
from hwnas.supernet.blocks.elastic_layers import (
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticDepthwiseConv2d,
    by_importance,
    reorder,
)
from hwnas.supernet.blocks.layers import ActName, ConvBnAct, activate
from hwnas.supernet.blocks.squeeze_excite import ElasticSqueezeExcite, SqueezeExcite, se_hidden


@dataclass(frozen=True, slots=True)
class MBConvSpec(BlockSpec):
    """Inverted bottleneck: expand 1x1, depthwise, squeeze-excite, project 1x1, residual."""

    kind: ClassVar[str] = "mbconv"

    mid_channels: int
    """Channels of the depthwise convolution; equal to ``in_channels`` and ``expand`` off: no expansion layer."""
    expand: bool
    kernel_size: int
    stride: int
    se: bool
    act: ActName
    residual: bool

    def build(self) -> nn.Module:
        """Return an `MBConv`."""
        return MBConv(self)

    @classmethod
    def elastic(cls, specs: Sequence[Self]) -> ElasticMBConv:
        """Return the `ElasticMBConv` that computes each of ``specs``."""
        return ElasticMBConv(largest_of(specs, "mid_channels"), tuple(sorted({s.kernel_size for s in specs})))


class MBConv(nn.Module):
    """The plain inverted bottleneck of an `MBConvSpec`."""

    def __init__(self, spec: MBConvSpec) -> None:
        super().__init__()
        mid = spec.mid_channels
        self.expand = ConvBnAct(spec.in_channels, mid, 1, act=spec.act) if spec.expand else nn.Identity()
        self.depthwise = ConvBnAct(mid, mid, spec.kernel_size, spec.stride, groups=mid, act=spec.act)
        self.se = SqueezeExcite(mid) if spec.se else nn.Identity()
        self.project = ConvBnAct(mid, spec.out_channels, 1)
        self.residual = spec.residual

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H / stride, W / stride)``."""
        y: Tensor = self.project(self.se(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class ElasticMBConv(ElasticBlock):
    """The elastic form of `MBConv`: kernel size and middle channels vary, for an `MBConvSpec`."""

    def __init__(self, largest: MBConvSpec, kernel_sizes: tuple[int, ...]) -> None:
        super().__init__()
        mid = largest.mid_channels
        if largest.expand:
            self.expand_conv = ElasticConv2d(largest.in_channels, mid, 1, bias=False)
            self.expand_bn = ElasticBatchNorm2d(mid)
        self.depthwise = ElasticDepthwiseConv2d(mid, kernel_sizes, largest.stride)
        self.depthwise_bn = ElasticBatchNorm2d(mid)
        self.se = ElasticSqueezeExcite(mid) if largest.se else None
        self.project = ElasticConv2d(mid, largest.out_channels, 1, bias=False)
        self.project_bn = ElasticBatchNorm2d(largest.out_channels)
        self.act: ActName = largest.act
        self.expands = largest.expand

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        assert isinstance(spec, MBConvSpec)
        alone = type(self.depthwise_bn) is ElasticBatchNorm2d  # its statistics are not shared with other ranks
        if self.training and alone and spec.act in fused.ACTS and fused.suits(x, spec.mid_channels):
            joined: Tensor = self.project_bn(self._fused(x, spec))
            return x + joined if spec.residual else joined
        y: Tensor = x
        if self.expands:
            y = activate(self.expand_bn(self.expand_conv(y, spec.mid_channels)), self.act)
        y = activate(self.depthwise_bn(self.depthwise(y, spec.kernel_size)), self.act)
        if self.se is not None:
            y = self.se(y)
        y = self.project_bn(self.project(y, spec.out_channels))
        return x + y if spec.residual else y

    def _fused(self, x: Tensor, spec: MBConvSpec) -> Tensor:
        """Everything before the last batch norm, in training."""
        channels, mid = spec.in_channels, spec.mid_channels
        expand = (self.expand_conv.kernel(channels, mid), self.expand_bn.slices(mid)) if self.expands else None
        return fused.inverted_bottleneck(
            x, expand, self.depthwise.kernel(mid, spec.kernel_size), self.depthwise_bn.slices(mid), spec.stride,
            spec.act, None if self.se is None else self.se.slices(mid), self.project.kernel(mid, spec.out_channels),
        )  # fmt: skip

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, MBConv)
        if self.expands:
            assert isinstance(plain.expand, ConvBnAct)
            self.expand_conv.fill(plain.expand.conv)
            self.expand_bn.fill(plain.expand.bn)
        self.depthwise.fill(plain.depthwise.conv)
        self.depthwise_bn.fill(plain.depthwise.bn)
        if self.se is not None:
            assert isinstance(plain.se, SqueezeExcite)
            self.se.fill(plain.se)
        self.project.fill(plain.project.conv)
        self.project_bn.fill(plain.project.bn)

    @torch.no_grad()
    def sort_channels(self, trained: Sequence[BlockSpec] = ()) -> None:
        """Order the middle channels by the L1 norm of the projection that reads them, see `ElasticBlock`.

        Squeeze-excite's hidden units are ordered by the L1 norm of its expansion, also within what is trained;
        once-for-all's code orders all of them anew in every phase, which changes what trained narrower forms compute.

        Reference:
            Cai et al., 2020, Once-for-All, section 3.3 (elastic width).
        """
        if not self.expands:
            return
        widths = [s.mid_channels for s in trained if isinstance(s, MBConvSpec)]
        order = by_importance(self.project.weight, widths)
        reorder(self.project.weight, order, dim=1)
        reorder(self.depthwise.weight, order, dim=0)
        reorder(self.expand_conv.weight, order, dim=0)
        for bn in (self.expand_bn, self.depthwise_bn):
            for name in ("weight", "bias", "running_mean", "running_var"):
                reorder(getattr(bn, name), order, dim=0)
        if self.se is not None:
            reorder(self.se.reduce.weight, order, dim=1)
            reorder(self.se.expand.weight, order, dim=0)
            assert self.se.expand.bias is not None
            assert self.se.reduce.bias is not None
            reorder(self.se.expand.bias, order, dim=0)
            hidden = by_importance(self.se.expand.weight, map(se_hidden, widths))
            reorder(self.se.reduce.weight, hidden, dim=0)
            reorder(self.se.reduce.bias, hidden, dim=0)
            reorder(self.se.expand.weight, hidden, dim=1)
