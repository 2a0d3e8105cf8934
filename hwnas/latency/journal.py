"""Which timings did an interrupted build leave? Each is written as it is taken; the next start goes on from them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from hwnas.errors import OutputError, TableError, UnreadableError
from hwnas.files import SEAL, seal_of
from hwnas.latency.time_onnx import Burst
from hwnas.reading import as_type, parse_json, read_text, unsealed

TIMINGS_FILE = "timings.jsonl"
"""Timings of an unfinished build."""

JOURNAL_BYTES = 2**28
"""Of timings; those of the largest table that ships would have 20 MB."""


class Journal:
    """Timings of a build, one JSON line each; those of another build are dropped."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        """Read what the file holds; nothing is written yet.

        Args:
            path: the file.
            identity: JSON values that tell one build from another.
        """
        self.path = path
        self.bursts: list[Burst] = []
        """Timings so far."""
        identity = json.loads(json.dumps(identity))
        try:
            lines = read_text(path, JOURNAL_BYTES).splitlines() if path.exists() else []
        except UnreadableError as error:
            raise TableError(f"{path} is damaged: {error.reason}; remove it and build the table again") from None
        values = [v for v in (_json_or_none(line, str(path)) for line in lines) if v is not None]
        if values and values[0] == {"build": identity}:
            self.bursts = [b for b in (_burst(v, str(path)) for v in values[1:]) if b is not None]
        self._identity = identity
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        try:
            self._file = self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise self._full(error) from None
        self._write({"build": self._identity})
        for burst in self.bursts:
            self._write(asdict(burst))

    def __exit__(self, *error: object) -> None:
        assert self._file is not None
        with suppress(OSError):  # of a full disk, which `_write` has told
            self._file.close()

    def _write(self, value: dict[str, Any]) -> None:
        assert self._file is not None, "entered"
        try:
            self._file.write(json.dumps({**value, SEAL: seal_of(value)}) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._full(error) from None

    def _full(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.path}: {error.strerror}; free space or choose another --out")

    def add(self, burst: Burst) -> None:
        """Keep one timing, as rounded as the file has it, so that a second start computes with the same."""
        rounded = replace(burst, values_ms=tuple(float(f"{v:.5g}") for v in burst.values_ms))
        self.bursts.append(rounded)
        self._write(asdict(rounded))

    def remove(self) -> None:
        """Remove the file: the build is complete."""
        os.unlink(self.path)


def _json_or_none(line: str, where: str) -> dict[str, Any] | None:
    """A line that a killed process left unfinished, or that is not as it was written, is None: it is timed again."""
    try:
        value = unsealed(parse_json(line, where), where)
    except UnreadableError:
        return None
    return value if isinstance(value, dict) else None


def _burst(values: dict[str, Any], where: str) -> Burst | None:
    try:
        return as_type(Burst, values, where)
    except UnreadableError:
        return None
