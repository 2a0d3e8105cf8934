"""Evolution without a model: NSGA-II on genomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2 as PymooNSGA2
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.core.problem import Problem as PymooProblem
from pymoo.core.repair import Repair
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM

from hwnas.search.memory import Memory, genome_keys
from hwnas.search.problem import Problem
from hwnas.space import Arch, SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_FAILED = 1e9
"""Constraint violation of a failed evaluation: it ranks behind every arch that has losses."""


class NSGA2:
    """pymoo's NSGA-II with integer genomes; offspring are as many as the population.

    SBX with eta 3 and probability 0.9, polynomial mutation with eta 3, as in XNAS; genes are rounded, genomes
    made canonical, and whatever was asked for or told before is never proposed again (pymoo compares with the
    current population only). When mating finds nothing new, random archs fill the generation.

    Reference:
        Deb et al., 2002, NSGA-II; Carmichael et al., 2023, XNAS (operators).
    """

    seconds_per_evaluation: ClassVar = 0.01

    def __init__(self, problem: Problem, evaluations: int, seed: int, population: int | None = None) -> None:
        self.memory = Memory(problem)
        self.population = population or int(np.clip(round(1.5 * np.sqrt(evaluations)), 8, 100))
        self._rng = np.random.default_rng([seed, 1])
        self._answered: dict[bytes, Individual] = {}
        self._algorithm = PymooNSGA2(
            pop_size=self.population,
            crossover=SBX(eta=3, prob=0.9),
            mutation=PM(eta=3),
            repair=_Canonical(problem.space),
            eliminate_duplicates=_New(self.memory),
            seed=seed,
        )
        self._algorithm.termination = NoTermination()  # the constructor sets its own
        self._algorithm.setup(
            PymooProblem(
                n_var=len(problem.space),
                n_obj=problem.n_objectives,
                n_ieq_constr=1,
                xl=np.zeros(len(problem.space)),
                xu=problem.space.n_options - 1.0,
            )
        )

    def ask(self) -> list[Arch]:
        """Return the next generation; what was told since the last call has survived or died by then."""
        space = self.memory.problem.space
        if self._answered:
            self._algorithm.tell(infills=Population.create(*self._answered.values()))
            self._answered = {}
        genomes = np.zeros((0, len(space)), dtype=np.int64)
        if self._algorithm.is_initialized and self.memory.n_new:
            offspring = self._algorithm.mating.do(
                self._algorithm.problem,
                self._algorithm.pop,
                self.population,
                n_max_iterations=20,
                algorithm=self._algorithm,
                random_state=self._algorithm.random_state,
            )
            if len(offspring):
                genomes = offspring.get("X").astype(np.int64)
        self.memory.mark_asked(genomes)
        more = self.memory.draw_new(self._rng, self.population - len(genomes))
        self.memory.mark_asked(more)
        return space.decode_many(np.concatenate([genomes, more]))

    def tell(self, archs: Sequence[Arch], losses: FloatArray) -> None:
        """Learn ``(n, columns)`` losses; they enter the population at the next `ask`."""
        problem = self.memory.problem
        genomes = self.memory.add(archs, losses)
        losses = np.asarray(losses, dtype=float)
        failed = np.asarray(~np.isfinite(losses).all(axis=1), dtype=bool)
        over = np.where(failed, _FAILED, problem.violation(losses))
        alive = {} if self._algorithm.pop is None else {genome_keys(i.X[None])[0]: i for i in self._algorithm.pop}
        for key, genome, row, bad, g in zip(genome_keys(genomes), genomes, losses, failed, over, strict=True):
            individual = alive.get(key)
            if individual is None:
                individual = self._answered[key] = Individual(X=genome.astype(float))
            individual.F = np.zeros(problem.n_objectives) if bad else row[: problem.n_objectives].copy()
            individual.G = np.array([g])
            individual.evaluated.update(("F", "G", "H"))


class _Canonical(Repair):  # type: ignore[misc]
    """Round genes and set those of inactive choices to 0."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space

    def _do(self, problem: Any, genomes: FloatArray, **kwargs: Any) -> FloatArray:
        rounded = np.clip(np.rint(genomes), problem.xl, problem.xu).astype(np.int64)
        return self.space.canonical(rounded).astype(float)


class _New(DuplicateElimination):  # type: ignore[misc]
    """Drop what the search has seen, and repetitions."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory

    def do(self, population: Any, *others: Any, **kwargs: Any) -> Any:
        if len(population) == 0:
            return population
        genomes = population.get("X").astype(np.int64)
        keep = self.memory.is_new(genomes)
        others_seen = {k for o in others if len(o) for k in genome_keys(o.get("X").astype(np.int64))}
        keep &= np.array([k not in others_seen for k in genome_keys(genomes)])
        return population[keep]
