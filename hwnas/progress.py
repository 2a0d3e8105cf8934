"""How does long work tell how far it is? By calling a plain function that the caller passed in."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the state of one piece of work; must be quick and must not raise."""

    def __call__(self, task: str, done: float, total: float, note: str = "") -> None:
        """Say that ``done`` of ``total`` units of ``task`` are finished; ``note`` is a few words."""
        ...


def silent(task: str, done: float, total: float, note: str = "") -> None:
    """Ignore all progress."""
