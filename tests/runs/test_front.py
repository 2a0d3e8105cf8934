"""Fronts: what is chosen dominates itself nowhere, and files come back as they were written."""

import numpy as np
import pytest

from hwnas.errors import ExportError, OutputError, ResumeError, SearchError
from hwnas.files import write_json
from hwnas.objectives import Objective, as_losses
from hwnas.pareto import non_dominated
from hwnas.reading import sha256_of
from hwnas.runs.front import Front, FrontModel, choose_front, read_front, write_front
from hwnas.task import Score

TOP1 = Score("top1_percent", "max", "top-1", "%")

OBJECTIVES = [
    Objective("top1_percent", "max", len), Objective("latency_ms", "min", len), Objective("params", "min", len),
]  # fmt: skip


def dominates(a, b):
    return bool((a <= b).all() and (a < b).any())


@pytest.mark.parametrize("size", [1, 3, 8, 100])
@pytest.mark.parametrize("seed", range(5))
def test_chosen_rows_are_feasible_and_none_dominates_another(seed, size):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 12, (80, 3)).astype(float)
    feasible = rng.random(80) < 0.7
    values[rng.integers(0, 80, 5), 0] = np.nan
    feasible &= np.isfinite(values).all(axis=1)
    rows = choose_front(values, OBJECTIVES, feasible, size)
    losses = as_losses(values, OBJECTIVES)
    assert 1 <= len(rows) <= size
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert feasible[rows].all()
    for i in rows:
        assert not any(dominates(losses[j], losses[i]) for j in np.flatnonzero(feasible))
    assert len(np.unique(values[rows], axis=0)) == len(rows)


@pytest.mark.parametrize("seed", range(5))
def test_the_accuracy_latency_front_is_contained(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (60, 3))
    feasible = np.ones(60, dtype=bool)
    losses = as_losses(values, OBJECTIVES)
    first = np.flatnonzero(non_dominated(losses[:, :2]))
    rows = choose_front(values, OBJECTIVES, feasible, max(16, len(first)))
    assert set(first) <= set(rows)
    few = choose_front(values, OBJECTIVES, feasible, 3)
    best = {int(losses[:, 0].argmin()), int(losses[:, 1].argmin())}
    assert best <= set(few)
    assert len(set(few) & set(first)) == min(3, len(first))


def test_equal_rows_are_one():
    values = np.array([[90.0, 2.0, 5.0], [90.0, 2.0, 5.0], [80.0, 1.0, 5.0], [79.0, 1.5, 6.0]])
    assert choose_front(values, OBJECTIVES, np.ones(4, dtype=bool), 10).tolist() == [0, 2]


def test_what_is_not_feasible_dominates_nothing():
    values = np.array([[99.0, 0.1, 1.0], [90.0, 2.0, 5.0]])
    assert choose_front(values, OBJECTIVES, np.array([False, True]), 10).tolist() == [1]


@pytest.fixture
def written(layout, rng, tmp_path):
    archs = layout.space.sample(rng, 5)
    columns = {
        "top1_percent": np.array([91.0, 95.5, 97.25, 91.5, 99.0]),
        "latency_ms": np.array([0.25, 0.5, 0.125, 0.25, 3.0]),
        "params": np.array([12345.0, 2, 3, 4, 5]),
        "macs": np.array([1234567890.0, 2, 3, 4, 5]),
        "introspectability": np.array([0.123456789, 0.2, 0.3, 0.4, 0.5]),
        "extra": np.arange(5.0),
    }
    write_front(tmp_path / "front.csv", archs, columns, TOP1)
    return archs, tmp_path / "front.csv"


def test_a_file_has_the_promised_columns_by_ascending_latency(written):
    archs, path = written
    lines = path.read_text().splitlines()
    assert lines[0] == "key,top1_percent,latency_ms,params,macs,introspectability,extra"
    assert lines[2] == f"{archs[3].key},91.5,0.25,4,4,0.4,3"
    assert lines[3] == f"{archs[0].key},91,0.25,12345,1234567890,0.123457,0"
    assert [line.split(",")[0] for line in lines[1:]] == [archs[i].key for i in (2, 3, 0, 1, 4)]


def test_a_file_comes_back(written):
    archs, path = written
    front = read_front(path, "hexagon-dsp", TOP1)
    assert front.device == "hexagon-dsp"
    assert [m.key for m in front] == [archs[i].key for i in (2, 3, 0, 1, 4)]
    assert front[2].values["macs"] == 1234567890
    assert front[0].folder == path.parent / "models" / archs[2].key
    assert len(front) == 5
    assert {m.weights_version for m in front} == {""}


