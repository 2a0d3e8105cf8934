"""What can time a network?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from hwnas.latency import agent
from hwnas.latency.agent import Burst


class Target(Protocol):
    """A machine that times models: this one, or one behind SSH."""

    host: str | None
    """Its name as ssh takes it; None: this machine."""

    def facts(self, threads: int) -> dict[str, Any]:
        """See `hwnas.latency.agent.facts`."""

    def bursts(
        self, models: Sequence[str | bytes], names: Sequence[str], reference: bytes, config: dict[str, Any],
        schedule: Sequence[tuple[int, int]],
    ) -> Iterator[Burst]:  # fmt: skip
        """See `hwnas.latency.agent.bursts`."""


class Here:
    """This machine."""

    host: str | None = None

    def facts(self, threads: int) -> dict[str, Any]:
        """See `hwnas.latency.agent.facts`."""
        return agent.facts(threads)

    def bursts(
        self, models: Sequence[str | bytes], names: Sequence[str], reference: bytes, config: dict[str, Any],
        schedule: Sequence[tuple[int, int]],
    ) -> Iterator[Burst]:  # fmt: skip
        """See `hwnas.latency.agent.bursts`."""
        return agent.bursts(models, names, reference, config, schedule)
