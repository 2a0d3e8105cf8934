"""Which plain blocks are the cells of NAS-Bench-201 made of?

A cell is a small graph: node 0 is its input, and every later node is the sum of what its edges bring. In a chain of
blocks each edge is one block (`CellOpSpec`), so that latency, parameters and multiply-adds of a cell add up over its
edges, and each edge is one row of a latency table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from hwnas.supernet.blocks import BN_EPS, BN_MOMENTUM, BlockSpec, Join

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


@dataclass(frozen=True, slots=True)
class ReductionSpec(BlockSpec):
    """Residual block between the stages of cells: two 3x3 convolutions, the first with stride 2."""

    kind: ClassVar[str] = "reduction"

    def build(self) -> nn.Module:
        """Return a `Reduction`."""
        return Reduction(self)


@dataclass(frozen=True, slots=True)
class NormHeadSpec(BlockSpec):
    """Batch norm, ReLU, global average pool, linear classifier."""

    kind: ClassVar[str] = "norm_head"

    dropout_percent: int

    def build(self) -> nn.Module:
        """Return a `NormHead`."""
        return NormHead(self)


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


class Reduction(nn.Module):
    """The plain block of a `ReductionSpec`.

    Reference:
        Dong and Yang, 2020, NAS-Bench-201, section 2.1: the shortcut is 2x2 average pooling and a 1x1 convolution.
    """

    def __init__(self, spec: ReductionSpec) -> None:
        super().__init__()
        c, out = spec.in_channels, spec.out_channels
        self.first = ReluConvBn(c, out, 3, 2)
        self.second = ReluConvBn(out, out, 3)
        # An odd edge is rounded up, as the strided convolution does; published sizes are even.
        pool = nn.AvgPool2d(2, 2, ceil_mode=True)
        self.shortcut = nn.Sequential(pool, nn.Conv2d(c, out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H / 2, W / 2)``, rounded up."""
        y: Tensor = self.shortcut(x) + self.second(self.first(x))
        return y


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
