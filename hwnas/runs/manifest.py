"""From what was a run made? Versions, hardware, data and code, written once when the run begins."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hwnas.data import Splits
from hwnas.latency.time_onnx import device_name
from hwnas.runs.recipe import Recipe

PACKAGES = ("hwnas", "torch", "onnx", "onnxruntime", "pymoo", "moocore", "scikit-learn", "numpy", "fvcore")


def make_manifest(recipe: Recipe, splits: Splits) -> dict[str, Any]:
    """Return JSON values that say where every number of the run comes from."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe.name,
        "values_hash": recipe.values_hash(),
        "seeds": {"train": recipe.train.seed, "search": recipe.search.seed, "data": recipe.data.seed},
        "data": {
            "source": recipe.data.source,
            "sha256": splits.sha256,
            "sha256_covers": splits.sha256_covers,
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
            "classes": list(splits.classes),
        },
        "hardware": {"processor": device_name(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **package_versions()},
        "git": git_commit(),
    }


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages whose results a run depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_commit() -> str | None:
    """Return the commit of the checkout that hwnas runs from; None in an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
