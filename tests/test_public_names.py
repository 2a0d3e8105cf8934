"""Public names: they all import, nothing else is promised, and the promised ones are kept."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import hwnas

PROMISED = {
    "Arch", "Bundle", "Device", "FinetuneResult", "Fleet", "Front", "FrontModel", "HwnasError", "Limit", "Measurement",
    "Objective", "Recipe", "Run", "SearchSpace", "SupernetQuality", "extract_subnet", "load_device", "load_model",
    "load_supernet", "minimize", "open_run", "plugins", "quickstart", "run", "start_run",
}  # fmt: skip
ROOMS = ["space", "supernet", "data", "train", "export", "latency", "objectives", "predictors", "search", "task"]


def test_promised_names_are_public():
    assert set(hwnas.__all__) >= PROMISED


@pytest.mark.parametrize("name", hwnas.__all__)
def test_a_public_name_imports(name):
    found = getattr(hwnas, name)
    assert callable(found)
    assert found.__doc__
    assert found.__name__ == name


def test_names_are_sorted_listed_and_typed():
    assert list(hwnas.__all__) == sorted(set(hwnas.__all__))
    assert dir(hwnas) == list(hwnas.__all__)
    text = Path(hwnas.__file__).read_text(encoding="utf-8")
    for name in hwnas.__all__:
        assert f"import {name} as {name}" in text, "a type checker does not see it"
    assert (Path(hwnas.__file__).parent / "py.typed").is_file()


def test_a_name_that_is_not_public_says_which_are():
    with pytest.raises(AttributeError, match="'hwnas' has no attribute 'runn'; its public names are Arch, "):
        hwnas.runn  # noqa: B018


def test_verbs_are_functions_also_after_their_modules_are_imported():
    code = """
import hwnas.cli.main, hwnas.runs.start, hwnas.runs.doctor, hwnas.runs.plugins, hwnas.runs.published, hwnas
import hwnas.latency.profile, hwnas.latency.device, hwnas.search.minimize
for name in ("run", "quickstart", "profile", "minimize", "devices", "doctor", "plugins", "import_ofa"):
    assert callable(getattr(hwnas, name)), name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_lists_it_has(room):
    module = importlib.import_module(f"hwnas.{room}")
    for name in module.__all__:
        assert hasattr(module, name), name


def test_errors_are_what_a_caller_expects():
    from hwnas import errors

    classes = [c for c in vars(errors).values() if isinstance(c, type) and c is not errors.HwnasError]
    assert len(classes) > 10
    for c in classes:
        assert issubclass(c, errors.HwnasError), c
        assert issubclass(c, ValueError | RuntimeError | OSError), c
        assert c.__name__ in errors.__doc__, "it is missing in the drawn tree"
