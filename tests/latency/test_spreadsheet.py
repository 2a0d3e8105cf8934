"""Tables as spreadsheets and Windows write them: read where it is clear what is meant, else refused by cell."""

import codecs
import csv
import io

import numpy as np
import pytest

from hwnas.errors import TableError
from hwnas.latency.fit import far_measurements
from hwnas.latency.spreadsheet import read_table, read_text

ROWS = [["arch", "latency_ms", "who"], ['{"depth": [1, 2]}', "1.25", "Zoë"], ['{"depth": [2, 2]}', "1234.5", ""]]


def written(delimiter=",", decimal=".", end="\n", rows=ROWS):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    for row in rows:
        writer.writerow([row[0], row[1].replace(".", decimal), *row[2:]])
    return text.getvalue()


def saved(tmp_path, content, encoding="utf-8"):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (written(), "utf-8"),
        (written(end="\r\n"), "utf-8-sig"),
        (written(end="\r"), "utf-8"),
        (written(";", ",", "\r\n"), "cp1252"),
        (written("\t", ",", "\r\n"), "utf-16"),
        (written("\t", end="\r\n"), "utf-16-le"),
        (written("\t", end="\r\n"), "utf-16-be"),
        (written("|"), "utf-8"),
        ("sep=;\r\n" + written(";", ",", "\r\n"), "utf-8"),
        ("\n\n" + written() + ",,\n\n , ,\n", "utf-8"),
        (written(rows=[[" Arch ", "LATENCY_MS", "who", ""], *ROWS[1:]]), "utf-8"),
        (written(rows=[ROWS[0], [*ROWS[1], "", ""], ROWS[2][:2]]), "utf-8"),
    ],
)
def test_the_same_table_is_read_however_it_was_saved(text, encoding, tmp_path):
    table = read_table(saved(tmp_path, text, encoding), ("arch", "latency_ms"))
    assert table.numbers("latency_ms", "milliseconds") == [1.25, 1234.5]
    assert [line.cells["arch"] for line in table.lines] == ['{"depth": [1, 2]}', '{"depth": [2, 2]}']
    assert table.lines[0].cells["who"] == "Zoë"


@pytest.mark.parametrize(
    ("cells", "delimiter", "numbers"),
    [
        (["1,5", "2,25"], ";", [1.5, 2.25]),
        (["1,234", "2,345"], ";", [1.234, 2.345]),  # semicolons stand where the comma is the decimal sign
        (["0,234", "1,345"], "\t", [0.234, 1.345]),
        (["1.234,5", "2"], ";", [1234.5, 2.0]),
        (["1,234.5", "2"], "\t", [1234.5, 2.0]),
        (["1'234.5", "1 234.5"], ",", [1234.5, 1234.5]),
        (["1e-3", "+2.5E2", ".5"], ",", [0.001, 250.0, 0.5]),
    ],
)
def test_numbers_are_read_as_their_column_means_them(cells, delimiter, numbers, tmp_path):
    text = written(delimiter, rows=[["arch", "latency_ms"], *([f"a{i}", ""] for i in range(len(cells)))])
    for i, cell in enumerate(cells):
        text = text.replace(f"a{i}{delimiter}\n", f"a{i}{delimiter}{cell}\n")
    assert read_table(saved(tmp_path, text)).numbers("latency_ms", "milliseconds") == numbers


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (
            "1.5 ms",
            r"line 2: latency_ms is '1\.5 ms', with the unit 'ms' in the cell; give plain numbers of milliseconds",
        ),
        ("1500µs", "with the unit 'µs' in the cell"),
        ("3.2s", "with the unit 's' in the cell"),
        ("12 %", "with the unit '%' in the cell"),
        ("fast", "line 2: latency_ms is 'fast'; fill in milliseconds"),
        ("", "line 2: latency_ms is ''; fill in milliseconds"),
        ("-1", "times must be positive numbers"),
        ("0", "times must be positive numbers"),
        ("1e999", "times must be positive numbers"),
        ("1.2.3", "is no number"),
        ('"1,234"', "may be a thousand or a part; use a decimal point"),
        ("#DIV/0!", "fill in milliseconds"),
    ],
)
def test_a_cell_that_is_no_number_is_named(cell, said, tmp_path):
    path = saved(tmp_path, f"arch,latency_ms\na,{cell}\n")
    with pytest.raises(TableError, match=said):
        read_table(path, ("arch", "latency_ms")).numbers("latency_ms", "milliseconds")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n\n,,\n", "is empty"),
        (b"arch,ms\na,1\n", r"lacks the column\(s\) latency_ms; it has arch, ms"),
        (b"arch,latency_ms,latency_ms\na,1,2\n", r"has the column\(s\) latency_ms twice"),
        (b"arch,latency_ms\na,1,2\n", "line 2: has 3 cells, the heading has 2"),
        (b"PK\x03\x04\x00\x00\x08\x00", "is no text; save it as CSV in UTF-8"),
        (codecs.BOM_UTF16_LE + b"a", "is no text"),
    ],
)
def test_what_is_no_such_table_is_refused(content, said, tmp_path):
    with pytest.raises(TableError, match=said):
        read_table(saved(tmp_path, content), ("arch", "latency_ms"))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TableError, match=r"none\.csv cannot be read: No such file"):
        read_text(tmp_path / "none.csv")


def test_a_measurement_far_from_what_the_others_say_is_found():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(1, 10, 20)
    measured = predicted * np.exp(rng.normal(0, 0.03, 20))
    assert far_measurements(predicted, measured) == []
    measured[7] *= 10
    measured[3] /= 4
    assert far_measurements(predicted, measured) == [7, 3]
