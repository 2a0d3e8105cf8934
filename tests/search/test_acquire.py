"""Closed forms of expected improvement, gaps and survival."""

import numpy as np
import pytest

from hwnas.search.acquire import (
    Warp,
    Warped,
    expected_improvement,
    pick_by_front,
    pick_by_gaps,
    pick_by_hypervolume,
    pick_by_improvement,
    pick_evenly,
)
from hwnas.search.evolve import evolve, niche_order, reference_directions, survivors
from hwnas.search.region import Region
from hwnas.space import SearchSpace


def test_certain_improvement_is_the_added_hypervolume():
    known = np.array([[0.5, 0.5]])
    gain = expected_improvement(
        np.array([0.25, 0.6, 0.75]), np.full(3, 1e-9), np.array([0.25, 0.7, 0.25]), known, (1.0, 1.0)
    )
    # (0.25, 0.25): 0.75 * 0.75 - 0.25; dominated: 0; (0.75, 0.25): a strip of 0.25 by 0.25.
    np.testing.assert_allclose(gain, [0.3125, 0.0, 0.0625], atol=1e-8)


def test_one_standard_deviation_of_hope():
    # Improvement of N(1, 1) below 1 in a strip of width 1: 1 / sqrt(2 pi).
    gain = expected_improvement(np.ones(1), np.ones(1), np.zeros(1), np.zeros((0, 2)), (1.0, 1.0))
    np.testing.assert_allclose(gain, [1 / np.sqrt(2 * np.pi)])


def test_picks_differ_and_cover():
    mean, beside = np.array([0.1, 0.1, 0.6]), np.array([0.5, 0.5, 0.1])
    chosen = pick_by_improvement(mean, np.full(3, 1e-6), beside, np.zeros((0, 2)), (1.0, 1.0), 2)
    assert chosen.tolist() == [0, 2]


def test_the_widest_gap_is_filled_first():
    known = np.array([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0]])
    candidates = np.array([[0.05, 0.95], [0.5, 0.4], [0.9, 0.1], [2.0, 2.0]])
    assert pick_by_gaps(candidates, known, 1).tolist() == [1]
    assert sorted(pick_by_gaps(candidates, known, 3).tolist()) == [0, 1, 2]


def test_warp_is_monotone_and_undone():
    losses = np.array([5.6, 6.0, 9.0, 12.0, 20.0, 90.0])
    warp = Warp.of(losses, losses)
    assert (np.diff(warp(losses)) > 0).all()
    np.testing.assert_allclose(warp.undo(warp(losses)), losses)


def test_good_first_archs_do_not_make_the_cheap_end_of_a_front_worthless():
    def flat_from(worst):
        losses = np.array([5.7, 6.4, 7.1, 7.7, 8.1, 8.8, worst])
        warp = Warp.of(losses, losses)
        return warp.undo(np.array([warp.breakpoint]))[0]

    assert flat_from(worst=8.9) == pytest.approx(5.7 + 3 * (7.7 - 5.7))
    assert flat_from(worst=13.5) == pytest.approx(13.5)
    assert flat_from(worst=40.0) == pytest.approx(5.7 + 6 * (7.7 - 5.7))


def test_warp_of_equal_losses_is_finite():
    losses = np.full(5, 3.0)
    assert np.isfinite(Warp.of(losses, losses)(losses)).all()


def test_survivors_put_feasible_first_and_failed_last():
    losses = np.array([[1.0, 1.0], [0.0, 0.0], [2.0, 0.5], [np.nan, 0.0], [3.0, 3.0]])
    violation = np.array([0.0, 0.5, 0.0, 0.0, 0.0])
    assert survivors(losses, violation, 5).tolist()[-2:] == [1, 3]
    assert set(survivors(losses, violation, 2).tolist()) == {0, 2}


def test_evolution_finds_the_optimum_of_a_separable_loss():
    space = SearchSpace.of_choices({f"c{i}": list(range(7)) for i in range(11)})
    target = np.arange(11) % 7

    def losses_of(genomes):
        return np.abs(genomes - target).sum(axis=1)[:, None].astype(float), np.zeros(len(genomes))

    genomes, losses, _ = evolve(Region.whole(space), losses_of, np.random.default_rng(0), 60, 80)
    assert losses[0, 0] == 0
    assert genomes[0].tolist() == target.tolist()


