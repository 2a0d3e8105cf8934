"""Which other tools can show a run, and how are their files made?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hwnas.errors import RecipeError
from hwnas.runs.evaluations import Evaluations
from hwnas.runs.tracking.mlflow_runs import write_runs
from hwnas.runs.tracking.optuna_study import write_study
from hwnas.runs.tracking.tensorboard_curves import write_curves
from hwnas.runs.tracking.trials import TrackedDevice


@dataclass(frozen=True)
class Tracker:
    """One tool: which package it is, which file or folder it gets, and who writes it."""

    package: str
    place: str
    """Below the run's folder ``tracking/``."""
    write: Callable[[Evaluations, Sequence[TrackedDevice], Path | str], str]
    """Returns the command that opens what was written."""


TRACKERS = {
    "optuna": Tracker("optuna", "optuna.db", write_study),
    "mlflow": Tracker("mlflow", "mlflow.db", write_runs),
    "tensorboard": Tracker("tensorboard", "tensorboard", write_curves),
}
"""By the name of the tool, which is also that of hwnas' extra."""


def track(evaluations: Evaluations, devices: Sequence[TrackedDevice], tool: str, out: str | Path | None) -> str:
    """Write what a run has found for another tool; return the command that opens it.

    Args:
        evaluations: of the run.
        devices: whose search has begun.
        tool: a name of `TRACKERS`.
        out: file, folder or address (with ``://``); default: below the run's folder ``tracking/``.

    Raises:
        RecipeError: an unknown tool, or one whose package is not installed.
        OutputError: the place cannot be written.
    """
    if tool not in TRACKERS:
        raise RecipeError(f"tool {tool!r} is unknown; known are {', '.join(TRACKERS)}")
    tracker = TRACKERS[tool]
    if find_spec(tracker.package) is None:
        raise RecipeError(f"{tool} needs the package {tracker.package}: pip install 'hwnas[{tool}]'")
    if isinstance(out, str) and "://" in out:
        return tracker.write(evaluations, devices, out)
    place = evaluations.context.folder.tracking / tracker.place if out is None else Path(out)
    return tracker.write(evaluations, devices, place)
