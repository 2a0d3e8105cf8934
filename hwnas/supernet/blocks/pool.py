"""Max pooling: spec and elastic form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.supernet.blocks.block import BlockSpec, ElasticBlock


@dataclass(frozen=True, slots=True)
class PoolSpec(BlockSpec):
    """Max pooling."""

    kind: ClassVar[str] = "max_pool"

    kernel_size: int
    stride: int

    def build(self) -> nn.Module:
        """Return the pooling layer."""
        return nn.Sequential(nn.MaxPool2d(self.kernel_size, self.stride, self.kernel_size // 2))

    @classmethod
    def elastic(cls, specs: Sequence[Self]) -> ElasticPool:
        """Return the `ElasticPool` that computes each of ``specs``."""
        return ElasticPool()


class ElasticPool(ElasticBlock):
    """The pooling layer in a supernet, the same for every subnet, for a `PoolSpec`."""

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        assert isinstance(spec, PoolSpec)
        return F.max_pool2d(x, spec.kernel_size, spec.stride, spec.kernel_size // 2)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """There is nothing to copy."""
