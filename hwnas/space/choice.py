"""What is one decision of a search space?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwnas.errors import SpaceError, shown

WIDTH = "width_multiplier"
"""Choice between supernets of several widths that stand side by side; spaces of one width have none."""

Scalar = int | float | str
Option = Scalar | tuple[Scalar | None, ...]
"""One value of a choice: a scalar, or a tuple with one entry for each of the choice's fields.

None in a tuple: the field means nothing for this option, such as the kernel size of an operator without a kernel."""


def as_option(value: Any, whose: str) -> Option:
    """Return a value as options are: lists and arrays become tuples, and NumPy's numbers Python's.

    Args:
        value: a number, text or truth value, or a list of them (None in a list stands for nothing).
        whose: of which choice, for messages.

    Raises:
        SpaceError: it can be no option, since it has no place in a file or is equal to nothing.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(None if entry is None else _as_scalar(entry, whose) for entry in value)
    return _as_scalar(value, whose)


def _as_scalar(value: Any, whose: str) -> Scalar:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise SpaceError(
        f"{shown(value, 60)} can be no option of choice {whose!r}; options are finite numbers of at most 64 bits, "
        "texts, True and False, or lists of them"
    )


def as_options(values: Any, whose: str) -> tuple[Option, ...]:
    """Return the options of a choice, given as any sequence of them.

    Raises:
        SpaceError: it is no sequence, or holds what can be no option.
    """
    ordered = not isinstance(values, str | bytes | Mapping | set | frozenset)
    try:
        found = list(values) if ordered else None
    except TypeError:
        found = None
    if found is None:
        raise SpaceError(f"options of choice {whose!r} are {shown(values, 60)}; give a list of them, such as [1, 2]")
    return tuple(as_option(v, whose) for v in found)


@dataclass(frozen=True)
class Choice:
    """One decision and its ordered options, active only under some options of a parent choice.

    A layer's operator is *one* choice whose options are tuples, such as ``(kernel_size, expand_ratio)``:
    an operator is what a device executes and what a per-device specialisation keeps or drops.
    """

    name: str
    """Unique in its space; dots show where it belongs, such as ``stage2.block1``."""
    options: tuple[Option, ...]
    """The allowed values, from smallest to largest where they have an order."""
    fields: tuple[str, ...] = ()
    """Names of an option's entries; default: the last part of ``name`` for scalar options."""
    parent: str | None = None
    """The choice that switches this one on and off; None: always active."""
    active_for: tuple[Option, ...] = ()
    """Options of the parent under which this choice exists."""
    evenly: str = ""
    """The field whose values a uniform draw takes equally often, and of each value its options; empty: it takes the
    options equally often. For fields whose values have different numbers of options."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise SpaceError(f"a choice is called {shown(self.name, 60)}; its name is a text")
        object.__setattr__(self, "options", as_options(self.options, self.name))
        if not self.options:
            raise SpaceError(f"choice {self.name!r} has no options; give at least one")
        if len(set(self.options)) != len(self.options):
            raise SpaceError(f"choice {self.name!r} repeats an option: {list(self.options)}")
        if not self.fields:
            object.__setattr__(self, "fields", (self.name.rsplit(".", 1)[-1],))
        for option in self.options:
            width = len(option) if isinstance(option, tuple) else 1
            if width != len(self.fields):
                raise SpaceError(
                    f"option {option!r} of choice {self.name!r} has {width} entries, "
                    f"but its fields are {list(self.fields)}"
                )
        if self.evenly and self.evenly not in self.fields:
            raise SpaceError(
                f"choice {self.name!r} is drawn evenly over {self.evenly!r}, but its fields are {list(self.fields)}"
            )

    @property
    def shares(self) -> tuple[float, ...]:
        """How often a uniform draw takes each option; the shares sum to 1."""
        if not self.evenly:
            return (1 / len(self.options),) * len(self.options)
        values = [self.field_value(option, self.evenly) for option in self.options]
        each = Counter(values)
        return tuple(1 / len(each) / each[value] for value in values)

    def field_value(self, option: Option, field: str) -> Scalar | None:
        """Return the entry called ``field`` of ``option``; None where it means nothing."""
        if isinstance(option, tuple):
            return option[self.fields.index(field)]
        return option

    def index(self, option: Option) -> int:
        """Return the position of ``option``.

        Raises:
            SpaceError: it is not one of the options.
        """
        try:
            return self.options.index(option)
        except ValueError:  # perhaps it is one of NumPy's, or a list
            plain = as_option(option, self.name)
        if plain in self.options:
            return self.options.index(plain)
        raise SpaceError(f"{shown(plain, 60)} is not an option of {self.name!r}; its options are {list(self.options)}")
