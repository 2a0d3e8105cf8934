"""How are the times in a table of others read, whatever file they lie in?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hwnas.errors import TableError, UnreadableError, one_line, shown
from hwnas.latency.spreadsheet import read_table, read_text
from hwnas.reading import TEXT_BYTES, parse_json, parse_yaml


def read_values(path: Path) -> dict[str, float]:
    """Read a mapping of keys to times: YAML or JSON (a number, or a mapping with ``mean``), or CSV of two columns.

    Of a folder all files are read, such as once-for-all's one table a resolution; a key that stands in several of them
    was timed several times, and its mean counts.

    Raises:
        TableError: it cannot be read, a value is not a positive number, or a key stands twice in one file with
            different values.
    """
    if path.is_dir():
        found: dict[str, list[float]] = {}
        for file in sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml", ".json", ".csv")):
            for key, value in read_values(file).items():
                found.setdefault(key, []).append(value)
        if not found:
            raise TableError(f"{path} holds no .yaml, .json or .csv tables")
        return {key: sum(values) / len(values) for key, values in found.items()}
    if path.suffix == ".csv":
        table = read_table(path)
        if len(table.columns) < 2:
            raise TableError(f"{path} must have a column of keys and one of times")
        keys, times = table.columns[:2]
        pairs: Iterable[tuple[Any, Any]] = zip(
            [line.cells[keys] for line in table.lines], table.numbers(times, "times"), strict=True
        )
        return _checked(path, pairs)
    text = read_text(path)
    try:
        if path.suffix == ".json":
            return _checked(path, _flat(parse_json(text, str(path), _Pairs)))
        return _checked(path, _flat(parse_yaml(text, str(path), TEXT_BYTES, _pairs_of)))
    except UnreadableError as error:
        raise TableError(f"{path} cannot be read: {error.reason}; give the table as its tool wrote it") from None


def _checked(path: Path, pairs: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    out: dict[str, float] = {}
    for key, given in pairs:
        key = one_line(str(key), 400)
        try:
            value = float(given)
        except (TypeError, ValueError, OverflowError):
            raise TableError(f"{path}: {key} has {shown(given)}, which is no time") from None
        if not (math.isfinite(value) and value > 0):
            raise TableError(f"{path}: {key} has {value}; times must be positive numbers")
        if out.setdefault(str(key), value) != value:
            raise TableError(f"{path}: {key} stands twice, with {out[str(key)]} and {value}; keep the right one")
    if not out:
        raise TableError(f"{path} holds no times")
    return out


class _Pairs(list[tuple[Any, Any]]):
    """A mapping whose repeated keys are kept."""


def _flat(value: Any) -> list[tuple[Any, Any]]:
    """Pairs of keys and times; tables may lie in a mapping, and a time in a mapping with ``mean``."""
    if not isinstance(value, _Pairs):
        return []
    out: list[tuple[Any, Any]] = []
    for key, inner in value:
        if isinstance(inner, _Pairs):
            entry: Mapping[Any, Any] = dict(inner)
            if "mean" in entry or "latency" in entry:
                out.append((key, entry.get("mean", entry.get("latency"))))
            else:
                out += _flat(inner)
        else:
            out.append((key, inner))
    return out


def _pairs_of(loader: Any, node: yaml.Node) -> Any:
    """Values of a YAML node with repeated keys kept, which YAML would silently drop."""
    if isinstance(node, yaml.MappingNode):
        return _Pairs((_pairs_of(loader, key), _pairs_of(loader, value)) for key, value in node.value)
    return loader.construct_object(node, deep=True)
