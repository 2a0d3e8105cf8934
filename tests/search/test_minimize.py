"""One call for any space and any objectives, and what it says when something is wrong."""

from functools import partial

import numpy as np
import pytest

from hwnas.errors import PluginError, RecipeError, SearchError, SpaceError
from hwnas.objectives import Objective
from hwnas.search import Problem, make_searcher, minimize, run_search
from hwnas.space import SearchSpace

SPACE = SearchSpace.of_choices(
    {f"op{i}": [0, 1, 2, 3] for i in range(5)}, stages=[["op0", "op1"], ["op2", "op3", "op4"]]
)


def total(archs):
    return [float(sum(a.int(n) for n in a)) for a in archs]


def squares(archs):
    return [float(sum(a.int(n) ** 2 for n in a)) for a in archs]


SCORE = Objective("score", "max", total)
LATENCY = Objective("latency_ms", "min", squares, cheap=True)


def test_finds_the_closed_form_front():
    # A sum s is cheapest as evenly spread as possible; sums 0 to 15 give the 16 points of the front.
    result = minimize(SPACE, [SCORE, LATENCY], evaluations=150, seed=0)
    best = {}
    for s in range(16):
        low, more = divmod(s, 5)
        best[float(s)] = float((5 - more) * low**2 + more * (low + 1) ** 2)
    found = dict(result.values[result.front].tolist())
    assert set(found.items()) <= set(best.items())
    assert len(found) >= 14


def test_values_stay_in_own_units_and_order():
    result = minimize(SPACE, [SCORE, LATENCY], searcher="random", evaluations=7, seed=2)
    np.testing.assert_array_equal(result.values, np.stack([total(result.archs), squares(result.archs)], axis=1))


def test_limits_hold_and_the_front_is_feasible():
    result = minimize(SPACE, [SCORE, LATENCY], evaluations=60, constraints=["latency_ms<=9", "score>=4"])
    assert len(result.front)
    assert (result.values[result.front, 1] <= 9).all()
    assert (result.values[result.front, 0] >= 4).all()


def test_only_infeasible_says_which_limit_binds_and_what_is_closest():
    result = minimize(SPACE, [SCORE, LATENCY], evaluations=60, constraints=["score>=99", "latency_ms<=45"])
    assert len(result.front) == 0
    assert "score>=99 binds (60 of 60 archs break it); the closest arch is" in result.message


def test_an_objective_that_raises_for_some_archs_is_recorded_failed():
    def fails(archs):
        if any(a.int("op0") == 3 for a in archs):
            raise KeyError("no row for op0=3")
        return total(archs)

    result = minimize(SPACE, [Objective("score", "max", fails), LATENCY], evaluations=50, seed=1)
    failed = np.isnan(result.values[:, 0])
    assert failed.tolist() == [a.int("op0") == 3 for a in result.archs]
    assert failed.any()
    assert result.evaluated == 50
    assert "objective 'score' failed: KeyError: 'no row for op0=3'" in result.message


def test_nan_from_a_cheap_objective_keeps_the_arch_out():
    def sometimes(archs):
        return [np.nan if a.int("op1") == 2 else v for a, v in zip(archs, squares(archs), strict=True)]

    result = minimize(SPACE, [SCORE, Objective("latency_ms", "min", sometimes, cheap=True)], evaluations=60)
    assert np.isnan(result.values[:, 1]).mean() < 0.25
    assert np.isfinite(result.values[result.front]).all()


def test_every_evaluation_fails():
    result = minimize(SPACE, [Objective("score", "max", lambda archs: [np.nan] * len(archs))], evaluations=20)
    assert result.evaluated == 20
    assert "every evaluation failed" in result.message


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"objectives": []}, SearchError, "at least one objective"),
        ({"objectives": [SCORE, SCORE]}, SearchError, "repeat a name"),
        ({"searcher": "anneal"}, PluginError, "known are hurricane"),
        ({"evaluations": 0}, SearchError, "give at least 1"),
        ({"seed": -1}, SearchError, "give 0 or more"),
        ({"constraints": ["latency<=5"]}, SearchError, "no value that provides them"),
        ({"constraints": ["latency_ms < 5"]}, SearchError, "not of the form"),
        ({"constraints": ["latency_ms<=5", "latency_ms>=7"]}, SearchError, "contradict"),
        (
            {"constraints": ["params<=5"], "limited": []},
            SearchError,
            r"'score', 'latency_ms'\], limited values are \[\]",
        ),
        ({"constraints": ["edge-tpu:latency_ms<=5"]}, SearchError, "for one device, but minimize knows none"),
        ({"limited": [LATENCY]}, SearchError, "repeat a name"),
        ({"capacity": [SCORE]}, SearchError, "must be cheap"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, error, text):
    given = {"objectives": [SCORE, LATENCY], "evaluations": 5} | arguments
    objectives = given.pop("objectives")
    with pytest.raises(error, match=text):
        minimize(SPACE, objectives, **given)


