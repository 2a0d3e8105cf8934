"""What a searcher may know: the space, the objectives, what is cheap, and the limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SearchError
from hwnas.objectives import Objective, as_losses
from hwnas.search.limits import Limit, check_limits
from hwnas.space import Arch, SearchSpace
from hwnas.space.choice import Option

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Problem:
    """One search problem.

    Every array of losses, ``(n, columns)``, has one column for each objective and, after these, one for each limited
    value; every column is minimised (signs by ``direction``). Which arch is better is decided by the objectives alone,
    which is allowed by the limits on any column.
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    limits: tuple[Limit, ...] = ()
    """All of them hold; of limits for several devices, give those of one (`limits_for`)."""
    capacity: tuple[Objective, ...] = ()
    """Cheap objectives that stand for what an operator can learn (MACs, params); used to score operators."""
    features: Callable[[IntArray], FloatArray] | None = None
    """Genomes to ``(n, k)`` further values that predictors read, such as `hwnas.predictors.CellFeatures`."""
    limited: tuple[Objective, ...] = ()
    """Values that are not optimised but have limits, exact (``cheap``) or evaluated."""

    def __post_init__(self) -> None:
        objectives, limited = ([o.name for o in of] for of in (self.objectives, self.limited))
        if not objectives:
            raise SearchError("a search needs at least one objective")
        if len({*objectives, *limited}) != len(self.columns):
            raise SearchError(f"objectives and limited values repeat a name: {[*objectives, *limited]}")
        if unknown := sorted({limit.value for limit in self.limits} - {*objectives, *limited}):
            raise SearchError(
                f"constraints on {unknown} have no value that provides them; objectives are {objectives}, "
                f"limited values are {limited}"
            )
        check_limits(self.limits)
        if expensive := [o.name for o in self.capacity if not o.cheap]:
            raise SearchError(
                f"capacity {expensive} must be cheap objectives (exact, cheap=True), such as macs or params"
            )

    @cached_property
    def columns(self) -> tuple[Objective, ...]:
        """What the columns of every array of values or losses are: objectives, then limited values."""
        return self.objectives + self.limited

    @property
    def n_objectives(self) -> int:
        """How many of the first columns are optimised; domination looks at no others."""
        return len(self.objectives)

    @cached_property
    def cheap_limits(self) -> tuple[Limit, ...]:
        """Limits that can be checked before a candidate is evaluated."""
        cheap = {o.name for o in self.columns if o.cheap}
        return tuple(limit for limit in self.limits if limit.value in cheap)

    @cached_property
    def cheap_columns(self) -> IntArray:
        """Columns that are known for every genome before it is evaluated."""
        return np.array([i for i, o in enumerate(self.columns) if o.cheap], dtype=np.int64)

    @cached_property
    def expensive_columns(self) -> IntArray:
        """Columns that only an evaluation gives."""
        return np.array([i for i, o in enumerate(self.columns) if not o.cheap], dtype=np.int64)

    def cheap_losses(self, genomes: IntArray) -> FloatArray:
        """Return ``(n, columns)`` losses with NaN in the expensive columns."""
        values = np.full((len(genomes), len(self.columns)), np.nan)
        for i in self.cheap_columns:
            values[:, i] = evaluate_genomes(self.columns[i], self.space, genomes)
        return as_losses(values, self.columns)

    def within(self, options: Mapping[str, Iterable[Option]]) -> Problem:
        """Return the same problem in the part of the space in which the named choices have only the given options.

        Its archs are those of the space, its genomes are shorter numbers for them.
        """
        part, whole = self.space.restrict(options), self.space

        def of_whole(genomes: IntArray) -> IntArray:
            return whole.genomes_of(part, genomes)

        def inside(objective: Objective) -> Objective:
            fast, slow = objective.evaluate_genomes, objective.evaluate
            return replace(
                objective,
                evaluate=lambda archs: slow([whole.arch(a.as_dict()) for a in archs]),
                evaluate_genomes=None if fast is None else lambda genomes: fast(of_whole(genomes)),
            )

        features = self.features
        return Problem(
            part, tuple(map(inside, self.objectives)), self.limits, tuple(map(inside, self.capacity)),
            None if features is None else lambda genomes: features(of_whole(genomes)), tuple(map(inside, self.limited)),
        )  # fmt: skip

    def known(self, genomes: IntArray) -> FloatArray:
        """Return ``(n, k)``: all that is known of genomes before an evaluation, in own units.

        Cheap objectives and limited values, capacity, and `features`.
        """
        exact = [*(self.columns[i] for i in self.cheap_columns), *self.capacity]
        values = [evaluate_genomes(o, self.space, genomes) for o in exact]
        known = np.array(values, dtype=float).reshape(len(values), len(genomes)).T
        return known if self.features is None else np.concatenate([known, self.features(genomes)], axis=1)

    def violation(self, losses: FloatArray) -> FloatArray:
        """Return ``(n,)``: how far each row of ``(n, columns)`` losses is outside its limits; 0 is feasible.

        Each limit counts relative to its bound. Columns that are NaN (not evaluated yet) count as feasible.
        """
        total = np.zeros(len(losses))
        names = [o.name for o in self.columns]
        for limit in self.limits:
            column = names.index(limit.value)
            values = losses[:, column] * self.columns[column].sign
            over = values - limit.bound if limit.comparison == "<=" else limit.bound - values
            total += np.nan_to_num(np.maximum(over, 0.0), nan=0.0) / max(abs(limit.bound), 1e-12)
        return total


def evaluate_genomes(objective: Objective, space: SearchSpace, genomes: IntArray) -> FloatArray:
    """Return ``(n,)`` values of ``objective`` for genomes of ``space``, by its fast path where it has one."""
    if objective.evaluate_genomes is not None:
        return np.asarray(objective.evaluate_genomes(genomes), dtype=float)
    return np.asarray(objective.evaluate(space.decode_many(genomes)), dtype=float)


class Searcher(Protocol):
    """Who to try next, by ask and tell; a function of its seed and of what it was told, so a search can be replayed.

    A searcher is made by a factory, such as its class, that is called as ``factory(problem, evaluations=..., seed=...,
    **settings)``; ``evaluations`` is how many the search will spend. Its settings are the factory's other arguments,
    named in its signature.

    Four attributes are read where a searcher has them: ``notes`` (a list of sentences for `Result.notes`),
    ``phase_changes`` (where a supernet may be adapted, see `hwnas.search.adapt.plan_rounds`),
    ``predictor_quality()`` (see `NATv2`), and of the class ``seconds_per_evaluation`` (what it computes itself for each
    evaluation, by which a time budget is planned; without it, as much as one with a predictor, 0.1).

    `hwnas.testing.searcher.SearcherTests` tests what the methods promise.
    """

    def ask(self) -> list[Arch]:
        """Return the archs to evaluate next, one or more, none asked before; an empty list ends the search.

        It may be called again before all, or any, of them are told.
        """
        ...

    def tell(self, archs: Sequence[Arch], losses: FloatArray) -> None:
        """Learn ``(n, columns)`` losses (`Problem.columns`), smaller is better; a row with NaN has failed.

        Archs may be ones that it never asked for (a warm start; they must not be asked for later), and ones told
        before, whose new losses replace the old. The arguments stay as they are.
        """
        ...
