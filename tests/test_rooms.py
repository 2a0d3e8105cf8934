"""Rooms face one way: each imports only rooms to its left, and the light ones never import torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hwnas

PACKAGE = Path(hwnas.__file__).parent
ORDER = (
    "errors", "arguments", "files", "reading", "progress", "registry", "space", "pareto", "task", "data", "supernet",
    "train",
    "export", "latency", "objectives", "predictors", "archive", "search", "finetune", "report", "runs", "cli",
    "testing", "__main__",
)  # fmt: skip
LIGHT = [
    "hwnas", "hwnas.cli", "hwnas.space", "hwnas.pareto", "hwnas.predictors", "hwnas.search",
    "hwnas.objectives.objective", "hwnas.export.op", "hwnas.latency.device", "hwnas.latency.cost_model",
    "hwnas.search.minimize", "hwnas.search.config", "hwnas.task", "hwnas.objectives.plugin", "hwnas.objectives.resolve",
]  # fmt: skip


def rooms_imported(path):
    """First name below ``hwnas`` of every import in the file, wherever it stands."""
    package = ("hwnas", *path.relative_to(PACKAGE).parts[:-1])
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *filter(None, [node.module])))
            names += [f"{stem}.{a.name}" for a in node.names]
    return {n.split(".")[1] for n in names if n.startswith("hwnas.") and n != "hwnas.__version__"}


def files_imported(path):
    """Files of the package that a file imports, also those imported for type checkers only."""
    package = ("hwnas", *path.relative_to(PACKAGE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *filter(None, [node.module])))
            names = [stem, *(f"{stem}.{a.name}" for a in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "hwnas" and len(parts) > 1:
                target = PACKAGE.joinpath(*parts[1:])
                found |= {f for f in (target.with_suffix(".py"), target / "__init__.py") if f.is_file()}
    return found


def files():
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py" and "shipped" not in p.parts)


def test_every_room_has_its_place():
    found = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in files()}
    assert found == set(ORDER)


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_to_its_left(path):
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for target in rooms_imported(path) - {here}:
        assert ORDER.index(target) < ORDER.index(here), f"{here} may not import {target}"


def test_no_two_files_import_each_other():
    """Directly, or in a circle of several."""
    graph = {path: files_imported(path) - {path} for path in files()}
    done = set()

    def follow(path, way):
        assert path not in way, " -> ".join(str(p.relative_to(PACKAGE)) for p in (*way[way.index(path) :], path))
        if path not in done:
            for target in sorted(graph.get(path, ())):
                follow(target, [*way, path])
            done.add(path)

    for path in graph:
        follow(path, [])


@pytest.mark.parametrize(
    "room", ["errors", "files", "reading", "progress", "registry", "space", "pareto", "predictors", "search"]
)
def test_light_rooms_name_no_torch(room):
    for path in [p for p in files() if p.relative_to(PACKAGE).parts[0].removesuffix(".py") == room]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(n.split(".")[0] == "torch" for n in names), path


def test_light_modules_import_no_torch():
    lines = "\n".join(f"import {name}; check({name!r})" for name in LIGHT)
    code = f"import sys\ndef check(name):\n    assert 'torch' not in sys.modules, name\n{lines}\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_module_begins_with_a_sentence():
    for path in [PACKAGE / "__init__.py", *files()]:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert text, path


def test_nothing_prints_or_exits_outside_the_command_line():
    for path in files():
        if path.relative_to(PACKAGE).parts[0] in ("cli", "__main__.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("print", "sys.exit", "exit", "quit"), f"{path}:{node.lineno}"


def test_nothing_is_pickled():
    for path in files():
        text = path.read_text(encoding="utf-8")
        for word in ("pickle.load", "pickle.dump", "torch.save(", "joblib", "skops", "allow_pickle=True"):
            assert word not in text, f"{path}: {word}"
        # What others have published may be read, never executed.
        assert text.count("torch.load(") == text.count("weights_only=True"), path
