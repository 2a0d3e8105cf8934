"""Tables made here: which networks, how the correction is fitted, and one that is really measured."""

import csv

import numpy as np
import pytest

from hwnas.latency import build
from hwnas.latency.build import (
    TableConfig,
    build_table,
    chain_features,
    fit_correction,
    needs_table,
    network_sample,
)
from hwnas.latency.device import load_profile
from hwnas.latency.measure import Conditions, summarise
from hwnas.latency.table import Device, Row, load_device
from hwnas.supernet.slot_sum import distinct_blocks

SMALL = TableConfig(n_networks=6, n_held_out=4, rounds=1, block_time_s=0.0005, network_time_s=0.0005)


def test_networks_are_different_and_begin_with_the_ends(layout):
    archs = network_sample(layout, 30, 0)
    assert len(set(archs)) == 30
    assert archs[:2] == [layout.space.smallest(), layout.space.largest()]
    assert network_sample(layout, 30, 0) == archs != network_sample(layout, 30, 1)


def test_features_of_a_chain_by_hand(layout, rng):
    blocks = distinct_blocks(layout)
    rows = {b.signature: Row(0.5 + i, 0.1, 9, "measured") for i, b in enumerate(blocks)}
    archs = layout.space.sample(rng, 5)
    found = chain_features(layout, archs, Device(load_profile("local-cpu"), rows))
    for arch, row in zip(archs, found, strict=True):
        chain = [b for _, b in layout.chain(arch)]
        assert row.tolist() == [sum(rows[b.signature].median_ms for b in chain), len(chain), 1.0]


def test_a_correction_that_holds_exactly_is_found(rng):
    features = np.column_stack([rng.uniform(1, 9, 20), rng.integers(5, 20, 20), np.ones(20)])
    measured = features @ [0.83, -0.02, 0.4]
    found = fit_correction(features, measured)
    assert (found.scale, found.per_block_ms, found.constant_ms) == pytest.approx((0.83, -0.02, 0.4), rel=1e-6)
    assert found.n_networks == 20


def test_a_correction_is_fitted_on_relative_error(rng):
    """One slow network off by a little must not outweigh many fast ones."""
    features = np.column_stack([np.r_[np.full(10, 1.0), 100.0], np.full(11, 5.0), np.ones(11)])
    measured = np.r_[np.full(10, 1.0), 150.0]
    found = fit_correction(features, measured)
    estimates = features @ [found.scale, found.per_block_ms, found.constant_ms]
    np.testing.assert_allclose(estimates, measured, rtol=1e-6)


def test_which_devices_need_a_table():
    assert needs_table(load_device("local-cpu"))
    assert not needs_table(load_device("hexagon-dsp"))
    assert not needs_table(Device(load_profile("local-cpu"), {"conv": Row(1.0, 0.1, 9, "measured")}))


def test_a_table_of_recorded_times(layout, tmp_path, monkeypatch):
    """Blocks cost 1 ms more alone than inside a network, which itself costs 2 ms: the table must learn both."""
    asked = []

    def recorded(models, config, rounds, provider, task, progress):
        asked.append((task, len(models), config.threads, config.batch_size, rounds, provider))
        sizes = [sum(len(t.raw_data) for t in m.graph.initializer) for m in models]
        times = [s / 1000 + 1 if task == "time blocks" else s / 1000 + 2 for s in sizes]
        conditions = Conditions("here", "onnxruntime-1", provider, "fp32", 1, 1, (5, 11, 11), 10, "2026-11-01")
        return [summarise(np.full(9, t), conditions) for t in times]

    monkeypatch.setattr(build, "measure_interleaved", recorded)
    made = build_table(layout, load_profile("local-cpu"), tmp_path, TableConfig(n_networks=12, n_held_out=8))
    blocks = distinct_blocks(layout)
    assert asked == [
        ("time blocks", len(blocks), 1, 1, 8, "CPUExecutionProvider"),
        ("time networks", 20, 1, 1, 8, "CPUExecutionProvider"),
    ]
    correction = made.profile.correction
    assert correction.n_networks == 12
    assert (correction.scale, correction.per_block_ms, correction.constant_ms) == pytest.approx((1, -1, 2), abs=1e-4)
    assert made.profile.error.mape_percent == pytest.approx(0, abs=1e-3)
    assert made.profile.error.n_held_out == 8
    assert made.profile.origin == "measured"
    assert made.profile.conditions["device"] == "here"
    assert "input_shape" not in made.profile.conditions
    assert load_device(tmp_path) == made


@pytest.mark.slow
def test_a_table_is_really_measured(layout, tmp_path):
    told = []
    made = build_table(layout, load_profile("local-cpu"), tmp_path, SMALL, lambda *args, **_: told.append(args[:3]))
    blocks = distinct_blocks(layout)
    assert set(made.rows) == {b.signature for b in blocks}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["blocks.csv", "profile.yaml"]
    with (tmp_path / "blocks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(blocks)
    assert {r["origin"] for r in rows} == {"measured"}
    assert all(int(r["n"]) >= 3 for r in rows)
    found = load_device(tmp_path)
    assert not needs_table(found)
    assert found.profile.conditions["provider"] == "CPUExecutionProvider"
    assert found.profile.conditions["runtime"].startswith("onnxruntime-")
    assert found.profile.error.n_held_out == 4
    assert np.isfinite(found.compile(layout).of_archs(layout.space.sample(np.random.default_rng(0), 20))).all()
    assert told[0] == ("time blocks", 1, len(blocks))
    assert told[-1] == ("time networks", 10, 10)
