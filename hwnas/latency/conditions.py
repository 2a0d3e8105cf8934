"""Under which conditions does a latency hold?"""

from __future__ import annotations

from dataclasses import dataclass, fields

from hwnas.errors import TableMismatchError


@dataclass(frozen=True)
class Conditions:
    """Under which conditions a latency holds; numbers of different conditions never mix silently."""

    device: str
    """Processor model and cores, or whatever the target calls itself."""
    runtime: str
    """Such as ``onnxruntime-1.31.1``."""
    provider: str
    """Execution provider; empty for a target without providers."""
    precision: str
    threads: int
    batch_size: int
    input_shape: tuple[int, ...]
    """Channels, height, width; empty for a table of many shapes."""
    warmup_runs: int
    date: str
    """ISO 8601, UTC."""
    reference_ms: float = 0.0
    """What a fixed block took meanwhile, as a measure of how fast the machine was running; 0: it was not timed."""
    cores: str = ""
    """Cores that the process might use, such as ``0,1``."""
    copies: bool = False
    """Whether copies to and from the memory of a GPU count."""

    def require_same(self, other: Conditions, what: str) -> None:
        """Raise where a latency under ``other`` conditions is another quantity.

        Args:
            other: the conditions to compare with.
            what: is compared, for the message.

        Raises:
            TableMismatchError: naming the field and both values.
        """
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if f.name in SAME_QUANTITY and mine != theirs:
                raise TableMismatchError(
                    f"{what}: {f.name} is {mine!r} here and {theirs!r} there; measure both under the same conditions"
                )


SAME_QUANTITY = ("device", "runtime", "provider", "precision", "threads", "batch_size", "copies")
"""Fields of `Conditions` that must agree."""
