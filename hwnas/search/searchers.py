"""How does the name of a searcher become one?"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from hwnas.errors import PluginError, SearchError
from hwnas.registry import Registry
from hwnas.search.problem import Problem, Searcher

SEARCHERS: Registry[Callable[..., Searcher]] = Registry(
    "searcher",
    {
        "hurricane": "hwnas.search.hurricane:Hurricane",
        "natv2": "hwnas.search.natv2:NATv2",
        "nsga2": "hwnas.search.nsga2:NSGA2",
        "mdenas": "hwnas.search.mdenas:MdeNAS",
        "random": "hwnas.search.random_search:RandomSearch",
    },
    ("__call__",),
    "hwnas.search.problem.Searcher",
)
"""Factories by name, such as classes; each is called as ``factory(problem, evaluations=..., seed=..., **settings)``."""

_GIVEN = ("problem", "evaluations", "seed")


def make_searcher(
    searcher: str | Callable[..., Searcher], problem: Problem, *, evaluations: int, seed: int, **settings: Any
) -> Searcher:
    """Return a fresh searcher.

    Args:
        searcher: a name of `SEARCHERS`, or a factory (a class, ``functools.partial`` of one).
        problem: what is searched.
        evaluations: how many will be spent; it sizes archive, population and generations.
        seed: equal seeds and equal answers give equal archs.
        settings: keyword arguments of that factory, such as ``population``.

    Raises:
        PluginError: the name stands for none, or what was made is no searcher.
        SearchError: a setting that it does not take (with those it takes), or a number out of range.
    """
    factory = SEARCHERS.get(searcher) if isinstance(searcher, str) else searcher
    name = repr(searcher if isinstance(searcher, str) else getattr(searcher, "__name__", searcher))
    if not callable(factory):
        raise PluginError(f"searcher {name} cannot be called; give a class or a function, see {SEARCHERS.page}")
    known = inspect.signature(factory).parameters
    takes = [n for n, p in known.items() if n not in _GIVEN and p.kind is not p.VAR_KEYWORD]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    if not takes_any and (unknown := sorted(set(settings) - set(takes))):
        raise SearchError(f"searcher {name} has no settings {unknown}; it takes {takes}")
    if evaluations < 1:
        raise SearchError(f"evaluations is {evaluations}; give at least 1")
    if seed < 0:
        raise SearchError(f"seed is {seed}; give 0 or more")
    made = factory(problem, evaluations=evaluations, seed=seed, **settings)
    if missing := [n for n in ("ask", "tell") if not callable(getattr(made, n, None))]:
        raise PluginError(f"searcher {name} made a {type(made).__name__} without {missing}; see {SEARCHERS.page}")
    return made
