"""Objectives that a recipe may name beside accuracy and latency."""

import shutil

import numpy as np
import pytest
from run_files import rows_of

from hwnas.latency.device import load_profile, write_profile
from hwnas.latency.table import load_device
from hwnas.objectives.resolve import PROXY_NAMES, objective_of
from hwnas.runs.problem import make_problem
from hwnas.runs.recipe import load_recipe
from hwnas.runs.start import run
from hwnas.supernet import make_layout
from hwnas.task.classification import CLASSIFICATION


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


def test_what_a_device_has_of_memory_is_a_limit_and_what_falls_back_is_said(finished_run, recipe_file, tmp_path):
    """Feature maps of half the archs do not fit; operators that run elsewhere stand in the front and in the report."""
    folder = shutil.copytree(finished_run, tmp_path / "run")
    profile = load_profile("edge-tpu")
    layout = make_layout(load_recipe(recipe_file()).supernet)
    device = load_device("edge-tpu")
    peaks = objective_of("peak_memory_kib", CLASSIFICATION).compile(layout, device)
    has = float(np.median(peaks.of_archs(layout.space.sample(np.random.default_rng(0), 50))))
    small = {"name": "small", "memory_kib": has, "falls_back": {"hswish": "CPU, by its compiler's report"}}
    write_profile(type(profile).model_validate(profile.model_dump() | small), tmp_path / "small")
    objectives = ["top1_percent", "latency_ms", "model_size_kib"]
    done = run(recipe_file(objectives=objectives, devices=[str(tmp_path / "small")]), out=folder)
    assert done.settings("small").constraints == (f"peak_memory_kib<={has:.12g}",)
    rows = rows_of(folder, "small")
    assert rows
    with done.archive() as archive:
        for row in rows:
            arch = archive.find(row["key"])
            assert float(row["peak_memory_kib"]) == pytest.approx(peaks.of_archs([arch])[0], rel=1e-5)
            assert float(row["peak_memory_kib"]) <= has * (1 + 1e-5)
            assert float(row["fallback_layers"]) == sum(done.devices["small"].fallbacks(arch).values())
            assert float(row["model_size_kib"]) > 0
    page = done.report().read_text(encoding="utf-8")
    for said in ("hswish falls back: CPU, by its compiler&#39;s report", "peak memory", "layers that run elsewhere"):
        assert said in page
