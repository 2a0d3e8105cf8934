"""What is a block? A spec that says shape and operator completely, a plain module, and an elastic one that holds many.

A network is a sequence of *block specs*, frozen values. `BlockSpec.build` makes the plain module; the same spec keys
the latency tables, so what is timed is what is exported. `BlockSpec.elastic` makes the elastic block, which holds the
shared weights of everything that can stand in one slot of a supernet; it remembers no active form: the caller passes
the spec with the input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self, TypeVar

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class BlockSpec(ABC):
    """One block of a network: what it computes, on which shape.

    A block of one's own is a frozen dataclass that derives from this one, with a `kind` and fields of its own, and
    `build`; with `elastic`, too, where subnets should share its weights. Its tensors do not depend on ``in_size_px``:
    all resolutions share them.
    """

    kind: ClassVar[str]
    """Name of the sort of block in tables, bundles and messages, such as ``mbconv``; each class has its own."""

    in_channels: int
    out_channels: int
    in_size_px: int
    """Height and width of the input."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the plain module with fresh weights; input ``(B, in_channels, in_size_px, in_size_px)``.

        Where it adds something to its output that went past its layers, it has an attribute ``residual`` and does so
        only while that is True: the Zen score looks at the layers alone.
        """

    @classmethod
    def elastic(cls, specs: Sequence[Self]) -> ElasticBlock | None:
        """Return one block with fresh shared weights that computes each of ``specs``, all of this class.

        None, the default: nothing is shared, and each spec gets weights of its own (see `elastic_block`).
        """
        return None

    @property
    def columns(self) -> dict[str, int | str]:
        """The signature as column name to value, without ``kind``."""
        return {f.name: _as_cell(getattr(self, f.name)) for f in fields(self)}

    @property
    def signature(self) -> str:
        """One line that identifies the block in tables and messages: kind, then columns in alphabetical order."""
        return " ".join([self.kind, *sorted(f"{k}={v}" for k, v in self.columns.items())])


def _as_cell(value: object) -> int | str:
    return int(value) if isinstance(value, bool | int) else str(value)


class MultiInputBlock(nn.Module):
    """A plain block that reads the outputs of several earlier blocks, as a skip connection or a cell's edge does.

    `PlainNetwork` calls `combine` in place of ``forward``. ``forward`` takes one input and costs as much as the block
    does in its network: it is what a latency table times.
    """

    def combine(self, x: Tensor, earlier: list[Tensor]) -> Tensor:
        """Return the block's output, ``(B, C, H, W)``.

        Args:
            x: output of the block before.
            earlier: outputs of the stage or cell so far, first to last; the block may change the list.
        """
        raise NotImplementedError


def count_params(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


SpecT = TypeVar("SpecT", bound=BlockSpec)


class ElasticBlock(nn.Module):
    """A block of a supernet: computes each spec that can stand in its slot."""

    begins_stage = False
    """Of the block's slot, see `hwnas.supernet.layout.Slot`; the supernet sets it."""

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """``(B, C, H, W)`` through the block of ``spec``; in eval mode bit for bit as the filled plain block."""
        raise NotImplementedError

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """Copy this block's weights for ``spec`` into ``plain``, which ``spec.build()`` made."""
        raise NotImplementedError

    def sort_channels(self, trained: Sequence[BlockSpec] = ()) -> None:
        """Order what can be left out by importance, most important first.

        Args:
            trained: forms that have been trained. Each of them, and the largest one, computes the same as before.
        """


def largest_of(specs: Sequence[SpecT], *names: str) -> SpecT:
    """Return the first spec with the named sizes replaced by their maxima over all specs."""
    return replace(specs[0], **{name: max(getattr(s, name) for s in specs) for name in names})


class ElasticMultiInputBlock(ElasticBlock):
    """The elastic form of a `MultiInputBlock`; the supernet calls `combine` in place of ``forward``."""

    def combine(self, x: Tensor, earlier: list[Tensor], spec: BlockSpec) -> Tensor:
        """Return the output of the block that ``spec`` describes; see `MultiInputBlock.combine`."""
        raise NotImplementedError
