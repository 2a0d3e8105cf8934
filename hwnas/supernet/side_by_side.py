"""How do supernets of several widths become one? They stand side by side, and a choice says which one an arch is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hwnas.space import Choice
from hwnas.space.choice import WIDTH
from hwnas.supernet.blocks.block import BlockSpec
from hwnas.supernet.layout import Layout, Slot


def side_by_side(layouts: Mapping[float, Layout]) -> Layout:
    """Return one layout of several whose networks differ in their width multiplier only.

    No weights are shared between widths: every slot stands there once for each of them, and an arch leaves those of the
    other widths empty. Resolution, depths and operators are common choices, so that what a predictor learns of one
    width helps with the others.

    Args:
        layouts: of the same family and settings but for the width multiplier, by it, ascending.

    Reference:
        Sarti et al., 2023, NATv2, section III: one gene chooses between the supernets of width 1.0 and 1.2.
    """
    first, *others = layouts.values()
    widths = tuple(layouts)
    choice = Choice(WIDTH, widths)
    resolution, *rest = first.space.choices
    space = replace(first.space, choices=(resolution, choice, *rest))
    slots = [
        _of_width(slot, width, width_slots_prefix(width))
        for beside in zip(*(one.slots for one in (first, *others)), strict=True)
        for slot, width in zip(beside, widths, strict=True)
    ]
    return replace(first, space=space, slots=tuple(slots), ofa_names=None)


def width_slots_prefix(width: float) -> str:
    """Return what the names of the slots of a width begin with, such as ``x1_2.``; no two widths have the same."""
    return f"x{width}".replace(".", "_") + "."


def _of_width(slot: Slot, width: float, prefix: str) -> Slot:
    return replace(slot, name=f"{prefix}{slot.name}", choices=(*slot.choices, WIDTH), spec=_where(width, slot.spec))


def _where(width: float, spec: Callable[..., BlockSpec | None]) -> Callable[..., BlockSpec | None]:
    """The block of a slot, for archs of its width."""

    def made(*options: Any) -> BlockSpec | None:
        *own, chosen = options
        return spec(*own) if chosen == width else None

    return made


def states_side_by_side(states: Sequence[Mapping[str, Any]], widths: Sequence[float]) -> dict[str, Any]:
    """Return the state of a supernet of several widths from those of each of them, by the names of their tensors."""
    found: dict[str, Any] = {}
    for state, width in zip(states, widths, strict=True):
        prefix = width_slots_prefix(width).replace(".", "_")
        found |= {f"parts.{prefix}{name.removeprefix('parts.')}": tensor for name, tensor in state.items()}
    return found
