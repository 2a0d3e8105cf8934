"""Search any space under any objectives, in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SearchError
from hwnas.objectives import Objective
from hwnas.search.limits import Limit
from hwnas.search.loop import Result, run_search
from hwnas.search.problem import Problem, Searcher
from hwnas.search.searchers import make_searcher
from hwnas.space import Arch, SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def minimize(
    space: SearchSpace,
    objectives: Sequence[Objective],
    *,
    searcher: str | Callable[..., Searcher] = "hurricane",
    evaluations: int = 200,
    seed: int = 0,
    constraints: Sequence[str | Limit] = (),
    limited: Sequence[Objective] = (),
    capacity: Sequence[Objective] = (),
    features: Callable[[IntArray], FloatArray] | None = None,
    warm_start: tuple[Sequence[Arch], FloatArray] | None = None,
) -> Result:
    """Find the archs of ``space`` that are best together under all ``objectives``.

    An objective that raises or returns NaN for an arch makes that evaluation failed; the search goes on, and
    ``result.notes`` names the first error.

    Args:
        space: what can be chosen.
        objectives: 1 or more; each is minimised or maximised by its own ``direction``.
        searcher: a name of `hwnas.search.SEARCHERS`, or a factory (a class, ``functools.partial`` of one) that is
            called with the problem, ``evaluations`` and ``seed``.
        evaluations: how many distinct archs may be evaluated; sizes everything else.
        seed: equal seeds give equal archs.
        constraints: hard limits in own units, such as ``"latency_ms<=5"``, on objectives and on ``limited``.
        limited: values that are not optimised but have limits, exact (``cheap``) or evaluated.
        capacity: cheap objectives that stand for what an arch can learn (macs, params): not optimised, but
            known for every candidate; they inform the predictor and the choice of operators.
        features: genomes to ``(n, k)`` further values that predictors read, such as `hwnas.predictors.CellFeatures`.
        warm_start: archs and their ``(n, columns)`` values in own units that are known already; columns are the
            objectives, then ``limited``.

    Returns:
        Every evaluation in order, the front, and in words how the search ended.

    Raises:
        SearchError: no objectives, a limit without a value, contradictory limits.
        PluginError: an unknown searcher, or one that cannot be made.
        SpaceError: a warm-start arch of another space.
    """
    if not isinstance(space, SearchSpace):
        raise SearchError(f"space is {space!r}; make one with hwnas.SearchSpace.of_choices")
    if isinstance(constraints, str):
        raise SearchError(f"constraints is one text; give a list, such as [{constraints!r}]")
    if strange := [o for o in (*objectives, *limited, *capacity) if not isinstance(o, Objective)]:
        raise SearchError(f"{strange[0]!r} is no objective; make one with hwnas.Objective")
    if not isinstance(evaluations, Integral) or not isinstance(seed, Integral):
        raise SearchError(f"evaluations and seed are whole numbers, got {evaluations!r} and {seed!r}")
    errors: dict[str, str] = {}
    problem = Problem(
        space,
        tuple(_guarded(o, errors) for o in objectives),
        tuple(_limit(c) for c in constraints),
        tuple(capacity),
        features,
        limited=tuple(_guarded(o, errors) for o in limited),
    )
    made = make_searcher(searcher, problem, evaluations=evaluations, seed=seed)

    def evaluate(archs: Sequence[Arch]) -> FloatArray:
        return np.stack([np.asarray(o.evaluate(archs), dtype=float) for o in problem.columns], axis=1)

    result = run_search(problem, made, evaluate, evaluations, warm_start=warm_start)
    return replace(result, notes=(*result.notes, *errors.values()))


def _guarded(objective: Objective, errors: dict[str, str]) -> Objective:
    """Return ``objective`` with NaN where it raises; the first error of it is noted in ``errors``."""

    def evaluate(archs: Sequence[Arch]) -> FloatArray:
        try:
            values = objective.evaluate(archs)
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything; it is noted, not lost
            errors.setdefault(objective.name, f"objective {objective.name!r} failed: {type(error).__name__}: {error}")
            if len(archs) == 1:
                return np.array([np.nan])
            return np.concatenate([evaluate([arch]) for arch in archs])
        return _column(values, len(archs), objective.name)

    return replace(objective, evaluate=evaluate)


def _limit(given: str | Limit) -> Limit:
    limit = given if isinstance(given, Limit) else Limit.parse(given)
    if limit.device is not None:
        raise SearchError(f"limit {limit} is for one device, but minimize knows none; give {limit.value} alone")
    return limit


def _column(values: Sequence[float] | FloatArray, n: int, name: str) -> FloatArray:
    try:
        column = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise SearchError(f"objective {name!r} returned {values!r:.60} for {n} archs; return one float each") from None
    if column.shape != (n,):
        raise SearchError(f"objective {name!r} returned shape {column.shape} for {n} archs; return one float each")
    return column
