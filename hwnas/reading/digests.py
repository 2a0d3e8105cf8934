"""Is a file as it was written, and does a name stay inside its folder?"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from hwnas.errors import UnreadableError, shown

_known: dict[tuple[str, int, int, int], str] = {}
"""Digests of files that were hashed in this process, by path, size, time of change and inode."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, computed once a process as long as the file stays as it is.

    Raises:
        UnreadableError: it cannot be read.
    """
    try:
        state = os.stat(path)
        key = str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ino
        if key not in _known:
            with path.open("rb") as file:
                _known[key] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableError(str(path), error.strerror or str(error)) from None
    return _known[key]


def inside(folder: Path, name: str) -> Path:
    """Return ``folder / name`` where that lies inside the folder: names in files are no ways out of it.

    Raises:
        UnreadableError: it is an absolute path, has ``..`` in it, or is no name of a file at all.
    """
    parts = re.split(r"[/\\]", name)
    known = all(part not in ("", ".", "..") and len(part.encode(errors="replace")) < 256 for part in parts)
    if not known or "\0" in name or Path(name).is_absolute():
        raise UnreadableError(str(folder), f"{shown(name)} is no name of a file in it")
    return folder / name


def checked_sums(folder: Path, sums: Mapping[str, str]) -> list[str]:
    """Return the names of the files in ``folder`` that are not there, or not what their digests say.

    Raises:
        UnreadableError: a name that leads out of the folder.
    """
    wrong = []
    for name, digest in sums.items():
        path = inside(folder, name)
        if not path.is_file() or sha256_of(path) != digest:
            wrong.append(name)
    return wrong
