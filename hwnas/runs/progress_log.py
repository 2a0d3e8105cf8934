"""How does another process learn how far a run is? From ``progress.jsonl``, which every verb that writes appends to.

A line is one of three things: a verb began, a verb ended, or how far a task is. A task says its first and its last
state, every change of what stands before the first comma of its note (a phase, a generation, a model), and in between
its state every few seconds. Of work that has a time budget, a task of its own says how much of it is used. A verb that
finds nothing to do says nothing: what is told once only, such as that the report was written, waits for a task that
takes several steps. Lines that cannot be written or read are left out: nothing depends on them.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hwnas.errors import UnreadableError, one_line
from hwnas.files import first_rank
from hwnas.progress import Progress
from hwnas.reading import as_type, read_bytes

EVERY_S = 5.0
"""Between two lines of a task of which nothing but the number of what is done changes."""
LARGEST_BYTES = 16 * 2**20
"""A larger file is begun anew with the next verb."""
NOTE_LETTERS = 400
LATE = 1.0
"""Second that is still missing of a run that takes longer than its budget: nobody knows how many there are."""
WHOLE = "whole run, s"
"""The task that says how many seconds of a time budget are used."""


@dataclass(frozen=True)
class ProgressLine:
    """One line of the file."""

    at: float
    """Seconds since 1970."""
    kind: Literal["begin", "task", "end"]
    what: str
    """Name of the verb, or of the task."""
    done: float = 0.0
    total: float = 0.0
    note: str = ""
    """Of a verb that ended with an error: what it said."""
    started: float = 0.0
    """Of a task: when it was told of first, seconds since 1970."""
    before: float = 0.0
    """How much of it was done then, by an earlier start."""
    process: int = 0
    """Of a verb: the number of its process, and the name of its machine."""
    machine: str = ""

    @property
    def ended(self) -> bool:
        """Whether a task is done."""
        return self.done >= self.total

    @property
    def step(self) -> str:
        """What changes with every phase, generation or model: the note up to its first comma."""
        return self.note.partition(",")[0]

    @property
    def left_s(self) -> float | None:
        """Seconds that a task still takes, if it goes on as it went; None: not known, or done."""
        new = self.done - self.before
        if self.ended or is_late(self.what, self.done, self.total) or new <= 0 or self.at <= self.started:
            return None
        return (self.at - self.started) / new * (self.total - self.done)


def is_late(task: str, done: float, total: float) -> bool:
    """Say whether a task is the time of a run that takes longer than its budget: how much is left is not known."""
    return task == WHOLE and 0 < total - done <= LATE


@dataclass
class _Budget:
    """A time budget for the work of a verb."""

    whole_s: float
    before_s: float
    """That earlier starts worked."""
    began_at: float
    told_at: float = 0.0

    def used_s(self, now: float) -> float:
        """Return how much of it is used, in whole seconds."""
        return round(self.before_s + now - self.began_at)


class ProgressLog:
    """A `hwnas.progress.Progress` that also appends to a file."""

    def __init__(self, path: Path, told: Progress) -> None:
        """Name the file, which need not be there, and who else is told."""
        self._path = path
        self._told = told
        self._last: dict[str, ProgressLine] = {}
        self._written: dict[str, ProgressLine] = {}
        self._begins: ProgressLine | None = None
        self._waiting: list[ProgressLine] = []
        self._budget: _Budget | None = None

    @contextmanager
    def of(self, verb: str, budget_s: float | None = None) -> Iterator[None]:
        """Say of a verb, once it tells of a task, that it began, and how it ends.

        Args:
            verb: its name.
            budget_s: seconds for the work, those of earlier starts of the verb on the same file included.
        """
        if budget_s is not None:
            self._budget = _Budget(budget_s, worked_s(read_progress(self._path), verb), time.time())
        process, machine, note = os.getpid(), socket.gethostname(), "stopped"
        self._begins = ProgressLine(time.time(), "begin", verb, process=process, machine=machine)
        self._waiting = []
        try:
            yield
            note = ""
        except Exception as error:
            note = one_line(str(error), NOTE_LETTERS) or type(error).__name__
            raise
        finally:
            if self._budget is not None and not note and self._begins is None:
                used = self._budget.used_s(time.time())
                self._tell(WHOLE, used, used)
            self._budget = None
            if self._begins is None:
                self._write(ProgressLine(time.time(), "end", verb, note=note, process=process, machine=machine))

    def __call__(self, task: str, done: float, total: float, note: str = "") -> None:
        """Tell the others, and append a line where one is due; see `hwnas.progress.Progress`."""
        self._tell(task, done, total, note)
        worked = self._begins is None  # a verb with nothing to do says nothing
        if worked and (budget := self._budget) is not None and (now := time.time()) - budget.told_at >= EVERY_S:
            budget.told_at = now
            used = budget.used_s(now)
            late = used + LATE > budget.whole_s
            note = f"{task}, over the budget of {budget.whole_s:g} s" if late else task
            self._tell(WHOLE, used, used + LATE if late else budget.whole_s, note)  # late is not yet done

    def _tell(self, task: str, done: float, total: float, note: str = "") -> None:
        self._told(task, done, total, note)
        now = time.time()
        last, written = self._last.get(task), self._written.get(task)
        begins = last is None or done < last.done
        started, before = (now, done) if last is None or begins else (last.started, last.before)
        line = ProgressLine(now, "task", one_line(task), done, total, one_line(note, NOTE_LETTERS), started, before)
        self._last[task] = line
        if last is not None and written is not None:
            if last.step != line.step and last != written:
                self._write(last)  # how the phase or generation ended
            elif last.step == line.step and not line.ended and now - written.at < EVERY_S:
                return
        self._written[task] = line
        if self._begins is not None and last is None and line.ended:
            self._waiting.append(line)
            return
        self._write(line)

    def _write(self, line: ProgressLine) -> None:
        if not first_rank():
            return
        if self._begins is not None:
            begins, self._begins = self._begins, None
            with suppress(OSError):
                if self._path.exists() and self._path.stat().st_size > LARGEST_BYTES:
                    self._path.unlink()
            for earlier in (begins, *self._waiting):
                self._write(earlier)
        values = {k: v for k, v in asdict(line).items() if v not in ("", 0, 0.0) or k == "done"}
        # A progress must not raise: what it says matters less than the work that it tells of.
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def read_progress(path: Path) -> list[ProgressLine]:
    """Return the lines of a file, without those that are damaged; none where there is no file."""
    try:
        content = read_bytes(path, 2 * LARGEST_BYTES)
    except UnreadableError:
        return []
    return [line for text in content.decode("utf-8", "replace").splitlines() if (line := parse_line(text)) is not None]


def worked_s(lines: Iterable[ProgressLine], verb: str) -> float:
    """Return for how many seconds a verb was at work, by what it said first and last each time it was started."""
    found, began, last = 0.0, None, 0.0
    for line in lines:
        if line.kind == "begin":
            found += 0.0 if began is None else last - began
            began = line.at if line.what == verb else None
        last = line.at
    return max(0.0, found + (0.0 if began is None else last - began))


def parse_line(text: str) -> ProgressLine | None:
    """Return what a line says; None where it is damaged or still being written."""
    try:
        return as_type(ProgressLine, json.loads(text), "progress")
    except (ValueError, RecursionError):
        return None
