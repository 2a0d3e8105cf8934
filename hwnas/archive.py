"""What has been evaluated, once and for all? One SQLite file a run, written row by row.

The archive knows archs, values and where they came from; it knows no algorithm. Nothing is ever removed from it. A
restarted search asks the same archs again, finds their values here and goes on where it stopped; a new search begins
with everything that was known at its start, which the archive remembers as the row that was last then.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.errors import OutputError, ResumeError
from hwnas.files import make_folder
from hwnas.space import Arch, SearchSpace

FORMAT = 2

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS archs (key TEXT PRIMARY KEY, choices TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS evaluations (
    arch_key TEXT NOT NULL REFERENCES archs (key),
    weights_version TEXT NOT NULL,
    precision TEXT NOT NULL,
    split TEXT NOT NULL,
    value_name TEXT NOT NULL,
    value REAL,
    failed INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    duration_s REAL NOT NULL,
    conditions TEXT NOT NULL,
    PRIMARY KEY (arch_key, weights_version, precision, split, value_name)
);
CREATE TABLE IF NOT EXISTS searches (
    search TEXT PRIMARY KEY,
    device TEXT NOT NULL,
    last_row INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS requests (
    search TEXT NOT NULL,
    position INTEGER NOT NULL,
    arch_key TEXT NOT NULL REFERENCES archs (key),
    PRIMARY KEY (search, position)
);
"""


_LARGEST = 2**63 - 1
"""No row comes after it."""


@dataclass(frozen=True)
class Evaluation:
    """Everything measured in one evaluation of one arch."""

    arch: Arch
    values: Mapping[str, float]
    """By name with unit, in own units; NaN: the evaluation failed."""
    weights_version: str
    """Which weights: values of different versions do not mix."""
    split: str
    """``validation`` while searching, ``test`` for the final table, ``none`` where no data is involved."""
    seed: int
    duration_s: float
    conditions: Mapping[str, Any]
    """What else the values depend on: numbers of images, runtime, threads, ..."""
    precision: str = "fp32"
    """Number format in which the network was computed: values of different precisions do not mix."""


RESTORE = "restore it, or remove it and the folder devices/ to search again"


