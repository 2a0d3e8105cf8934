"""Who to try next: searchers, the loop that runs them, and the generic `minimize`."""

from hwnas.search.config import SearchConfig
from hwnas.search.evolve import evolve, survivors
from hwnas.search.loop import Evaluate, Generation, Result, run_search
from hwnas.search.minimize import minimize
from hwnas.search.natv2 import gene_distributions, sample_distributions
from hwnas.search.problem import Constraint, Problem, Searcher
from hwnas.search.region import Region
from hwnas.search.searchers import SEARCHERS, make_searcher
from hwnas.search.specialise import Specialisation, specialise

__all__ = [
    "SEARCHERS",
    "Constraint",
    "Evaluate",
    "Generation",
    "Problem",
    "Region",
    "Result",
    "SearchConfig",
    "Searcher",
    "Specialisation",
    "evolve",
    "gene_distributions",
    "make_searcher",
    "minimize",
    "run_search",
    "sample_distributions",
    "specialise",
    "survivors",
]
