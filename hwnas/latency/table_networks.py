"""Which whole networks was a table made with? ``networks.csv`` beside a table holds them, with their times."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.errors import TableError, UnreadableError
from hwnas.files import csv_text, write_text
from hwnas.latency.plan import Plan
from hwnas.latency.table import NETWORKS_FILE
from hwnas.reading import csv_rows, made_of, parse_json, read_text
from hwnas.space import Arch, SearchSpace
from hwnas.supernet.layout import PRECISION


@dataclass(frozen=True)
class TableNetwork:
    """A whole network that was timed when a table was made."""

    arch: Arch
    fitted: bool
    """Whether the correction was fitted to it; otherwise it was held out."""
    measured_ms: float


def save_networks(folder: Path, plan: Plan, measured_ms: Sequence[float]) -> None:
    """Write which networks a table was fitted to and judged by, with their times; `read_networks` reads them."""
    rows: list[list[object]] = [["key", "fitted", "measured_ms", "arch"]]
    for number, (arch, ms) in enumerate(zip(plan.archs, measured_ms, strict=True)):
        rows.append([arch.key, int(number < len(plan.fitted)), f"{ms:.6g}", json.dumps(arch.as_dict())])
    write_text(folder / NETWORKS_FILE, csv_text(rows))


def read_networks(folder: Path, space: SearchSpace) -> list[TableNetwork]:
    """Return the networks that the table in ``folder`` was made with; none where it does not say.

    A table is of networks, whatever precision an arch may name besides: in a space with that choice its first option
    stands for them.

    Raises:
        TableError: the file is damaged.
        SpaceError: the table is of another space.
    """
    path = folder / NETWORKS_FILE
    if not path.exists():
        return []
    try:
        with made_of(path):
            return [_network(row, space, str(path)) for row in csv_rows(read_text(path), str(path))]
    except UnreadableError as error:
        raise TableError(f"{path} is damaged: {error.reason}; build the table again") from None


def _network(row: Mapping[str, str], space: SearchSpace, where: str) -> TableNetwork:
    measured_ms = float(row["measured_ms"])
    if not (math.isfinite(measured_ms) and measured_ms > 0):
        raise UnreadableError(where, f"a network takes {measured_ms} ms; times must be positive numbers")
    values = parse_json(row["arch"], where)
    if PRECISION in space and isinstance(values, dict):
        values = {PRECISION: space[PRECISION].options[0], **values}
    return TableNetwork(space.arch(values), row["fitted"] == "1", measured_ms)
