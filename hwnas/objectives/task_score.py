"""The scores of a recipe's task are objectives without anybody saying so."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

from hwnas.objectives.case import SubnetCase
from hwnas.objectives.plugin import EvaluatedObjective, Observer
from hwnas.task import Score


@dataclass(frozen=True)
class TaskScore(EvaluatedObjective):
    """One score of the task, from the task's own meter; its standard error comes with it."""

    name: str
    title: str
    direction: Literal["min", "max"]

    @classmethod
    def of(cls, score: Score) -> TaskScore:
        """Return a score as an objective."""
        return cls(score.name, score.title, score.direction)

    def observer(self, case: SubnetCase) -> AbstractContextManager[Observer]:
        """Return a meter of the task; it gives the task's other scores, too."""
        return nullcontext(case.task.meter())
