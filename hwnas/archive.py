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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.errors import HwnasError, OutputError, ResumeError, SpaceError, UnreadableError, one_line, shown
from hwnas.files import SEAL, WRITABLE, make_folder, write_text
from hwnas.reading import ROUGHLY, read_text, sha256_of
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


SUM_BYTES = 4096
"""Of the file that holds the archive's digest, in the form of ``sha256sum``."""

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
        self._sum = path.with_name(f"{path.name}.{SEAL}")
        self._archs: dict[str, Arch] = {}
        make_folder(path.parent)
        stated, found = "" if self._wal.exists() else self._stated(), _digest(path)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            there = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
            known = dict(self._db.execute("SELECT name, value FROM meta")) if there else {}
            self._check(known, recipe_hash)
            # Where another process writes it meanwhile, what is stated has changed.
            if stated and found not in ("", stated) and self._stated() == stated:
                raise self._damaged("it is not as it was written (sha256 differs)")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(SCHEMA)
            if not known:
                rows = [("format", str(FORMAT)), ("recipe_hash", recipe_hash)]
                self._db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        except (sqlite3.Error, *ROUGHLY) as error:
            if hasattr(self, "_db"):
                self._db.close()
            if isinstance(error, HwnasError):
                raise
            raise self._failed(error, WRITABLE) from None

    def _check(self, known: Mapping[str, object], recipe_hash: str) -> None:
        if known and known.get("format") != str(FORMAT):
            found = one_line(str(known.get("format")), 40)
            raise ResumeError(
                f"{self.path} was written by another version of hwnas (format {found}, here {FORMAT}); go on with that "
                "version, or start again with another --out"
            )
        if known and known.get("recipe_hash") != recipe_hash:
            raise ResumeError(
                f"{self.path} belongs to another recipe; use another --out, or go back to the recipe it was made with"
            )

    def close(self) -> None:
        """Close the file, and keep its digest where no other process has it open."""
        self._db.close()
        if not self._wal.exists() and (found := _digest(self.path)) and found != self._stated():
            with suppress(OutputError):  # of a run that may only be read
                write_text(self._sum, f"{found}  {self.path.name}\n")

    @property
    def _wal(self) -> Path:
        """Where SQLite keeps what is not yet in the file."""
        return self.path.with_name(f"{self.path.name}-wal")

    def _stated(self) -> str:
        """Digest of the file when it was last closed; empty: it was never, or has been written to since.

        It says nothing of a file beside which there is a `_wal`.
        """
        try:
            return read_text(self._sum, SUM_BYTES).split()[0] if self._sum.exists() else ""
        except (UnreadableError, IndexError):
            raise self._damaged(f"{self._sum.name} cannot be read") from None

    def _damaged(self, reason: object) -> ResumeError:
        return ResumeError(f"{self.path} is damaged: {reason}; {RESTORE}")

    def _failed(self, error: Exception, remedy: str) -> HwnasError:
        """What SQLite says in our words: the file is damaged, or the system does not let it be written."""
        name = getattr(error, "sqlite_errorname", "")
        if isinstance(error, sqlite3.OperationalError) and name not in ("SQLITE_ERROR", "SQLITE_IOERR_SHORT_READ"):
            return OutputError(f"cannot write {self.path}: {error}; {remedy}")
        return self._damaged(error)

    def _read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Rows of a query.

        Raises:
            ResumeError: the file is damaged.
        """
        try:
            return self._db.execute(query, values).fetchall()
        except (sqlite3.Error, *ROUGHLY) as error:
            raise self._failed(error, "free space and start again") from None

    def _arch(self, key: str, choices: str) -> Arch:
        """The arch of a row, whose key says whether it is as it was written."""
        if key not in self._archs:
            try:
                arch = self.space.arch(json.loads(choices))
            except (SpaceError, *ROUGHLY) as error:
                raise self._damaged(f"arch {shown(key, 40)}: {error}") from None
            if arch.key != key:
                raise self._damaged(f"arch {shown(key, 40)} has the choices of another one")
            self._archs[key] = arch
        return self._archs[key]

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
            self._sum.unlink(missing_ok=True)  # it is of what the file held before
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:  # commits on leaving, rolls back on an error
                yield
        except sqlite3.Error as error:
            raise self._failed(error, "free space and start again") from None

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
        found = self._read(
            "SELECT value_name, value FROM evaluations WHERE arch_key = ? AND weights_version = ? AND precision = ? "
            "AND split = ? AND rowid <= ?",
            (arch.key, weights_version, precision, split, _LARGEST if last_row is None else last_row),
        )
        return {name: self._number(value) for name, value in found}

    def _number(self, value: object) -> float:
        if value is not None and not isinstance(value, int | float):
            raise self._damaged(f"{shown(value, 40)} stands in place of a number")
        return math.nan if value is None else value

    def splits(
        self, weights_version: str, precision: str = "fp32", last_row: int | None = None
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Return everything known under some weights: values by name, by split, by the arch's key; see `values`.

        Archs stand in the order in which they were first evaluated with these weights.
        """
        rows = self._read(
            "SELECT arch_key, split, value_name, value FROM evaluations WHERE weights_version = ? AND precision = ? "
            "AND rowid <= ? ORDER BY rowid",
            (weights_version, precision, _LARGEST if last_row is None else last_row),
        )
        found: dict[str, dict[str, dict[str, float]]] = {}
        for key, split, name, value in rows:
            found.setdefault(key, {}).setdefault(split, {})[name] = self._number(value)
        return found

    def evaluations(self) -> list[Evaluation]:
        """Return everything that was evaluated, in the order in which it was first known.

        Values of one arch under the same weights, precision and split are one evaluation, whenever they were added;
        what else is said of it (duration, conditions) is of the first of them.
        """
        rows = self._read(
            "SELECT arch_key, weights_version, precision, split, value_name, value, seed, duration_s, conditions "
            "FROM evaluations ORDER BY rowid"
        )
        known = dict(self._read("SELECT key, choices FROM archs"))
        values: dict[tuple[str, ...], dict[str, float]] = {}
        first: dict[tuple[str, ...], tuple[Any, ...]] = {}
        for key, version, precision, split, name, value, *about in rows:
            place = (key, version, precision, split)
            values.setdefault(place, {})[name] = self._number(value)
            first.setdefault(place, tuple(about))
        found = []
        for (key, version, precision, split), (seed, duration_s, conditions) in first.items():
            if key not in known:
                raise self._damaged(f"it has an evaluation of {shown(key, 40)}, and no such arch")
            try:
                said = dict(json.loads(conditions))
            except (*ROUGHLY, RecursionError) as error:
                raise self._damaged(f"conditions of {shown(key, 40)}: {error}") from None
            place, number = (key, version, precision, split), self._number(duration_s)
            arch = self._arch(key, known[key])
            found.append(Evaluation(arch, values[place], version, split, int(seed), number, said, precision))
        return found

    @property
    def last_row(self) -> int:
        """Number of the last row of evaluations; it grows with every value."""
        ((row,),) = self._read("SELECT COALESCE(MAX(rowid), 0) FROM evaluations")
        return int(row)

    def begin(self, search: str, device: str) -> int:
        """Note that a search begins, and return the last row of evaluations that it may know beforehand.

        A search that began before gets the row of that time, so that it is replayed alike.
        """
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO searches SELECT ?, ?, COALESCE(MAX(rowid), 0) FROM evaluations", (search, device)
            )
        ((row,),) = self._read("SELECT last_row FROM searches WHERE search = ?", (search,))
        return int(self._number(row))

    def searches(self, device: str) -> list[str]:
        """Return the searches that began for a device, in their order."""
        rows = self._read("SELECT search FROM searches WHERE device = ? ORDER BY rowid", (device,))
        return [search for (search,) in rows]

    def request(self, search: str, archs: Sequence[Arch]) -> None:
        """Note that ``search`` asked for ``archs``, in this order, after those it asked for before."""
        with self._transaction():
            ((start,),) = self._read("SELECT COALESCE(MAX(position) + 1, 0) FROM requests WHERE search = ?", (search,))
            for i, arch in enumerate(archs):
                self._add_arch(arch)
                self._db.execute("INSERT INTO requests VALUES (?, ?, ?)", (search, start + i, arch.key))

    def requested(self, searches: Iterable[str]) -> list[Arch]:
        """Return the distinct archs that the named searches asked for, in the order of asking."""
        keys: dict[str, str] = {}
        for search in searches:
            rows = self._read(
                "SELECT key, choices FROM requests JOIN archs ON key = arch_key WHERE search = ? ORDER BY position",
                (search,),
            )
            keys |= dict(rows)
        return [self._arch(key, choices) for key, choices in keys.items()]

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
        known = dict(self._read("SELECT key, choices FROM archs"))
        if lost := [key for key in keys if key not in known]:
            raise ResumeError(
                f"{self.path} does not know {len(lost)} models that are on a front, such as {lost[0]}; {RESTORE}"
            )
        return [self._arch(key, known[key]) for key in keys]

    def archs(self) -> list[Arch]:
        """Return every arch, in the order of their first appearance."""
        rows = self._read("SELECT key, choices FROM archs ORDER BY rowid")
        return [self._arch(key, choices) for key, choices in rows]

    def find(self, key: str) -> Arch | None:
        """Return the arch whose key begins with ``key``, if there is exactly one."""
        if not key:
            return None
        rows = self._read("SELECT key, choices FROM archs WHERE substr(key, 1, ?) = ?", (len(key), key))
        return self._arch(*rows[0]) if len(rows) == 1 else None


def _digest(path: Path) -> str:
    """SHA-256 of a file; empty where it is not there."""
    return sha256_of(path) if path.is_file() else ""
