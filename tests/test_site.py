"""Is every page of the site reachable, every public name in its reference, and the notebook executed?

Whether links lead somewhere, `make docs` says: it builds the site strictly.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

import hwnas

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def pages(nav) -> list[str]:
    """The files that a navigation names, in order."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages(part)]


@pytest.fixture(scope="module")
def hooks():
    """What makes pages of other files; it needs the packages of the extra `docs`."""
    for package in ("mkdocs", "nbconvert"):
        pytest.importorskip(package, reason="the site is built with the extra `docs`")
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_stands_in_the_navigation_once():
    named = pages(SETTINGS["nav"])
    written = [page for page in named if not page.startswith("api/") and page != "notebook.md"]
    assert sorted(written) == sorted(path.name for path in DOCS.glob("*.md"))


def test_every_public_name_has_its_place_in_the_reference(hooks):
    rooms = hooks.public_names()
    assert sorted(name for names in rooms.values() for name in names) == sorted(hwnas.__all__)
    assert {f"api/{room}.md" for room in rooms} == {p for p in pages(SETTINGS["nav"]) if p.startswith("api/")}
    for room, names in rooms.items():
        text = hooks.api_page(room, names)
        assert set(re.findall(r"^::: hwnas\.(?:[\w.]+\.)?(\w+)$", text, flags=re.M)) == set(names)
        assert len(text.split("\n\n")[1]) > 20, f"{room} does not say what it answers"


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_files_that_a_page_shows_are_named_as_the_site_reads_it(page):
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if re.match(r"\s*-+\s*8\s*<", line)]
    for line in lines:  # a formatter of code once took such a line for Python
        shown = re.fullmatch(r'--8<-- "([^"]+)"', line)
        assert shown, line
        assert (ROOT / shown[1]).is_file(), line


def test_nothing_is_fetched_by_who_reads_it():
    assert SETTINGS["strict"] is True
    assert SETTINGS["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css"} & set(SETTINGS)
    for path in DOCS.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"!\[[^\]]*\]\((?:https?:)?//|<(?:script|img|link)\b[^>]*//", text) == [], path.name


def test_every_picture_of_a_page_is_there():
    for path in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).is_file(), f"{path.name}: {target}"


def read(path: Path):
    return pytest.importorskip("nbformat", reason="notebooks are read with the extra `docs`").read(path, as_version=4)


def code_cells(path: Path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_is_kept_as_it_was_executed_and_shows_public_names(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run `make notebook`"
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    shown = "\n".join(cell.source for cell in cells)
    used = {
        n.attr
        for n in ast.walk(ast.parse(shown))
        if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "hwnas"
    }
    assert used <= set(hwnas.__all__)
    said = "\n".join(str(output) for output in outputs)
    assert re.findall(r"/(?:home|root|work|tmp|Users)/", said) == []


def test_there_is_a_notebook():
    assert [path.name for path in NOTEBOOKS] == ["first_run.ipynb"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_executes(path, tiny_recipe, tmp_path):
    """Every cell runs, in a kernel of its own, with a recipe that trains for seconds."""
    nbclient = pytest.importorskip("nbclient", reason="notebooks are executed with the extra `docs`")
    pytest.importorskip("ipykernel", reason="notebooks are executed with the extra `docs`")
    notebook = read(path)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe), encoding="utf-8")
    parameters.source = 'RECIPE, SETTINGS, OUT = "tiny.yaml", [], "runs/first-run"'
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "edge-tpu" in str(notebook.cells[-3].outputs)
    assert (tmp_path / "runs" / "first-run" / "report.html").is_file()