def test_front_by_front_and_never_a_dominated_one_first():
    candidates = np.array([[0.0, 3.0], [1.0, 1.0], [3.0, 0.0], [2.0, 2.0], [4.0, 4.0]])
    rng = np.random.default_rng(0)
    assert sorted(pick_by_front(candidates, 3, rng).tolist()) == [0, 1, 2]
    assert pick_by_front(candidates, 5, rng)[3:].tolist() == [3, 4]
    assert set(pick_by_front(candidates, 2, rng).tolist()) < {0, 1, 2}


def test_hypervolume_first_takes_what_adds_most():
    candidates = np.array([[0.9, 0.9, 0.9], [0.2, 0.2, 0.2], [0.19, 0.9, 0.9], [1.0, 0.0, 0.0]])
    chosen = pick_by_hypervolume(candidates, np.zeros((0, 3)), 4, np.random.default_rng(0))
    assert chosen[:2].tolist() == [1, 3]
    assert sorted(chosen.tolist()) == [0, 1, 2, 3]
    known = np.array([[0.2, 0.2, 0.2]])
    assert pick_by_hypervolume(candidates, known, 1, np.random.default_rng(0)).tolist() == [3]


def test_options_of_a_single_choice_come_evenly_though_they_are_rare():
    space = SearchSpace.of_choices({"resolution": [160, 192, 224], **{f"op{i}": ["a", "b"] for i in range(20)}})
    draws = space.sample_genomes(np.random.default_rng(0), 300)
    draws[15:, 0] = 0  # 15 of 300 have another resolution, or not even they
    chosen = pick_evenly(space, draws, 9)
    assert len(set(chosen.tolist())) == 9
    assert np.bincount(draws[chosen, 0], minlength=3).min() >= 2


def test_reference_directions_lie_on_the_simplex():
    for m in (3, 4, 5, 6):
        directions = reference_directions(m, 100)
        np.testing.assert_allclose(directions.sum(axis=1), 1.0)
        assert m <= len(directions) <= 100


def test_many_objectives_survive_by_niches():
    # Three directions (the corners), two points near each and one crowd in the middle.
    losses = np.array(
        [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.45, 0.5, 0.5], [0.5, 0.45, 0.5], [0.5, 0.5, 0.45]]
    )
    kept = niche_order(1.0 - losses, np.zeros(6), 3)  # best in two, worst in one: the corners' directions
    assert sorted(kept.tolist()) == [0, 1, 2]
    worse = np.concatenate([losses, losses + 1.0])
    assert sorted(survivors(worse, np.zeros(12), 6).tolist()) == [0, 1, 2, 3, 4, 5]


def test_a_screen_keeps_losses_from_being_computed():
    space = SearchSpace.of_choices({f"c{i}": list(range(7)) for i in range(6)})
    computed = []

    def losses_of(genomes):
        computed.append(genomes)
        return -genomes.sum(axis=1)[:, None].astype(float), np.maximum(genomes.sum(axis=1) - 18.0, 0.0)

    genomes, _, over = evolve(
        Region.whole(space), losses_of, np.random.default_rng(0), 40, 15, None, lambda g: g.sum(axis=1) - 18.0 > 0
    )
    assert over[0] == 0
    assert genomes[0].sum() == 18
    assert (np.concatenate(computed).sum(axis=1) <= 18).mean() > 0.95


def test_warped_losses_are_predicted_in_their_own_unit():
    losses = np.array([1.0, 1.5, 2.0, 4.0, 9.0])

    class Known:
        def __init__(self, shift=0.0):
            self.shift = shift

        def fit(self, inputs, values):
            self.values = values
            return self

        def predict(self, inputs):
            return self.values + self.shift, np.full(len(self.values), 0.1)

    mean, std = Warped(Known(), losses[1:4]).fit(None, losses).predict(None)
    np.testing.assert_allclose(mean, losses)
    assert (std > 0).all()
    mean, _ = Warped(Known(50.0), losses[1:4]).fit(None, losses).predict(None)
    np.testing.assert_allclose(mean, 17.0)  # as far beyond the worst as that is from the best
