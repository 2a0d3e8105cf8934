"""Options that size and limit a search, and what is said where they cannot be."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.errors import RecipeError
from hwnas.export.bundle import Bundle
from hwnas.runs.start import open_run


def test_a_limit_of_the_command_line_holds(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    command = ["search", str(folder), "--evaluations", "9", "--devices", "hexagon-dsp", "--limit", "params<=6000"]
    result = CliRunner().invoke(app, [*command, "--limit", "latency_ms<=1e6", "--searcher", "random", "--json"])
    assert result.exit_code == 0, result.output
    assert (folder / "recipe.yaml").read_bytes() == (finished_run / "recipe.yaml").read_bytes()
    opened = open_run(folder)
    settings, other = (opened.settings(d) for d in ("hexagon-dsp", "myriad-vpu"))
    assert settings.constraints == ("params<=6000", "latency_ms<=1000000")
    assert (settings.search.evaluations, settings.search.algorithm) == (9, "random")
    assert (other.constraints, other.search.evaluations) == ((), 8)
    assert all(m.values["params"] <= 6000 for m in opened.front("hexagon-dsp"))
    before = open_run(finished_run).front("myriad-vpu")
    assert [m.values for m in opened.front("myriad-vpu")] == [m.values for m in before], "other devices keep theirs"
    result = CliRunner().invoke(app, ["export", str(folder), "--limit", "params<=2000", "--best", "--json"])
    assert result.exit_code == 0, result.output
    for path, device in zip(json.loads(result.stdout)["bundles"], opened.searched(), strict=True):
        metrics = Bundle(Path(path)).metrics
        assert (metrics["device"], metrics["params"] <= 2000) == (device, True)


def test_time_and_number_at_once_are_refused(finished_run):
    result = CliRunner().invoke(app, ["search", str(finished_run), "--evaluations", "9", "--budget", "1min"])
    assert isinstance(result.exception, RecipeError)
    assert "give one of them" in str(result.exception)


def test_limits_that_contradict_are_found_before_training_on_a_device_without_a_table(recipe_file, tmp_path):
    path = recipe_file(devices=["local-cpu"])
    command = ["run", str(path), "--out", str(tmp_path / "out"), "--limit", "latency_ms<=1", "--limit", "latency_ms>=2"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, RecipeError)
    assert "latency_ms>=2 and latency_ms<=1 contradict each other" in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", ["latency_ms<5", "latency_ms", "speed<=3"])
def test_a_limit_that_means_nothing_is_named(recipe_file, tmp_path, limit):
    result = CliRunner().invoke(app, ["run", str(recipe_file()), "--out", str(tmp_path / "out"), "--limit", limit])
    assert isinstance(result.exception, RecipeError)
    assert limit.split("<")[0] in str(result.exception)
