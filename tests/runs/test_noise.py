"""What is noise: candidates whose rank is uncertain, ties of a front, and standard errors of latencies."""

import csv
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from hwnas.latency.table import Row, load_device
from hwnas.objectives import Objective
from hwnas.runs.noise import latency_variance, may_be_on_front, near_ties
from hwnas.runs.start import run
from hwnas.search.limits import Limit
from hwnas.search.problem import Problem
from hwnas.space import SearchSpace
from hwnas.supernet.slot_sum import distinct_blocks


def never(archs):
    raise AssertionError("nothing is evaluated here")


def problem(*limits):
    space = SearchSpace.of_choices({"a": [1, 2]})
    objectives = (Objective("top1_percent", "max", never), Objective("latency_ms", "min", never))
    return Problem(space, objectives, tuple(Limit.parse(t) for t in limits))


LOSSES = np.array([[-90.0, 5.0], [-89.5, 5.5], [-88.0, 6.0], [-80.0, 1.0], [math.nan, 0.1]])
STDERR = np.array([[1.0, 0.0]] * 5)


def test_a_rank_is_uncertain_within_one_standard_error():
    assert may_be_on_front(problem(), LOSSES, STDERR).tolist() == [True, True, False, True, False]
    assert may_be_on_front(problem(), LOSSES, 0 * STDERR).tolist() == [True, False, False, True, False]


def test_what_breaks_a_limit_is_no_candidate_and_beats_none():
    found = may_be_on_front(problem("latency_ms>=5.2"), LOSSES, STDERR)
    assert found.tolist() == [False, True, False, False, False]


def test_ties_of_a_front_follow_the_last_distinct_model():
    losses = -np.array([90.0, 90.5, 91.0, 93.0, 70.0])
    latency = np.array([1.0, 2.0, 3.0, 4.0, 9.0])
    members = np.array([True, True, True, True, False])
    se, exact = np.full(5, 0.5), np.zeros(5)
    # 90.5 is within sqrt(0.5) of 90.0; 91.0 is not, whatever 90.5 is
    assert near_ties(losses, se, latency, exact, members).tolist() == [False, True, False, False, False]
    assert not near_ties(losses, exact, latency, exact, members).any()
    # latencies that cannot be told apart: the better model stands for both
    assert near_ties(losses, exact, latency, np.full(5, 0.8), members).tolist() == [True, True, True, False, False]


def test_a_latency_has_the_errors_of_its_blocks(layout):
    device = load_device("local-cpu")
    device = replace(device, rows={b.signature: Row(1.0, 0.2, 4, "measured") for b in distinct_blocks(layout)})
    arch = layout.space.largest()
    one_block = 1.2533 * (0.2 / 1.349) / 2
    expected = len(layout.blocks(arch)) * one_block**2
    assert latency_variance(device, layout).of_archs([arch])[0] == pytest.approx(expected)
    assert latency_variance(load_device("hexagon-dsp"), layout).of_archs([arch])[0] == 0.0


def test_uncertain_candidates_see_all_images(finished_run, recipe_file, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run / "train", folder / "train")  # without evaluations on all images
    objectives = ["top1_percent", "latency_ms"]
    search = {"algorithm": "random", "evaluations": 12, "validation_images": 9}
    path = recipe_file(devices=["myriad-vpu"], search=search, objectives=objectives)
    done = run(path, out=folder)
    settings = done.settings("myriad-vpu")
    assert done.context.searched_images(settings.search) == 9 < done.context.validation_images
    with done.archive() as archive:
        archs = archive.requested(archive.searches("myriad-vpu")[-1:])
        assert len(archs) == 12
        few = [archive.values(a, done.weights.trained, "validation:9") for a in archs]
        assert all(set(v) >= {"top1_percent", "top1_stderr_percent"} for v in few)
        for arch, v in zip(archs, few, strict=True):
            assert v["top1_percent"] == done.context.trained_evaluator.score(arch, images=9)["top1_percent"]
        with (folder / "devices" / "myriad-vpu" / "front.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            full = archive.values(archive.find(row["key"]), done.weights.trained, "validation")
            assert float(row["top1_percent"]) == pytest.approx(full["top1_percent"], rel=1e-5)
            assert row["near_tie"] in ("0", "1")
    before = (folder / "devices" / "myriad-vpu" / "front.csv").read_bytes()
    run(path, out=folder)
    assert (folder / "devices" / "myriad-vpu" / "front.csv").read_bytes() == before
