"""Every searcher keeps the promises of the `Searcher` protocol."""

from dataclasses import replace

import numpy as np
import pytest

from hwnas.errors import SearchError
from hwnas.objectives import Objective, as_losses
from hwnas.search import SEARCHERS, Limit, Problem, make_searcher, run_search
from hwnas.space import Choice, SearchSpace

FLAT = SearchSpace.of_choices(
    {f"op{i}": ["id", "mb3", "mb6"] for i in range(5)}, [["op0", "op1"], ["op2", "op3", "op4"]]
)
DEEP = SearchSpace(
    (
        Choice("resolution", (160, 192, 224)),
        *(
            choice
            for s in range(3)
            for choice in (
                Choice(f"stage{s}.depth", (1, 2)),
                *(
                    Choice(
                        f"stage{s}.block{b}",
                        ((3, 3), (3, 6), (5, 3), (5, 6), (7, 3), (7, 6)),
                        ("kernel_size", "expand_ratio"),
                        f"stage{s}.depth",
                        tuple(d for d in (1, 2) if d > b),
                    )
                    for b in range(2)
                ),
            )
        ),
    ),
    tuple((f"stage{s}.depth", f"stage{s}.block0", f"stage{s}.block1") for s in range(3)),
)
ALGORITHMS = sorted(SEARCHERS)


def problem_of(space: SearchSpace, m: int) -> Problem:
    """The last objective is cheap (where there is another), and all pull in different directions."""

    def objective(i: int) -> Objective:
        weights = np.cos(np.arange(len(space)) * (i + 1.0)) + (0.5 if i else 1.5)

        def of_genomes(genomes):
            # Row by row, so that a value does not depend on the batch it is computed in.
            return (genomes * weights).sum(axis=1) + 0.1 * i * (genomes**2).sum(axis=1)

        return Objective(
            f"value{i}",
            "max" if i == 0 else "min",
            lambda archs: of_genomes(space.encode_many(archs)),
            cheap=0 < i == m - 1,
            evaluate_genomes=of_genomes,
        )

    return Problem(space, tuple(objective(i) for i in range(m)), capacity=())


def evaluate(problem: Problem):
    return lambda archs: np.stack([np.asarray(o.evaluate(archs)) for o in problem.objectives], axis=1)


