"""What does a network learn? The one room that knows labels, outputs, losses and scores; classification is one task.

Importing this package does not import torch; its tasks do.
"""

from __future__ import annotations

from hwnas.registry import Registry
from hwnas.task.task import HasAlphaDivergence, HasLargestStderr, Meter, Score, Task

DEFAULT_TASK = "classification"
"""What recipes mean that name no task, and what was meant before recipes could name one."""

TASKS: Registry[Task] = Registry(
    "task",
    {"classification": "hwnas.task.classification:CLASSIFICATION"},
    needs=(
        "name", "scores", "score", "check", "strata", "targets", "loss", "soft_targets", "distillation_loss", "meter",
    ),
    page="hwnas.task.task",
)  # fmt: skip
"""Tasks by the names that recipes use."""

__all__ = ["DEFAULT_TASK", "TASKS", "HasAlphaDivergence", "HasLargestStderr", "Meter", "Score", "Task"]
