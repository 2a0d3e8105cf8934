"""Which networks are trained for which latencies, where one may serve several."""

from itertools import combinations

import numpy as np
import pytest

from hwnas.search.sharing import share, short_training


def instance(seed, n=9, latencies=4):
    """Networks that are worth more the slower they are, on two devices that rank them differently."""
    rng = np.random.default_rng(seed)
    cost = np.sort(rng.uniform(1, 10, n))
    worth = np.log(cost)
    value = np.full((n, latencies), -np.inf)
    for column, share_of_fast in enumerate(np.linspace(0.3, 0.9, latencies)):
        ms = cost * rng.uniform(0.8, 1.2, n)
        fast = ms <= np.quantile(ms, share_of_fast)
        value[fast, column] = worth[fast]
    return value, cost


def score(rows, value, cost, compute):
    rows = list(rows)
    return value[rows].max(axis=0).mean() - float(short_training(compute / cost[rows].sum()))


@pytest.mark.parametrize("epochs", [3, 30, 300, 30_000])
def test_no_other_choice_is_much_better(epochs):
    gaps = []
    for seed in range(20):
        value, cost = instance(seed)
        compute = epochs * cost.sum()
        found = np.unique(share(value, cost, compute))
        best = max(
            score(rows, value, cost, compute)
            for k in range(1, value.shape[1] + 1)
            for rows in combinations(range(len(cost)), k)
        )
        gaps.append(best - score(found, value, cost, compute))
    assert max(gaps) < 0.1
    assert np.mean(np.array(gaps) < 1e-9) >= 0.9


def test_with_much_compute_each_latency_gets_its_own():
    value, cost = instance(0)
    assert share(value, cost, 1e12).tolist() == value.argmax(axis=0).tolist()


def test_with_little_compute_as_few_as_serve_all():
    value, cost = instance(0)
    value[0] = np.log(cost[0])  # fast enough for everything
    assert np.unique(share(value, cost, 0.1)).tolist() == [0]


def test_the_more_compute_the_more_networks():
    value, cost = instance(1, n=40, latencies=12)
    numbers = [len(np.unique(share(value, cost, epochs * cost.sum()))) for epochs in (0.1, 10, 1000, 1e5, 1e9)]
    assert numbers == sorted(numbers)
    assert numbers[0] < numbers[-1]


def test_a_latency_that_nothing_reaches_gets_none():
    value, cost = instance(2)
    value[:, 1] = -np.inf
    rows = share(value, cost, 100.0)
    assert rows[1] == -1
    assert (np.delete(rows, 1) >= 0).all()
    assert share(np.full((3, 2), -np.inf), np.ones(3), 1.0).tolist() == [-1, -1]
