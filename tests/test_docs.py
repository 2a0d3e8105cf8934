"""Does what the texts show work? Their code runs, it uses public names only, and their commands are commands."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
import yaml

import hwnas
from hwnas.cli.examples import EXAMPLES as OF_COMMANDS
from hwnas.cli.main import app
from hwnas.search import SEARCHERS, SearchConfig

UsageError = typer.BadParameter.__base__
ROOT = Path(__file__).resolve().parents[1]
TEXTS = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "latency_tables").glob("*.md")), *sorted((ROOT / "examples").rglob("*.md")),
]  # fmt: skip
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))  # their code is executed by tests/test_site.py
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))


def text_of(path: Path) -> str:
    """A text; of a notebook what stands between the code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")


def blocks(path: Path, *languages: str) -> list[str]:
    """The fenced blocks of a text in one of some languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text_of(path), flags=re.S | re.M)
    return [body for language, body in found if language in languages]


def imported(code: str) -> list[str]:
    """Which modules, and which names of these, a piece of code imports."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def is_public(name: str) -> bool:
    if not re.match(r"hwnas(\.|$)", name):
        return True
    return name == "hwnas" or name.startswith("hwnas.testing.") or name.removeprefix("hwnas.") in hwnas.__all__


def test_a_name_that_is_not_public_is_found():
    assert [n for n in imported("from hwnas.runs.run import Run\nfrom hwnas import Run, runn") if not is_public(n)] == [
        "hwnas.runs.run.Run", "hwnas.runn",
    ]  # fmt: skip


@pytest.mark.parametrize("path", [*TEXTS, *EXAMPLES], ids=lambda p: str(p.relative_to(ROOT)))
def test_only_public_names_are_shown(path):
    for code in [path.read_text(encoding="utf-8")] if path.suffix == ".py" else blocks(path, "python"):
        assert [name for name in imported(code) if not is_public(name)] == []
        for name in re.findall(r"\bhwnas\.(\w+)", code):
            assert name in (*hwnas.__all__, "testing", "errors"), f"hwnas.{name} is not public"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_phases):
    """A folder in which the shipped recipe of digits trains for seconds, and runs/digits is finished."""
    folder = tmp_path_factory.mktemp("texts")
    recipe = yaml.safe_load((ROOT / "supernets" / "digits-mbv3.yaml").read_text(encoding="utf-8"))
    recipe["train"]["phases"] = tiny_phases
    recipe["search"]["evaluations"] = 8
    recipe["finish"] = {"models": 2, "epochs": 0.2}
    recipe["evaluation"]["calibration_images"] = 64
    (folder / "supernets").mkdir()
    (folder / "supernets" / "digits-mbv3.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        hwnas.run("supernets/digits-mbv3.yaml", devices=["hexagon-dsp", "myriad-vpu"], out="runs/digits")
        shutil.copytree("runs/digits", "runs/digits-mbv3")  # where the README's run stands
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def tiny_phases():
    return [{"name": "all", "epochs": 3, "lr": 0.05, "elastic": dict.fromkeys(ELASTIC, "all"), "sampling": "sandwich",
             "subnets_per_step": 2}]  # fmt: skip


ELASTIC = ("kernel_size", "depth", "expand_ratio")


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in TEXTS if blocks(path, "python")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_code_of_a_text_runs(path, workplace):
    shutil.rmtree("chosen", ignore_errors=True)  # of another text, whose models may have been fine-tuned since
    names: dict[str, object] = {"__name__": "a_text"}
    for code in blocks(path, "python"):
        exec(compile(code, str(path), "exec"), names)


def commands(path: Path) -> list[str]:
    """The command lines in blocks of a text."""
    lines = [line for body in blocks(path, "", "sh") for line in body.splitlines()]
    found = (re.match(r"(?:for .* do )?(hwnas [a-z-][^#;|]*)", line) for line in lines)
    return [line[1].strip() for line in found if line]


def mentioned(path: Path) -> list[str]:
    """Commands in prose, where what is not spoken of is left out."""
    prose = re.sub(r"^```.*?^```", "", text_of(path), flags=re.S | re.M)
    return re.findall(r"`(hwnas [^`\n]*)`", prose)


def parse(line: str) -> None:
    """Read a command line as the command would, without running it.

    Raises:
        click.UsageError: an unknown command or option, or an argument that has no place.
    """
    words = shlex.split(line.split(",")[0] if "tables build, check" in line else line)[1:]
    command, context = typer.main.get_command(app), None
    while hasattr(command, "commands"):
        if not words:
            return
        context = command.make_context("hwnas", words[:1], parent=context)
        command = command.resolve_command(context, words[:1])[1]
        words = words[1:]
    if words:
        command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("path", [*TEXTS, *NOTEBOOKS], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_commands_of_a_text_are_commands(path):
    for line in commands(path):
        parse(line)
    for line in mentioned(path):
        try:
            parse(line)
        except UsageError as error:
            if "Missing parameter" not in str(error):
                raise


@pytest.mark.parametrize("line", ["hwnas serch runs/digits", "hwnas run RECIPE --algorithm nsga2", "hwnas tables bild"])
def test_a_wrong_command_is_found(line):
    with pytest.raises(UsageError):
        parse(line)


def all_commands(command=None, name=""):
    """Every command with its whole name."""
    command = command or typer.main.get_command(app)
    inner = getattr(command, "commands", {})
    for word, one in inner.items():
        yield from all_commands(one, f"{name} {word}".strip())
    if name and (not inner or command.invoke_without_command):
        yield name, command


@pytest.mark.parametrize(("name", "command"), list(all_commands()), ids=lambda v: v if isinstance(v, str) else "")
def test_help_has_an_example_that_is_a_command_and_every_default(name, command):
    if name != "devices":  # a group's own help lists its commands
        assert command.epilog.endswith(f"  {OF_COMMANDS[name]}")
    parse(OF_COMMANDS[name])
    for option in command.params:
        if option.param_type_name == "option" and not option.is_flag and not option.required:
            said = option.default not in (None, ()) and option.show_default
            assert said or "default: " in option.help.lower(), f"{name} {option.opts[0]}: {option.help}"


def test_every_example_is_of_a_command():
    assert set(OF_COMMANDS) == {name for name, _ in all_commands()}


SEARCH = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")


def test_every_shipped_searcher_has_its_row():
    assert [name for name in SEARCHERS.names() if f"| `{name}` |" not in SEARCH] == []


def test_the_search_settings_of_a_text_are_read():
    for body in blocks(ROOT / "docs" / "search.md", "yaml"):
        SearchConfig(**yaml.safe_load(body)["search"])
