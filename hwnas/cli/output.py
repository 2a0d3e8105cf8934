"""How does the command line speak? Text or one JSON value on standard output, the rest on standard error."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from hwnas.errors import one_line, printable
from hwnas.files import first_rank

if TYPE_CHECKING:
    from hwnas.cli.progress import TerminalProgress


def show(as_json: bool, values: Any, text: str) -> None:
    """Print ``values`` as JSON or ``text``; of several processes that belong together the first does."""
    if first_rank():
        typer.echo(json.dumps(values, indent=2) if as_json else printable(text))


def warn(text: str) -> None:
    """Print a warning on standard error."""
    if first_rank():
        typer.echo(f"warning: {one_line(text)}", err=True)


def warn_of_devices(warnings: Mapping[str, Sequence[str]], as_json: bool) -> None:
    """Print the warnings of every device, unless they are shown as JSON."""
    for name, texts in warnings.items():
        for text in () if as_json else texts:
            warn(f"{name}: {text}")


def following(*words: object) -> str:
    """Return the line that names the next command, quoted so that a shell takes it as printed."""
    return f"next: {shlex.join(['hwnas', *map(str, words)])}"


def duration(seconds: float) -> str:
    """Return a time as one reads it, such as ``45 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def progress(quiet: bool) -> TerminalProgress:
    """Return what shows progress; use it as a context."""
    from hwnas.cli.progress import TerminalProgress

    return TerminalProgress(quiet or not first_rank())


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table without lines, one column as wide as its longest cell."""
    from io import StringIO

    from rich.console import Console
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for name in heading:
        made.add_column(name, no_wrap=True)
    for row in rows:
        made.add_row(*map(one_line, row))
    text = StringIO()
    Console(file=text, width=10_000, color_system=None, markup=False, emoji=False, highlight=False).print(made)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
