"""Does every line that names the next command run as it was printed?"""

import os
import shlex
import shutil

import pytest
import yaml
from PIL import Image

LIMIT = 8
"""Commands after the first, at most."""


@pytest.fixture
def follow(hwnas_command, monkeypatch):
    """Run a command, then what its last lines say comes next, and so on; return the commands that were run."""

    def run(*words, stop=()):
        ran = []
        while words is not None and len(ran) < LIMIT:
            code, out, err = hwnas_command(*words)
            assert code == 0, f"hwnas {shlex.join(words)}: {err}"
            ran.append(words[0])
            found = [line.removeprefix("next: ") for line in out.splitlines() if line.startswith("next: ")]
            assert len(found) <= 1
            words = tuple(shlex.split(found[0])[1:]) if found else None
            if words and words[0] in stop:
                ran.append(f"({words[0]})")
                words = None
        return ran

    return run


@pytest.fixture
def place(tmp_path, tiny_recipe, monkeypatch):
    """A folder with spaces in its name, with a recipe and pictures, as the current one."""
    folder = tmp_path / "a place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "my recipe.yaml").write_text(yaml.safe_dump(tiny_recipe))
    for one in ("one class", "other"):
        (folder / "pictures" / one).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (16, 16), (20 * i, 100 if one == "other" else 0, 30)).save(
                folder / "pictures" / one / f"{i}.png"
            )
    return folder


@pytest.mark.slow
def test_from_training_to_a_report(follow, place):
    assert follow("train", "my recipe.yaml", "--out", "my run") == ["train", "search", "export"]
    assert follow("pareto", "my run") == ["pareto", "export", "report"], "models of other devices are not timed here"
    assert follow("fleet", "my run", "--models", "1") == ["fleet", "export", "report"]
    assert follow("pareto", "my run", "--select", "best:hexagon-dsp:params<=1e9", "--device", "hexagon-dsp") == [
        "pareto", "export", "report",
    ]  # fmt: skip


@pytest.mark.slow
def test_from_a_plan_and_from_a_look_at_the_images_to_a_run(follow, place):
    to_the_end = ["run", "pareto", "export", "report"]
    assert follow("plan", "my recipe.yaml", "search.evaluations=6") == ["plan", *to_the_end]
    shutil.rmtree("runs")
    shutil.rmtree("chosen")
    assert follow("data", "my recipe.yaml", "search.evaluations=6", stop=("pareto",)) == ["data", "run", "(pareto)"]
    assert os.path.isfile("runs/tiny/report.html")


def test_from_pictures_to_a_plan(follow, place):
    assert follow("init", "pictures", "--devices", "hexagon-dsp", "--out", "of pictures.yaml", stop=("run",)) == [
        "init", "plan", "(run)",
    ]  # fmt: skip
    assert follow("recipe") == ["recipe", "recipe"]
