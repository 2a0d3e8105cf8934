"""How does a search stand while it runs? In one line: how many archs are allowed, the best score, the hypervolume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.objectives import as_losses
from hwnas.pareto import hypervolume, non_dominated, normalise
from hwnas.search.problem import Problem

FloatArray = NDArray[np.float64]

FEWEST = 8
"""Complete evaluations from which the box of the hypervolume is taken; before, none is said."""


class Standing:
    """Adds up the generations of one search."""

    def __init__(self, problem: Problem, score: str = "", unit: str = "") -> None:
        """Begin with nothing.

        Args:
            problem: its objectives span the hypervolume, its limits say what is allowed.
            score: name of the value whose best is said; one that the problem does not have is not said.
            unit: of the score, for people.
        """
        self._problem = problem
        self._unit = unit
        names = [column.name for column in problem.columns]
        self._score = names.index(score) if score in names else None
        self._first: list[FloatArray] = []
        self._box: tuple[FloatArray, FloatArray] | None = None
        self._front = np.empty((0, problem.n_objectives))
        self._best: float | None = None
        self.generations = 0
        self.evaluated = 0
        self.allowed = 0
        """Archs whose evaluation is complete and within every limit."""

    def add(self, values: FloatArray) -> None:
        """Take in a generation: ``(n, columns)`` values in own units, NaN where an evaluation failed."""
        self.generations += 1
        self.evaluated += len(values)
        losses = as_losses(values, self._problem.columns)
        complete = np.isfinite(losses).all(axis=1)
        inside = complete & (self._problem.violation(losses) <= 0)
        self.allowed += int(inside.sum())
        m = self._problem.n_objectives
        if self._box is None:
            self._first.append(losses[complete, :m])
            known = np.concatenate(self._first)
            if len(known) >= FEWEST:
                self._box = known.min(axis=0), known.max(axis=0)
        if not inside.any():
            return
        front = np.concatenate([self._front, losses[inside, :m]])
        self._front = np.unique(front[non_dominated(front)], axis=0)
        if self._score is not None:
            column = self._problem.columns[self._score]
            best = float(losses[inside, self._score].min()) * (-1.0 if column.direction == "max" else 1.0)
            better = max if column.direction == "max" else min
            self._best = best if self._best is None else better(best, self._best)

    @property
    def best(self) -> float | None:
        """The best score of the allowed archs, in its own unit; None: there is none yet."""
        return self._best

    @property
    def hypervolume(self) -> float:
        """Volume between the front and the worst of the first evaluations (`FEWEST` or a few more) in every objective.

        Its unit is the box from best to worst of these, so that it may become larger than 1; it never shrinks. 0 before
        the box is known or any arch is allowed.
        """
        if self._box is None or not len(self._front):
            return 0.0
        return hypervolume(normalise(self._front, *self._box), np.ones(self._front.shape[1]))

    def note(self, algorithm: str) -> str:
        """Return one line; what comes before its first comma changes with every generation."""
        allowed = f"{self.allowed} of {self.evaluated} within the limits" if self._problem.limits else ""
        best = "" if self._best is None else f"best {self._best:.2f} {self._unit}".strip()
        volume = "" if self._box is None else f"hypervolume {self.hypervolume:.3f}"
        parts = [f"{algorithm} generation {self.generations}", allowed, best, volume]
        return ", ".join(part for part in parts if part)
