"""The baseline: new archs at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hwnas.search.memory import Memory
from hwnas.search.problem import Problem
from hwnas.space import Arch


class RandomSearch:
    """Draw new archs, every option of a choice as likely as the next; limits on cheap values reject."""

    seconds_per_evaluation: ClassVar = 0.001

    def __init__(self, problem: Problem, evaluations: int, seed: int, population: int | None = None) -> None:
        self.memory = Memory(problem)
        self.population = population or max(1, min(50, evaluations))
        self._rng = np.random.default_rng(seed)

    def ask(self) -> list[Arch]:
        """Return `population` new archs, fewer or none where the space has no more."""
        genomes = self.memory.draw_new(self._rng, self.population)
        self.memory.mark_asked(genomes)
        return self.memory.problem.space.decode_many(genomes)

    def tell(self, archs: Sequence[Arch], losses: NDArray[np.float64]) -> None:
        """Remember ``archs`` as seen; their losses change nothing."""
        self.memory.add(archs, losses)
