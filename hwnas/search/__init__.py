"""Who to try next: searchers, the loop that runs them, and the generic `minimize`."""

from hwnas.search.adapt import Round, best_shares, gene_distributions, plan_rounds
from hwnas.search.config import AdaptationConfig, SearchConfig
from hwnas.search.evolve import evolve, survivors
from hwnas.search.limits import Limit, check_limits, limits_for
from hwnas.search.loop import Evaluate, Generation, Reevaluate, Result, run_search
from hwnas.search.minimize import minimize
from hwnas.search.problem import Problem, Searcher
from hwnas.search.quality import PredictorQuality
from hwnas.search.region import Region
from hwnas.search.searchers import SEARCHERS, make_searcher
from hwnas.search.specialise import Specialisation, specialise

__all__ = [
    "SEARCHERS",
    "AdaptationConfig",
    "Evaluate",
    "Generation",
    "Limit",
    "PredictorQuality",
    "Problem",
    "Reevaluate",
    "Region",
    "Result",
    "Round",
    "SearchConfig",
    "Searcher",
    "Specialisation",
    "best_shares",
    "check_limits",
    "evolve",
    "gene_distributions",
    "limits_for",
    "make_searcher",
    "minimize",
    "plan_rounds",
    "run_search",
    "specialise",
    "survivors",
]
