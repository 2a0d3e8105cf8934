"""What searchers promise beyond the protocol: limits kept beforehand, restarts, first archs, judged predictors."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from hwnas.errors import PluginError, SearchError
from hwnas.objectives import Objective, as_losses
from hwnas.predictors import Encoder
from hwnas.search import SEARCHERS, Limit, Problem, make_searcher, run_search
from hwnas.search.natv2 import NATv2
from hwnas.search.settings import NATv2Settings
from hwnas.space import SearchSpace
from hwnas.testing.searcher import LARGE, SMALL, evaluate, problem_of

ALGORITHMS = SEARCHERS.names()


def search(algorithm, problem, evaluations, seed=0, **settings):
    """A large population keeps the number of fitted models, and so the test, small."""
    settings = {"population": max(4, evaluations // 6), **settings}
    searcher = make_searcher(algorithm, problem, evaluations=evaluations, seed=seed, **settings)
    return run_search(problem, searcher, evaluate(problem), evaluations)


@pytest.mark.parametrize("algorithm", ["nsga2", "natv2", "hurricane"])
def test_better_than_random_at_equal_evaluations(algorithm):
    problem = problem_of(LARGE, 1)
    best = {a: np.mean([search(a, problem, 60, s).losses.min() for s in range(3)]) for a in (algorithm, "random")}
    assert best[algorithm] < best["random"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_limits_on_cheap_objectives_are_kept_before_evaluation(algorithm):
    base = problem_of(LARGE, 2)
    limit = float(np.median(base.objectives[1].evaluate(LARGE.sample(np.random.default_rng(0), 200))))
    problem = Problem(LARGE, base.objectives, (Limit(None, "value1", "<=", limit),))
    result = search(algorithm, problem, 40)
    assert result.feasible.mean() > (0.5 if algorithm == "nsga2" else 0.99)


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("selection", ["turns", "gaps", "improvement"])
def test_every_way_to_select_works_with_any_number_of_objectives(selection, m):
    problem = problem_of(LARGE, m)
    searcher = make_searcher("natv2", problem, evaluations=24, seed=0, population=3, selection=selection)
    result = run_search(problem, searcher, evaluate(problem), 24)
    assert len(set(result.archs)) == 24


@pytest.mark.parametrize("algorithm", ["natv2", "hurricane"])
def test_the_smallest_and_the_largest_arch_are_always_among_the_first(algorithm):
    for seed in range(5):
        problem = problem_of(LARGE, 2)
        searcher = make_searcher(algorithm, problem, evaluations=40, seed=seed)
        first = searcher.ask()
        assert len(set(first)) == len(first) == searcher.n_initial
        ends = [LARGE.smallest(), LARGE.largest()]
        if algorithm == "hurricane":  # of the part of the space that the device's costs leave
            part = searcher.specialisation.restricted
            ends = [LARGE.arch(a.as_dict()) for a in (part.smallest(), part.largest())]
        assert set(ends) <= set(first)


def test_a_bound_outside_the_limits_is_not_among_the_first():
    base = problem_of(LARGE, 2)
    cost = {a: base.objectives[1].evaluate([a])[0] for a in (LARGE.smallest(), LARGE.largest())}
    dear = max(cost, key=cost.get)
    limited = replace(base, limits=(Limit(None, "value1", "<=", (max(cost.values()) + min(cost.values())) / 2),))
    first = make_searcher("natv2", limited, evaluations=40, seed=0).ask()
    assert dear not in first
    assert min(cost, key=cost.get) in first


@pytest.mark.parametrize("algorithm", ["natv2", "hurricane"])
def test_the_first_archs_under_a_limit_take_options_that_rarely_fit(algorithm):
    widths = {f"width{i}": [1, 2, 3] for i in range(20)}
    space = SearchSpace.of_choices({"resolution": [160, 192, 224], **widths})

    def cost_ms(archs):
        return [(a["resolution"] / 160) ** 2 * sum(a[name] for name in widths) for a in archs]

    objectives = (
        Objective("loss", "min", lambda archs: [0.0 for _ in archs]),
        Objective("cost_ms", "min", cost_ms, cheap=True),
    )
    problem = Problem(space, objectives, (Limit(None, "cost_ms", "<=", 42.0),))
    draws = space.sample(np.random.default_rng(0), 2000)
    fitting = [a for a, cost in zip(draws, cost_ms(draws), strict=True) if cost <= 42.0]
    assert sum(a["resolution"] > 160 for a in fitting) < 0.01 * len(fitting)
    first = make_searcher(algorithm, problem, evaluations=60, seed=0).ask()
    assert max(cost_ms(first)) <= 42.0
    assert sum(a["resolution"] > 160 for a in first) >= 0.25 * len(first)


@pytest.mark.parametrize("limit", [0, 1, 2])
@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_a_small_space_under_a_limit_is_searched_to_its_end(n, limit):
    space = SearchSpace.of_choices({"a": [0, 1], "b": [0, 1, 2]})
    objectives = (
        Objective("loss", "min", lambda archs: [a["a"] + a["b"] for a in archs]),
        Objective("cost_ms", "min", lambda archs: [a["b"] for a in archs], cheap=True),
    )
    problem = Problem(space, objectives, (Limit(None, "cost_ms", "<=", limit),))
    searcher = make_searcher("natv2", problem, evaluations=n, seed=0)
    result = run_search(problem, searcher, evaluate(problem), n)
    assert len(result.archs) == n
    feasible = 2 * (limit + 1)
    assert sum(a["b"] <= limit for a in result.archs) == min(n, feasible)


def test_a_predictor_of_many_archs_learns_from_the_best_and_from_all_the_rest():
    space = SearchSpace.of_choices({f"op{i}": list("abcd") for i in range(12)})
    problem = problem_of(space, 1)
    searcher = make_searcher("natv2", problem, evaluations=3000, seed=0)
    archs = space.sample(np.random.default_rng(0), 1500)
    searcher.tell(archs, np.arange(1500.0)[:, None])
    assert searcher.predictor_quality()[problem.objectives[0].name].archs == 1000
    rows = searcher._learnt()
    assert (rows[:500] == np.arange(500)).all()
    assert (np.diff(rows[500:]) <= 3).all()
    assert rows[-1] == 1499


class Mean:
    """Predicts the mean, whatever it is asked for."""

    def fit(self, inputs, values):
        self.mean = values.mean()
        return self

    def predict(self, inputs):
        return np.full(len(inputs), self.mean), np.ones(len(inputs))


def stalling(n_warm_start=0, improve_at=(), evaluations=800):
    """Search a large space in which only the first arch, and those at ``improve_at``, are better than all before."""
    space = SearchSpace.of_choices({f"op{i}": list("abcd") for i in range(12)})
    problem = problem_of(space, 1)
    searcher = make_searcher("natv2", problem, evaluations=evaluations, seed=0, population=50, predictor=Mean())
    known = list(dict.fromkeys(space.sample(np.random.default_rng(3), n_warm_start)))
    told, sizes = 0, []

    def values(archs):
        nonlocal told
        rows = np.arange(told, told + len(archs))
        told += len(archs)
        return np.where(np.isin(rows, [0, *improve_at]), rows + 10.0, 1.0)[:, None]

    def size(generation):
        sizes.append((generation.evaluated - len(generation.archs), len(generation.archs)))

    warm_start = (known, values(known)) if n_warm_start else None
    return searcher, run_search(problem, searcher, values, evaluations, size, warm_start), sizes


def test_a_stalled_search_of_a_large_space_begins_anew():
    searcher, result, sizes = stalling()
    first = searcher.n_initial
    assert sizes[0] == (0, first)
    begun = [done for done, n in sizes if n == first and done]
    assert len(begun) == 1, "of 800, the second try leaves too little for a third"
    assert 200 < begun[0] <= 260
    assert result.evaluated == 800
    assert f"began anew after {begun[0]} evaluations, as 200 had not changed the front" in result.message
    assert searcher._learnt().min() == begun[0]


def test_a_search_that_goes_on_finding_does_not_begin_anew():
    searcher, result, _ = stalling(improve_at=(150, 340))
    assert searcher._learnt().min() == 0
    assert "began anew" not in result.message


def test_a_warm_start_does_not_count_as_stalled():
    searcher, result, sizes = stalling(n_warm_start=300, evaluations=450)
    assert "began anew" not in result.message
    assert [n for _, n in sizes] == [50] * 9
    assert len(searcher._learnt()) == 750


def test_a_predictor_that_cannot_be_fitted_is_replaced_and_the_message_says_so():
    class Broken:
        def fit(self, inputs, values):
            raise ValueError("no pivot")

    result = search("natv2", problem_of(LARGE, 2), 30, predictor=Broken())
    assert result.evaluated == 30
    assert "predictor Broken was replaced by the mean: no pivot" in result.message


def test_a_predictor_is_judged_on_archs_that_it_was_not_fitted_to():
    problem = problem_of(LARGE, 3)
    searcher = make_searcher("natv2", problem, evaluations=40, seed=0, population=13)
    assert searcher.predictor_quality() == {}  # nothing is known yet
    result = run_search(problem, searcher, evaluate(problem), 40)
    found = searcher.predictor_quality()
    assert set(found) == {"value0", "value1"}  # the last is cheap
    for i, quality in enumerate(found.values()):
        assert (quality.predictor, quality.archs, quality.folds) == ("gp_groups", 40, 5)
        assert quality.metrics.kendall_tau > 0.6
        assert 0 < quality.metrics.rmse < result.values[:, i].std()
    assert "5 folds of 40 archs" in str(found["value0"])
    few = make_searcher("natv2", problem, evaluations=40, seed=0)
    few.tell(result.archs[:3], result.losses[:3])
    assert few.predictor_quality() == {}  # two folds need four archs


def test_hurricane_begins_with_the_later_stages_after_a_warm_start_too():
    problem = problem_of(LARGE, 2)
    searcher = make_searcher("hurricane", problem, evaluations=40, seed=0, population=8)
    known = LARGE.sample(np.random.default_rng(3), 60)
    searcher.tell(known, as_losses(evaluate(problem)(known), problem.objectives))
    asked = searcher.ask()
    assert len(asked) == 8
    for stages, held in ((("stage0",), True), (("stage1", "stage2"), False)):
        names = [c.name for c in LARGE.choices if c.name.startswith(stages)]
        assert all(any(all(a.get(n) == k.get(n) for n in names) for k in known) for a in asked) == held


def test_a_space_that_is_used_up_is_said_to_be():
    assert "the space has only 243 archs" in search("random", problem_of(SMALL, 2), 300).message


# -- names and settings ---------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(
        PluginError, match=r"searcher 'hurican' is unknown; known are hurricane.*did you mean 'hurricane'"
    ):
        make_searcher("hurican", problem_of(SMALL, 1), evaluations=5, seed=0)


def test_an_unknown_setting_lists_the_known_ones():
    with pytest.raises(SearchError, match=r"'nsga2' has no settings \['predictor'\]; it takes \['population'\]"):
        make_searcher("nsga2", problem_of(SMALL, 1), evaluations=5, seed=0, predictor="gp")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"selection": "best"}, SearchError, r"'best' is unknown; choose one of \['turns', 'gaps', 'improvement'\]"),
        ({"predictor": "kriging"}, PluginError, "predictor 'kriging' is unknown; known are gp_groups"),
        ({"settings": {"optimism": 1}}, SearchError, r"settings \['optimism'\] are unknown; known are first_archs"),
        ({"settings": {"population": -1}}, SearchError, r"'population': -1\} must be whole numbers"),
        ({"settings": {"warp_slope_beyond": 0.0}}, SearchError, "give more than 0"),
    ],
)
def test_a_bad_setting_is_one_clear_line(settings, error, message):
    with pytest.raises(error, match=message):
        make_searcher("natv2", problem_of(SMALL, 1), evaluations=5, seed=0, **settings)


def test_what_is_no_searcher_is_refused():
    with pytest.raises(PluginError, match=r"made a dict without \['ask', 'tell'\]"):
        make_searcher(lambda problem, evaluations, seed: {}, problem_of(SMALL, 1), evaluations=5, seed=0)


def test_a_factory_with_settings_is_a_searcher():
    problem = problem_of(SMALL, 2)
    made = make_searcher(partial(NATv2, selection="gaps"), problem, evaluations=20, seed=0, population=3)
    assert (made.selection, made.per_generation) == ("gaps", 3)
    by_place = make_searcher("hwnas.search.natv2:NATv2", problem, evaluations=20, seed=0)
    assert isinstance(by_place, NATv2)


def test_settings_by_name_are_those_of_the_object():
    problem = problem_of(LARGE, 2)
    given = [{"population": 9, "phase_shares": [0.1, 0.2]}, NATv2Settings(population=9, phase_shares=(0.1, 0.2))]
    first, again = (search("hurricane", problem, 30, settings=one) for one in given)
    assert first.archs == again.archs
    assert first.archs != search("hurricane", problem, 30).archs


def test_an_encoder_of_ones_own_is_what_predictors_read():
    read = []

    def encoder(problem):
        plain = Encoder(problem.space, problem.known)

        def encode(genomes):
            read.append(len(genomes))
            return replace(plain(genomes), further=((genomes[:, :1] - 1.0),))

        return encode

    problem = problem_of(SMALL, 2)
    seen = []

    class Looking(Mean):
        def fit(self, inputs, values):
            seen.append([group.shape[1] for group in inputs.groups])
            return super().fit(inputs, values)

    search("natv2", problem, 20, encoder=encoder, predictor=Looking())
    assert read
    assert all(len(widths) == 3 and widths[-1] == 1 for widths in seen)


def test_what_is_known_beforehand_is_exact_values_capacity_and_features():
    base = problem_of(SMALL, 3)
    problem = replace(base, capacity=base.objectives[2:], features=lambda genomes: (genomes[:, :1] == 1).astype(float))
    genomes = SMALL.all_genomes()
    known = problem.known(genomes)
    exact = base.objectives[2].evaluate_genomes(genomes)
    np.testing.assert_array_equal(known, np.stack([exact, exact, genomes[:, 0] == 1], axis=1))
