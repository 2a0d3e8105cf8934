"""The example of one plug-in of every kind: installed as a user would, run, and not known to hwnas."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment in which the package is installed beside hwnas."""
    site = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--disable-pip-version-check", "--target", str(site), str(EXAMPLE)],
        check=True, capture_output=True,
    )  # fmt: skip
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}


def command(environment, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "hwnas", *map(str, arguments)], cwd=EXAMPLE, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hwnas_knows_no_name_of_it():
    for path in (ROOT / "hwnas").rglob("*.py"):
        assert "hwnas_example" not in path.read_text(encoding="utf-8"), path


@pytest.mark.slow
def test_its_short_names_are_listed(installed):
    names = json.loads(command(installed, "plugins", "--json"))
    for kind, name in (
        ("objective", "p95_error_percent"), ("target", "counting-board"), ("source", "rectangles"),
        ("task", "rectangle"), ("family", "plain"), ("searcher", "climb"), ("executor", "retry"),
    ):  # fmt: skip
        assert name in names[kind]


@pytest.mark.slow
def test_a_front_is_found_with_plug_ins_only(installed, tmp_path):
    out = tmp_path / "run"
    summary = json.loads(command(installed, "run", "recipe.yaml", "--out", out, "--json"))
    (device,) = summary["devices"]
    assert device["device"] == "board"
    assert device["origin"] == "measured"
    assert device["latency_mape_percent"] < 5, "the board counts alike in tables and whole networks"
    with (out / "devices" / "board" / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert 1 <= len(rows) <= 5
    assert all(float(r["p95_error_percent"]) >= float(r["mae_percent"]) > 0 for r in rows)
    assert all(float(r["params"]) <= 40000 for r in rows)
    assert all("introspectability" not in r for r in rows), "nobody asked for it"
    metrics = json.loads((out / "devices" / "board" / "models" / rows[0]["key"] / "metrics.json").read_text())
    assert metrics["test_mae_percent"] < 60, "the networks have learnt something: guessing the middle errs by 25"
    assert "mean absolute error" in (out / "report.html").read_text()


@pytest.mark.slow
def test_its_conformance_tests_pass(installed):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(EXAMPLE / "tests")],
        cwd=EXAMPLE, env=installed, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