def search(algorithm, problem, evaluations, seed=0, population=None):
    """A large population keeps the number of fitted models, and so the test, small."""
    population = population or max(4, evaluations // 6)
    searcher = make_searcher(algorithm, problem, evaluations=evaluations, seed=seed, population=population)
    return run_search(problem, searcher, evaluate(problem), evaluations)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("m", [1, 2, 5])
@pytest.mark.parametrize("space", [FLAT, DEEP], ids=["flat", "deep"])
def test_same_seed_same_archs_all_legal_canonical_and_distinct(algorithm, m, space):
    problem = problem_of(space, m)
    np.random.seed(1)  # noqa: NPY002 - the global generator must not matter
    first = search(algorithm, problem, 24)
    np.random.seed(2)  # noqa: NPY002
    again = search(algorithm, problem, 24)
    assert first.archs == again.archs
    assert len(set(first.archs)) == len(first.archs) == 24
    assert all(space.decode(space.encode(a)) == a for a in first.archs)
    assert len(first.front) >= 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_other_seeds_give_other_archs(algorithm):
    problem = problem_of(DEEP, 2)
    assert search(algorithm, problem, 12, seed=0).archs != search(algorithm, problem, 12, seed=1).archs


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_never_asks_twice_even_untold(algorithm):
    searcher = make_searcher(algorithm, problem_of(DEEP, 2), evaluations=10_000, seed=3)
    asked = [arch for _ in range(40) for arch in searcher.ask()]
    assert len(asked) >= 40
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_duplicates_in_ten_thousand_asks(algorithm):
    result = search(algorithm, problem_of(DEEP, 2), 10_000)
    assert len(set(result.archs)) == 10_000


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_generation_in_which_all_fails_is_survived(algorithm):
    problem = problem_of(DEEP, 2)
    calls = []

    def flaky(archs):
        calls.append(len(archs))
        values = evaluate(problem)(archs)
        if len(calls) <= 2:
            values[:, 0] = np.nan
        return values

    result = run_search(problem, make_searcher(algorithm, problem, evaluations=40, seed=0, population=9), flaky, 40)
    assert result.evaluated == 40
    assert np.isfinite(result.values[-1]).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_tell_leaves_its_arguments_unchanged(algorithm):
    problem = problem_of(FLAT, 2)
    searcher = make_searcher(algorithm, problem, evaluations=20, seed=0)
    archs = searcher.ask()
    losses = evaluate(problem)(archs)
    losses[0] = np.nan
    archs_before, losses_before = list(archs), losses.copy()
    searcher.tell(archs, losses)
    searcher.ask()
    assert archs == archs_before
    np.testing.assert_array_equal(losses, losses_before)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_resume_by_replay_is_identical(algorithm):
    problem = problem_of(DEEP, 2)
    whole = search(algorithm, problem, 40)
    archive = dict(zip(whole.archs[:17], whole.values[:17], strict=True))
    computed = []

    def from_archive(archs):
        computed.extend(a for a in archs if a not in archive)
        return np.stack([archive[a] if a in archive else evaluate(problem)([a])[0] for a in archs])

    searcher = make_searcher(algorithm, problem, evaluations=40, seed=0, population=6)
    again = run_search(problem, searcher, from_archive, 40)
    assert again.archs == whole.archs
    assert computed == list(whole.archs[17:])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_space_smaller_than_the_budget_ends_and_says_so(algorithm):
    result = search(algorithm, problem_of(FLAT, 2), 300)
    assert result.ended == "exhausted"
    assert set(result.archs) == set(FLAT.decode_many(FLAT.all_genomes()))
    assert "the space has only 243 archs" in result.message


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_archs_told_but_never_asked_are_used_and_not_asked(algorithm):
    problem = problem_of(DEEP, 2)
    known = DEEP.sample(np.random.default_rng(5), 30)
    known = list(dict.fromkeys(known))
    searcher = make_searcher(algorithm, problem, evaluations=20, seed=0)
    result = run_search(problem, searcher, evaluate(problem), 20, warm_start=(known, evaluate(problem)(known)))
    assert result.n_warm_start == len(known)
    assert list(result.archs[: len(known)]) == known
    assert len(set(result.archs)) == len(known) + 20


@pytest.mark.parametrize("algorithm", ["nsga2", "natv2", "hurricane"])
def test_better_than_random_at_equal_evaluations(algorithm):
    problem = problem_of(DEEP, 1)
    best = {a: np.mean([search(a, problem, 60, s).losses.min() for s in range(3)]) for a in (algorithm, "random")}
    assert best[algorithm] < best["random"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_limits_on_cheap_objectives_are_kept_before_evaluation(algorithm):
    base = problem_of(DEEP, 2)
    limit = float(np.median(base.objectives[1].evaluate(DEEP.sample(np.random.default_rng(0), 200))))
    problem = Problem(DEEP, base.objectives, (Limit(None, "value1", "<=", limit),))
    result = search(algorithm, problem, 40)
    assert result.feasible.mean() > (0.5 if algorithm == "nsga2" else 0.99)


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("selection", ["turns", "gaps", "improvement"])
def test_every_way_to_select_works_with_any_number_of_objectives(selection, m):
    problem = problem_of(DEEP, m)
    searcher = make_searcher("natv2", problem, evaluations=24, seed=0, population=3, selection=selection)
    result = run_search(problem, searcher, evaluate(problem), 24)
    assert len(set(result.archs)) == 24


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


def stalling(n_warm_start=0, improve_at=(), evaluations=800):
    """Search a large space in which only the first arch, and those at ``improve_at``, are better than all before."""
    space = SearchSpace.of_choices({f"op{i}": list("abcd") for i in range(12)})
    problem = problem_of(space, 1)
    searcher = make_searcher(
        "natv2", problem, evaluations=evaluations, seed=0, population=50, predictor="bayesian_ridge"
    )
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


def test_an_unknown_selection_lists_the_choices():
    with pytest.raises(SearchError, match=r"'best' is unknown; choose one of \['turns', 'gaps', 'improvement'\]"):
        make_searcher("natv2", problem_of(FLAT, 1), evaluations=5, seed=0, selection="best")


def test_a_predictor_that_cannot_be_fitted_is_replaced_and_the_message_says_so(monkeypatch):
    class Broken:
        def fit(self, inputs, values):
            raise ValueError("no pivot")

    monkeypatch.setattr("hwnas.search.natv2.make_predictor", lambda name: Broken())
    result = search("natv2", problem_of(DEEP, 2), 30)
    assert result.evaluated == 30
    assert "predictor Broken was replaced by the mean: no pivot" in result.message


def test_a_predictor_is_judged_on_archs_that_it_was_not_fitted_to():
    problem = problem_of(DEEP, 3)
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


def test_features_reach_the_predictor():
    problem = replace(problem_of(FLAT, 2), features=lambda genomes: (genomes[:, :1] == 1).astype(float))
    searcher = make_searcher("natv2", problem, evaluations=20, seed=0)
    run_search(problem, searcher, evaluate(problem), 20)
    assert searcher._exact(FLAT.all_genomes())[:, -1].tolist() == (FLAT.all_genomes()[:, 0] == 1).tolist()


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(SearchError, match=r"'nsga9' is unknown; choose one of \['hurricane', 'mdenas', 'natv2'"):
        make_searcher("nsga9", problem_of(FLAT, 1), evaluations=5, seed=0)


def test_an_unknown_setting_lists_the_known_ones():
    with pytest.raises(SearchError, match=r"no settings \['predictor'\]; it has \['population'\]"):
        make_searcher("nsga2", problem_of(FLAT, 1), evaluations=5, seed=0, predictor="gp")


def test_hurricane_begins_with_the_later_stages_after_a_warm_start_too():
    problem = problem_of(DEEP, 2)
    searcher = make_searcher("hurricane", problem, evaluations=40, seed=0, population=8)
    known = DEEP.sample(np.random.default_rng(3), 60)
    searcher.tell(known, as_losses(evaluate(problem)(known), problem.objectives))
    asked = searcher.ask()
    assert len(asked) == 8
    for stages, held in ((("stage0",), True), (("stage1", "stage2"), False)):
        names = [c.name for c in DEEP.choices if c.name.startswith(stages)]
        assert all(any(all(a.get(n) == k.get(n) for n in names) for k in known) for a in asked) == held
