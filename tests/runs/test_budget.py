"""A time instead of a size: the plan by hand, kept over restarts, and honoured by the search."""

import json
import shutil

import pytest

from hwnas.errors import RecipeError
from hwnas.runs.budget import parse_duration, plan_budget
from hwnas.runs.start import run


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20min", 1200), ("1.5h", 5400), ("1h30min", 5400), ("2 m", 120), ("1D", 86400)]
)
def test_times_have_units(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["20", "min", "20 parsecs", "", "-5s", "5s later", "0s"])
def test_other_texts_are_no_time(text):
    with pytest.raises(RecipeError, match=r"budget .* is no"):
        parse_duration(text)


def test_much_time_uses_every_image():
    # 850 s of 1000 s, half for each of two devices, 1 s each
    assert plan_budget(1000, 2, 0.4, 0.0005, 0.1, 1000, 10**9) == (425, 1000)


def test_little_time_uses_fewer_images_and_keeps_the_number_of_evaluations():
    evaluations, images = plan_budget(1000, 1, 0.1, 0.001, 0.0, 10_000, 10**9)
    assert (evaluations, images) == (200, 4150)  # 850 s / 200 = 4.25 s
    evaluations, images = plan_budget(100, 1, 0.1, 0.001, 0.0, 10_000, 10**9)
    assert images == 500
    assert evaluations == 141  # 85 s / 0.6 s


def test_a_small_space_is_evaluated_once():
    assert plan_budget(1e6, 1, 0.1, 0.0, 0.0, 50, 30) == (30, 50)


def test_too_little_time_says_how_much_is_needed():
    with pytest.raises(RecipeError, match=r"enough for 1 evaluations on each of 2 device\(s\); give at least 38s"):
        plan_budget(5, 2, 1.0, 0.002, 0.0, 500, 10**9)
    assert plan_budget(38, 2, 1.0, 0.002, 0.0, 500, 10**9)[0] == 8


def test_a_search_is_sized_by_its_budget_once(finished_run, recipe_file, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    path = recipe_file(devices=["hexagon-dsp"])
    told = []
    done = run(path, out=folder, budget="6s", progress=lambda task, *rest: told.append((task, *rest)))
    plan = json.loads((folder / "budget.json").read_text())
    search = done.settings("hexagon-dsp").search
    assert done.history("hexagon-dsp").last.evaluations == plan["evaluations"] == search.evaluations != 8
    assert search.validation_images == plan["validation_images"] == done.context.validation_images
    assert done.context.searched_images(search) == plan["validation_images"]
    assert any(task == "budget" and "evaluations each" in note for task, _, _, note in told)
    front = (folder / "devices" / "hexagon-dsp" / "front.csv").read_bytes()
    run(path, out=folder, budget=6)  # a restart plans nothing anew; a number is seconds
    assert json.loads((folder / "budget.json").read_text()) == plan
    assert (folder / "devices" / "hexagon-dsp" / "front.csv").read_bytes() == front
