"""What is one subnet?"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from hwnas.errors import SpaceError, shown
from hwnas.space.choice import Choice, Option


def check_key(text: str) -> str:
    """Return ``text`` where it can be the key of an arch: keys name files and folders.

    Raises:
        SpaceError: it is not twelve hexadecimal digits.
    """
    if re.fullmatch(r"[0-9a-f]{12}", text) is None:
        raise SpaceError(f"{shown(text, 60)} is no key of a model: keys are twelve hexadecimal digits")
    return text


def named(values: object) -> set[str]:
    """Return the names of the choices for which plain values hold an option.

    Raises:
        SpaceError: they are no mapping of names.
    """
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise SpaceError(f"an arch is a mapping of names of choices to options, got {shown(values)}")
    return set(values)


class ArchSpace(Protocol):
    """What an arch knows of the space that it was made in (`hwnas.space.SearchSpace`)."""

    @property
    def blocks(self) -> Any:
        """Of a supernet's space: an arch to its blocks from input to output, as (slot, block spec); else None."""

    def __getitem__(self, name: str) -> Choice:
        """Return the choice ``name``."""


@dataclass(frozen=True)
class Arch:
    """One subnet, in canonical form: equal archs are equal networks.

    Choices that the arch switches off (the kernel size of a skipped block, say) do not exist in it.
    Make one with `SearchSpace.arch`, `SearchSpace.decode`, `SearchSpace.sample` or a reader of `hwnas.space.dialects`.
    """

    items: tuple[tuple[str, Option], ...]
    """``(choice name, option)`` of every active choice, in the order of the space."""
    space: ArchSpace | None = field(default=None, compare=False, repr=False)
    """The space it was made in; not part of its identity."""

    @cached_property
    def _by_name(self) -> dict[str, Option]:
        return dict(self.items)

    @cached_property
    def key(self) -> str:
        """Twelve hexadecimal digits that name this arch in files and tables; stable over versions."""
        text = json.dumps(self.items, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __reduce__(self) -> tuple[type[Arch], tuple[tuple[tuple[str, Option], ...]]]:
        """Be sent elsewhere without the space; `SearchSpace.arch` of `as_dict` puts it into one again."""
        return Arch, (self.items,)

    def __hash__(self) -> int:
        return hash(self.items)

    def __getitem__(self, name: str) -> Option:
        try:
            return self._by_name[name]
        except KeyError:
            raise SpaceError(f"{name!r} is not an active choice of arch {self.key}; active: {list(self)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def get(self, name: str, default: Option | None = None) -> Option | None:
        """Return the option of choice ``name``, or ``default`` where the choice is not active."""
        return self._by_name.get(name, default)

    def int(self, name: str) -> int:
        """Return the option of ``name`` as an integer."""
        value = self[name]
        if not isinstance(value, int):
            raise SpaceError(f"choice {name!r} of arch {self.key} is {value!r}, not an integer")
        return value

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values by choice name; `SearchSpace.arch` reads them back."""
        return {n: list(o) if isinstance(o, tuple) else o for n, o in self.items}
