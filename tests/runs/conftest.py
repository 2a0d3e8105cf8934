"""Runs to change."""

import shutil
import sys
from pathlib import Path

import pytest

from hwnas.progress import silent
from hwnas.runs.start import run

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def copied(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture
def again(recipe_file):
    """Start the tiny recipe again, with other values of top-level keys."""
    return lambda out, progress=silent, **changes: run(recipe_file(**changes), out=out, progress=progress)
