"""One grammar of limits, on objectives and on values that are not optimised."""

from functools import partial

import numpy as np
import pytest

from hwnas.errors import SearchError
from hwnas.objectives import Objective, as_losses
from hwnas.search import SEARCHERS, Limit, Problem, check_limits, limits_for, make_searcher, minimize, run_search
from hwnas.space import SearchSpace

SPACE = SearchSpace.of_choices({f"op{i}": [0, 1, 2, 3] for i in range(7)})
RARE = SearchSpace.of_choices({f"op{i}": [0, 1, 2, 3] for i in range(10)})  # too large to be listed


def gain(archs):
    return [float(sum((i + 1) * a.int(n) for i, n in enumerate(a))) for a in archs]


def cost(archs):
    return [float(sum(a.int(n) ** 2 for n in a)) for a in archs]


def heat(archs):
    """Falls with what the gain rises with."""
    return [float(sum(4 * (a.int(n) == 3) + 2 * (a.int(n) == 2) for n in a)) for a in archs]


GAIN = Objective("gain", "max", gain)
COST = Objective("cost_ms", "min", cost, cheap=True)
EXACT_HEAT = Objective("heat_w", "min", heat, cheap=True)
HEAT = Objective("heat_w", "min", heat)


def searcher(name):
    """With a predictor, few generations, so few fits."""
    return partial(SEARCHERS.get(name), **({"population": 8} if name in ("natv2", "hurricane") else {}))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("latency_ms<=5", Limit(None, "latency_ms", "<=", 5.0)),
        (" top1_percent >= 98 ", Limit(None, "top1_percent", ">=", 98.0)),
        ("edge-tpu:latency_ms<=3", Limit("edge-tpu", "latency_ms", "<=", 3.0)),
        ("my.board_2 : params<=1e6", Limit("my.board_2", "params", "<=", 1e6)),
        ("my-score>=-0.5", Limit(None, "my-score", ">=", -0.5)),
        ("edge-tpu:f1.macro>=0.9", Limit("edge-tpu", "f1.macro", ">=", 0.9)),
    ],
)
def test_what_is_printed_can_be_read(text, limit):
    assert Limit.parse(text) == limit
    assert Limit.parse(str(limit)) == limit


@pytest.mark.parametrize("text", ["fast", "latency_ms<5", "latency_ms<=", "a:b:c<=1", ":x<=1", ""])
def test_another_form_is_refused_in_one_line(text):
    with pytest.raises(SearchError, match=r"is not of the form VALUE<=NUMBER or VALUE>=NUMBER") as error:
        Limit.parse(text)
    assert "\n" not in str(error.value)


def test_a_device_gets_the_limits_of_all_and_its_own():
    limits = [Limit.parse(t) for t in ("a<=1", "dsp:a<=2", "npu:b>=3")]
    assert limits_for(limits, "dsp") == (limits[0], limits[1])
    assert limits_for(limits, "npu") == (limits[0], limits[2])
    assert limits_for(limits, None) == (limits[0],)


def test_limits_of_one_device_contradict_those_of_all_but_not_those_of_another():
    check_limits([Limit.parse(t) for t in ("dsp:a<=1", "npu:a>=2")])
    with pytest.raises(SearchError, match=r"npu:a>=2 and a<=1 contradict each other"):
        check_limits([Limit.parse(t) for t in ("a<=1", "dsp:a<=0.5", "npu:a>=2")])


@pytest.mark.parametrize("algorithm", SEARCHERS.names())
@pytest.mark.parametrize("heat_of", [EXACT_HEAT, HEAT], ids=["exact", "evaluated"])
def test_a_limited_value_is_a_column_that_decides_what_is_allowed_but_not_what_is_better(algorithm, heat_of):
    result = minimize(
        SPACE, [GAIN, COST], searcher=searcher(algorithm), evaluations=40, constraints=["heat_w<=8"], limited=[heat_of]
    )
    np.testing.assert_array_equal(result.values, np.stack([f(result.archs) for f in (gain, cost, heat)], axis=1))
    assert result.feasible.tolist() == (result.values[:, 2] <= 8).tolist()
    front = result.losses[result.front, :2]
    others = result.losses[result.feasible, :2]
    assert len(front)
    dominated = (others[None] <= front[:, None]).all(axis=2) & (others[None] < front[:, None]).any(axis=2)
    assert not dominated.any()