def test_of_equally_fast_models_the_better_one_comes_first_also_where_less_is_better(layout, rng, tmp_path):
    archs = layout.space.sample(rng, 3)
    error = Score("error_px", "min", "error", "px")
    columns = {"error_px": np.array([3.0, 1.0, 2.0]), "latency_ms": np.array([0.5, 0.5, 0.5])}
    write_front(tmp_path / "front.csv", archs, columns, error, ["w3", "w1", "w2"])
    front = read_front(tmp_path / "front.csv", "d", error)
    assert [m.key for m in front] == [archs[i].key for i in (1, 2, 0)]
    assert [m.weights_version for m in front] == ["w1", "w2", "w3"]
    assert "weights_version" not in front[0].values
    assert front.best().key == archs[1].key


@pytest.mark.parametrize("content", ["key,latency_ms\nabc,fast\n", "latency_ms\n1\n", "key,latency_ms\nabc\n", "\xff"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "front.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(ResumeError, match=r"front\.csv is damaged: .*; remove it and run `hwnas search`"):
        read_front(tmp_path / "front.csv", "d", TOP1)


def front_of(*pairs):
    models = [FrontModel("d", f"k{i}", {"top1_percent": t, "latency_ms": ms}, None) for i, (t, ms) in enumerate(pairs)]
    return Front("d", tuple(models), TOP1)


def test_the_knee_by_hand():
    # Scaled to 0..1: (1, 0), (0.2, 0.25), (0, 1): the second is nearest to the ideal.
    assert front_of((90, 1), (98, 2), (100, 5)).knee().key == "k1"
    assert front_of((90, 1)).knee().key == "k0"


def test_the_fastest_of_an_accuracy():
    front = front_of((90, 1), (98, 2), (97, 3), (100, 5))
    assert front.fastest().key == "k0"
    assert front.within("top1_percent>=96").fastest().key == "k1"
    assert front.within("top1_percent>=98.5").fastest().key == "k3"
    with pytest.raises(SearchError, match=r"no model of d keeps top1_percent>=101; the nearest has 100"):
        front.within("top1_percent>=101")


def test_limits_keep_what_is_within_them():
    front = front_of((90, 1), (98, 2), (97, 3), (100, 5))
    assert [m.key for m in front.within("latency_ms<=3", "top1_percent>=95")] == ["k1", "k2"]
    assert [m.key for m in front.within("d:latency_ms<=3", "another:latency_ms<=0.1")] == ["k0", "k1", "k2"]
    assert front.within("latency_ms<=3").best().key == "k1"
    assert list(front.within()) == list(front)
    with pytest.raises(SearchError, match=r"no model of d keeps latency_ms<=0\.5; the nearest has 1"):
        front.within("latency_ms<=0.5")
    with pytest.raises(SearchError, match="models of d have no value 'macs'; they have top1_percent, latency_ms"):
        front.within("macs<=5")
    with pytest.raises(SearchError, match="is not of the form VALUE<=NUMBER"):
        front.within("latency_ms<5")


def test_measured_latencies_count_where_they_are_known():
    estimated, measured = (
        {"top1_percent": 90.0, "latency_ms": 1.0, **more} for more in ({}, {"measured_latency_ms": 4.0})
    )
    front = Front(
        "d", (FrontModel("d", "e", {**estimated, "latency_ms": 2.0}, None), FrontModel("d", "m", measured, None)), TOP1
    )
    assert front.fastest().key == "e"
    assert [m.key for m in front.within("latency_ms<=3")] == ["e"]


def test_the_best_is_the_fastest_of_the_best():
    assert front_of((90, 1), (98, 3), (98, 2)).best().key == "k2"


def test_an_empty_front_says_so():
    with pytest.raises(SearchError, match="the front of d is empty; search it with `hwnas search`"):
        front_of().knee()


def test_a_bundle_is_copied(tmp_path):
    model = FrontModel("my-board", "abc", {}, tmp_path / "models" / "abc")
    with pytest.raises(ExportError, match="model abc has no bundle"):
        model.export(tmp_path / "out")
    model.folder.mkdir(parents=True)
    (model.folder / "model.onnx").write_text("model")
    write_json(model.folder / "metrics.json", {})
    write_json(model.folder / "arch.json", {"files": {"model.onnx": sha256_of(model.folder / "model.onnx")}})
    assert model.export(tmp_path / "out").folder == tmp_path / "out" / "my-board" / "abc"
    assert (tmp_path / "out" / "my-board" / "abc" / "model.onnx").read_text() == "model"
    assert model.export(tmp_path / "out").folder.is_dir(), "in place of the one that is there"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        model.export(tmp_path / "file")
