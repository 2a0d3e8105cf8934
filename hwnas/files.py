"""Where are shipped files, and how are files written so that a crash leaves the old one or the new one?"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from hwnas.errors import OutputError

PARTIAL = ".partial"
"""Ending of files and folders that are being written; what a killed writer left is removed by the next one."""


WRITABLE = "allow writing there, or go on with a copy in a folder that may be written"
"""What to do about a folder, there already, that may only be read: another ``--out`` would begin anew."""


def first_rank() -> bool:
    """Say whether this process writes files: of the processes that ``torchrun`` started together, the first does."""
    return os.environ.get("RANK", "0") == "0"


def n_ranks() -> int:
    """Return how many processes ``torchrun`` started together; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def make_folder(path: Path) -> Path:
    """Create ``path`` with its parents and return it.

    Raises:
        OutputError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot create folder {path}: {error.strerror}; allow writing in {path.parent}, or choose another with "
            "--out"
        ) from None
    return path


def free_folder(path: Path) -> Path:
    """Return ``path`` where nothing is there, else the first of ``path-2``, ``path-3``, ... that is free.

    An empty folder is free.
    """
    number = 1
    while True:
        found = path if number == 1 else path.with_name(f"{path.name}-{number}")
        if not found.exists() or (found.is_dir() and not any(found.iterdir())):
            return found
        number += 1


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep every other process from writing in ``folder`` meanwhile; it may be nested within one process.

    The system frees the lock when its holder ends, however it ends. Unfinished files of a writer that was
    killed are removed.

    Raises:
        OutputError: another process is writing there, or the folder cannot be written.
    """
    make_folder(folder)
    if not first_rank():
        yield
        return
    lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(f"{folder} is being written by another process; wait until it ends") from None
    except OSError as error:
        raise OutputError(f"cannot write in {folder}: {error.strerror}; {WRITABLE}") from None
    try:
        if lock.lock_counter == 1:
            for unfinished in [*folder.rglob(f".*{PARTIAL}")]:
                if unfinished.is_dir():
                    shutil.rmtree(unfinished, ignore_errors=True)
                else:
                    unfinished.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step; see `first_rank`.

    Raises:
        OutputError: no space, no permission, or another fault of the file system.
    """
    if not first_rank():
        return
    make_folder(path.parent)
    temporary = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o644)  # now: some libraries put a file of their own in its place
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; one that holds the text already is left as it is."""
    if path.is_file() and path.read_bytes() == text.encode("utf-8"):
        return
    write_atomically(path, lambda p: _fill(p, text))


SEAL = "sha256"
"""Last key of a JSON or YAML file that hwnas wrote: digest of the other values, so that damage is recognised."""


def seal_of(values: Mapping[str, Any]) -> str:
    """Return a digest of plain values; their order counts."""
    return hashlib.sha256(json.dumps(values, allow_nan=False).encode()).hexdigest()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, with its `SEAL`; `hwnas.reading.read_json` looks at it. NaN is refused."""
    sealed = {**values, SEAL: seal_of(values)}
    write_text(path, json.dumps(sealed, indent=2, allow_nan=False) + "\n")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV; texts that a spreadsheet would take for a formula are quoted with ``'``.

    `hwnas.reading.unquoted` takes the quote off.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_quoted(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def _quoted(text: str) -> str:
    if not text.startswith(FORMULA):
        return text
    try:
        float(text)  # a negative number is no formula
    except ValueError:
        return f"'{text}"
    return text


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""With these begins what a spreadsheet computes."""


def _fill(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def shipped_folder(name: Literal["latency_tables", "supernets"]) -> Path:
    """Return the shipped data folder ``name``: beside the package in a checkout, inside it in a wheel.

    Raises:
        OutputError: neither place holds the folder; the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    places = (package / "shipped" / name, package.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise OutputError(f"the shipped folder {name!r} is at neither of {[str(p) for p in places]}; install hwnas again")
