"""Multinomial distribution learning: what a step does, and where many lead."""

import numpy as np
import pytest

from hwnas.objectives import Objective
from hwnas.search.mdenas import MdeNAS
from hwnas.search.problem import Problem
from hwnas.space import SearchSpace


def problem_of(space, value):
    return Problem(space, (Objective("loss", "min", lambda archs: [value(a) for a in archs]),))


def test_a_step_rewards_more_merit_from_fewer_trials():
    space = SearchSpace.of_choices({"a": [0, 1, 2], "b": [0, 1, 2]})
    searcher = MdeNAS(problem_of(space, lambda a: 0.0), evaluations=40, seed=0, population=4)
    archs = [space.arch({"a": a, "b": b}) for a, b in ((0, 0), (1, 1), (1, 0))]
    searcher.tell(archs, np.array([[1.0], [2.0], [3.0]]))  # merits 1, 2/3, 1/3
    first, second = searcher.probabilities
    step = 1.0 / 10
    # a: option 0 has one trial of merit 1, option 1 two of mean 1/2: one win, one loss; option 2 was never tried
    np.testing.assert_allclose(first, [1 / 3 + step, 1 / 3 - step, 1 / 3])
    # b: option 1 has one trial of merit 2/3, option 0 two of mean 2/3: no difference
    np.testing.assert_allclose(second, [1 / 3] * 3)


@pytest.mark.parametrize("seed", range(3))
def test_distributions_find_the_best_options(seed):
    space = SearchSpace.of_choices({f"c{i}": [0, 1, 2, 3] for i in range(8)})
    problem = problem_of(space, lambda a: sum((a[f"c{i}"] - i % 4) ** 2 for i in range(8)))
    searcher = MdeNAS(problem, evaluations=400, seed=seed)
    best = np.inf
    for _ in range(20):
        archs = searcher.ask()
        losses = np.array([problem.objectives[0].evaluate(archs)], dtype=float).T
        best = min(best, losses.min())
        searcher.tell(archs, losses)
    rng = np.random.default_rng(seed)
    drawn = np.median([min(problem.objectives[0].evaluate(space.sample(rng, 400))) for _ in range(5)])
    assert best < drawn
    assert all(np.isclose(p.sum(), 1) and p.min() > 0 for p in searcher.probabilities)
