"""Does a predictor keep to `hwnas.predictors.Predictor`? Inherit `PredictorTests` and override `make`."""

from __future__ import annotations

import numpy as np

from hwnas.predictors import Encoder, Predictor, fit_or_fall_back, rank_metrics
from hwnas.space import SearchSpace

SPACE = SearchSpace.of_choices({f"op{i}": ["id", "a", "b", "c"] for i in range(5)})
GENOMES = SPACE.sample_genomes(np.random.default_rng(0), 200)
VALUES = GENOMES @ np.array([3.0, 1.0, 2.0, 5.0, 4.0]) + 2.0 * (GENOMES[:, 0] == 1) * (GENOMES[:, 1] == 2)
"""Effects of genes that add up, and one pair of genes that does not."""


class PredictorTests:
    """Promises of `hwnas.predictors.Predictor`, each a test. Override `make`."""

    def make(self) -> Predictor:
        """Return the predictor."""
        raise NotImplementedError("override make()")

    def test_unseen_archs_are_ranked(self) -> None:
        """Seventy archs tell most of a nearly additive function of five genes."""
        encoder = Encoder(SPACE)
        mean, std = self.make().fit(encoder(GENOMES[:70]), VALUES[:70]).predict(encoder(GENOMES[70:]))
        assert mean.shape == std.shape == (130,)
        assert np.isfinite(mean).all()
        assert (std > 0).all()
        assert rank_metrics(mean, VALUES[70:]).kendall_tau > 0.6

    def test_the_same_twice_and_arguments_unchanged(self) -> None:
        """Fitting is a function of its arguments and changes neither them nor the predictor."""
        encoder, values, predictor = Encoder(SPACE), VALUES[:40].copy(), self.make()
        first, again = (predictor.fit(encoder(GENOMES[:40]), values).predict(encoder(GENOMES[70:])) for _ in range(2))
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(values, VALUES[:40])

    def test_equal_values_are_predicted(self) -> None:
        """Archs that are all alike give no nonsense."""
        encoder = Encoder(SPACE)
        mean, std = self.make().fit(encoder(GENOMES[:30]), np.full(30, 7.0)).predict(encoder(GENOMES[70:]))
        np.testing.assert_allclose(mean, 7.0, atol=0.1)
        assert np.isfinite(std).all()

    def test_too_few_archs_are_a_value_error(self) -> None:
        """A search then goes on with the mean, and says so."""
        encoder = Encoder(SPACE)
        model, note = fit_or_fall_back(self.make(), encoder(GENOMES[:1]), VALUES[:1])
        np.testing.assert_array_equal(model.predict(encoder(GENOMES[70:]))[0], np.full(130, VALUES[0]))
        assert "was replaced by the mean" in note
