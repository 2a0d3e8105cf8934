"""Dense skips: spec, plain and elastic form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from hwnas.supernet.blocks.block import BlockSpec, ElasticMultiInputBlock, MultiInputBlock


@dataclass(frozen=True, slots=True)
class SkipAddSpec(BlockSpec):
    """Outputs of earlier blocks of the stage, added to the last one (OFAv2's dense skips)."""

    kind: ClassVar[str] = "skip_add"

    n_added: int
    """How many of the stage's first outputs are added."""

    def build(self) -> nn.Module:
        """Return a `SkipAdd`."""
        return SkipAdd(self.n_added)

    @classmethod
    def elastic(cls, specs: Sequence[Self]) -> ElasticSkipAdd:
        """Return the `ElasticSkipAdd` that computes each of ``specs``."""
        return ElasticSkipAdd()


class SkipAdd(MultiInputBlock):
    """Adds earlier outputs of the stage."""

    def __init__(self, n_added: int) -> None:
        super().__init__()
        self.n_added = n_added
        self.residual = True

    def combine(self, x: Tensor, earlier: list[Tensor]) -> Tensor:
        """Return ``x`` plus the first ``n_added`` of ``earlier``."""
        for y in earlier[: self.n_added] if self.residual else []:
            x = x + y
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` added to itself ``n_added`` times: what the block costs where it stands alone."""
        return self.combine(x, [x] * self.n_added)


class ElasticSkipAdd(ElasticMultiInputBlock):
    """The elastic form of `SkipAdd`, for a `SkipAddSpec`; it has no weights."""

    def combine(self, x: Tensor, earlier: list[Tensor], spec: BlockSpec) -> Tensor:
        """Return ``x`` plus the first outputs of the stage."""
        assert isinstance(spec, SkipAddSpec)
        return SkipAdd(spec.n_added).combine(x, earlier)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """There is nothing to copy."""
