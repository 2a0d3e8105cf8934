"""Which layers can shrink? Each holds the weights of its largest form; smaller forms are slices of it.

No layer remembers an active form: the caller passes the `BlockSpec` (or the sizes) with the input. `fill` copies
the very same slice into a plain module, so an extracted subnet computes what the supernet computed, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from hwnas.supernet.blocks.block import BlockSpec, ElasticJoin, Join
from hwnas.supernet.blocks.layers import BN_EPS, BN_MOMENTUM


class ElasticCellOp(ElasticJoin):
    """Operators of one edge with weights of their own, for a `CellOpSpec`."""

    @classmethod
    def holding(cls, specs: Sequence[CellOpSpec]) -> ElasticCellOp:
        """Return a block that computes each of ``specs``."""
        return cls(specs[0].in_channels, tuple(dict.fromkeys(s.operator for s in specs)))

    def __init__(self, channels: int, operators: tuple[str, ...]) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict({name: cell_operator(name, channels) for name in operators})

    def join(self, x: Tensor, earlier: list[Tensor], spec: BlockSpec) -> Tensor:
        """See `join_cell`."""
        assert isinstance(spec, CellOpSpec)
        return join_cell(self.candidates[spec.operator], x, earlier, spec)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, CellOp)
        assert isinstance(spec, CellOpSpec)
        plain.op.load_state_dict(self.candidates[spec.operator].state_dict())


OPERATORS: tuple[str, ...] = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
"""Operators of an edge by their published names, from least to most capacity."""


@dataclass(frozen=True, slots=True)
class CellOpSpec(BlockSpec):
    """One edge of a cell: an operator from node ``source`` to node ``target``."""

    kind: ClassVar[str] = "cell_op"

    operator: str
    """One of `OPERATORS`; ``none`` stands only where a node has no other edge, and gives zeros."""
    adds: bool
    """Whether an earlier edge already brings something to the target, to which this one is added."""
    source: int = field(default=0, compare=False)
    """Node number; it does not change what the block costs, so it is no part of the signature."""
    target: int = field(default=1, compare=False)

    @property
    def columns(self) -> dict[str, int | str]:
        """The signature without the wiring."""
        sizes = {n: getattr(self, n) for n in ("in_channels", "out_channels", "in_size_px")}
        return {**sizes, "operator": self.operator, "adds": int(self.adds)}

    def build(self) -> nn.Module:
        """Return a `CellOp`."""
        return CellOp(self)


class ReluConvBn(nn.Sequential):
    """ReLU, convolution without bias, batch norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, BN_EPS, BN_MOMENTUM)


class Zero(nn.Module):
    """Zeros of the input's shape."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        return x * 0.0


def cell_operator(name: str, channels: int) -> nn.Module:
    """Return the module of one of `OPERATORS`, ``channels`` in and out."""
    if name == "none":
        return Zero()
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return ReluConvBn(channels, channels, {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[name])


def join_cell(op: nn.Module, x: Tensor, nodes: list[Tensor], spec: CellOpSpec) -> Tensor:
    """Bring an edge to its target node and return that node.

    Args:
        op: the edge's operator.
        x: the chain's last output: the cell's input, where this is the cell's first edge.
        nodes: the cell's nodes so far; changed.
        spec: source, target, and whether the target exists already.
    """
    if (spec.source, spec.target) == (0, 1):
        nodes[:] = [x]
    y: Tensor = op(nodes[spec.source])
    if spec.adds:
        nodes[-1] = nodes[-1] + y
    else:
        nodes.append(y)
    return nodes[-1]


class CellOp(Join):
    """The plain block of a `CellOpSpec`."""

    def __init__(self, spec: CellOpSpec) -> None:
        super().__init__()
        self.spec = spec
        self.op = cell_operator(spec.operator, spec.in_channels)

    def join(self, x: Tensor, earlier: list[Tensor]) -> Tensor:
        """See `join_cell`."""
        return join_cell(self.op, x, earlier, self.spec)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the block costs where it stands alone: its operator, added to the input where it adds."""
        y: Tensor = self.op(x)
        return x + y if self.spec.adds else y
