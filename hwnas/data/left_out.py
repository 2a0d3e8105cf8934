"""What did a source find and not use? Nothing is dropped without a word: everything is counted by its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hwnas.errors import escaped, some

EXAMPLES = 3
"""How many names are kept of what was left out for one reason."""


@dataclass(frozen=True)
class LeftOut:
    """Files, images or labels that are not used, for one reason."""

    reason: str
    """What they are, in the plural, such as ``files that end in .txt``."""
    count: int
    examples: tuple[str, ...] = ()
    """Names of the first of them."""

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) == EXAMPLES else ""
        names = f" ({some(self.examples, EXAMPLES)}{more})" if self.examples else ""
        return f"{escaped(self.reason)}: {self.count:,}{names}"

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


SKIP = "or leave such images out with data.broken_images=skip"
"""Ends what is said of an image that cannot be read."""


class LeftOutCounter:
    """Adds up what is left out while a source looks around."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, example: str = "", count: int = 1) -> None:
        """Count something; see `LeftOut`."""
        if not count:
            return
        self._counts[reason] = self._counts.get(reason, 0) + count
        examples = self._examples.setdefault(reason, [])
        if example and len(examples) < EXAMPLES:
            examples.append(example)

    def values(self) -> tuple[LeftOut, ...]:
        """Return everything so far, in the order in which it was met."""
        return tuple(LeftOut(reason, n, tuple(self._examples[reason])) for reason, n in self._counts.items())


def broken_images(skipped: Mapping[str, str]) -> tuple[LeftOut, ...]:
    """Return what stands for images that cannot be read and are skipped, by their places; nothing for none."""
    examples = tuple(list(skipped)[:EXAMPLES])
    return (LeftOut("images that cannot be read", len(skipped), examples),) if skipped else ()


def told(left_out: Iterable[LeftOut]) -> str:
    """Return one line; empty where nothing was left out."""
    parts = [str(entry) for entry in left_out]
    return f"left out: {'; '.join(parts)}" if parts else ""
