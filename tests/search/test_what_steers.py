"""What makes a search with a predictor good, each seen by what happens without it."""

import numpy as np
import pytest

from hwnas.objectives import Objective
from hwnas.search import Problem, make_searcher, run_search
from hwnas.search.acquire import Warp
from hwnas.space import SearchSpace

LARGE = SearchSpace.of_choices({f"op{i}": [0, 1, 2, 3] for i in range(12)})  # 16.8 million archs: none can be listed
TARGET = np.arange(12) % 4


def far(genomes):
    """How many genes differ from the best arch."""
    return (genomes != TARGET).sum(axis=1).astype(float)


class Fixed:
    """A predictor that says what it was made to say, in the scale of the values it is fitted to."""

    def __init__(self, mean_and_std):
        self.mean_and_std, self.fitted = mean_and_std, []

    def fit(self, inputs, values):
        self.fitted.append(values.copy())
        best, spread = values.min(), np.ptp(values) or 1.0

        class Model:
            def predict(_, inputs):
                mean, std = self.mean_and_std(inputs.genomes)
                return best + spread * mean, spread * std

        return Model()


def of_genomes(space, function):
    return lambda archs: function(space.encode_many(archs))


def next_generation(problem, evaluations, **settings):
    """The genomes asked for once the first archs are evaluated, with those first ones."""
    searcher = make_searcher("natv2", problem, evaluations=evaluations, seed=0, **settings)
    first = searcher.ask()
    values = np.stack([np.asarray(o.evaluate(first), dtype=float) for o in problem.objectives], axis=1)
    searcher.tell(first, values)
    return problem.space.encode_many(searcher.ask()), problem.space.encode_many(first)


def test_candidates_evolve_on_the_predictor():
    """The best arch that a predictor knows is found, though it is no neighbour of anything evaluated."""
    problem = Problem(LARGE, (Objective("loss", "min", of_genomes(LARGE, far)),))
    exact = Fixed(lambda genomes: (far(genomes) / 12 - 0.5, np.full(len(genomes), 1e-6)))
    asked, first = next_generation(problem, 40, predictor=exact, population=1)
    assert far(first).min() >= 4
    assert far(asked).tolist() == [0.0]


def test_predictors_are_told_more_of_differences_near_the_best_than_far_from_it():
    """Losses have a tail of failures to learn; what a predictor is fitted to has none."""

    def loss(genomes):
        return 5.0 + np.exp(0.7 * far(genomes))

    problem = Problem(LARGE, (Objective("loss", "min", of_genomes(LARGE, loss)),))
    seen = Fixed(lambda genomes: (np.zeros(len(genomes)), np.ones(len(genomes))))
    _, first = next_generation(problem, 60, predictor=seen)
    (fitted,) = seen.fitted
    order = np.argsort(loss(first), kind="stable")
    losses, fitted = loss(first)[order], fitted[order]
    assert (np.diff(fitted)[np.diff(losses) > 0] > 0).all()

    def share_of_better_half(values):
        return (values[len(values) // 2] - values[0]) / (values[-1] - values[0])

    assert share_of_better_half(fitted) > 1.3 * share_of_better_half(losses)


def test_a_warped_predictor_is_better_where_the_front_is():
    from hwnas.predictors import Encoder, make_predictor, rank_metrics
    from hwnas.search.acquire import Warped

    rng = np.random.default_rng(0)
    genomes = LARGE.sample_genomes(rng, 400)
    losses = 5.0 + np.exp(rng.normal(size=(12, 4))[np.arange(12), genomes].sum(axis=1))
    encoder, gp = Encoder(LARGE), make_predictor("gp_groups")
    train, rest = encoder(genomes[:100]), encoder(genomes[100:])
    good = losses[100:] < np.quantile(losses, 0.3)

    def tau(predictor):
        mean, _ = predictor.fit(train, losses[:100]).predict(rest)
        return rank_metrics(mean[good], losses[100:][good]).kendall_tau

    assert tau(Warped(gp, losses[:100])) > tau(gp) + 0.1


def test_beyond_the_breakpoint_a_warp_is_flatter():
    losses = np.array([5.7, 6.4, 7.1, 7.7, 8.1, 8.8, 40.0])
    warp = Warp.of(losses, losses)
    beyond = warp.undo(np.array([warp.breakpoint]))[0]
    inside, outside = warp(np.array([0.9, 1.0, 1.0, 1.1]) * beyond).reshape(2, 2) @ [-1, 1]
    assert outside < 0.5 * inside


@pytest.mark.parametrize("space", [SearchSpace.of_choices({f"op{i}": [0, 1, 2, 3] for i in range(6)}), LARGE])
def test_what_is_less_certain_is_tried_where_predictions_are_equal(space):
    """Optimism: of archs that are predicted alike, those come first that may turn out better."""
    problem = Problem(space, (Objective("loss", "min", of_genomes(space, lambda g: g[:, 0] + 1.0)),))
    n = len(space)
    unsure = Fixed(lambda genomes: (np.zeros(len(genomes)), 0.01 + (genomes == 3).sum(axis=1) / n))
    asked, _ = next_generation(problem, 40, predictor=unsure, selection="gaps", population=1)
    assert (asked == 3).sum() >= n - 1


def test_evolution_is_led_to_what_is_less_certain():
    """Candidates that are taken by improvement can only be as uncertain as what evolved."""
    problem = Problem(LARGE, (Objective("loss", "min", of_genomes(LARGE, lambda g: g[:, 0] + 1.0)),))
    unsure = Fixed(lambda genomes: (np.zeros(len(genomes)), 0.01 + (genomes == 2).sum(axis=1) / 12))
    asked, first = next_generation(problem, 40, predictor=unsure, selection="improvement", population=1)
    assert (first == 2).sum(axis=1).max() < 10
    assert (asked == 2).sum() >= 11


def test_in_the_second_half_every_generation_takes_expected_improvement():
    """``sure`` archs are predicted a little better than the best, others worse but with much hope.

    Gaps are filled with the first, expected improvement is larger for the second; before half of the budget one
    generation in three fills gaps, afterwards none does.
    """
    space = SearchSpace.of_choices({"sure": [0, 1], **{f"op{i}": list(range(6)) for i in range(4)}})

    def mean_and_std(genomes):
        sure = genomes[:, 0] == 1
        return np.where(sure, -0.1, 0.6), np.where(sure, 1e-6, 1.0)

    problem = Problem(
        space,
        (
            Objective("loss", "min", of_genomes(space, lambda g: 1.0 + (g[:, 1:].sum(axis=1) % 5) / 5)),
            Objective("cost_ms", "min", of_genomes(space, lambda g: np.ones(len(g))), cheap=True),
        ),
    )
    searcher = make_searcher("natv2", problem, evaluations=60, seed=0, population=1, predictor=Fixed(mean_and_std))
    turns = []

    def values(archs):
        return np.stack([np.asarray(o.evaluate(archs), dtype=float) for o in problem.objectives], axis=1)

    def note(generation):
        before = generation.evaluated - len(generation.archs)
        turns.append((before, [a.int("sure") for a in generation.archs]))

    run_search(problem, searcher, values, 60, note)
    early = [sure for before, (sure, *more) in turns if not more and before <= 30]
    late = [sure for before, (sure, *more) in turns if before > 30]
    assert (len(early), len(late)) == (19, 29)
    assert sum(early) == 6  # the third, sixth, ... generation of 19
    assert sum(late) == 0
