"""Who to try next: searchers, the loop that runs them, and the generic `minimize`."""

from hwnas.search.config import SearchConfig
from hwnas.search.loop import Evaluate, Generation, Result, run_search
from hwnas.search.minimize import minimize
from hwnas.search.problem import Constraint, Problem, Searcher
from hwnas.search.searchers import SEARCHERS, make_searcher

__all__ = [
    "SEARCHERS",
    "Constraint",
    "Evaluate",
    "Generation",
    "Problem",
    "Result",
    "SearchConfig",
    "Searcher",
    "make_searcher",
    "minimize",
    "run_search",
]
