"""Who does the work of many evaluations? This process, or whoever a plug-in asks.

An executor has one method. What it gives back does not depend on who did the work or in which order it was done, so a
search finds the same archs whatever the executor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from hwnas.registry import Registry

A = TypeVar("A")
B = TypeVar("B")


class Executor(Protocol):
    """Applies a function to many items.

    Functions and items can be pickled, so they may be sent elsewhere.
    """

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
        """Yield ``function(item)`` of every item, in the order of the items.

        What a lost worker had is done again; an exception of ``function`` itself ends the iteration.
        """
        ...


class ThisProcess:
    """One item after the other, here."""

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
        """See `Executor.map`."""
        return map(function, items)


EXECUTORS: Registry[Callable[..., Executor]] = Registry(
    "executor",
    {
        "this-process": "hwnas.runs.executor:ThisProcess",
        "processes": "hwnas.runs.workers:Processes",
        "ray": "hwnas.runs.workers:Ray",
    },
    (),
    "hwnas.runs.executor.Executor",
)
"""Factories by name; each is called with the options of the recipe."""
