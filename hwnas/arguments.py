"""What may be given to a public function? Its annotations say, and this reads arguments by them.

Callers pass what they have: NumPy's numbers and arrays, tuples for lists, texts for paths. What cannot be read is an
error that names the function, the argument, what was given and what is allowed.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np
from pydantic import TypeAdapter, ValidationError

from hwnas.errors import ArgumentError, shown

P = ParamSpec("P")
R = TypeVar("R")

_PLAIN = (int, float, bool, str, Path, type(None))
_HOLDERS = (list, tuple, dict, Sequence, Mapping, Union, types.UnionType, Literal)


def checked_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Let a public function read its arguments by their annotations.

    Read are numbers, texts, truth values, paths, and lists and mappings of them; arguments of other types pass as they
    are.

    Raises:
        ArgumentError: when the function is called with what cannot be read.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def reading(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        readers = _readers(function)
        for name, value in bound.arguments.items():
            if name in readers:
                bound.arguments[name] = _read(readers[name], value, f"{function.__name__}: {name}")
        return function(*bound.args, **bound.kwargs)

    return reading


@functools.cache
def _readers(function: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    """Readers of those parameters whose types are plain; made when the function is called first."""
    found = {}
    for name, hint in inspect.get_annotations(function).items():
        try:
            read = eval(hint, function.__globals__) if isinstance(hint, str) else hint
        except NameError:  # imported for type checkers only, so it is no plain type
            continue
        if name != "return" and _is_plain(read):
            found[name] = TypeAdapter(read)
    return found


def _is_plain(hint: Any) -> bool:
    """Whether a type is a number, text, truth value or path, or holds nothing else."""
    if hint in _PLAIN:
        return True
    origin = get_origin(hint)
    if origin is Literal:
        return True
    return origin in _HOLDERS and all(part is Ellipsis or _is_plain(part) for part in get_args(hint))


def _read(reader: TypeAdapter[Any], value: Any, what: str) -> Any:
    given = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    try:
        found = reader.validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        at = f" (entry {first['loc'][0]})" if first["loc"] and isinstance(first["loc"][0], int) else ""
        said = first["msg"].removeprefix("Input should be ")
        hint = f"; give a list, such as [{shown(given, 40)}]" if first["type"] == "sequence_str" else ""
        raise ArgumentError(
            f"{what} is {shown(value, 60)}{at}; it should be {said[:1].lower()}{said[1:]}{hint}"
        ) from None
    if isinstance(found, float) and math.isnan(found):
        raise ArgumentError(f"{what} is NaN; give a number")
    return found
