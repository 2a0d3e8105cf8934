"""How does the terminal show long work? A live bar with the time left, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from hwnas.errors import one_line

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_EVERY_S = 10.0


class TerminalProgress:
    """Shows what `hwnas.progress.Progress` is told; use as a context. Writes to standard error."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, tuple[float, float]] = {}
        """When each task was told of first, and how much an earlier start had done of it."""
        self._said_at: dict[str, float] = {}

    def __enter__(self) -> TerminalProgress:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._live = Progress(
                TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", style="dim"), console=Console(stderr=True),
            )  # fmt: skip
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, task: str, done: float, total: float, note: str = "") -> None:
        """Show the state of one task."""
        if self._quiet:
            return
        from hwnas.runs.progress_log import is_late

        task, note = one_line(task), one_line(note)
        now = time.monotonic()
        began, done_before = self._began.setdefault(task, (now, done))
        if self._live is not None:
            if task not in self._tasks:
                self._tasks[task] = self._live.add_task(task, total=total, completed=int(done), note=note)
            known = None if is_late(task, done, total) else total  # None: it stays as it was, at the budget
            self._live.update(self._tasks[task], completed=done, total=known, note=note)
            return
        first, last = task not in self._said_at, done >= total
        if first or last or now - self._said_at[task] >= LINE_EVERY_S:
            self._said_at[task] = now
            new = done - done_before
            left = (
                (now - began) / new * (total - done)
                if new > 0 and not first and not is_late(task, done, total)
                else None
            )
            tail = f", {left:.0f} s left" if left is not None and not last else ""
            print(  # noqa: T201 (the command line is where output belongs)
                f"{task}: {done:g}/{total:g}{f' ({note})' if note else ''}{tail}", file=sys.stderr, flush=True
            )
