"""Closed forms of predictors and of what they read; promises that all keep are in `test_conformance`."""

from dataclasses import replace

import numpy as np
import pytest

from hwnas.errors import PluginError
from hwnas.predictors import Encoder, cross_validate, make_predictor, rank_metrics
from hwnas.predictors.gp import GaussianProcess, GroupedProcess
from hwnas.space import SearchSpace

SPACE = SearchSpace.of_choices({f"op{i}": ["id", "a", "b", "c"] for i in range(5)})
WEIGHTS = np.array([3.0, 1.0, 2.0, 5.0, 4.0])


def truth(genomes):
    return genomes @ WEIGHTS + 2.0 * (genomes[:, 0] == 1) * (genomes[:, 1] == 2)


def exact(genomes):
    return np.stack([np.exp(0.1 * genomes.sum(axis=1)), genomes[:, 0] - 1.0], axis=1)


ENCODER = Encoder(SPACE, exact)
GENOMES = SPACE.sample_genomes(np.random.default_rng(0), 200)
TRAIN, TEST = ENCODER(GENOMES[:70]), ENCODER(GENOMES[70:])
Y = truth(GENOMES)


def test_an_additive_function_is_exact_for_linear_predictors():
    values = GENOMES @ WEIGHTS
    for predictor in (GaussianProcess(), GroupedProcess()):
        mean, _ = predictor.fit(TRAIN, values[:70]).predict(TEST)
        assert np.abs(mean - values[70:]).max() < 0.05 * np.ptp(values)


@pytest.mark.parametrize("process", [GaussianProcess(), GroupedProcess()])
def test_a_gaussian_process_is_sure_where_it_was_told_and_less_elsewhere(process):
    _, std = process.fit(TRAIN[:20], Y[:20]).predict(ENCODER(GENOMES))
    assert std[:20].max() < np.median(std[20:])


def test_effects_of_many_genes_add_up_far_beyond_the_archs_seen():
    space = SearchSpace.of_choices({f"op{i}": ["a", "b", "c", "d"] for i in range(40)})
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(40, 4))
    seen, best = space.sample_genomes(rng, 120), effects.argmin(axis=1)[None]
    values, least = effects[np.arange(40), seen].sum(axis=1), effects.min(axis=1).sum()
    encoder = Encoder(space)
    mean, _ = GroupedProcess().fit(encoder(seen), values).predict(encoder(best))
    assert mean[0] - least < 0.05 * (values.min() - least)


def test_a_gaussian_process_is_as_unsure_of_archs_it_was_told_as_values_are_noisy():
    noise = np.random.default_rng(3).normal(0.0, 0.5, 70)
    values = GENOMES[:70] @ WEIGHTS + noise
    _, std = GroupedProcess().fit(TRAIN, values).predict(TRAIN)
    assert 0.5 * noise.std() < np.median(std) < 2.0 * noise.std()


def test_metrics_by_hand():
    metrics = rank_metrics(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0]))
    assert metrics.kendall_tau == pytest.approx(4 / 6)
    assert metrics.spearman == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert metrics.rmse == pytest.approx(np.sqrt(0.5))
    assert rank_metrics(np.ones(3), np.arange(3.0)).kendall_tau == 0.0


def test_folds_are_judged_one_by_one():
    class First:
        """Predicts the first gene, whatever it is fitted to."""

        def fit(self, inputs, values):
            return self

        def predict(self, inputs):
            return inputs.genomes[:, 0].astype(float), np.ones(len(inputs))

    found = cross_validate(First(), TRAIN, Y[:70], folds=7)
    order = np.random.default_rng(0).permutation(70)
    each = [rank_metrics(GENOMES[order[i::7], 0].astype(float), Y[order[i::7]]) for i in range(7)]
    taus, rhos, errors = np.array([(m.kendall_tau, m.spearman, m.rmse) for m in each]).T
    assert (found.kendall_tau, found.spearman) == pytest.approx((taus.mean(), rhos.mean()))
    assert found.rmse == pytest.approx(np.sqrt(np.mean((GENOMES[:70, 0] - Y[:70]) ** 2)))
    assert (found.kendall_tau_deviation, found.spearman_deviation, found.rmse_deviation) == pytest.approx(
        (taus.std(), rhos.std(), errors.std())
    )


def test_cross_validation_judges_archs_that_were_not_fitted():
    noise = np.random.default_rng(1).standard_normal(70)
    assert cross_validate(GroupedProcess(), TRAIN, Y[:70]).kendall_tau > 0.8
    assert abs(cross_validate(GroupedProcess(), TRAIN, noise).kendall_tau) < 0.35


def test_smooth_features_count_options():
    inputs = Encoder(SPACE)(np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]))
    step = inputs.smooth[1] - inputs.smooth[0]
    assert (step != 0).tolist() == [True, True, False, False]


def test_smooth_features_sum_numbers_of_three_values_or_more():
    space = SearchSpace.of_choices({"resolution": [160, 192, 224], "act": ["relu", "swish", "none"], "bias": [0, 1]})
    smooth = Encoder(space)(np.array([[0, 0, 0], [1, 2, 1], [2, 1, 0]])).smooth
    assert smooth.shape == (3, 1)
    assert smooth[2, 0] - smooth[1, 0] == pytest.approx(smooth[1, 0] - smooth[0, 0]) != 0


def test_a_zero_that_no_draw_showed_is_no_outlier():
    space = SearchSpace.of_choices({f"op{i}": ["id", "a", "b", "c"] for i in range(12)})
    encoder = Encoder(space, lambda genomes: genomes.sum(axis=1, keepdims=True).astype(float))
    nothing = encoder(np.zeros((1, 12), dtype=np.int64))
    assert np.abs(nothing.smooth).max() < 50


def test_an_unknown_predictor_lists_the_choices():
    with pytest.raises(PluginError, match="predictor 'kriging' is unknown; known are gp_groups, gp, rbf"):
        make_predictor("kriging")


def test_a_predictor_may_be_given_itself():
    process = GaussianProcess(iterations=1)
    assert make_predictor(process) is process


def test_a_further_group_of_features_is_read_by_the_grouped_process():
    rng = np.random.default_rng(0)
    space = SearchSpace.of_choices({f"op{i}": list("abcd") for i in range(6)})

    def pairs(genomes):
        return np.stack([((genomes[:, :-1] == a) & (genomes[:, 1:] == b)).sum(axis=1) for a, b in np.ndindex(4, 4)], 1)

    genomes, effects = space.sample_genomes(rng, 300), rng.normal(size=16)
    values, plain = pairs(genomes) @ effects, Encoder(space)(genomes)
    counts = pairs(genomes) - pairs(genomes).mean(axis=0)
    more = replace(plain, further=(counts / np.sqrt((counts**2).sum(axis=1).mean()),))

    def rmse(inputs):
        mean, _ = GroupedProcess().fit(inputs[:100], values[:100]).predict(inputs[100:])
        return np.sqrt(np.mean((mean - values[100:]) ** 2))

    assert rmse(more) < 0.5 * rmse(plain)
    assert (more.features == plain.features).all()
    assert [len(group) for group in more[:7].groups] == [7, 7, 7]


def test_groups_have_a_mean_squared_length_of_one():
    inputs = Encoder(SPACE, exact)(SPACE.sample_genomes(np.random.default_rng(9), 5000))
    assert len(inputs.groups) == 2
    for group in inputs.groups:
        assert (group**2).sum(axis=1).mean() == pytest.approx(1.0, rel=0.1)
