"""Pauses of a search, what is drawn in them, and a searcher that goes on with new values only."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from hwnas.errors import SearchError
from hwnas.objectives import Objective
from hwnas.search import (
    SEARCHERS,
    AdaptationConfig,
    Problem,
    Round,
    SearchConfig,
    best_shares,
    gene_distributions,
    make_searcher,
    plan_rounds,
    run_search,
)  # fmt: skip
from hwnas.space import SearchSpace

FLAT = SearchSpace.of_choices({f"op{i}": ["id", "mb3", "mb6"] for i in range(5)}, [["op0", "op1"], ["op2", "op3"]])
DEEP = SearchSpace.of_choices(
    {f"stage{s}.op{i}": ["id", "mb3", "mb6"] for s in (1, 2, 3) for i in range(4)},
    [[f"stage{s}.op{i}" for i in range(4)] for s in (1, 2, 3)],
)
ALGORITHMS = SEARCHERS.names()
EVALUATIONS = 23


def problem_of(space, m):
    """The first objective is to be evaluated, the others are cheap; they pull in different directions."""

    def objective(i):
        weights = np.cos(np.arange(len(space)) * (i + 1.0)) + (0.5 if i else 1.5)

        def of_genomes(genomes):
            return (genomes * weights).sum(axis=1)

        def of_archs(archs):
            return of_genomes(space.encode_many(archs))

        return Objective(f"value{i}", "min" if i else "max", of_archs, i > 0, of_genomes if i else None)

    return Problem(space, tuple(objective(i) for i in range(m)))


def evaluate(problem):
    return lambda archs: np.stack([np.asarray(o.evaluate(archs)) for o in problem.objectives], axis=1)


def shares_of(rounds):
    return [r.share for r in rounds]


def searcher_of(algorithm, problem, evaluations=EVALUATIONS):
    return make_searcher(algorithm, problem, evaluations=evaluations, seed=0, population=5)


@pytest.mark.parametrize("algorithm", ["random", "mdenas", "nsga2", "natv2"])
def test_rounds_split_the_evaluations_evenly(algorithm):
    searcher = searcher_of(algorithm, problem_of(DEEP, 2))
    assert plan_rounds(searcher, 3) == (Round(0.25), Round(0.5), Round(0.75))
    assert shares_of(plan_rounds(searcher, 1)) == [0.5]


def test_rounds_of_a_staged_search_stand_where_its_phases_change():
    searcher = searcher_of("hurricane", problem_of(DEEP, 2))
    first = searcher.n_initial / searcher.evaluations
    later, earlier = first + 0.2 * (1 - first), first + 0.4 * (1 - first)
    assert shares_of(plan_rounds(searcher, 1)) == [earlier]
    assert shares_of(plan_rounds(searcher, 2)) == [later, earlier]
    rest = (1 - earlier) / 3
    assert shares_of(plan_rounds(searcher, 4)) == pytest.approx([later, earlier, earlier + rest, earlier + 2 * rest])
    assert plan_rounds(searcher, 2)[0].held == DEEP.stages[0]
    assert all(r.held == () for r in plan_rounds(searcher, 4)[1:])
    # A space that can be listed is not searched in stages.
    assert shares_of(plan_rounds(searcher_of("hurricane", problem_of(FLAT, 2)), 1)) == [0.5]
    with pytest.raises(SearchError, match="give at least 1"):
        plan_rounds(searcher, 0)


def test_phases_that_hold_stages_are_short_in_a_long_search():
    searcher = make_searcher("hurricane", problem_of(DEEP, 2), evaluations=2000, seed=0)
    ends = [2000 * r.share for r in searcher.phase_changes]
    assert ends == pytest.approx([searcher.n_initial + 100, searcher.n_initial + 200])


def test_what_a_phase_holds_is_that_of_the_first_archs_until_its_round():
    problem = problem_of(DEEP, 2)
    searcher = searcher_of("hurricane", problem, 40)
    first, second = plan_rounds(searcher, 2)
    seen = []

    def reevaluate(number, archs, values):
        seen.append(archs)
        return values

    run_search(
        problem, searcher, evaluate(problem), 40, reevaluate=reevaluate, reevaluate_at=[first.share, second.share]
    )
    held = [DEEP.position(name) for name in first.held]
    genomes = DEEP.encode_many(seen[0])
    assert (searcher.n_initial, len(genomes)) == (12, 18)
    known = {tuple(row) for row in genomes[:12, held].tolist()}
    assert {tuple(row) for row in genomes[12:, held].tolist()} <= known
    assert not {tuple(row) for row in DEEP.encode_many(seen[1])[18:, held].tolist()} <= known


def test_shares_follow_the_archs():
    space = SearchSpace.of_choices({"a": [0, 1], "b": ["x", "y", "z"]})
    shares = gene_distributions(space, np.array([[1, 2], [1, 2], [1, 0]]))
    np.testing.assert_allclose(shares["a"], [0.5 / 4, 3.5 / 4])
    np.testing.assert_allclose(shares["b"], [(1 + 1 / 3) / 4, (1 / 3) / 4, (2 + 1 / 3) / 4])


def test_the_best_are_the_better_half_that_did_not_fail():
    space = SearchSpace.of_choices({"a": list(range(8))})
    problem = replace(problem_of(FLAT, 1), space=space)
    archs = space.decode_many(np.arange(8)[:, None])
    losses = np.array([5.0, 0.0, np.nan, 1.0, 4.0, 2.0, 3.0, np.nan])[:, None]
    spread = 1 / 8
    wanted = np.full(8, spread)
    wanted[[1, 3, 5]] += 1  # 3 of 6 complete ones
    np.testing.assert_allclose(best_shares(problem, archs, losses)["a"], wanted / 4)
    wanted = np.full(8, spread)
    wanted[1] += 1
    np.testing.assert_allclose(best_shares(problem, archs, losses, most=1)["a"], wanted / 2)
    np.testing.assert_allclose(best_shares(problem, archs, np.full((8, 1), np.nan))["a"], np.full(8, spread))


class Drifting:
    """Values that change with every state of the weights, so much that what was good becomes bad."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.state = 0
        self.rounds = []
        self.evaluated = []

    def evaluate(self, archs):
        self.evaluated.extend(archs)
        return self.values(archs)

    def values(self, archs):
        values = evaluate(self.problem)(archs)
        values[:, 0] = values[:, 0] * (-1) ** self.state + 100 * self.state
        return values

    def reevaluate(self, number, archs, values):
        np.testing.assert_array_equal(values, self.values(archs))
        self.state += 1
        assert number == self.state
        self.rounds.append(len(archs))
        return self.values(archs)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_searcher_goes_on_with_new_values_only(algorithm):
    problem = problem_of(DEEP, 2)
    drifting, searcher = Drifting(problem), searcher_of(algorithm, problem)
    result = run_search(
        problem,
        searcher,
        drifting.evaluate,
        EVALUATIONS,
        reevaluate=drifting.reevaluate,
        reevaluate_at=[0.25, 0.5, 0.75],
    )
    assert drifting.rounds == [6, 12, 18]  # 5.75, 11.5 and 17.25, each rounded up
    assert (result.evaluated, result.reevaluations, result.repeated) == (EVALUATIONS, 3, 36)
    assert drifting.evaluated == list(result.archs)
    assert len(set(result.archs)) == EVALUATIONS
    np.testing.assert_array_equal(result.values, drifting.values(result.archs))
    np.testing.assert_array_equal(searcher.memory.losses[:, 0], -result.values[:, 0])
    assert "all archs evaluated again in 3 round(s), which repeated 36 evaluations" in result.message


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_replay_over_rounds_is_identical(algorithm):
    problem = problem_of(DEEP, 2)

    def whole():
        drifting = Drifting(problem)
        return run_search(
            problem, searcher_of(algorithm, problem), drifting.evaluate, EVALUATIONS,
            reevaluate=drifting.reevaluate, reevaluate_at=[0.44, 0.58],
        )  # fmt: skip

    first, again = whole(), whole()
    assert first.archs == again.archs
    np.testing.assert_array_equal(first.values, again.values)


def test_a_search_without_rounds_says_nothing_of_them():
    problem = problem_of(FLAT, 2)
    result = run_search(problem, searcher_of("random", problem), evaluate(problem), 10)
    assert (result.reevaluations, result.repeated) == (0, 0)
    assert "again" not in result.message
    with pytest.raises(SearchError, match="there is no reevaluate"):
        run_search(problem, searcher_of("random", problem), evaluate(problem), 10, reevaluate_at=[0.5])


@pytest.mark.parametrize(
    "bad", [{"rounds": 0}, {"epochs": 0.0}, {"lr": -1.0}, {"subnets_per_step": 0}, {"best": 0}, {"teacher": "pet"}]
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        AdaptationConfig(**bad)


def test_more_rounds_than_evaluations_are_refused():
    with pytest.raises(ValidationError, match=r"adaptation\.rounds 3 needs more evaluations than rounds, got 3"):
        SearchConfig(evaluations=3, adaptation=AdaptationConfig())
    assert SearchConfig.model_validate({"evaluations": 4, "adaptation": {"epochs": 2}}).adaptation.epochs == 2.0
