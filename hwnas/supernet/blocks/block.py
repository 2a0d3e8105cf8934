"""What is a block? A spec that says shape and operator completely, a plain module, and an elastic one that holds many.

A network is a row of *block specs*, frozen values. `BlockSpec.build` makes the plain module; the same spec keys the
latency tables, so what is timed is what is exported. An elastic block holds the weights of the largest form of a place;
it remembers no active form: the caller passes the spec with the input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, TypeVar

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class BlockSpec(ABC):
    """One block of a network: what it computes, on which shape."""

    kind: ClassVar[str]

    in_channels: int
    out_channels: int
    in_size_px: int
    """Height and width of the input."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the plain module with fresh weights; input ``(B, in_channels, in_size_px, in_size_px)``."""

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


class Join(nn.Module):
    """A block that reads more than the last output; `PlainNetwork` calls `join` in place of `forward`."""

    def join(self, x: Tensor, earlier: list[Tensor]) -> Tensor:
        """Return the chain's next output.

        Args:
            x: the last output.
            earlier: outputs of the stage or cell so far; the block may change the list.
        """
        raise NotImplementedError


def count_params(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


SpecT = TypeVar("SpecT", bound=BlockSpec)


class ElasticBlock(nn.Module):
    """A block of a supernet: computes any spec of its kind that fits inside it."""

    begins_stage = False
    """Whether dense skips count their outputs from this block."""

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """``(B, C, H, W)`` through the block that ``spec`` describes."""
        raise NotImplementedError

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """Copy this block's weights for ``spec`` into ``plain``, which ``spec.build()`` made."""
        raise NotImplementedError

    def sort_channels(self) -> None:
        """Order what can be left out by importance, most important first; the block computes the same."""


def largest_of(specs: Sequence[SpecT], *names: str) -> SpecT:
    """The first spec with the named sizes replaced by their maxima over all specs."""
    return replace(specs[0], **{name: max(getattr(s, name) for s in specs) for name in names})


class ElasticJoin(ElasticBlock):
    """The elastic form of `Join`."""

    def join(self, x: Tensor, earlier: list[Tensor], spec: BlockSpec) -> Tensor:
        """Return the chain's next output; see `Join.join`."""
        raise NotImplementedError
