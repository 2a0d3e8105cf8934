"""How are the times in a table of others read, whatever file they lie in?"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hwnas.errors import TableError
from hwnas.latency.spreadsheet import read_table, read_text


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
    if path.suffix == ".json":
        try:
            pairs = _flat(json.loads(text, object_pairs_hook=_Pairs))
        except ValueError as error:
            raise TableError(f"{path} is no JSON: {error}") from None
    else:
        try:
            pairs = _flat(yaml.load(text, Loader=_PairLoader))
        except yaml.YAMLError as error:
            raise TableError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    return _checked(path, pairs)


def _checked(path: Path, pairs: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    out: dict[str, float] = {}
    for key, given in pairs:
        try:
            value = float(given)
        except (TypeError, ValueError):
            raise TableError(f"{path}: {key} has {given!r}, which is no time") from None
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


class _PairLoader(yaml.SafeLoader):
    """Keeps repeated keys, which YAML would silently drop."""


def _pairs_of(loader: _PairLoader, node: yaml.MappingNode) -> _Pairs:
    built: list[tuple[Hashable, Any]] = [
        (loader.construct_object(k, deep=True), loader.construct_object(v, deep=True)) for k, v in node.value
    ]
    return _Pairs(built)


_PairLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _pairs_of)
