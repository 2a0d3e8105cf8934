"""How is a table read that a person or a spreadsheet wrote? Whatever the program and the country that it was saved in.

Understood are UTF-8 and UTF-16 with and without a mark, the code page of Western Windows, commas, semicolons, tabs and
bars between cells, a decimal comma, any ends of lines, blank lines, spaces and capitals in the heading, and all of it
compressed with gzip under a name that ends in ``.gz``.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.errors import TableError, UnreadableError, one_line, shown
from hwnas.reading import read_bytes, unquoted

DELIMITERS = (",", ";", "\t", "|")

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
GZIP = b"\x1f\x8b"
_NUMBER = re.compile(r"[+-]?(?:\d[\d.,' \u00a0\u202f]*|\.\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    where: str
    """File and line, for messages."""
    cells: Mapping[str, str]
    """By column; a missing cell is empty."""


@dataclass(frozen=True)
class Table:
    """A table with a heading."""

    path: Path
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    delimiter: str

    def numbers(self, column: str, unit: str, or_zero: bool = False, what: str = "times") -> list[float]:
        """Return a column of positive numbers.

        Args:
            column: its name.
            unit: in words, for messages, such as ``milliseconds``.
            or_zero: whether 0 is allowed, too.
            what: the numbers are, for messages.

        Raises:
            TableError: a cell that is no positive number; one with a unit in it says which.
        """
        texts = [line.cells[column] for line in self.lines]
        comma = self._has_decimal_comma(column)
        found = []
        for line, text in zip(self.lines, texts, strict=True):
            match = _NUMBER.match(text)
            if match is None or not text:
                raise TableError(f"{line.where}: {column} is {shown(text, 60)}; fill in {unit}")
            if rest := text[match.end() :].strip():
                raise TableError(
                    f"{line.where}: {column} is {shown(text, 60)}, with the unit {shown(rest, 30)} in the cell; give "
                    f"plain numbers of {unit}"
                )
            plain = re.sub(r"[' \u00a0\u202f]", "", match[0])
            plain = plain.replace(".", "").replace(",", ".") if comma else plain.replace(",", "")
            try:
                value = float(plain)
            except ValueError:
                raise TableError(f"{line.where}: {column} is {shown(text, 60)}, which is no number") from None
            if not (math.isfinite(value) and (value > 0 or (or_zero and value == 0))):
                raise TableError(
                    f"{line.where}: {column} is {one_line(text, 60)}; {what} must be positive numbers"
                    f"{' or 0' if or_zero else ''}"
                )
            found.append(value)
        return found

    def _has_decimal_comma(self, column: str) -> bool:
        """Whether the comma of a column is a decimal one; what its cells have in common decides.

        Raises:
            TableError: ``1,234`` and the like only, which may be either.
        """
        texts = [line.cells[column] for line in self.lines]
        with_comma = [(line, t) for line, t in zip(self.lines, texts, strict=True) if "," in t]
        if not with_comma:
            return False
        for _, text in with_comma:
            if "." in text:
                return text.rindex(",") > text.rindex(".")
            digits = re.split(r"\D", text[text.rindex(",") + 1 :])[0]
            if text.count(",") == 1 and (len(digits) != 3 or re.match(r"[+-]?0*,", text)):
                return True
        if self.delimiter == ";":
            return True  # semicolons stand between cells where the comma is the decimal sign
        line, text = with_comma[0]
        raise TableError(
            f"{line.where}: {column} is {shown(text, 60)}, which may be a thousand or a part; use a decimal point"
        )


def read_table(path: Path, needed: Collection[str] = ()) -> Table:
    """Read a table with a heading.

    Args:
        path: the file.
        needed: columns that it must have; capitals and spaces around them do not matter.

    Raises:
        TableError: it cannot be read, lacks columns, has one twice, or a row has more cells than the heading.
    """
    text = read_text(path)
    lines = text.splitlines()
    said = re.fullmatch(r'"?sep=(.)"?', lines[0].strip()) if lines else None  # a spreadsheet's own way to say it
    if said:
        text = text[text.index(lines[0]) + len(lines[0]) :].lstrip("\r\n")
    delimiter = said[1] if said else _delimiter(text, needed)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=False)
        rows = [(reader.line_num, [unquoted(c.strip()) for c in row]) for row in reader]
    except csv.Error as error:
        raise TableError(f"{path} cannot be read: {error}") from None
    rows = [(number, row) for number, row in rows if any(row)]
    if not rows:
        raise TableError(f"{path} is empty")
    heading = _heading(path, rows[0][1], needed)
    offset = 1 if said else 0
    found = []
    for number, row in rows[1:]:
        where = f"{path}, line {number + offset}"
        if any(row[len(heading) :]):
            raise TableError(f"{where}: has {len(row)} cells, the heading has {len(heading)}")
        found.append(Line(where, dict(zip(heading, [*row, *[""] * len(heading)], strict=False))))
    return Table(path, tuple(heading), tuple(found), delimiter)


def read_text(path: Path) -> str:
    """Return the text of a file in any of the encodings that spreadsheets and Windows write.

    Raises:
        TableError: it cannot be read, or is no text.
    """
    try:
        data = read_bytes(path)
    except UnreadableError as error:
        raise TableError(f"{path} cannot be read: {error.reason}") from None
    if data.startswith(GZIP):
        raise TableError(f"{path} is packed with gzip; unpack it, or give it a name that ends in .gz")
    encodings = [name for mark, name in _MARKS if data.startswith(mark)][:1] or _guesses(data)
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        return text
    raise TableError(f"{path} is no text; save it as CSV in UTF-8")


def _guesses(data: bytes) -> Sequence[str]:
    """Encodings to try for a file without a mark."""
    head = data[:200]
    if b"\0" in head:
        return ("utf-16-le",) if head[1::2].count(0) >= head[::2].count(0) else ("utf-16-be",)
    return ("utf-8", "cp1252")


def _delimiter(text: str, needed: Collection[str]) -> str:
    """What stands between cells: that which gives the heading most of the needed columns, then most columns."""
    first = next((line for line in text.splitlines() if line.strip(" \t,;|")), "")

    def how_well(delimiter: str) -> tuple[int, int]:
        cells = next(csv.reader([first], delimiter=delimiter), [])
        names = {c.strip().lower() for c in cells}
        return len(names & set(needed)), len(cells)

    return max(DELIMITERS, key=how_well)


def _heading(path: Path, cells: Sequence[str], needed: Collection[str]) -> list[str]:
    known = {name.lower(): name for name in needed}
    heading = [known.get(c.lower(), c) for c in cells]
    while heading and not heading[-1]:
        heading.pop()
    if missing := sorted(set(needed) - set(heading)):
        raise TableError(f"{path} lacks the column(s) {', '.join(missing)}; it has {one_line(', '.join(heading), 200)}")
    if twice := sorted({c for c in heading if heading.count(c) > 1 and c}):
        raise TableError(f"{path} has the column(s) {', '.join(twice)} twice")
    return heading
