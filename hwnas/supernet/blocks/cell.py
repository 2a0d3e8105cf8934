"""Edge of a NAS-Bench-201 cell: spec, plain and elastic form.

A cell is written as its edges, one block each, in the order of their target nodes; its nodes are the outputs so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

from torch import Tensor, nn

from hwnas.supernet.blocks.block import BlockSpec, ElasticMultiInputBlock, MultiInputBlock
from hwnas.supernet.blocks.layers import BN_EPS, BN_MOMENTUM

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

    @classmethod
    def elastic(cls, specs: Sequence[Self]) -> ElasticCellOp:
        """Return the `ElasticCellOp` that computes each of ``specs``."""
        return ElasticCellOp(specs[0].in_channels, tuple(dict.fromkeys(s.operator for s in specs)))


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


def add_to_node(op: nn.Module, x: Tensor, nodes: list[Tensor], spec: CellOpSpec) -> Tensor:
    """Add an edge's output to its target node and return that node, ``(B, C, H, W)``.

    Args:
        op: the edge's operator.
        x: output of the block before: the cell's input, where this is the cell's first edge.
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


class CellOp(MultiInputBlock):
    """The plain block of a `CellOpSpec`."""

    def __init__(self, spec: CellOpSpec) -> None:
        super().__init__()
        self.spec = spec
        self.op = cell_operator(spec.operator, spec.in_channels)

    def combine(self, x: Tensor, earlier: list[Tensor]) -> Tensor:
        """See `add_to_node`."""
        return add_to_node(self.op, x, earlier, self.spec)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the block costs where it stands alone: its operator, added to the input where it adds."""
        y: Tensor = self.op(x)
        return x + y if self.spec.adds else y


class ElasticCellOp(ElasticMultiInputBlock):
    """The elastic form of `CellOp`: the operators of one edge, each with weights of its own, for a `CellOpSpec`."""

    def __init__(self, channels: int, operators: tuple[str, ...]) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict({name: cell_operator(name, channels) for name in operators})

    def combine(self, x: Tensor, earlier: list[Tensor], spec: BlockSpec) -> Tensor:
        """See `add_to_node`."""
        assert isinstance(spec, CellOpSpec)
        return add_to_node(self.candidates[spec.operator], x, earlier, spec)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, CellOp)
        assert isinstance(spec, CellOpSpec)
        plain.op.load_state_dict(self.candidates[spec.operator].state_dict())
