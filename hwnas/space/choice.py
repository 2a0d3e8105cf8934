"""What is one decision of a search space?"""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.errors import SpaceError

Scalar = int | float | str
Option = Scalar | tuple[Scalar | None, ...]
"""One value of a choice: a scalar, or a tuple with one entry for each of the choice's fields.

None in a tuple: the field means nothing for this option, such as the kernel size of an operator without a kernel."""


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

    def __post_init__(self) -> None:
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
        except ValueError:
            raise SpaceError(
                f"{option!r} is not an option of {self.name!r}; its options are {list(self.options)}"
            ) from None
