"""ResNet-D bottleneck: spec, plain and elastic form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.supernet.blocks.block import BlockSpec, ElasticBlock, largest_of
from hwnas.supernet.blocks.elastic_layers import ElasticBatchNorm2d, ElasticConv2d, by_importance, reorder
from hwnas.supernet.blocks.layers import ConvBnAct


@dataclass(frozen=True, slots=True)
class BottleneckSpec(BlockSpec):
    """ResNet-D bottleneck: 1x1, 3x3, 1x1; a shortcut of average pool and 1x1 where channels or size change."""

    kind: ClassVar[str] = "bottleneck"

    mid_channels: int
    stride: int
    downsample: bool

    def build(self) -> nn.Module:
        """Return a `Bottleneck`."""
        return Bottleneck(self)

    @classmethod
    def elastic(cls, specs: Sequence[Self]) -> ElasticBottleneck:
        """Return the `ElasticBottleneck` that computes each of ``specs``."""
        return ElasticBottleneck(largest_of(specs, "in_channels", "mid_channels", "out_channels"))


class Bottleneck(nn.Module):
    """The plain block of a `BottleneckSpec`.

    Reference:
        He et al., 2019, Bag of Tricks (ResNet-D); sizes as in once-for-all's OFAResNets.
    """

    def __init__(self, spec: BottleneckSpec) -> None:
        super().__init__()
        mid = spec.mid_channels
        self.reduce = ConvBnAct(spec.in_channels, mid, 1, act="relu")
        self.spatial = ConvBnAct(mid, mid, 3, spec.stride, act="relu")
        self.expand = ConvBnAct(mid, spec.out_channels, 1)
        self.shortcut: nn.Module = nn.Identity()
        if spec.downsample:
            pool = [nn.AvgPool2d(spec.stride, spec.stride, ceil_mode=True)] if spec.stride > 1 else []
            self.shortcut = nn.Sequential(*pool, ConvBnAct(spec.in_channels, spec.out_channels, 1))
        self.act = nn.ReLU()
        self.residual = True

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H / stride, W / stride)``."""
        y: Tensor = self.expand(self.spatial(self.reduce(x)))
        y = self.act(self.shortcut(x) + y if self.residual else y)
        return y


class ElasticBottleneck(ElasticBlock):
    """The elastic form of `Bottleneck`: input, middle and output channels vary, for a `BottleneckSpec`."""

    def __init__(self, largest: BottleneckSpec) -> None:
        super().__init__()
        mid, out = largest.mid_channels, largest.out_channels
        self.reduce_conv = ElasticConv2d(largest.in_channels, mid, 1, bias=False)
        self.reduce_bn = ElasticBatchNorm2d(mid)
        self.spatial_conv = ElasticConv2d(mid, mid, 3, largest.stride, 1, bias=False)
        self.spatial_bn = ElasticBatchNorm2d(mid)
        self.expand_conv = ElasticConv2d(mid, out, 1, bias=False)
        self.expand_bn = ElasticBatchNorm2d(out)
        if largest.downsample:
            self.shortcut_conv = ElasticConv2d(largest.in_channels, out, 1, bias=False)
            self.shortcut_bn = ElasticBatchNorm2d(out)

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        assert isinstance(spec, BottleneckSpec)
        y = F.relu(self.reduce_bn(self.reduce_conv(x, spec.mid_channels)))
        y = F.relu(self.spatial_bn(self.spatial_conv(y, spec.mid_channels)))
        y = self.expand_bn(self.expand_conv(y, spec.out_channels))
        if spec.downsample:
            if spec.stride > 1:
                x = F.avg_pool2d(x, spec.stride, spec.stride, ceil_mode=True)
            x = self.shortcut_bn(self.shortcut_conv(x, spec.out_channels))
        return F.relu(x + y)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, Bottleneck)
        parts: list[tuple[str, nn.Module]] = [
            ("reduce", plain.reduce), ("spatial", plain.spatial), ("expand", plain.expand),
        ]  # fmt: skip
        if isinstance(plain.shortcut, nn.Sequential):
            parts.append(("shortcut", plain.shortcut[-1]))
        for name, part in parts:
            assert isinstance(part, ConvBnAct)
            getattr(self, f"{name}_conv").fill(part.conv)
            getattr(self, f"{name}_bn").fill(part.bn)

    @torch.no_grad()
    def sort_channels(self, trained: Sequence[BlockSpec] = ()) -> None:
        """Order both sets of middle channels by the L1 norm of the convolution that reads them, see `ElasticBlock`."""
        widths = [s.mid_channels for s in trained if isinstance(s, BottleneckSpec)]
        for reader, writer in (("expand", "spatial"), ("spatial", "reduce")):
            reading = getattr(self, f"{reader}_conv").weight
            order = by_importance(reading, widths)
            reorder(reading, order, dim=1)
            reorder(getattr(self, f"{writer}_conv").weight, order, dim=0)
            for name in ("weight", "bias", "running_mean", "running_var"):
                reorder(getattr(getattr(self, f"{writer}_bn"), name), order, dim=0)
