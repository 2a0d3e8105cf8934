"""Which whole networks was a table made with? ``networks.csv`` beside a table holds them, with their times."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.errors import SpaceError, TableError
from hwnas.files import write_text
from hwnas.latency.plan import Plan
from hwnas.space import Arch, SearchSpace

NETWORKS_FILE = "networks.csv"
"""Whole networks that a table was fitted to and judged by."""


@dataclass(frozen=True)
class TableNetwork:
    """A whole network that was timed when a table was made."""

    arch: Arch
    fitted: bool
    """Whether the correction was fitted to it; otherwise it was held out."""
    measured_ms: float


def save_networks(folder: Path, plan: Plan, measured_ms: Sequence[float]) -> None:
    """Write which networks a table was fitted to and judged by, with their times; `read_networks` reads them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", "fitted", "measured_ms", "arch"])
    for number, (arch, ms) in enumerate(zip(plan.archs, measured_ms, strict=True)):
        writer.writerow([arch.key, int(number < len(plan.fitted)), f"{ms:.6g}", json.dumps(arch.as_dict())])
    write_text(folder / NETWORKS_FILE, text.getvalue())


def read_networks(folder: Path, space: SearchSpace) -> list[TableNetwork]:
    """Return the networks that the table in ``folder`` was made with; none where it does not say.

    Raises:
        TableError: the file is damaged.
        SpaceError: the table is of another space.
    """
    path = folder / NETWORKS_FILE
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                TableNetwork(space.arch(json.loads(row["arch"])), row["fitted"] == "1", float(row["measured_ms"]))
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        if isinstance(error, SpaceError):
            raise
        raise TableError(f"{path} is damaged: {error}; build the table again") from None