class Archive:
    """Evaluations on disk; safe against being killed at any moment."""

    def __init__(self, path: Path, space: SearchSpace, recipe_hash: str) -> None:
        """Open or create an archive.

        Args:
            path: the SQLite file.
            space: of all its archs.
            recipe_hash: of everything that decides what the values mean.

        Raises:
            ResumeError: the file is of another recipe, of another format or damaged.
            OutputError: it cannot be written.
        """
        self.space = space
        self.path = path
        make_folder(path.parent)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            there = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
            known = dict(self._db.execute("SELECT name, value FROM meta")) if there else {}
            if known.get("format", str(FORMAT)) == str(FORMAT):  # a file of another format is left as it is
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.executescript(SCHEMA)
            if not known:
                rows = [("format", str(FORMAT)), ("recipe_hash", recipe_hash)]
                self._db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        except sqlite3.OperationalError as error:
            raise OutputError(f"cannot write {path}: {error}; choose another folder with --out") from None
        except sqlite3.DatabaseError as error:
            raise ResumeError(f"{path} is damaged: {error}; {RESTORE}") from None
        if known and known.get("format") != str(FORMAT):
            self.close()
            raise ResumeError(
                f"{path} was written by another version of hwnas (format {known.get('format')}, here {FORMAT}); "
                "go on with that version, or start again with another --out"
            )
        if known and known.get("recipe_hash") != recipe_hash:
            self.close()
            raise ResumeError(
                f"{path} belongs to another recipe; use another --out, or go back to the recipe it was made with"
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, evaluation: Evaluation) -> None:
        """Keep one evaluation, whole or not at all; values already known under the same version and split stay."""
        e = evaluation
        conditions = json.dumps(dict(e.conditions), sort_keys=True)
        rows = [
            (e.arch.key, e.weights_version, e.precision, e.split, name, None if math.isnan(v) else float(v),
             int(math.isnan(v)), e.seed, e.duration_s, conditions)
            for name, v in e.values.items()
        ]  # fmt: skip
        with self._transaction():
            self._add_arch(e.arch)
            self._db.executemany("INSERT OR IGNORE INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _add_arch(self, arch: Arch) -> None:
        choices = json.dumps(arch.as_dict())
        self._db.execute("INSERT OR IGNORE INTO archs VALUES (?, ?)", (arch.key, choices))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write everything inside or nothing."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:  # commits on leaving, rolls back on an error
                yield
        except sqlite3.OperationalError as error:
            raise OutputError(f"cannot write {self.path}: {error}; free space and start again") from None

    def values(
        self, arch: Arch, weights_version: str, split: str, precision: str = "fp32", last_row: int | None = None
    ) -> dict[str, float]:
        """Return what is known of ``arch`` by name; NaN where the evaluation failed, nothing where it is unknown.

        Args:
            arch: evaluated or not.
            weights_version: of the values.
            split: of the values.
            precision: of the values.
            last_row: leave out what was learnt after this row; see `begin`.
        """
        found = self._db.execute(
            "SELECT value_name, value FROM evaluations WHERE arch_key = ? AND weights_version = ? AND precision = ? "
            "AND split = ? AND rowid <= ?",
            (arch.key, weights_version, precision, split, _LARGEST if last_row is None else last_row),
        )
        return {name: math.nan if value is None else value for name, value in found}

    def splits(
        self, weights_version: str, precision: str = "fp32", last_row: int | None = None
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Return everything known under some weights: values by name, by split, by the arch's key; see `values`.

        Archs stand in the order in which they were first evaluated with these weights.
        """
        rows = self._db.execute(
            "SELECT arch_key, split, value_name, value FROM evaluations WHERE weights_version = ? AND precision = ? "
            "AND rowid <= ? ORDER BY rowid",
            (weights_version, precision, _LARGEST if last_row is None else last_row),
        )
        found: dict[str, dict[str, dict[str, float]]] = {}
        for key, split, name, value in rows:
            found.setdefault(key, {}).setdefault(split, {})[name] = math.nan if value is None else value
        return found

    @property
    def last_row(self) -> int:
        """Number of the last row of evaluations; it grows with every value."""
        (row,) = self._db.execute("SELECT COALESCE(MAX(rowid), 0) FROM evaluations").fetchone()
        return int(row)

    def begin(self, search: str, device: str) -> int:
        """Note that a search begins, and return the last row of evaluations that it may know beforehand.

        A search that began before gets the row of that time, so that it is replayed alike.
        """
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO searches SELECT ?, ?, COALESCE(MAX(rowid), 0) FROM evaluations", (search, device)
            )
        (row,) = self._db.execute("SELECT last_row FROM searches WHERE search = ?", (search,)).fetchone()
        return int(row)

    def searches(self, device: str) -> list[str]:
        """Return the searches that began for a device, in their order."""
        rows = self._db.execute("SELECT search FROM searches WHERE device = ? ORDER BY rowid", (device,))
        return [search for (search,) in rows]

    def request(self, search: str, archs: Sequence[Arch]) -> None:
        """Note that ``search`` asked for ``archs``, in this order, after those it asked for before."""
        with self._transaction():
            (start,) = self._db.execute(
                "SELECT COALESCE(MAX(position) + 1, 0) FROM requests WHERE search = ?", (search,)
            ).fetchone()
            for i, arch in enumerate(archs):
                self._add_arch(arch)
                self._db.execute("INSERT INTO requests VALUES (?, ?, ?)", (search, start + i, arch.key))

    def requested(self, searches: Iterable[str]) -> list[Arch]:
        """Return the distinct archs that the named searches asked for, in the order of asking."""
        keys: dict[str, str] = {}
        for search in searches:
            rows = self._db.execute(
                "SELECT key, choices FROM requests JOIN archs ON key = arch_key WHERE search = ? ORDER BY position",
                (search,),
            )
            keys |= dict(rows)
        return [self.space.arch(json.loads(choices)) for choices in keys.values()]

    def forget_requests(self, search: str) -> None:
        """Forget the order of a search that is about to be replayed; its values stay."""
        with self._transaction():
            self._db.execute("DELETE FROM requests WHERE search = ?", (search,))

    def archs_of(self, keys: Iterable[str]) -> list[Arch]:
        """Return the archs with these whole keys, in this order.

        Raises:
            ResumeError: one is not known.
        """
        keys = list(keys)
        known = dict(self._db.execute("SELECT key, choices FROM archs"))
        if lost := [key for key in keys if key not in known]:
            raise ResumeError(
                f"{self.path} does not know {len(lost)} models that are on a front, such as {lost[0]}; {RESTORE}"
            )
        return [self.space.arch(json.loads(known[key])) for key in keys]

    def archs(self) -> list[Arch]:
        """Return every arch, in the order of their first appearance."""
        rows = self._db.execute("SELECT choices FROM archs ORDER BY rowid")
        return [self.space.arch(json.loads(choices)) for (choices,) in rows]

    def find(self, key: str) -> Arch | None:
        """Return the arch whose key begins with ``key``, if there is exactly one."""
        if not key:
            return None
        rows = self._db.execute("SELECT choices FROM archs WHERE substr(key, 1, ?) = ?", (len(key), key)).fetchall()
        return self.space.arch(json.loads(rows[0][0])) if len(rows) == 1 else None
