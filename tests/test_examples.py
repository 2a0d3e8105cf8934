"""Do the examples run, small, in the order of the data flow?"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

import hwnas

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_short_and_numbered():
    names = sorted(p.name for p in EXAMPLES.glob("*.py"))
    assert [int(n[:2]) for n in names] == list(range(1, 8))
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 80, path


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_an_example_uses_public_names_only(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not any(name.name.startswith("hwnas.") for name in node.names), ast.unparse(node)
        if isinstance(node, ast.ImportFrom):
            assert not node.module.startswith("hwnas"), ast.unparse(node)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hwnas":
            used.add(node.attr)
    assert used
    assert used <= set(hwnas.__all__)


@pytest.mark.slow
def test_examples_run_in_the_order_of_the_data_flow(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert len(load("01_define_space").main(n_archs=2)) == 2
    load("02_train_supernet").main(out, epochs=0.2)
    assert 0 <= load("03_extract_subnet").main(out) <= 100
    load("04_estimate_latency").main(time_limit_s=0.05)
    search = load("05_search")
    run = search.main(out, evaluations=6)
    assert set(run.searched()) == {"hexagon-dsp", "myriad-vpu"}
    assert {run.history(name).last.evaluations for name in run.searched()} == {6}
    assert search.any_space(evaluations=12)
    bundle = load("06_export_and_finetune").main(out, epochs=0.2)
    assert (bundle.folder / "model.onnx").exists()
    report = load("07_report").main(out)
    assert report.stat().st_size > 1_000_000
    assert "knee" in capsys.readouterr().out
