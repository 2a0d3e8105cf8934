"""Whoever evaluates, a search finds the same archs."""

import shutil

import pytest

from hwnas.errors import PluginError
from hwnas.runs.executor import EXECUTORS, ThisProcess
from hwnas.runs.start import open_run, run
from hwnas.testing.executor import ExecutorTests


class Backwards:
    """Does the work in another order than it was asked for."""

    asked = 0

    def map(self, function, items):
        Backwards.asked += len(items)
        done = {i: function(items[i]) for i in reversed(range(len(items)))}
        return iter([done[i] for i in range(len(items))])


class TestThisProcess(ExecutorTests):
    def make(self):
        return ThisProcess()


def test_the_shipped_executor_is_found_by_name():
    assert EXECUTORS.get("this-process") is ThisProcess


def test_a_search_finds_the_same_whoever_evaluates(finished_run, recipe_file, tmp_path):
    out = tmp_path / "other"
    out.mkdir()
    shutil.copytree(finished_run / "train", out / "train")
    Backwards.asked = 0
    run(recipe_file(executor={"name": f"{__name__}:Backwards"}), out=out)
    assert Backwards.asked >= 8
    for path in finished_run.glob("devices/*/front.csv"):
        assert (out / path.relative_to(finished_run)).read_bytes() == path.read_bytes()


def test_an_executor_that_is_not_there_is_named(finished_run):
    with pytest.raises(ValueError, match="executor 'cloud' is unknown; known are this-process"):
        open_run(finished_run, executor="cloud")
    assert issubclass(PluginError, ValueError)
