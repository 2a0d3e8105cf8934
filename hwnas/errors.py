"""Which errors hwnas raises for a user's mistake or a device's failure.

The tree; every class also inherits the built-in that a caller would expect::

    HwnasError
    ├── ArgumentError         (ValueError)    what was given to a public function
    ├── SpaceError            (ValueError)    an arch or option outside its space
    ├── RecipeError           (ValueError)    a file, key or value of a recipe or a command
    ├── SearchError           (ValueError)    a search that cannot be asked for: budget, objectives, limits, settings
    ├── PluginError           (ValueError)    a name that stands for nothing, or a plug-in that cannot be used
    ├── DataError             (ValueError)    a dataset that cannot be used
    ├── DeviceError           (ValueError)    an unknown device or a damaged device profile
    ├── TableError            (ValueError)    a damaged latency table
    │   ├── MissingBlockError                 a block that the table was not measured for
    │   └── TableMismatchError                tables or measurements of different conditions
    ├── MeasurementError      (RuntimeError)  a timing that could not be taken or trusted
    │   └── HostError                         another machine that does not answer, or is lost on the way
    ├── WorkerError           (RuntimeError)  workers that are lost again and again
    ├── ExportError           (RuntimeError)  an export that failed or broke parity
    ├── TrainingError         (RuntimeError)  a loss that is not finite
    ├── CheckpointError       (ValueError)    a checkpoint that is damaged or of another network
    ├── ResumeError           (ValueError)    a run folder or archive of another recipe
    ├── OutputError           (OSError)       a place that cannot be written
    └── UnreadableError       (ValueError)    a file or text that is not what it should be, of any format

The command line turns any of them into one line and exit code 2. Messages are one line wherever they come from: what
was given may be long, or hold the control characters of a terminal.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MESSAGE_LIMIT = 1200
"""Characters of a message; the lists of known names that messages show are shorter."""

SHOWN_LIMIT = 160
"""Characters of a value that a message shows: about a line."""


def printable(text: str) -> str:
    """Return ``text`` with control characters, which could steer a terminal, as escapes; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def escaped(text: str) -> str:
    """Return a name that others chose, such as that of a file, as it is told apart in one line: nothing collapses."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def did_you_mean(given: str, names: Iterable[str]) -> str:
    """Return a hint at the name that is most like ``given``, to stand at the end of a message; empty: none is."""
    near = get_close_matches(given, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_line(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Return ``text`` as one printable line of at most ``limit`` characters; what is too much is left out inside."""
    if len(text) > 4 * limit:  # a huge text is not looked at as a whole
        text = f"{text[: 2 * limit]} ... {text[-2 * limit :]}"
    text = printable(" ".join(text.split()))
    if len(text) <= limit:
        return text
    end = limit // 3
    return f"{text[: limit - end - 5]} ... {text[-end:]}"


def shown(value: object, limit: int = SHOWN_LIMIT) -> str:
    """Return a value as a message shows it: its `repr`, at most a line of it."""
    try:
        return one_line(repr(value), limit)
    except Exception:  # noqa: BLE001 (a number of over 4,300 digits, a value that holds itself, an object of anybody's)
        return f"a {type(value).__name__} that cannot be shown"


def some(names: Sequence[str], n: int = 5) -> str:
    """Return the first of some names that others chose, for a message."""
    first = ", ".join(repr(name) for name in names[:n])
    return f"{first} and {len(names) - n:,} more" if len(names) > n else first


class HwnasError(Exception):
    """Base of every error that hwnas raises on purpose; its message says what to do next, in one line."""

    def __init__(self, *args: object) -> None:
        """Make the message one printable line."""
        super().__init__(*(one_line(a) if isinstance(a, str) else a for a in args))


class ArgumentError(HwnasError, ValueError):
    """What was given to a public function is of another kind than it takes."""


class SpaceError(HwnasError, ValueError):
    """An arch, genome or option lies outside its search space."""


class RecipeError(HwnasError, ValueError):
    """A file, key or value of a recipe (or of a command's arguments) is wrong."""


class SearchError(HwnasError, ValueError):
    """A search cannot be done as asked: a budget below 1, no objectives, contradictory limits, an unknown setting."""


class PluginError(HwnasError, ValueError):
    """A name stands for no plug-in, or the plug-in cannot be used."""


class DataError(HwnasError, ValueError):
    """A dataset is missing, empty, damaged or has too few classes."""


class DeviceError(HwnasError, ValueError):
    """A device is unknown or its profile is damaged."""


class TableError(HwnasError, ValueError):
    """A latency table is damaged."""


class MissingBlockError(TableError):
    """The table has no row for a block."""


class TableMismatchError(TableError):
    """Numbers taken under different conditions were about to be mixed."""


class MeasurementError(HwnasError, RuntimeError):
    """A timing could not be taken or cannot be trusted."""


class HostError(MeasurementError):
    """Another machine that was to take timings does not answer, or was lost on the way."""


class WorkerError(HwnasError, RuntimeError):
    """The worker of an evaluation is lost again and again, or those who send workers are gone."""


class ExportError(HwnasError, RuntimeError):
    """An export failed, or the exported model does not compute what the network does."""


class TrainingError(HwnasError, RuntimeError):
    """Training cannot go on."""


class CheckpointError(HwnasError, ValueError):
    """A checkpoint is damaged or belongs to another network."""


class ResumeError(HwnasError, ValueError):
    """A run folder or archive belongs to another recipe."""


class OutputError(HwnasError, OSError):
    """A file or folder cannot be written."""


class UnreadableError(HwnasError, ValueError):
    """A file or text is not what it should be; ``reason`` says why, without its name."""

    def __init__(self, where: str, reason: str) -> None:
        """Name the file and say what is wrong with it."""
        super().__init__(where, one_line(reason, 400))

    @property
    def reason(self) -> str:
        """What is wrong, without the name of the file."""
        return str(self.args[1])

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}"
