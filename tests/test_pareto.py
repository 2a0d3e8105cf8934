"""Closed forms of ranks, crowding, hypervolume, knee and subsets."""

import numpy as np
import pytest

from hwnas.pareto import (
    attainment_bands,
    choose_subset,
    crowding_distance,
    hypervolume,
    knee,
    non_dominated,
    non_dominated_rank,
    normalise,
)

LOSSES = np.array([[1.0, 5.0], [2.0, 3.0], [4.0, 1.0], [3.0, 4.0], [5.0, 5.0]])


def test_ranks_of_two_fronts_and_one_behind():
    assert non_dominated_rank(LOSSES).tolist() == [0, 0, 0, 1, 2]


def test_equal_rows_share_a_rank_and_nan_is_last():
    losses = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 3.0], [np.nan, 0.0]])
    assert non_dominated_rank(losses).tolist() == [0, 0, 1, 2]
    assert non_dominated(losses).tolist() == [True, True, False, False]


def test_ranks_agree_with_peeling():
    losses = np.random.default_rng(0).integers(0, 6, (113, 3)).astype(float)
    left, rank, expected = np.arange(113), 0, np.zeros(113, dtype=int)
    while left.size:
        front = non_dominated(losses[left])
        expected[left[front]] = rank
        left, rank = left[~front], rank + 1
    assert non_dominated_rank(losses).tolist() == expected.tolist()


def test_one_objective():
    losses = np.array([[3.0], [1.0], [2.0], [1.0]])
    assert non_dominated(losses).tolist() == [False, True, False, True]
    assert non_dominated_rank(losses).tolist() == [2, 0, 1, 0]
    assert hypervolume(losses, np.array([4.0])) == 3.0


def test_hypervolume_by_hand():
    # Boxes to (6, 6): widths 1, 2, 2 and heights 1, 3, 5 of the stairs.
    assert hypervolume(LOSSES, np.array([6.0, 6.0])) == 1 * 1 + 2 * 3 + 2 * 5
    assert hypervolume(np.array([[7.0, 0.0]]), np.array([6.0, 6.0])) == 0.0
    assert hypervolume(np.array([[np.nan, 0.0], [5.0, 5.0]]), np.array([6.0, 6.0])) == 1.0


def test_crowding_of_three_points():
    distance = crowding_distance(np.array([[0.0, 4.0], [1.0, 1.0], [4.0, 0.0]]))
    assert np.isinf(distance[[0, 2]]).all()
    assert np.isfinite(distance[1])


def test_normalise_and_knee():
    np.testing.assert_allclose(normalise(np.array([[1.0, 7.0], [3.0, 7.0]])), [[0.0, 0.0], [1.0, 0.0]])
    assert knee(np.array([[0.0, 10.0], [1.0, 1.0], [10.0, 0.0]])) == 1


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_subset_has_k_rows_and_the_extremes_first(k):
    front = np.stack([np.arange(7.0), np.arange(7.0)[::-1] ** 2], axis=1)
    chosen = choose_subset(front, k)
    assert len(chosen) == k
    if k >= 2:
        assert {0, 6} <= set(chosen.tolist())


def test_attainment_bands_are_what_so_many_runs_dominate(rng):
    fronts = [rng.integers(0, 12, (6, 2)).astype(float) for _ in range(5)]
    grid = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), axis=-1).reshape(-1, 2)
    attained = np.array([[(f <= g).all(axis=1).any() for f in fronts] for g in grid]).sum(axis=1)
    for share, runs in ((0.2, 1), (0.5, 3), (1.0, 5)):
        (band,) = attainment_bands(fronts, [share])
        np.testing.assert_array_equal([(band <= g).all(axis=1).any() for g in grid], attained >= runs)
        assert non_dominated(band).all()


def test_attainment_of_one_front_is_the_front():
    front = np.array([[1.0, 3.0], [2.0, 2.0], [np.nan, 0.0]])
    low, high = attainment_bands([front], [0.25, 1.0])
    np.testing.assert_array_equal(low, front[:2])
    np.testing.assert_array_equal(high, front[:2])
