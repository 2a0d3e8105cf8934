"""Few models for many devices: the best choice by trying all, and what the command says."""

import itertools
import json

import numpy as np
import pytest

from hwnas.errors import RecipeError, SearchError
from hwnas.runs.analysis.fleet import choose_fleet
from hwnas.runs.start import open_run


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
    fleet = run.fleet(2)
    version = run.weights.trained
    assert [d.device for d in fleet.devices] == list(run.devices)
    with run.archive() as archive:
        for d in fleet.devices:
            assert d.key in fleet.keys
            arch = archive.find(d.key)
            assert d.latency_ms == pytest.approx(run.devices[d.device].estimate_ms(arch))
            assert d.latency_ms <= d.limit_ms * (1 + 1e-5)
            precision = "int8" if d.device == "hexagon-dsp" else "fp32"
            assert d.score == archive.values(arch, version, "validation", precision)["top1_percent"]
            archs = archive.requested([name for device in run.devices for name in archive.searches(device)])
            latency = run.devices[d.device].compile(run.layout).of_archs(archs)
            known = [archive.values(a, version, "validation", precision) for a in archs]
            top1 = [values.get("top1_percent", -1.0) for values in known]  # not all were looked at in both precisions
            assert d.best_score == max(t for t, ms in zip(top1, latency, strict=True) if ms <= d.limit_ms * (1 + 1e-5))
            assert d.regret == pytest.approx(d.best_score - d.score)
    assert fleet.worst_regret == 0  # as many models as devices
    assert fleet.regret_by_models[-1] == 0
    assert list(fleet.regret_by_models) == sorted(fleet.regret_by_models, reverse=True)
    json.dumps(fleet.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("models", "limits", "error", "message"),
    [
        (0, [], SearchError, "serves nobody; give --models 1 or more"),
        (1, ["nowhere:latency_ms<=3"], RecipeError, r"limits name \['nowhere'\]; devices here are hexagon-dsp, myriad"),
        (1, ["hexagon-dsp:latency_ms<=1e-6"], SearchError, "keeps the limits of hexagon-dsp .*; the fastest takes"),
        (1, ["size_px<=3"], SearchError, "limit size_px<=3: models of hexagon-dsp have no value 'size_px'; they have "),
        (1, ["latency_ms<5"], SearchError, "'latency_ms<5' is not of the form VALUE<=NUMBER"),
    ],
)
def test_fleets_that_cannot_be_are_explained(finished_run, models, limits, error, message):
    with pytest.raises(error, match=message):
        open_run(finished_run).fleet(models, limits)


def test_a_fleet_keeps_limits_on_any_value(finished_run):
    run = open_run(finished_run)
    params = sorted(m.values["params"] for d in run.devices for m in run.front(d))
    limit = params[len(params) // 2]
    free = run.fleet(2, ["latency_ms<=1e6"])
    fleet = run.fleet(2, ["latency_ms<=1e6", f"myriad-vpu:params<={limit}"])
    with run.archive() as archive:
        size = {d.device: run.context.params.of_archs([archive.find(d.key)])[0] for d in fleet.devices}
        larger = {d.device: run.context.params.of_archs([archive.find(d.key)])[0] for d in free.devices}
    assert size["myriad-vpu"] <= limit < larger["myriad-vpu"]
    assert size["hexagon-dsp"] == larger["hexagon-dsp"]
    assert {d.limit_ms for d in fleet.devices} == {1e6}
