"""What are the values of a JSON text? Finite, every key once, as they were written, and of the expected types."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from hwnas.errors import UnreadableError, shown
from hwnas.files import SEAL, seal_of
from hwnas.reading.text import ROUGHLY, made_of, read_bytes

T = TypeVar("T")

DEPTH = 32
"""Levels of lists and mappings within each other; recipes have 6."""


def parse_json(text: str | bytes, where: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return the values of a JSON text: numbers are finite, keys stand once.

    Args:
        text: of at most `TEXT_BYTES`.
        where: names it in errors.
        pairs: what becomes of a mapping; default: a dict, and a key that stands twice is an error.

    Raises:
        UnreadableError: it is no JSON, or is nested more deeply than `DEPTH`.
    """
    try:
        values = json.loads(
            text, object_pairs_hook=pairs or _once, parse_constant=_no_number, parse_float=_finite, parse_int=_integer
        )
    except RecursionError:
        raise UnreadableError(where, f"it has more than {DEPTH} levels within each other") from None
    except ValueError as error:  # also UnicodeDecodeError
        raise UnreadableError(where, f"it is no JSON: {error}") from None
    _check_depth(values, where)
    return values


def read_json(path: Path) -> Any:
    """Return the values of a JSON file, its `SEAL` taken off.

    Raises:
        UnreadableError: see `read_bytes` and `parse_json`; or the seal is of other values.
    """
    return unsealed(parse_json(read_bytes(path), str(path)), str(path))


def read_object(path: Path) -> dict[str, Any]:
    """Return the values of a JSON file that holds an object; see `read_json`."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise UnreadableError(str(path), f"it holds {shown(values)} in place of an object")
    return values


def read_as(kind: type[T], path: Path) -> T:
    """Return what a JSON file holds as a dataclass or another type that pydantic validates; see `read_json`.

    Raises:
        UnreadableError: also where a field is missing, unknown or of another type.
    """
    return as_type(kind, read_json(path), str(path))


def as_type(kind: type[T], values: Any, where: str) -> T:
    """Return plain values as a dataclass or another type that pydantic validates.

    Raises:
        UnreadableError: a field is missing, unknown or of another type.
    """
    try:
        found: T = _adapter(cast(Hashable, kind)).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise UnreadableError(where, f"{place}: {first['msg']}, got {shown(first['input'], 60)}") from None
    except ROUGHLY as error:
        raise UnreadableError(where, str(error)) from None
    return found


@lru_cache(maxsize=64)
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))


def unsealed(values: Any, where: str) -> Any:
    """Return values without their `SEAL`, which files of others and of older versions do not have.

    Raises:
        UnreadableError: the seal is of other values.
    """
    if not isinstance(values, dict) or SEAL not in values:
        return values
    rest = {k: v for k, v in values.items() if k != SEAL}
    with made_of(where):
        if seal_of(rest) == values[SEAL]:
            return rest
    raise UnreadableError(where, "its values are not those that were written (sha256 differs)")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"key {shown(twice)} stands twice")
    return values


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{shown(text, 40)} is too large a number")
    return number


def _integer(text: str) -> int:
    if len(text) > 400:  # above the largest float; arithmetic with it would fail somewhere else
        raise ValueError(f"{shown(text, 40)} is too large a number")
    return int(text)


def _check_depth(values: Any, where: str) -> None:
    level = [values]
    for _ in range(DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        level = [value for value in level if isinstance(value, dict | list | tuple)]
        if not level:
            return
    raise UnreadableError(where, f"it has more than {DEPTH} levels within each other")
