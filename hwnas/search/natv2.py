"""Search with a predictor: evaluate few archs, predict the rest (first version)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwnas.pareto import non_dominated_rank
from hwnas.predictors import PREDICTORS, Inputs
from hwnas.search.memory import Memory
from hwnas.search.problem import Problem, evaluate_genomes
from hwnas.space import Arch

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class NATv2:
    """First version: archive, Gaussian process, lower confidence bound front."""

    def __init__(
        self,
        problem: Problem,
        evaluations: int,
        seed: int,
        population: int | None = None,
        predictor: str = "gp",
    ) -> None:
        self.memory = Memory(problem)
        self.population = population or max(1, min(25, evaluations // 20))
        self.n_initial = max(self.population, min(300, evaluations // 4))
        self.notes: list[str] = []
        self._predictor = PREDICTORS[predictor]()
        self._rng = np.random.default_rng(seed)

    def _inputs(self, genomes: IntArray) -> Inputs:
        problem = self.memory.problem
        exact = [evaluate_genomes(o, problem.space, genomes) for o in problem.capacity]
        return Inputs(problem.space, genomes, np.array(exact).T.reshape(len(genomes), len(exact)))

    def ask(self) -> list[Arch]:
        """Return the next generation."""
        memory = self.memory
        space = memory.problem.space
        known = np.flatnonzero(memory.complete)
        if memory.n_seen < self.n_initial or len(known) < 5:
            genomes = memory.draw_new(self._rng, max(self.population, self.n_initial - memory.n_seen))
        else:
            pool = space.all_genomes() if space.size <= 100_000 else space.sample_genomes(self._rng, 5000)
            pool = pool[memory.is_new(pool)]
            if not len(pool):
                pool = memory.draw_new(self._rng, self.population)
            losses = memory.problem.cheap_losses(pool)
            train = self._inputs(memory.genomes[known])
            test = self._inputs(pool)
            for column in memory.problem.expensive_columns:
                mean, std = self._predictor.fit(train, memory.losses[known, column]).predict(test)
                losses[:, column] = mean - std
            over = memory.problem.violation(losses)
            rank = non_dominated_rank(np.concatenate([losses, memory.losses[known]]))[: len(pool)]
            order = np.lexsort((self._rng.random(len(pool)), rank, over))
            genomes = pool[order[: self.population]]
        memory.mark_asked(genomes)
        return space.decode_many(genomes)

    def tell(self, archs: Sequence[Arch], losses: FloatArray) -> None:
        """Learn ``(n, m)`` losses."""
        self.memory.add(archs, losses)
