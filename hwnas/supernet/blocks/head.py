"""Classifier: spec, plain and elastic form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.supernet.blocks.block import BlockSpec, ElasticBlock, largest_of
from hwnas.supernet.blocks.elastic_layers import ElasticPixelConv2d
from hwnas.supernet.blocks.layers import ActName, PixelConv2d, activate, activation


@dataclass(frozen=True, slots=True)
class HeadSpec(BlockSpec):
    """Global average pool, optional feature-mix 1x1 convolution, linear classifier."""

    kind: ClassVar[str] = "head"

    feature_channels: int
    """Channels of the feature mix; 0: none."""
    act: ActName
    dropout_percent: int

    def build(self) -> nn.Module:
        """Return a `Head`."""
        return Head(self)

    @classmethod
    def elastic(cls, specs: Sequence[Self]) -> ElasticHead:
        """Return the `ElasticHead` that computes each of ``specs``."""
        return ElasticHead(largest_of(specs, "in_channels", "feature_channels"))


class Head(nn.Module):
    """The plain classifier of a `HeadSpec`."""

    def __init__(self, spec: HeadSpec) -> None:
        super().__init__()
        width = spec.feature_channels or spec.in_channels
        self.mix = PixelConv2d(spec.in_channels, width, bias=False) if spec.feature_channels else nn.Identity()
        self.act = activation(spec.act if spec.feature_channels else "none")
        self.dropout = nn.Dropout(spec.dropout_percent / 100) if spec.dropout_percent else nn.Identity()
        self.classifier = nn.Linear(width, spec.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, classes)``."""
        x = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        x = self.act(self.mix(x)).flatten(1)
        logits: Tensor = self.classifier(self.dropout(x))
        return logits


class ElasticHead(ElasticBlock):
    """The classifier of every subnet; its input may be narrower than its largest, for a `HeadSpec`."""

    def __init__(self, largest: HeadSpec) -> None:
        super().__init__()
        width = largest.feature_channels or largest.in_channels
        self.mix = ElasticPixelConv2d(largest.in_channels, width, bias=False) if largest.feature_channels else None
        self.classifier = nn.Linear(width, largest.out_channels)
        self.act: ActName = largest.act

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, classes)``."""
        assert isinstance(spec, HeadSpec)
        x = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        if self.mix is not None:
            x = activate(self.mix(x, spec.feature_channels), self.act)
        x = F.dropout(x.flatten(1), spec.dropout_percent / 100, self.training)
        return F.linear(x, self.classifier.weight[:, : x.shape[1]], self.classifier.bias)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, Head)
        if self.mix is not None:
            assert isinstance(plain.mix, nn.Conv2d)
            self.mix.fill(plain.mix)
        with torch.no_grad():
            plain.classifier.weight.copy_(self.classifier.weight[:, : plain.classifier.in_features])
            plain.classifier.bias.copy_(self.classifier.bias)
