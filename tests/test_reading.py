"""Reading: within limits, and nothing but `UnreadableError` for whatever is wrong."""

import gzip
import json
import math
import platform
import subprocess
import sys
from dataclasses import dataclass

import pytest

from hwnas.errors import UnreadableError, one_line, printable, shown
from hwnas.files import csv_text, write_json
from hwnas.reading import (
    as_type,
    checked_sums,
    csv_rows,
    inside,
    made_of,
    parse_json,
    parse_yaml,
    read_as,
    read_bytes,
    read_json,
    read_text,
    read_yaml,
    sha256_of,
    unquoted,
)


@dataclass(frozen=True)
class Pair:
    name: str
    sizes: tuple[float, ...]


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert read_bytes(path, 3) == b"abc"
    with pytest.raises(UnreadableError, match="more than 2 bytes"):
        read_bytes(path, 2)
    with pytest.raises(UnreadableError, match="No such file"):
        read_bytes(tmp_path / "y")
    with pytest.raises(UnreadableError, match="Is a directory"):
        read_bytes(tmp_path)
    with pytest.raises(UnreadableError, match="cannot be the name of a file"):
        read_bytes(tmp_path / "a\0b")


def test_what_a_packed_file_becomes_counts(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"0" * 10**7))
    assert len(read_bytes(path, 10**7)) == 10**7
    with pytest.raises(UnreadableError, match="more than 1,000 bytes"):
        read_bytes(path, 1000)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadableError):
        read_bytes(path)
    path.write_bytes(b"none")
    with pytest.raises(UnreadableError, match="Not a gzipped file"):
        read_bytes(path)


def test_text_may_have_a_mark_and_is_utf8(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfgr\xc3\xb6\xc3\x9fer")
    assert read_text(tmp_path / "x") == "größer"
    (tmp_path / "x").write_bytes(b"gr\xf6\xdfer")
    with pytest.raises(UnreadableError, match="byte 2 is not UTF-8"):
        read_text(tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"a": 1, "a": 2}', "key 'a' stands twice"),
        ('{"b": {"a": 1, "a": 1}}', "key 'a' stands twice"),
        ("NaN", "NaN is no number of JSON"),
        ("[Infinity]", "Infinity is no number"),
        ("[1e999]", "'1e999' is too large a number"),
        ("[" + "1" * 500 + "]", "is too large a number"),
        ("[" * 33 + "]" * 33, "more than 32 levels"),
        ("[" * 10**5, "more than 32 levels"),
        ("", "it is no JSON"),
        ('{"a": ', "it is no JSON"),
        (b"\xff\xfe", "it is no JSON"),
    ],
)
def test_json_that_is_refused(text, part):
    with pytest.raises(UnreadableError, match="here: ") as caught:
        parse_json(text, "here")
    assert part in caught.value.reason


def test_json_of_32_levels_is_read():
    assert json.dumps(parse_json("[" * 32 + "]" * 32, "here")) == "[" * 32 + "]" * 32


@pytest.mark.parametrize("change", ["value", "key", "order", "seal", "missing"])
def test_values_that_were_changed_are_recognised(change, tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1.5, "b": [True, None], "c": "ä"})
    assert read_json(path) == {"a": 1.5, "b": [True, None], "c": "ä"}
    values = json.loads(path.read_text())
    if change == "value":
        values["a"] = 1.25
    elif change == "key":
        values["d"] = values.pop("b")
    elif change == "order":
        values = {"b": values["b"], "a": values["a"], "c": values["c"], "sha256": values["sha256"]}
    elif change == "seal":
        values["sha256"] = 3
    else:
        del values["c"]
    path.write_text(json.dumps(values))
    with pytest.raises(UnreadableError, match="not those that were written"):
        read_json(path)


