"""Which algorithms are there, by name?"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from hwnas.errors import SearchError
from hwnas.search.hurricane import Hurricane
from hwnas.search.mdenas import MdeNAS
from hwnas.search.natv2 import NATv2
from hwnas.search.nsga2 import NSGA2
from hwnas.search.problem import Problem, Searcher
from hwnas.search.random_search import RandomSearch

SEARCHERS: dict[str, Callable[..., Searcher]] = {
    "random": RandomSearch,
    "mdenas": MdeNAS,
    "nsga2": NSGA2,
    "natv2": NATv2,
    "hurricane": Hurricane,
}
"""Factories by name; each is called with the problem, ``evaluations``, ``seed`` and its own settings."""


def make_searcher(
    name: str, problem: Problem, *, evaluations: int, seed: int, **settings: int | str | None
) -> Searcher:
    """Return a fresh searcher.

    Args:
        name: one of `SEARCHERS`.
        problem: what is searched.
        evaluations: how many will be spent; it sizes archive, population and generations.
        seed: equal seeds and equal answers give equal archs.
        settings: settings of that algorithm, such as ``population``; the keyword arguments of its class.

    Raises:
        SearchError: an unknown name or setting, or a number out of range.
    """
    if name not in SEARCHERS:
        raise SearchError(f"search algorithm {name!r} is unknown; choose one of {sorted(SEARCHERS)}")
    known = [p for p in inspect.signature(SEARCHERS[name]).parameters if p not in ("problem", "evaluations", "seed")]
    if unknown := sorted(set(settings) - set(known)):
        raise SearchError(f"search algorithm {name!r} has no settings {unknown}; it has {known}")
    if evaluations < 1:
        raise SearchError(f"evaluations is {evaluations}; give at least 1")
    if seed < 0:
        raise SearchError(f"seed is {seed}; give 0 or more")
    return SEARCHERS[name](problem, evaluations=evaluations, seed=seed, **settings)