@pytest.mark.parametrize("algorithm", ["random", "mdenas", "natv2", "hurricane"])
def test_exact_limited_values_are_kept_before_anything_is_evaluated(algorithm):
    result = minimize(
        SPACE,
        [GAIN, COST],
        searcher=searcher(algorithm),
        evaluations=40,
        constraints=["heat_w<=10"],
        limited=[EXACT_HEAT],
    )
    free = minimize(SPACE, [GAIN, COST], searcher=searcher(algorithm), evaluations=40, limited=[EXACT_HEAT])
    assert (result.values[:, 2] <= 10).mean() >= 0.9 > 0.75 > (free.values[:, 2] <= 10).mean()


@pytest.mark.parametrize("space", [SPACE, RARE], ids=["listed", "evolved"])
def test_an_evaluated_limited_value_is_predicted(space):
    """A third of the first archs keep the limit; once it is predicted, most that are asked for do."""
    problem = Problem(space, (GAIN, COST), (Limit.parse("heat_w<=8"),), limited=(HEAT,))
    made = make_searcher("natv2", problem, evaluations=80, seed=0, population=4)

    def evaluate(archs):
        return np.stack([np.asarray(o.evaluate(archs)) for o in problem.columns], axis=1)

    result = run_search(problem, made, evaluate, 80)
    heats = result.values[:, 2]
    first = made.n_initial
    assert (heats[:first] <= 8).mean() < 0.6
    assert (heats[first:] <= 8).mean() > 0.85
    assert set(made.predictor_quality()) == {"gain", "heat_w"}


@pytest.mark.parametrize("algorithm", ["random", "mdenas", "nsga2"])
def test_a_limited_value_without_a_limit_changes_nothing_where_nothing_is_predicted(algorithm):
    bare = minimize(SPACE, [GAIN, COST], searcher=searcher(algorithm), evaluations=60)
    more = minimize(SPACE, [GAIN, COST], searcher=searcher(algorithm), evaluations=60, limited=[HEAT])
    assert bare.archs == more.archs
    np.testing.assert_array_equal(bare.front, more.front)


def test_a_failed_limited_value_is_a_failed_evaluation():
    def sometimes(archs):
        return [np.nan if a.int("op0") == 3 else v for a, v in zip(archs, heat(archs), strict=True)]

    result = minimize(SPACE, [GAIN], evaluations=40, limited=[Objective("heat_w", "min", sometimes)])
    assert np.isnan(result.values[:, 1]).any()
    assert not result.feasible[np.isnan(result.values[:, 1])].any()


def test_a_maximised_limited_value_keeps_its_sign():
    problem = Problem(SPACE, (COST,), (Limit.parse("gain>=20"),), limited=(GAIN,))
    losses = as_losses(np.array([[1.0, 15.0], [1.0, 20.0]]), problem.columns)
    np.testing.assert_allclose(problem.violation(losses), [0.25, 0.0])


def test_the_binding_limit_is_named_with_the_closest_arch():
    result = minimize(SPACE, [GAIN], evaluations=20, constraints=["heat_w<=-1"], limited=[EXACT_HEAT])
    assert "heat_w<=-1 binds (20 of 20 archs break it)" in result.message
    assert "heat_w=0" in result.message


@pytest.mark.parametrize(
    "text", ["params<=3k", "latency_ms<=5ms", "x<=1e999", "params<=inf", "params<=nan", "params<=1,000"]
)
def test_a_bound_that_is_no_number_is_named(text):
    with pytest.raises(SearchError, match=f"limit '{text}': '{text.partition('=')[2]}' is no finite number"):
        Limit.parse(text)
