"""How does a run read what it keeps in small JSON files? Each is found as it was written, or named with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from hwnas.errors import ResumeError, UnreadableError
from hwnas.reading import read_as

T = TypeVar("T")


def read_kept(kind: type[T], path: Path, remedy: str) -> T:
    """Return what a JSON file of a run holds, as a dataclass or another type that pydantic validates.

    Args:
        kind: what it is.
        path: the file.
        remedy: ends the message, such as ``remove it and search again``.

    Raises:
        ResumeError: the file is damaged.
    """
    try:
        return read_as(kind, path)
    except UnreadableError as error:
        raise ResumeError(f"{path} is damaged: {error.reason}; {remedy}") from None
