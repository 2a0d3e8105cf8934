"""Candidates with weights of their own, of which a subnet uses one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hwnas.supernet.blocks.block import BlockSpec, ElasticBlock


class ChoiceBlock(ElasticBlock):
    """Candidates with weights of their own, of which a subnet uses one (single path), for any specs.

    Reference:
        Guo et al., 2020, Single Path One-Shot; Zhang et al., 2020, HURRICANE.
    """

    def __init__(self, specs: Sequence[BlockSpec]) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict({_name(spec): spec.build() for spec in specs})

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        y: Tensor = self.candidates[_name(spec)](x)
        return y

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        plain.load_state_dict(self.candidates[_name(spec)].state_dict())


def _name(spec: BlockSpec) -> str:
    """The spec without its size, as a module name."""
    cells = (f"{k}{v}" for k, v in spec.columns.items() if k != "in_size_px")
    return "-".join([spec.kind, *cells]).replace(".", "_")
