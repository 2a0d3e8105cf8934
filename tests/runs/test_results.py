"""What several runs reached, by hand."""

import csv
import shutil

import pytest

from hwnas.errors import RecipeError
from hwnas.files import write_json
from hwnas.reading import read_object
from hwnas.runs.analysis.results import collect
from hwnas.runs.start import open_run

DEVICE = "hexagon-dsp"


@pytest.fixture
def with_front(finished_run, tmp_path):
    """Make a copy of the finished run whose front has the given latencies and accuracies."""

    def make(name, points):
        folder = shutil.copytree(finished_run, tmp_path / name)
        path = folder / "devices" / DEVICE / "front.csv"
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        made = [{**rows[i % len(rows)], "latency_ms": ms, "top1_percent": top1} for i, (ms, top1) in enumerate(points)]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(made)
        history = path.with_name("search.json")
        write_json(history, {**read_object(history), "front_sha256": ""})  # else the front would be damaged
        return open_run(folder)

    return make


def bands_of(run, others):
    fronts = {other.folder: {name: other.front(name) for name in other.searched()} for other in others}
    return bands_of_fronts(run, fronts)


def bands_of_fronts(run, fronts):
    with run.evaluations() as evaluations:
        devices = [run.searched_device(name) for name in run.with_fronts()]
        return {d.name: d.bands for d in collect(evaluations, devices, fronts).devices}


def test_bands_of_three_fronts_by_hand(with_front):
    first = with_front("first", [(1, 80), (3, 90)])
    second = with_front("second", [(2, 85), (4, 95)])
    third = with_front("third", [(2, 70), (3, 92)])
    bands = bands_of(first, [second, third])[DEVICE]
    assert bands.runs == ("first", "second", "third")
    assert bands.best == ((1.0, 80.0), (2.0, 85.0), (3.0, 92.0), (4.0, 95.0))
    # two of three: 80 % in 2 ms (first, second), 90 % in 3 ms (first, third), 92 % in 4 ms (second, third)
    assert bands.median == ((2.0, 80.0), (3.0, 90.0), (4.0, 92.0))
    assert bands.worst == ((2.0, 70.0), (3.0, 85.0), (4.0, 90.0))


def test_one_run_has_no_bands_and_a_device_of_one_run_neither(with_front):
    first, second = with_front("first", [(1, 80)]), with_front("second", [(1, 81)])
    assert set(bands_of(first, []).values()) == {None}
    (second.folder / "devices" / "myriad-vpu" / "front.csv").unlink()
    bands = bands_of(first, [second])
    assert bands[DEVICE] is not None
    assert bands["myriad-vpu"] is None


def test_runs_that_cannot_be_compared_are_named(with_front):
    first, second = with_front("first", [(1, 80)]), with_front("second", [(1, 81)])
    path = second.folder / "manifest.json"
    manifest = read_object(path)
    write_json(path, {**manifest, "data": {"sha256": "other"}})
    with pytest.raises(RecipeError, match=r"second is of other data than .*first; compare runs of the same data"):
        bands_of(first, [second])
    write_json(path, manifest)
    with pytest.raises(RecipeError, match=r"second was searched for edge-tpu, none of which .*hexagon-dsp, myriad-vpu"):
        bands_of_fronts(first, {second.folder: {"edge-tpu": second.front(DEVICE)}})
    shutil.rmtree(second.folder / "devices")
    with pytest.raises(RecipeError, match="second was searched for no device"):
        bands_of(first, [second])
