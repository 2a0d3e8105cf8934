"""Which plug-ins are there, by kind?"""

from __future__ import annotations

from typing import Any

from hwnas.data.sources import SOURCES
from hwnas.latency.target import TARGETS
from hwnas.objectives.resolve import OBJECTIVES
from hwnas.predictors import PREDICTORS
from hwnas.registry import Registry
from hwnas.runs.executor import EXECUTORS
from hwnas.search.searchers import SEARCHERS
from hwnas.supernet.families.family import FAMILIES
from hwnas.task import TASKS

REGISTRIES: tuple[Registry[Any], ...] = (
    OBJECTIVES, TARGETS, SOURCES, TASKS, FAMILIES, SEARCHERS, PREDICTORS, EXECUTORS,
)  # fmt: skip
"""One registry a kind."""


def plugins() -> dict[str, list[str]]:
    """Return the short names of every kind: shipped ones first, then those of installed packages."""
    return {registry.kind: registry.names() for registry in REGISTRIES}