def test_a_file_without_a_seal_is_read_as_it_is(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_values_become_a_dataclass_or_say_which_field_does_not_fit(tmp_path):
    write_json(tmp_path / "x.json", {"name": "a", "sizes": [1, 2.5]})
    assert read_as(Pair, tmp_path / "x.json") == Pair("a", (1.0, 2.5))
    for values, part in (
        ({"name": 3, "sizes": []}, "name: Input should be a valid string, got 3"),
        ({"sizes": []}, "name: Field required"),
        ({"name": "a", "sizes": ["x" * 1000]}, "sizes.0: Input should be a valid number"),
        ([], "Input should be a dictionary"),
        (None, "Input should be a dictionary"),
    ):
        with pytest.raises(UnreadableError) as caught:
            as_type(Pair, values, "here")
        assert part in caught.value.reason
        assert len(str(caught.value)) < 420


def test_yaml_is_that_of_pyyaml():
    text = "a: &x [1, 2.5, yes, ~]\nb: *x\nc:\n  <<: {d: 1, e: 2}\n  d: 3\n2026-01-02: é\n"
    import yaml

    assert parse_yaml(text, "here") == yaml.safe_load(text)
    assert parse_yaml("", "here") is None
    assert parse_yaml("# nothing", "here") is None


def test_yaml_keys_may_override_merged_ones_but_not_each_other():
    assert parse_yaml("a: &x {k: 1}\nb: &y {<<: *x, k: 2}\nc: {<<: *y, k: 3}", "here")["c"] == {"k": 3}
    for text in ("{a: 1, a: 1}", "{1: a, 1.0: b}", "{'a': 1, \"a\": 2}", "- {b: {a: 1, a: 2}}", "{~: 1, null: 2}"):
        with pytest.raises(UnreadableError, match="stands twice"):
            parse_yaml(text, "here")


@pytest.mark.parametrize("text", ["a: [", "\t", "a: 1\n b: 2", "%", "--- a\n--- b", "\x00", "!!int x", "!!float x"])
def test_what_is_no_yaml(text):
    with pytest.raises(UnreadableError, match="it is no YAML"):
        parse_yaml(text, "here")


def test_yaml_of_a_file(tmp_path):
    (tmp_path / "x.yaml").write_text("a: 1\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": 1}


def test_rows_have_the_columns_of_the_heading():
    assert list(csv_rows('a,b\n1,"x,y"\n\n2,z\n', "here")) == [{"a": "1", "b": "x,y"}, {"a": "2", "b": "z"}]
    for text, part in (
        ("", "no heading"), ("a,a\n", "a column stands twice"), ("a,b\n1\n", "line 2 has 1 cells, the heading 2"),
        ("a\n1,2\n", "line 2 has 2 cells"), ("a\n" + "x" * 200_000 + "\n", "no CSV"),
        ("a\n" + "x\n" * 500_001, "more than 500,000 rows"),
    ):  # fmt: skip
        with pytest.raises(UnreadableError) as caught:
            list(csv_rows(text, "here"))
        assert part in caught.value.reason


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-x", "@SUM(A1)", "\tx", "=cmd|' /C calc'!A0"])
def test_a_spreadsheet_finds_no_formula(text):
    (cell,) = next(iter(csv_rows(csv_text([["a"], [text]]), "here"))).values()
    assert cell == f"'{text}"
    assert unquoted(cell) == text
    assert csv_text([["-1.5", -2, "a", "'b"]]) == "-1.5,-2,a,'b\n"
    assert unquoted("'b") == "'b"


def test_digests_are_computed_once_and_again_where_a_file_changes(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    first = sha256_of(path)
    assert checked_sums(tmp_path, {"x": first, "y": first}) == ["y"]
    path.unlink()
    path.write_bytes(b"abd")
    assert checked_sums(tmp_path, {"x": first}) == ["x"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a/../b", "a//b", "a\\..\\b", "a\0", "a/", "x" * 300])
def test_names_that_lead_out_of_a_folder(name, tmp_path):
    with pytest.raises(UnreadableError, match="is no name of a file in it"):
        inside(tmp_path, name)
    assert inside(tmp_path, "a/b.x") == tmp_path / "a" / "b.x"


def test_what_python_raises_of_values_is_damage():
    for fault in (
        lambda: {}["a"],
        lambda: None.a,
        lambda: "".join([1]),
        lambda: int("x"),
        lambda: 1 / 0,
        lambda: math.exp(1e9),
    ):
        with pytest.raises(UnreadableError), made_of("here"):
            fault()
    with pytest.raises(KeyboardInterrupt), made_of("here"):
        raise KeyboardInterrupt


def test_texts_are_printable():
    assert printable("a\nb\tc\x1b[0m\u202e\udcff") == "a\nb c\\x1b[0m\\u202e\\udcff"
    assert one_line(" a \n b ") == "a b"
    assert one_line("x" * 10**7, 20) == "xxxxxxxxx ... xxxxxx"
    assert shown("a\x1b") == "'a\\x1b'"
    assert shown(10**5000) == "a int that cannot be shown"
    loop = []
    loop.append(loop)
    assert shown(loop) == "[[...]]"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")
def test_memory_that_is_freed_between_steps_is_not_asked_for_again():
    script = """
import resource, sys
import torch
from contextlib import nullcontext
from hwnas.reading.memory import freed_memory_kept

def step():
    for _ in range(3):
        torch.ones(6, 2**20)  # 24 MB
    return [torch.ones(5, 2**20) for _ in range(6)]

with freed_memory_kept() if sys.argv[1] == "kept" else nullcontext():
    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        how: int(subprocess.run([sys.executable, "-c", script, how], capture_output=True, check=True, text=True).stdout)
        for how in ("kept", "usual")
    }
    assert faults["kept"] < 0.1 * faults["usual"]
