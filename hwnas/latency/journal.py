"""Which timings did an interrupted build leave? Each is written as it is taken; the next start goes on from them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from hwnas.latency.time_onnx import Burst

TIMINGS_FILE = "timings.jsonl"
"""Timings of an unfinished build."""


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
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        values = [v for v in map(_json_or_none, lines) if v is not None]
        if values and values[0] == {"build": identity}:
            self.bursts = [
                Burst(**{**v, "values_ms": tuple(v["values_ms"]), "input_shape": tuple(v["input_shape"])})
                for v in values[1:]
            ]
        self._identity = identity
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        self._file = self.path.open("w", encoding="utf-8")
        self._write({"build": self._identity})
        for burst in self.bursts:
            self._write(asdict(burst))

    def __exit__(self, *error: object) -> None:
        assert self._file is not None
        self._file.close()

    def _write(self, value: dict[str, Any]) -> None:
        assert self._file is not None, "entered"
        self._file.write(json.dumps(value) + "\n")
        self._file.flush()

    def add(self, burst: Burst) -> None:
        """Keep one timing, as rounded as the file has it, so that a second start computes with the same."""
        rounded = replace(burst, values_ms=tuple(float(f"{v:.5g}") for v in burst.values_ms))
        self.bursts.append(rounded)
        self._write(asdict(rounded))

    def remove(self) -> None:
        """Remove the file: the build is complete."""
        os.unlink(self.path)


def _json_or_none(line: str) -> dict[str, Any] | None:
    """A line that a killed process left unfinished is None."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
