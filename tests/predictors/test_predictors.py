"""Every predictor learns a known function, is deterministic and says how sure it is."""

import numpy as np
import pytest

from hwnas.errors import RecipeError
from hwnas.predictors import (
    PREDICTORS,
    SVR,
    BayesianRidge,
    Encoder,
    GaussianProcess,
    GroupedProcess,
    cross_validate,
    fit_or_fall_back,
    make_predictor,
    rank_metrics,
)
from hwnas.predictors.select import Blend
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


@pytest.mark.parametrize("name", sorted(PREDICTORS))
def test_ranks_unseen_archs(name):
    mean, std = make_predictor(name).fit(TRAIN, Y[:70]).predict(TEST)
    assert mean.shape == std.shape == (130,)
    assert (std > 0).all()
    assert rank_metrics(mean, Y[70:]).kendall_tau > 0.6


@pytest.mark.parametrize("name", sorted(PREDICTORS))
def test_the_same_twice_and_arguments_unchanged(name):
    values = Y[:40].copy()
    first, again = (make_predictor(name).fit(TRAIN[:40], values).predict(TEST) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(values, Y[:40])


def test_an_additive_function_is_exact_for_linear_predictors():
    values = GENOMES @ WEIGHTS
    for predictor in (BayesianRidge(), GaussianProcess(), GroupedProcess()):
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


def test_counts_are_scaled_together_and_only_read_by_the_grouped_process():
    rng = np.random.default_rng(0)
    space = SearchSpace.of_choices({f"op{i}": list("abcd") for i in range(6)})

    def pairs(genomes):
        return np.stack([((genomes[:, :-1] == a) & (genomes[:, 1:] == b)).sum(axis=1) for a, b in np.ndindex(4, 4)], 1)

    genomes, effects = space.sample_genomes(rng, 300), rng.normal(size=16)
    values, without, encoder = pairs(genomes) @ effects, Encoder(space), Encoder(space, counts=pairs)
    counts = encoder(space.sample_genomes(rng, 5000)).counts
    assert (counts**2).sum(axis=1).mean() == pytest.approx(1.0, rel=0.1)
    assert without(genomes).counts.shape == (300, 0)

    def rmse(encoder):
        mean, _ = GroupedProcess().fit(encoder(genomes[:100]), values[:100]).predict(encoder(genomes[100:]))
        return np.sqrt(np.mean((mean - values[100:]) ** 2))

    assert rmse(encoder) < 0.5 * rmse(without)
    assert (encoder(genomes).features == without(genomes).features).all()


def test_a_blend_is_the_mean_of_its_parts_and_unsure_where_they_disagree():
    parts = (GaussianProcess(), SVR(folds=1))
    (a, a_std), (b, b_std) = (part.fit(TRAIN, Y[:70]).predict(TEST) for part in parts)
    mean, std = Blend(parts).fit(TRAIN, Y[:70]).predict(TEST)
    assert b_std.max() < 1e-9  # a single fit states no uncertainty
    np.testing.assert_allclose(mean, (a + b) / 2)
    np.testing.assert_allclose(std**2, (a_std**2 + b_std**2) / 2 + ((a - b) / 2) ** 2)


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
    assert cross_validate(BayesianRidge(), TRAIN, Y[:70]).kendall_tau > 0.8
    assert abs(cross_validate(BayesianRidge(), TRAIN, noise).kendall_tau) < 0.35


@pytest.mark.parametrize("name", sorted(PREDICTORS))
def test_what_cannot_be_fitted_falls_back_and_says_so(name):
    model, note = fit_or_fall_back(make_predictor(name), TRAIN[:1], Y[:1])
    mean, _ = model.predict(TEST)
    assert "was replaced by the mean" in note
    np.testing.assert_array_equal(mean, np.full(130, Y[0]))


def test_equal_values_are_predicted():
    mean, std = GaussianProcess().fit(TRAIN[:10], np.full(10, 7.0)).predict(TEST)
    np.testing.assert_allclose(mean, 7.0)
    assert np.isfinite(std).all()


def test_smooth_features_count_options():
    inputs = Encoder(SPACE)(np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]))
    step = inputs.smooth[1] - inputs.smooth[0]
    assert (step != 0).tolist() == [True, True, False, False]


def test_smooth_features_sum_numbers_of_three_values_or_more():
    space = SearchSpace.of_choices({"resolution": [160, 192, 224], "act": ["relu", "swish", "none"], "bias": [0, 1]})
    smooth = Encoder(space)(np.array([[0, 0, 0], [1, 2, 1], [2, 1, 0]])).smooth
    assert smooth.shape == (3, 1)
    assert smooth[2, 0] - smooth[1, 0] == pytest.approx(smooth[1, 0] - smooth[0, 0]) != 0


def test_an_unknown_predictor_lists_the_choices():
    with pytest.raises(RecipeError, match="choose one of"):
        make_predictor("kriging")


def test_a_zero_that_no_draw_showed_is_no_outlier():
    space = SearchSpace.of_choices({f"op{i}": ["id", "a", "b", "c"] for i in range(12)})
    encoder = Encoder(space, lambda genomes: genomes.sum(axis=1, keepdims=True).astype(float))
    nothing = encoder(np.zeros((1, 12), dtype=np.int64))
    assert np.abs(nothing.smooth).max() < 50
