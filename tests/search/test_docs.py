"""The code of docs/search.md runs as it stands, with few evaluations."""

import re
from pathlib import Path

import hwnas
from hwnas.objectives import Objective
from hwnas.search import SEARCHERS, SearchConfig, minimize

TEXT = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")


def genes(archs):
    return [float(sum(len(str(a[name])) for name in a)) for a in archs]


def test_code_runs(monkeypatch):
    monkeypatch.setattr(hwnas, "minimize", lambda *a, **k: minimize(*a, **{**k, "evaluations": 6}))
    names = {"accuracy": genes, "latency": genes, "params": genes}
    names["objectives"] = [Objective("top1_percent", "max", genes), Objective("latency_ms", "min", genes, cheap=True)]
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    ran = [block for block in blocks if "run.evaluator" not in block]  # that one needs a finished run
    assert len(ran) == len(blocks) - 1 >= 4
    for block in ran:
        exec(compile(block, "docs/search.md", "exec"), names)


def test_every_shipped_searcher_has_its_row():
    assert [name for name in SEARCHERS.names() if f"| `{name}` |" not in TEXT] == []


def test_the_options_of_a_recipe_are_read():
    assert SearchConfig(options={"staged": False, "settings": {"optimism_deviations": 1.0}}).options["staged"] is False
