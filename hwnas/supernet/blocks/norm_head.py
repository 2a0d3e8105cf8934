"""Classifier of NAS-Bench-201: spec and plain form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from hwnas.supernet.blocks.block import BlockSpec
from hwnas.supernet.blocks.layers import BN_EPS, BN_MOMENTUM


@dataclass(frozen=True, slots=True)
class NormHeadSpec(BlockSpec):
    """Batch norm, ReLU, global average pool, linear classifier."""

    kind: ClassVar[str] = "norm_head"

    dropout_percent: int

    def build(self) -> nn.Module:
        """Return a `NormHead`."""
        return NormHead(self)


class NormHead(nn.Module):
    """The plain classifier of a `NormHeadSpec`."""

    def __init__(self, spec: NormHeadSpec) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(spec.in_channels, BN_EPS, BN_MOMENTUM)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(spec.dropout_percent / 100) if spec.dropout_percent else nn.Identity()
        self.classifier = nn.Linear(spec.in_channels, spec.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, classes)``."""
        x = self.act(self.bn(x)).mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        logits: Tensor = self.classifier(self.dropout(x.flatten(1)))
        return logits
