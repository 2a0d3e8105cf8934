"""What a searcher may know: the space, the objectives, what is cheap, and the limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import RecipeError
from hwnas.objectives import Objective, as_losses
from hwnas.space import Arch, SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Constraint:
    """A hard limit on one objective, in its own unit."""

    objective: str
    comparison: Literal["<=", ">="]
    limit: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read ``latency_ms<=5``.

        Raises:
            RecipeError: another form.
        """
        match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*(<=|>=)\s*([-+0-9.eE]+)\s*", text)
        try:
            if match is None:
                raise ValueError(text)
            return cls(match[1], "<=" if match[2] == "<=" else ">=", float(match[3]))
        except ValueError:
            raise RecipeError(
                f"constraint {text!r} is not of the form OBJECTIVE<=NUMBER or OBJECTIVE>=NUMBER, such as latency_ms<=5"
            ) from None

    def __str__(self) -> str:
        return f"{self.objective}{self.comparison}{self.limit:g}"


@dataclass(frozen=True)
class Problem:
    """One search problem; every array of losses has one column per objective, minimised."""

    space: SearchSpace
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    capacity: tuple[Objective, ...] = ()
    """Cheap objectives that stand for what an operator can learn (MACs, params); used to score operators."""
    features: Callable[[IntArray], FloatArray] | None = None
    """Genomes to ``(n, k)`` further values that predictors read, such as `hwnas.predictors.CellFeatures`."""
    counts: Callable[[IntArray], FloatArray] | None = None
    """Genomes to ``(n, k)`` counts of parts, most of them 0, such as `hwnas.predictors.CellFeatures.words`; the
    predictor ``gp_groups`` reads them."""
    stand_in: Callable[[IntArray], IntArray] | None = None
    """Genomes to those that predictors read in their place, such as `hwnas.predictors.CellFeatures.simplest`. For
    expensive objectives that depend on nothing but what an arch computes: archs that compute the same are one."""

    def __post_init__(self) -> None:
        names = [o.name for o in self.objectives]
        if not names:
            raise RecipeError("a search needs at least one objective")
        if len(set(names)) != len(names):
            raise RecipeError(f"objectives repeat a name: {names}")
        if unknown := sorted({c.objective for c in self.constraints} - set(names)):
            raise RecipeError(f"constraints on {unknown} have no objective that provides them; objectives are {names}")
        for name in names:
            mine = [c for c in self.constraints if c.objective == name]
            above = max((c for c in mine if c.comparison == ">="), key=lambda c: c.limit, default=None)
            below = min((c for c in mine if c.comparison == "<="), key=lambda c: c.limit, default=None)
            if above and below and above.limit > below.limit:
                raise RecipeError(f"constraints {above} and {below} contradict each other; drop or change one")
        if expensive := [o.name for o in self.capacity if not o.cheap]:
            raise RecipeError(
                f"capacity {expensive} must be cheap objectives (exact, cheap=True), such as macs or params"
            )

    @cached_property
    def cheap_constraints(self) -> tuple[Constraint, ...]:
        """Limits that can be checked before a candidate is evaluated."""
        cheap = {o.name for o in self.objectives if o.cheap}
        return tuple(c for c in self.constraints if c.objective in cheap)

    @cached_property
    def cheap_columns(self) -> IntArray:
        """Columns that are known for every genome before it is evaluated."""
        return np.array([i for i, o in enumerate(self.objectives) if o.cheap], dtype=np.int64)

    @cached_property
    def expensive_columns(self) -> IntArray:
        """Columns that only an evaluation gives."""
        return np.array([i for i, o in enumerate(self.objectives) if not o.cheap], dtype=np.int64)

    def cheap_losses(self, genomes: IntArray) -> FloatArray:
        """Return ``(n, m)`` losses with NaN in the expensive columns."""
        values = np.full((len(genomes), len(self.objectives)), np.nan)
        for i in self.cheap_columns:
            values[:, i] = evaluate_genomes(self.objectives[i], self.space, genomes)
        return as_losses(values, self.objectives)

    def violation(self, losses: FloatArray) -> FloatArray:
        """Return ``(n,)``: how far each row is outside its limits, relative to them; 0 is feasible.

        Columns that are NaN (not evaluated yet) count as feasible.
        """
        total = np.zeros(len(losses))
        names = [o.name for o in self.objectives]
        for c in self.constraints:
            column = names.index(c.objective)
            values = losses[:, column] * self.objectives[column].sign
            over = values - c.limit if c.comparison == "<=" else c.limit - values
            total += np.nan_to_num(np.maximum(over, 0.0), nan=0.0) / max(abs(c.limit), 1e-12)
        return total


def evaluate_genomes(objective: Objective, space: SearchSpace, genomes: IntArray) -> FloatArray:
    """Return ``(n,)`` values of ``objective`` for genomes of ``space``, by its fast path where it has one."""
    if objective.evaluate_genomes is not None:
        return np.asarray(objective.evaluate_genomes(genomes), dtype=float)
    return np.asarray(objective.evaluate(space.decode_many(genomes)), dtype=float)


class Searcher(Protocol):
    """Proposes archs and learns from their losses; a function of its seed and of what it was told."""

    def ask(self) -> list[Arch]:
        """Return the archs to evaluate next, none asked before; an empty list ends the search."""
        ...

    def tell(self, archs: Sequence[Arch], losses: FloatArray) -> None:
        """Learn ``(n, m)`` losses of archs, also ones it never asked for; a row with NaN has failed."""
        ...
