"""A multinomial distribution for every choice, moved towards options that did better with fewer trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hwnas.search.evolve import fittest
from hwnas.search.memory import Memory
from hwnas.search.problem import Problem
from hwnas.space import Arch

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_REACH = 1.0
"""Sum of the steps of a whole search: an option that wins every comparison with one other gains this much."""
_FLOOR = 0.02
"""Least probability of an option, as a share of the uniform one, so that none is lost for good."""


class MdeNAS:
    """Multinomial distribution learning: draw every gene from its own distribution, then compare its options.

    Option i of a choice is compared with every other option j: fewer trials and more merit raise its probability
    by one step, more trials and less merit lower it. The paper's merit is the accuracy of sampled subnets in
    training; here it is the mean share of evaluated archs that those with the option survive (feasibility, rank,
    crowding), which serves any objectives. The paper's step is 0.01; ours follows from the number of updates.

    Reference:
        Zheng et al., 2019, Multinomial Distribution Learning for Effective Neural Architecture Search (ICCV).
    """

    seconds_per_evaluation: ClassVar = 0.01

    def __init__(self, problem: Problem, evaluations: int, seed: int, population: int | None = None) -> None:
        self.memory = Memory(problem)
        self.population = population or int(np.clip(round(np.sqrt(evaluations)), 4, 50))
        self._rng = np.random.default_rng([seed, 5])
        self._step = _REACH / max(1.0, evaluations / self.population)
        self._p: list[FloatArray] = [np.full(n, 1.0 / n) for n in problem.space.n_options]

    @property
    def probabilities(self) -> list[FloatArray]:
        """For every choice, ``(n_options,)`` probabilities of its options."""
        return [p.copy() for p in self._p]

    def ask(self) -> list[Arch]:
        """Return `population` new archs, fewer or none where the space has no more."""
        genomes = self._draw(self.population)
        self.memory.mark_asked(genomes)
        more = self.memory.draw_new(self._rng, self.population - len(genomes))
        self.memory.mark_asked(more)
        return self.memory.problem.space.decode_many(np.concatenate([genomes, more]))

    def tell(self, archs: Sequence[Arch], losses: FloatArray) -> None:
        """Learn ``(n, columns)`` losses and move the distributions by one step."""
        self.memory.add(archs, losses)
        n = len(self.memory)
        if not self.memory.complete.any():
            return
        known, problem = self.memory.losses, self.memory.problem
        merit = np.empty(n)
        merit[fittest(problem, known, n)] = 1.0 - np.arange(n) / n
        active = problem.space.active(self.memory.genomes)
        for i, p in enumerate(self._p):
            genes, own = self.memory.genomes[active[:, i], i], merit[active[:, i]]
            trials = np.bincount(genes, minlength=len(p))
            mean = np.bincount(genes, own, len(p)) / np.maximum(trials, 1)
            tried = trials > 0  # an option without trials has no merit to compare
            both = tried[:, None] & tried[None, :]
            fewer, better = trials[:, None] < trials[None, :], mean[:, None] > mean[None, :]
            wins = (fewer & better & both).sum(axis=1) - (fewer.T & better.T & both).sum(axis=1)
            moved = np.maximum(p + self._step * wins, _FLOOR / len(p))
            self._p[i] = moved / moved.sum()

    def _draw(self, n: int) -> IntArray:
        """At most ``n`` new genomes of the distributions; those within the limits on cheap values first."""
        problem = self.memory.problem
        pool = np.stack([self._rng.choice(len(p), 20 * n, p=p) for p in self._p], axis=1)
        pool = problem.space.canonical(pool)
        pool = pool[self.memory.is_new(pool)]
        if problem.cheap_limits and len(pool):
            pool = pool[np.argsort(problem.violation(problem.cheap_losses(pool)), kind="stable")]
        return pool[:n]
