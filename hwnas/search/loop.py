"""The loop: ask, evaluate, tell, until the budget or the space is used up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SearchError
from hwnas.objectives import as_losses
from hwnas.pareto import non_dominated
from hwnas.search.problem import Problem, Searcher
from hwnas.space import Arch

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

Evaluate = Callable[[Sequence[Arch]], FloatArray]
"""Archs to ``(n, columns)`` values in own units (`Problem.columns`); a failed evaluation is a row with NaN."""
Reevaluate = Callable[[int, tuple[Arch, ...], FloatArray], FloatArray]
"""Number of a re-evaluation (from 1), all archs so far and their ``(n, columns)`` values, to their new values."""


@dataclass(frozen=True)
class Generation:
    """What one turn of the loop did."""

    number: int
    """Counts from 1."""
    archs: tuple[Arch, ...]
    values: FloatArray
    """``(n, columns)`` in own units; failed evaluations hold NaN."""
    evaluated: int
    """Distinct archs evaluated so far."""
    budget: int
    """Distinct archs that may be evaluated."""


@dataclass(frozen=True)
class Result:
    """Every evaluation of a search, in order."""

    problem: Problem
    archs: tuple[Arch, ...]
    """Warm-start archs first, then those evaluated, in the order of evaluation."""
    values: FloatArray
    """``(n, columns)`` in own units: objectives, then limited values; failed evaluations hold NaN."""
    n_warm_start: int
    """How many of the first rows were known before the search."""
    ended: Literal["budget", "exhausted", "stopped"]
    """``exhausted``: the space has no further arch; ``stopped``: `on_generation` said so."""
    notes: tuple[str, ...] = ()
    """What the search did otherwise than planned (a predictor that could not be fitted, say)."""
    reevaluations: int = 0
    """How often all values were replaced by new ones; they are those of the last time."""
    repeated: int = 0
    """Evaluations of archs that had been evaluated before, in these rounds."""

    @property
    def evaluated(self) -> int:
        """Distinct archs evaluated by this search."""
        return len(self.archs) - self.n_warm_start

    @cached_property
    def losses(self) -> FloatArray:
        """``(n, columns)`` values with maximised columns negated."""
        return as_losses(self.values, self.problem.columns)

    @cached_property
    def feasible(self) -> BoolArray:
        """``(n,)``: complete rows within every limit."""
        complete = np.isfinite(self.values).all(axis=1)
        return np.asarray(complete & (self.problem.violation(self.losses) <= 0.0), dtype=bool)

    @cached_property
    def front(self) -> IntArray:
        """Row numbers of the feasible archs that no other dominates in the objectives, ascending."""
        rows = np.flatnonzero(self.feasible)
        return rows[non_dominated(self.losses[rows, : self.problem.n_objectives])] if len(rows) else rows

    @property
    def message(self) -> str:
        """How the search ended, in one line a reason."""
        n, m = self.evaluated, len(self.front)
        lines = [f"{n} archs evaluated, {m} on the front"]
        if self.reevaluations:
            again = f"all archs evaluated again in {self.reevaluations} round(s)"
            lines.append(f"{again}, which repeated {self.repeated} evaluations")
        if self.ended == "exhausted":
            lines.append(f"the space has only {self.problem.space.size:,} archs and all of them were evaluated")
        elif self.ended == "stopped":
            lines.append("stopped before the budget was used up")
        complete = np.isfinite(self.values).all(axis=1)
        if len(self.archs) and not complete.any():
            lines.append("every evaluation failed; evaluate one arch by hand to see why")
        elif complete.any() and not m:
            lines.append(self._infeasible())
        return "; ".join((*lines, *self.notes))

    def _infeasible(self) -> str:
        """Name the limit that most archs break and the arch that is nearest to all of them."""
        complete = np.flatnonzero(np.isfinite(self.values).all(axis=1))
        losses = self.losses[complete]
        broken = [
            (Problem.violation(_only(self.problem, i), losses) > 0).sum() for i in range(len(self.problem.limits))
        ]
        binding = self.problem.limits[int(np.argmax(broken))]
        row = int(complete[np.argmin(self.problem.violation(losses))])
        near = ", ".join(f"{o.name}={v:.6g}" for o, v in zip(self.problem.columns, self.values[row], strict=True))
        return (
            f"no arch is within the limits: {binding} binds "
            f"({max(broken)} of {len(complete)} archs break it); "
            f"the closest arch is {self.archs[row].key} with {near}"
        )


def _only(problem: Problem, i: int) -> Problem:
    """The problem with its i-th limit alone."""
    return replace(problem, limits=(problem.limits[i],))


def run_search(
    problem: Problem,
    searcher: Searcher,
    evaluate: Evaluate,
    budget: int,
    on_generation: Callable[[Generation], bool | None] | None = None,
    warm_start: tuple[Sequence[Arch], FloatArray] | None = None,
    reevaluate: Reevaluate | None = None,
    reevaluate_at: Sequence[float] = (),
) -> Result:
    """Run ``searcher`` until ``budget`` distinct archs are evaluated or it has nothing left to ask.

    A restarted search asks again from the start; where ``evaluate`` answers from an archive, it goes on
    where it stopped, identical to an uninterrupted run.

    Args:
        problem: the space, objectives and limits.
        searcher: any object with `Searcher`'s two methods, fresh.
        evaluate: called with distinct archs, never twice with the same one.
        budget: distinct archs to evaluate, at least 1; the last generation is cut to it.
        on_generation: called after every generation; True ends the search.
        warm_start: archs and ``(n, columns)`` values in own units that are known already and cost nothing.
        reevaluate: called where values lose their meaning, as when a supernet's weights change: it returns new values
            of all archs, and the searcher goes on with these only. What it evaluates is outside of the budget.
        reevaluate_at: shares of the budget, ascending, after which ``reevaluate`` is called; a generation that would
            reach beyond is evaluated in two parts.

    Raises:
        SearchError: a budget below 1, values of another shape, or shares without ``reevaluate``.
    """
    if budget < 1:
        raise SearchError(f"the budget is {budget} evaluations; give at least 1")
    if reevaluate_at and reevaluate is None:
        raise SearchError(
            "reevaluate_at says when values are computed again, but there is no reevaluate; give both or none"
        )
    archs: list[Arch] = []
    rows: list[FloatArray] = []
    if warm_start is not None and len(warm_start[0]):
        archs.extend(warm_start[0])
        rows.append(_checked(problem, warm_start[0], warm_start[1]))
        searcher.tell(list(archs), as_losses(rows[0], problem.columns))
    n_warm_start, known, number = len(archs), set(archs), 0
    due = [math.ceil(share * budget - 1e-9) for share in reevaluate_at]
    reevaluations = repeated = 0
    pending: list[Arch] = []
    ended: Literal["budget", "exhausted", "stopped"] = "budget"
    while (done := len(archs) - n_warm_start) < budget:
        if reevaluate is not None and reevaluations < len(due) and done >= due[reevaluations]:
            reevaluations += 1
            repeated += len(archs)
            values = _checked(problem, archs, reevaluate(reevaluations, tuple(archs), np.concatenate(rows)))
            rows = [values]
            searcher.tell(list(archs), as_losses(values, problem.columns))
            continue
        if not pending:
            asked = searcher.ask()
            if not asked:
                ended = "exhausted"
                break
            pending = [a for a in dict.fromkeys(asked) if a not in known][: budget - done]
            if not pending:
                raise SearchError("the searcher asked only for archs that were evaluated already")
        room = (due[reevaluations] if reevaluations < len(due) else budget) - done
        part, pending = pending[:room], pending[room:]
        values = _checked(problem, part, evaluate(tuple(part)))
        known.update(part)
        archs.extend(part)
        rows.append(values)
        searcher.tell(part, as_losses(values, problem.columns))
        number += 1
        generation = Generation(number, tuple(part), values, len(archs) - n_warm_start, budget)
        if on_generation is not None and on_generation(generation):
            ended = "stopped"
            break
    notes = tuple(dict.fromkeys(getattr(searcher, "notes", ())))
    values = np.concatenate(rows) if rows else np.zeros((0, len(problem.columns)))
    return Result(problem, tuple(archs), values, n_warm_start, ended, notes, reevaluations, repeated)


def _checked(problem: Problem, archs: Sequence[Arch], values: FloatArray) -> FloatArray:
    """Return a float copy of ``values`` with NaN for whatever is not finite."""
    values = np.array(values, dtype=float)
    if values.shape != (len(archs), len(problem.columns)):
        raise SearchError(
            f"evaluate returned values of shape {values.shape} for {len(archs)} archs and "
            f"{len(problem.columns)} objectives and limited values; return one row an arch and one column a value"
        )
    values[~np.isfinite(values)] = np.nan
    return values