def test_an_objective_without_provider():
    with pytest.raises(RecipeError, match="has no provider"):
        Objective("score", "max", None)


def test_a_warm_start_of_another_space():
    other = SearchSpace.of_choices({"a": [1, 2]})
    with pytest.raises(SpaceError):
        minimize(SPACE, [SCORE], evaluations=5, warm_start=([other.smallest()], np.zeros((1, 1))))


def test_values_of_the_wrong_shape():
    problem = Problem(SPACE, (SCORE, LATENCY))
    searcher = make_searcher("random", problem, evaluations=5, seed=0)
    with pytest.raises(SearchError, match="one row an arch and one column a value"):
        run_search(problem, searcher, lambda archs: np.zeros((len(archs), 1)), 5)


def test_on_generation_can_stop_and_counts_archs():
    problem, seen = Problem(SPACE, (SCORE,)), []
    searcher = make_searcher("random", problem, evaluations=40, seed=0, population=8)
    result = run_search(
        problem,
        searcher,
        lambda archs: np.array([total(archs)]).T,
        40,
        on_generation=lambda g: seen.append((g.number, g.evaluated)) or g.number == 2,
    )
    assert seen == [(1, 8), (2, 16)]
    assert result.ended == "stopped"


def test_features_reach_the_search():
    def high(genomes):
        return (genomes > 1).astype(float)

    asked = minimize(SPACE, [SCORE, LATENCY], evaluations=30, features=high)
    problem = Problem(SPACE, (SCORE, LATENCY), features=high)

    def evaluate(archs):
        return np.stack([o.evaluate(archs) for o in problem.objectives], axis=1)

    direct = run_search(problem, make_searcher("hurricane", problem, evaluations=30, seed=0), evaluate, 30)
    assert list(asked.archs) == list(direct.archs)
    assert list(asked.archs) != list(minimize(SPACE, [SCORE, LATENCY], evaluations=30).archs)


def test_a_searcher_of_ones_own():
    class InOrder:
        def __init__(self, problem, evaluations, seed, step=1):
            self.archs = problem.space.decode_many(problem.space.all_genomes(2000))[::step]

        def ask(self):
            asked, self.archs = self.archs[:10], self.archs[10:]
            return asked

        def tell(self, archs, losses):
            pass

    result = minimize(SPACE, [SCORE], searcher=partial(InOrder, step=3), evaluations=25)
    assert list(result.archs) == SPACE.decode_many(SPACE.all_genomes(2000))[::3][:25]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"constraints": "x<=3"}, r"constraints is one text; give a list, such as \['x<=3'\]"),
        ({"evaluations": 2.5}, "evaluations and seed are whole numbers, got 2.5 and 0"),
        ({"evaluations": "9"}, "evaluations and seed are whole numbers"),
        ({"seed": "x"}, "evaluations and seed are whole numbers"),
        ({"objectives": ["x"]}, "'x' is no objective; make one with hwnas.Objective"),
        ({"objectives": [Objective("x", "min", lambda archs: [1.0])]}, r"'x' returned shape \(1,\) for \d+ archs"),
        ({"objectives": [Objective("x", "min", lambda archs: None)]}, "'x' returned .* for .* archs"),
        ({"objectives": [Objective("x", "min", lambda archs: ["a"] * len(archs))]}, "return one float each"),
    ],
)
def test_arguments_that_cannot_be_meant_are_named_at_once(changes, message):
    arguments = {"objectives": [Objective("x", "min", total)], "evaluations": 6, "seed": 0} | changes
    with pytest.raises(SearchError, match=message):
        minimize(SPACE, **arguments)
