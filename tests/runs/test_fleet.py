"""Few models for many devices: the best choice by trying all, and what the command says."""

import itertools
import json

import numpy as np
import pytest

from hwnas.errors import RecipeError
from hwnas.runs.analysis.fleet import choose_fleet, plan_fleet
from hwnas.runs.run import open_run


def by_trying(regret, k):
    """Worst and sum of the best choice of exactly up to k columns."""
    best = (np.inf, np.inf)
    for size in range(1, k + 1):
        for columns in itertools.combinations(range(regret.shape[1]), size):
            served = regret[:, columns].min(axis=1)
            best = min(best, (served.max(), served.sum()))
    return best


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    regret = np.round(rng.random((5, 9)) * 4, 1)
    regret[rng.random((5, 9)) < 0.4] = np.inf
    for k in (1, 2, 3):
        worst, total = by_trying(regret, k)
        found = choose_fleet(regret, k)
        if not np.isfinite(worst):
            assert found is None
            continue
        assert found.exact
        assert found.worst == worst
        assert len(found.columns) <= k
        served = regret[np.arange(5), list(found.serves)]
        assert served.max() == worst
        assert served.sum() == pytest.approx(total)
        assert set(found.serves) == set(found.columns)


def test_one_column_that_serves_all_is_enough():
    found = choose_fleet(np.array([[0.0, 3.0, 0.0], [0.0, 0.0, 1.0]]), 3)
    assert (found.columns, found.worst) == ((0,), 0.0)


def test_a_fleet_of_a_run_keeps_every_limit(finished_run):
    run = open_run(finished_run)
    fleet = plan_fleet(run, 2)
    assert [d.device for d in fleet.devices] == list(run.devices)
    with run.archive() as archive:
        for d in fleet.devices:
            assert d.key in fleet.keys
            arch = archive.find(d.key)
            assert d.latency_ms == pytest.approx(run.devices[d.device].estimate_ms(arch))
            assert d.latency_ms <= d.limit_ms * (1 + 1e-5)
            assert d.top1_percent == archive.values(arch, run.weights, "validation")["top1_percent"]
            archs = archive.requested(run.devices)
            latency = run.devices[d.device].compile(run.layout).of_archs(archs)
            top1 = [archive.values(a, run.weights, "validation")["top1_percent"] for a in archs]
            assert d.best_top1_percent == max(
                t for t, ms in zip(top1, latency, strict=True) if ms <= d.limit_ms * (1 + 1e-5)
            )
            assert d.regret_points == pytest.approx(d.best_top1_percent - d.top1_percent)
    assert fleet.worst_regret_points == 0  # as many models as devices
    assert fleet.regret_by_models[-1] == 0
    assert list(fleet.regret_by_models) == sorted(fleet.regret_by_models, reverse=True)
    json.dumps(fleet.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("models", "limits", "message"),
    [
        (0, {}, "serves nobody; give --models 1 or more"),
        (1, {"nowhere": 3.0}, r"limits name \['nowhere'\]; devices of"),
        (1, {"hexagon-dsp": 1e-6}, "no model of .* runs on hexagon-dsp within 1e-06 ms; the fastest takes"),
    ],
)
def test_fleets_that_cannot_be_are_explained(finished_run, models, limits, message):
    with pytest.raises(RecipeError, match=message):
        plan_fleet(open_run(finished_run), models, limits)
