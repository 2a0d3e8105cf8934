"""Objectives that a recipe may name beside accuracy and latency."""

import shutil

import pytest
from run_files import rows_of

from hwnas.objectives.resolve import PROXY_NAMES
from hwnas.runs.problem import make_problem
from hwnas.runs.recipe import load_recipe
from hwnas.runs.start import run


def test_a_recipe_may_name_every_proxy():
    found = load_recipe("digits-mbv3", [f"objectives=[top1_percent, {', '.join(PROXY_NAMES)}]"])
    assert found.objectives == ("top1_percent", *PROXY_NAMES)
    assert len(PROXY_NAMES) > 10


def test_a_proxy_is_an_objective_of_a_run(finished_run, recipe_file, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    objectives = ["top1_percent", "latency_ms", "naswot", "ntk_condition"]
    done = run(
        recipe_file(objectives=objectives, devices=["hexagon-dsp"], constraints=["naswot>=1"]), out=folder
    )  # fmt: skip
    problem = make_problem(done.context, done.devices["hexagon-dsp"], done.settings("hexagon-dsp"))
    assert [o.direction for o in problem.objectives] == ["max", "min", "max", "min"]
    rows = rows_of(folder, "hexagon-dsp")
    assert rows
    with done.archive() as archive:
        for row in rows:
            arch = archive.find(row["key"])
            expected = done.context.trained_evaluator.score(arch, ["naswot", "ntk_condition"])
            assert float(row["naswot"]) == pytest.approx(expected["naswot"], rel=1e-5)
            assert float(row["ntk_condition"]) == pytest.approx(expected["ntk_condition"], rel=1e-3)
            assert float(row["naswot"]) >= 1


def test_a_limit_may_be_on_a_value_that_is_no_objective(finished_run, recipe_file, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    macs = float(rows_of(folder, "hexagon-dsp")[-1]["macs"]) - 1
    objectives = ["top1_percent", "latency_ms"]
    limits = [f"macs<={macs}", "naswot>=1"]
    done = run(recipe_file(objectives=objectives, devices=["hexagon-dsp"], constraints=limits), out=folder)
    rows = rows_of(folder, "hexagon-dsp")
    assert all(float(row["macs"]) <= macs and float(row["naswot"]) >= 1 for row in rows)
    with done.archive() as archive:
        arch = archive.find(rows[0]["key"])
    expected = done.context.trained_evaluator.score(arch, ["naswot"])["naswot"]
    assert float(rows[0]["naswot"]) == pytest.approx(expected, rel=1e-5)
