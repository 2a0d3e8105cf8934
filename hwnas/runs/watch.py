"""How far is a run, seen from outside? Told from the files that it writes; nothing is changed, locked or computed."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hwnas.arguments import checked_arguments
from hwnas.errors import ResumeError, UnreadableError
from hwnas.reading import csv_rows, made_of, read_text
from hwnas.runs.folder import RunFolder
from hwnas.runs.progress_log import LARGEST_BYTES, ProgressLine, parse_line, read_progress
from hwnas.runs.recipe import load_recipe

POLL_S = 1.0
"""Between two looks at the files."""


@dataclass(frozen=True)
class DeviceState:
    """The front of one device as it is now."""

    device: str
    models: int
    best_score: float
    fastest_ms: float


@dataclass(frozen=True)
class RunState:
    """How far a run is."""

    folder: str
    state: Literal["not begun", "running", "waiting", "stopped"]
    """``waiting``: no command is at work on it; ``stopped``: the last one ended with an error, or its process is
    gone."""
    verb: str
    """What is being done, or was done last; empty: nothing yet."""
    error: str
    """Why the last command stopped; empty: it did not."""
    tasks: tuple[ProgressLine, ...]
    """The last state of every task of the verb, in the order in which they were begun."""
    score: str
    """Name of what models are compared by; empty: not known."""
    fronts: tuple[DeviceState, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = asdict(self)
        values["tasks"] = [
            {"task": t.what, "done": t.done, "total": t.total, "note": t.note, "at": t.at, "left_s": t.left_s}
            for t in self.tasks
        ]
        return values


@checked_arguments
def run_state(folder: str | Path) -> RunState:
    """Look at a run folder, which may be there only later; it may be at work meanwhile.

    Args:
        folder: of the run.
    """
    files = RunFolder(Path(folder))
    lines = read_progress(files.progress)
    begins = max((i for i, line in enumerate(lines) if line.kind == "begin"), default=None)
    score, fronts = _fronts(files)
    if begins is None:
        state: Literal["not begun", "waiting"] = "waiting" if files.recipe.exists() else "not begun"
        return RunState(str(folder), state, "", "", (), score, fronts)
    verb = lines[begins]
    tasks = {line.what: line for line in lines[begins:] if line.kind == "task"}
    ends = [line for line in lines[begins:] if line.kind == "end"]
    shown = tuple(tasks.values())
    if ends:
        stopped = ends[-1].note
        return RunState(str(folder), "stopped" if stopped else "waiting", verb.what, stopped, shown, score, fronts)
    if not _alive(verb):
        gone = f"process {verb.process} is gone; the same command continues"
        return RunState(str(folder), "stopped", verb.what, gone, shown, score, fronts)
    return RunState(str(folder), "running", verb.what, "", shown, score, fronts)


def follow(
    folder: str | Path, every_s: float = 30.0, wait: Callable[[float], object] = time.sleep
) -> Iterator[ProgressLine]:
    """Yield what a run says, from its beginning, and then what it goes on to say, without an end.

    Args:
        folder: of the run; it may be made later, and several commands may work on it one after the other.
        every_s: of a task of which nothing changes but the number of what is done, a line so often.
        wait: called with seconds between two looks at the file; it ends the watching by raising.
    """
    path = RunFolder(Path(folder)).progress
    place, rest, said = 0, b"", dict[str, ProgressLine]()
    while True:
        fresh, place = _fresh(path, place)
        *texts, rest = (rest + fresh).split(b"\n")  # the last line may still be being written
        for text in texts:
            line = parse_line(text.decode("utf-8", "replace"))
            if line is None:
                continue
            before = said.get(line.what)
            if line.kind == "task" and before is not None and line.started == before.started:
                changed = line.step != before.step or (line.ended and not before.ended)
                if not changed and line.at - before.at < every_s:
                    continue
            said[line.what] = line
            yield line
        if not fresh:
            wait(POLL_S)


def _fresh(path: Path, place: int) -> tuple[bytes, int]:
    """What was appended to a file since ``place``, and where it ends now; of a file that was begun anew, all of it."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(place if place <= size else 0)
            fresh = file.read(2 * LARGEST_BYTES)
            return fresh, file.tell()
    except OSError:
        return b"", 0


def _alive(verb: ProgressLine) -> bool:
    """Whether the process of a verb is there; one of another machine is taken to be."""
    if verb.machine != socket.gethostname():
        return True
    try:
        os.kill(verb.process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user
        return True
    return True


def _fronts(files: RunFolder) -> tuple[str, tuple[DeviceState, ...]]:
    """The fronts that are there; what is being replaced just now, or is damaged, is left out."""
    if not files.recipe.exists():
        return "", ()
    try:
        score = load_recipe(files.recipe).task_object.score
    except ValueError:
        return "", ()
    found = []
    for name in files.searched():
        path = files.device(name).front
        try:
            with made_of(path):
                rows = list(csv_rows(read_text(path), str(path)))
                best = max if score.direction == "max" else min
                values = best(float(r[score.name]) for r in rows)
                found.append(DeviceState(name, len(rows), values, min(float(r["latency_ms"]) for r in rows)))
        except (UnreadableError, ResumeError):
            continue
    return score.name, tuple(found)
