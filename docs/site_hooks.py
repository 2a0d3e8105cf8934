"""Pages of the site that are made of other files: the reference of every public name, and the notebook of examples/."""

from __future__ import annotations

import ast
from pathlib import Path

import nbconvert
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "first_run.ipynb"


def public_names() -> dict[str, dict[str, str]]:
    """Return the public names of hwnas and their modules by the room they come from, without importing anything."""
    rooms: dict[str, dict[str, str]] = {}
    for node in ast.parse((ROOT / "hwnas" / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOMES":
            for name, home in ast.literal_eval(node.value).items():
                rooms.setdefault(home.split(".")[1], {})[name] = home
    return rooms


def api_page(room: str, names: dict[str, str]) -> str:
    """Return the page of a room: what it answers, and every public name with its docstring."""
    init = ROOT / "hwnas" / room / "__init__.py"
    source = init if init.is_file() else ROOT / "hwnas" / f"{room}.py"
    about = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    order = sorted(names, key=lambda n: (n[0].isupper(), n.lower()))  # functions first
    entries = "\n\n".join(f"::: {_place(name, names[name])}" for name in order)
    return f"# {room}\n\n{about}\n\n{entries}\n"


def _place(name: str, home: str) -> str:
    """Return what a name is found by: its public place, unless a module of that name stands in its home."""
    in_the_way = ROOT.joinpath(*home.split("."), f"{name}.py").is_file()
    return f"{home}.{name}.{name}" if in_the_way else f"hwnas.{name}"


def notebook_page() -> tuple[str, dict[str, bytes]]:
    """Return the notebook with its outputs as Markdown, and its pictures by name."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    body, resources = nbconvert.MarkdownExporter().from_notebook_node(notebook)
    return body, resources["outputs"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, before the site is put together."""
    for room, names in public_names().items():
        files.append(File.generated(config, f"api/{room}.md", content=api_page(room, names)))
    body, pictures = notebook_page()
    files.append(File.generated(config, "notebook.md", content=body))
    for name, content in pictures.items():
        files.append(File.generated(config, name, content=content))
    return files
