"""Objectives that a recipe may name beside accuracy and latency."""

import csv
import shutil

import pytest

from hwnas.objectives.proxies.by_name import PROXIES
from hwnas.runs.recipe import ObjectiveName
from hwnas.runs.start import run


def test_a_recipe_may_name_every_proxy():
    assert set(PROXIES) <= set(ObjectiveName.__args__)


def test_a_proxy_is_an_objective_of_a_run(finished_run, recipe_file, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    objectives = ["top1_percent", "latency_ms", "naswot", "ntk_condition"]
    done = run(
        recipe_file(objectives=objectives, devices=["hexagon-dsp"], constraints=["naswot>=1"]), out=folder
    )  # fmt: skip
    problem = done.problem(done.devices["hexagon-dsp"])
    assert [o.direction for o in problem.objectives] == ["max", "min", "max", "min"]
    with (folder / "devices" / "hexagon-dsp" / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    with done.archive() as archive:
        for row in rows:
            arch = archive.find(row["key"])
            expected = done.evaluator.proxies(arch, ["naswot", "ntk_condition"], done.recipe.train.seed)
            assert float(row["naswot"]) == pytest.approx(expected["naswot"], rel=1e-5)
            assert float(row["ntk_condition"]) == pytest.approx(expected["ntk_condition"], rel=1e-3)
            assert float(row["naswot"]) >= 1
