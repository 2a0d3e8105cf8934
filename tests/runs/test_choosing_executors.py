"""Who evaluates is chosen by a recipe, a command or a call, with options; a run goes on with any other."""

import sys

import pytest

from hwnas.errors import PluginError, RecipeError
from hwnas.registry import made
from hwnas.runs.executor import EXECUTORS, ThisProcess
from hwnas.runs.recipe import load_recipe
from hwnas.runs.start import open_run, run

BACKWARDS = """
class Backwards:
    \"\"\"Does the last item first, as workers may, and gives results in the order of the items.\"\"\"

    def __init__(self, times=1):
        self.times, self.worked = times, []

    def map(self, function, items):
        found = {}
        for i in reversed(range(len(items))):
            for _ in range(self.times):  # work that was lost is done again
                found[i] = function(items[i])
            self.worked.append(i)
        return iter([found[i] for i in range(len(items))])
"""


@pytest.fixture
def backwards(tmp_path, monkeypatch):
    (tmp_path / "their_executor.py").write_text(BACKWARDS)
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_executor:Backwards"
    sys.modules.pop("their_executor", None)


def front(folder, device):
    return (folder / "devices" / device / "front.csv").read_bytes()


def test_what_is_found_does_not_depend_on_the_executor(finished_run, recipe_file, tmp_path, backwards):
    out = tmp_path / "run"
    begun = run(recipe_file(executor={"name": backwards, "options": {"times": 2}}), out=out)
    worked = begun.context.executor.worked
    assert worked != sorted(worked), "it did the work, backwards"
    for device in ("hexagon-dsp", "myriad-vpu"):
        assert front(out, device) == front(finished_run, device)
    with open_run(out).archive() as found, open_run(finished_run).archive() as wanted:
        assert found.archs() == wanted.archs(), "in the same order"
    # A run goes on with any other executor: which one it was decides nothing.
    told = []
    opened = open_run(out, lambda task, *_: told.append(task), executor="this-process")
    opened.search()
    assert set(told) <= {"report"}, "its page is written again, and nothing else is done"
    assert isinstance(opened.context.executor, ThisProcess), "made without the options of the other one"
    assert open_run(out, executor=backwards).context.executor.times == 2, "the recipe's own keeps its options"


def test_a_run_is_begun_with_another_executor(finished_run, recipe_file, tmp_path, backwards):
    out = tmp_path / "run"
    opened = run(recipe_file(devices=["hexagon-dsp"]), out=out, executor=backwards)
    assert opened.context.executor.times == 1
    assert len(opened.context.executor.worked) == 8
    assert load_recipe(out / "recipe.yaml").executor.name == backwards


def test_mistakes_about_executors_are_named(finished_run):
    with pytest.raises(
        RecipeError, match=r"executor\.name: executor 'nobody' is unknown; known are this-process, processes, ray, or"
    ):
        open_run(finished_run, executor="nobody")
    with pytest.raises(RecipeError, match=r"executor\.name: .*'os:nothing'"):
        load_recipe("digits-mbv3", ["executor.name=os:nothing"])
    with pytest.raises(PluginError, match="this-process"):
        made(EXECUTORS, "this-process", {"workers": 3})
