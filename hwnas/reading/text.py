"""What stands in a file? Its text, or its rows, if it is not larger than such files are."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hwnas.errors import HwnasError, UnreadableError, shown
from hwnas.files import FORMULA

TEXT_BYTES = 16 * 2**20
"""Of a JSON or CSV file. Python needs up to 20 times as much for its values; the largest tables in use have 2 MB."""

ROWS = 500_000
"""Of a CSV file; the largest tables in use have 20,000."""

ROUGHLY = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, AssertionError, MemoryError,
    RuntimeError,
)  # fmt: skip
"""What Python raises where values are not of the expected form."""


@contextmanager
def made_of(where: str | Path) -> Iterator[None]:
    """Say of values that were read, and are not of the expected form, that their file is damaged.

    Raises:
        UnreadableError: anything that Python raises then (`ROUGHLY`).
    """
    try:
        yield
    except HwnasError:
        raise
    except KeyError as error:
        raise UnreadableError(str(where), f"it has no {shown(error.args[0] if error.args else '')}") from None
    except ROUGHLY as error:
        raise UnreadableError(str(where), str(error) or type(error).__name__) from None


def read_bytes(path: Path, limit: int = TEXT_BYTES) -> bytes:
    """Return what a file holds, unpacked where its name ends in ``.gz``.

    Raises:
        UnreadableError: it is not there, cannot be read, is damaged, or has more than ``limit`` bytes.
    """
    try:
        with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            content = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError(str(path), getattr(error, "strerror", None) or str(error)) from None
    except ValueError:  # a name with a NUL
        raise UnreadableError(shown(str(path)), "it cannot be the name of a file") from None
    if len(content) > limit:
        raise UnreadableError(str(path), f"it has more than {limit:,} bytes, which such a file never has")
    return content


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """Return a file's text (UTF-8, with or without a byte-order mark); see `read_bytes`."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(str(path), f"byte {error.start} is not UTF-8, so it is no text file") from None


def csv_rows(text: str, where: str) -> Iterable[dict[str, str]]:
    """Yield the rows of a CSV text with a heading, as `csv.DictReader` does, each with exactly the heading's columns.

    Raises:
        UnreadableError: no heading, a column that stands twice, a row of another length, or more rows than `ROWS`.
    """
    try:
        reader = csv.reader(io.StringIO(text, newline=""))
        heading = next(reader, None)
        if not heading:
            raise UnreadableError(where, "it has no heading")
        if len(set(heading)) < len(heading):
            raise UnreadableError(where, f"a column stands twice in its heading {shown(heading)}")
        for number, row in enumerate(reader):
            if number >= ROWS:
                raise UnreadableError(where, f"it has more than {ROWS:,} rows, which such a file never has")
            if row:
                if len(row) != len(heading):
                    raise UnreadableError(
                        where, f"line {reader.line_num} has {len(row)} cells, the heading {len(heading)}"
                    )
                yield dict(zip(heading, row, strict=True))
    except csv.Error as error:
        raise UnreadableError(where, f"it is no CSV: {error}") from None


def unquoted(text: str) -> str:
    """Return a cell without the quote that `hwnas.files.csv_text` put before it."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(FORMULA) else text
