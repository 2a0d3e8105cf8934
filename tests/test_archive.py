"""The archive: every value once, replayable order, nothing half-written, strangers refused."""

import math
import sqlite3

import pytest

from hwnas.archive import Archive, Evaluation
from hwnas.errors import OutputError, ResumeError
from hwnas.space import SearchSpace

SPACE = SearchSpace.of_choices({"a": [1, 2, 3], "b": [[3, 2.5], [5, 4]], "c": ["x", "y"]})
ARCHS = SPACE.decode_many(SPACE.all_genomes())


def evaluation(arch=ARCHS[0], values=None, version="w1", split="validation", seed=3, precision="fp32"):
    return Evaluation(arch, values or {"top1_percent": 91.5}, version, split, seed, 0.25, {"images": 17}, precision)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "archive.db"


def test_values_come_back_by_arch_weights_and_split(path):
    with Archive(path, SPACE, "hash") as archive:
        archive.add(evaluation(values={"top1_percent": 91.5, "introspectability": 0.1 + 0.2}))
        archive.add(evaluation(values={"top1_percent": 90.0}, version="w2"))
        archive.add(evaluation(values={"top1_percent": 89.0}, split="test"))
    with Archive(path, SPACE, "hash") as archive:
        assert archive.values(ARCHS[0], "w1", "validation") == {
            "top1_percent": 91.5, "introspectability": 0.1 + 0.2,
        }  # fmt: skip
        assert archive.values(ARCHS[0], "w2", "validation") == {"top1_percent": 90.0}
        assert archive.values(ARCHS[0], "w1", "test") == {"top1_percent": 89.0}
        assert archive.values(ARCHS[1], "w1", "validation") == {}
        assert archive.values(ARCHS[0], "w3", "validation") == {}


def test_precisions_do_not_mix(path):
    with Archive(path, SPACE, "hash") as archive:
        archive.add(evaluation(values={"top1_percent": 91.5}))
        archive.add(evaluation(values={"top1_percent": 88.0}, precision="int8"))
        assert archive.values(ARCHS[0], "w1", "validation") == {"top1_percent": 91.5}
        assert archive.values(ARCHS[0], "w1", "validation", "int8") == {"top1_percent": 88.0}
        assert archive.values(ARCHS[0], "w1", "validation", "fp16") == {}
        assert archive.splits("w1", "int8") == {ARCHS[0].key: {"validation": {"top1_percent": 88.0}}}


def test_everything_known_under_some_weights_in_the_order_of_evaluation(path):
    with Archive(path, SPACE, "hash") as archive:
        archive.add(evaluation(ARCHS[4], {"top1_percent": 80.0}, split="validation:9"))
        archive.add(evaluation(ARCHS[1], {"top1_percent": math.nan}))
        archive.add(evaluation(ARCHS[2], version="w2"))
        archive.add(evaluation(ARCHS[4], {"top1_percent": 81.0, "macs": 7.0}))
        found = archive.splits("w1")
        assert list(found) == [ARCHS[4].key, ARCHS[1].key]
        assert found[ARCHS[4].key] == {
            "validation:9": {"top1_percent": 80.0}, "validation": {"top1_percent": 81.0, "macs": 7.0},
        }  # fmt: skip
        assert math.isnan(found[ARCHS[1].key]["validation"]["top1_percent"])
        assert archive.archs_of(found) == [ARCHS[4], ARCHS[1]]


def test_a_search_that_goes_on_knows_what_it_knew_when_it_began(path):
    with Archive(path, SPACE, "hash") as archive:
        assert archive.last_row == archive.begin("cpu/1", "cpu") == 0
        archive.add(evaluation(ARCHS[0], {"top1_percent": 91.5, "macs": 7.0}))
        assert archive.last_row == 2, "one row a value"
        known = archive.begin("dsp/1", "dsp")
        archive.add(evaluation(ARCHS[1]))
        archive.add(evaluation(ARCHS[0], {"params": 3.0}))
    with Archive(path, SPACE, "hash") as archive:
        assert archive.begin("dsp/1", "dsp") == known == 2
        assert archive.begin("cpu/1", "cpu") == 0
        assert archive.values(ARCHS[0], "w1", "validation", last_row=known) == {"top1_percent": 91.5, "macs": 7.0}
        assert archive.values(ARCHS[1], "w1", "validation", last_row=known) == {}
        assert list(archive.splits("w1", last_row=known)) == [ARCHS[0].key]
        assert archive.splits("w1", last_row=0) == {}
        assert list(archive.splits("w1")) == [ARCHS[0].key, ARCHS[1].key]
        assert archive.begin("cpu/2", "cpu") == archive.last_row == 4
        assert archive.searches("cpu") == ["cpu/1", "cpu/2"]
        assert archive.searches("dsp") == ["dsp/1"]
        assert archive.searches("npu") == []


def test_a_value_is_kept_once(path):
    with Archive(path, SPACE, "hash") as archive:
        archive.add(evaluation(values={"top1_percent": 91.5}))
        archive.add(evaluation(values={"top1_percent": 12.0, "macs": 7.0}))
        assert archive.values(ARCHS[0], "w1", "validation") == {"top1_percent": 91.5, "macs": 7.0}


def test_a_failure_is_kept_as_failed_never_as_a_number(path):
    with Archive(path, SPACE, "hash") as archive:
        archive.add(evaluation(values={"top1_percent": math.nan, "macs": 7.0}))
        found = archive.values(ARCHS[0], "w1", "validation")
        assert math.isnan(found["top1_percent"])
        assert found["macs"] == 7.0
    rows = sqlite3.connect(path).execute("SELECT value_name, value, failed FROM evaluations ORDER BY 1").fetchall()
    assert rows == [("macs", 7.0, 0), ("top1_percent", None, 1)]


def test_provenance_is_kept(path):
    with Archive(path, SPACE, "hash") as archive:
        archive.add(evaluation())
    row = sqlite3.connect(path).execute(
        "SELECT arch_key, weights_version, precision, split, seed, duration_s, conditions FROM evaluations"
    )
    assert row.fetchall() == [(ARCHS[0].key, "w1", "fp32", "validation", 3, 0.25, '{"images": 17}')]


def test_the_order_of_asking_is_replayed(path):
    with Archive(path, SPACE, "hash") as archive:
        archive.request("cpu", [ARCHS[3], ARCHS[1]])
        archive.request("dsp", [ARCHS[1], ARCHS[7]])
        archive.request("cpu", [ARCHS[5]])
    with Archive(path, SPACE, "hash") as archive:
        assert archive.requested(["cpu"]) == [ARCHS[3], ARCHS[1], ARCHS[5]]
        assert archive.requested(["cpu", "dsp"]) == [ARCHS[3], ARCHS[1], ARCHS[5], ARCHS[7]]
        assert archive.requested(["dsp", "cpu"]) == [ARCHS[1], ARCHS[7], ARCHS[3], ARCHS[5]]
        assert archive.requested([]) == []
        archive.add(evaluation(ARCHS[3]))
        archive.forget_requests("cpu")
        assert archive.requested(["cpu", "dsp"]) == [ARCHS[1], ARCHS[7]]
        assert archive.values(ARCHS[3], "w1", "validation") == {"top1_percent": 91.5}
        archive.request("cpu", [ARCHS[2]])
        assert archive.requested(["cpu"]) == [ARCHS[2]]


def test_archs_come_back_as_they_were(path):
    with Archive(path, SPACE, "hash") as archive:
        for arch in ARCHS:
            archive.add(evaluation(arch))
        assert archive.archs() == ARCHS
        assert {type(a["b"]) for a in archive.archs()} == {tuple}
        assert archive.archs()[0].space is SPACE


def test_an_arch_is_found_by_the_beginning_of_its_key(path):
    with Archive(path, SPACE, "hash") as archive:
        for arch in ARCHS:
            archive.add(evaluation(arch))
        assert archive.find(ARCHS[4].key) == ARCHS[4]
        assert archive.find(ARCHS[4].key[:8]) == ARCHS[4]
        assert archive.find("") is None
        assert archive.find("nothing") is None
        assert archive.find("%") is None
        assert archive.find("_" * 12) is None


def test_an_addition_that_fails_half_way_leaves_nothing(path):
    with Archive(path, SPACE, "hash") as archive:
        with pytest.raises(AttributeError):
            archive.request("cpu", [ARCHS[0], ARCHS[1], None])
        assert archive.requested(["cpu"]) == []
        assert archive.archs() == []
        archive.add(evaluation())
        assert archive.archs() == [ARCHS[0]]


def test_another_recipe_is_refused_and_nothing_changes(path):
    with Archive(path, SPACE, "hash") as archive:
        archive.add(evaluation())
    before = path.read_bytes()
    with pytest.raises(ResumeError, match="belongs to another recipe; use another --out"):
        Archive(path, SPACE, "other")
    assert path.read_bytes() == before
    with Archive(path, SPACE, "hash") as archive:
        assert archive.archs() == [ARCHS[0]]


def test_another_format_is_refused(path):
    Archive(path, SPACE, "hash").close()
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE meta SET value = '99' WHERE name = 'format'")
    db.close()
    with pytest.raises(ResumeError, match=r"another version of hwnas \(format 99, here \d+\); go on with that version"):
        Archive(path, SPACE, "hash")


def test_a_file_of_the_first_format_is_refused_and_kept(path):
    """Its tables have the same names and fewer columns."""
    path.parent.mkdir()
    db = sqlite3.connect(path)
    with db:
        db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        db.execute("INSERT INTO meta VALUES ('format', '1'), ('recipe_hash', 'hash')")
        db.execute("CREATE TABLE evaluations (arch_key TEXT, weights_version TEXT, split TEXT, value_name TEXT)")
        db.execute("INSERT INTO evaluations VALUES ('a', 'w1', 'validation', 'top1_percent')")
    db.close()
    before = path.read_bytes()
    with pytest.raises(ResumeError, match=r"another version of hwnas \(format 1, here \d+\)"):
        Archive(path, SPACE, "hash")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"this is no database, not at all" * 9, b"SQLite format 3\x00" + b"\xff" * 500])
def test_a_damaged_file_is_refused_and_kept(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ResumeError, match=r"is damaged: .*; restore it, or remove it"):
        Archive(path, SPACE, "hash")
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot create folder"):
        Archive(tmp_path / "file" / "archive.db", SPACE, "hash")
    (tmp_path / "archive.db").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*archive\.db: .*; allow writing there, or go on with a copy"):
        Archive(tmp_path / "archive.db", SPACE, "hash")


def test_a_disk_that_is_full_is_named(path):
    with Archive(path, SPACE, "hash") as archive:
        archive.add(evaluation())
        pages = archive._db.execute("PRAGMA page_count").fetchone()[0]
        archive._db.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(OutputError, match=r"cannot write .*: database or disk is full; free space"):
            archive.request("cpu", ARCHS * 500)
    with Archive(path, SPACE, "hash") as archive:
        assert archive.values(ARCHS[0], "w1", "validation") == {"top1_percent": 91.5}
        assert archive.requested(["cpu"]) == []


# -- damage ---------------------------------------------------------------------------------------------


def test_a_value_that_was_changed_in_the_file_is_recognised(path):
    with Archive(path, SPACE, "hash") as archive:
        for arch in ARCHS:
            archive.add(evaluation(arch))
    before = path.read_bytes()
    with Archive(path, SPACE, "hash") as archive:
        assert archive.values(ARCHS[0], "w1", "validation") == {"top1_percent": 91.5}
    assert path.read_bytes() == before, "looking changes nothing"
    at = before.index(b"top1_percent") + len("top1_percent")
    path.write_bytes(before[: at + 2] + bytes([before[at + 2] ^ 1]) + before[at + 3 :])
    with pytest.raises(
        ResumeError, match=r"archive\.db is damaged: it is not as it was written .*; restore it, or remove"
    ):
        Archive(path, SPACE, "hash")
    path.write_bytes(before)
    with Archive(path, SPACE, "hash") as archive:
        assert len(archive.archs()) == len(ARCHS)


def test_what_a_killed_process_left_is_read(path):
    archive = Archive(path, SPACE, "hash")
    archive.add(evaluation(ARCHS[0]))
    other = path.parent / "left"
    other.mkdir()
    for file in path.parent.glob("archive.db*"):  # as they are now, the archive being open
        (other / file.name).write_bytes(file.read_bytes())
    archive.close()
    assert not (other / "archive.db.sha256").exists()
    with Archive(other / "archive.db", SPACE, "hash") as found:
        assert found.archs() == [ARCHS[0]]
    assert (other / "archive.db.sha256").read_text().split()[1] == "archive.db"


def test_two_at_a_time_keep_the_digest_right(path):
    with Archive(path, SPACE, "hash") as first:
        first.add(evaluation(ARCHS[0]))
        with Archive(path, SPACE, "hash") as second:
            second.add(evaluation(ARCHS[1]))
        first.add(evaluation(ARCHS[2]))
    with Archive(path, SPACE, "hash") as archive:
        assert archive.archs() == ARCHS[:3]


@pytest.mark.parametrize("sum_of", ["nothing", "\x00\xff", "0" * 64])
def test_a_damaged_digest_is_damage(path, sum_of):
    with Archive(path, SPACE, "hash") as archive:
        archive.add(evaluation(ARCHS[0]))
    path.with_name("archive.db.sha256").write_text(sum_of)
    with pytest.raises(ResumeError, match="is damaged"):
        Archive(path, SPACE, "hash")


def test_an_arch_with_the_choices_of_another_is_damage(path):
    with Archive(path, SPACE, "hash") as archive:
        archive.add(evaluation(ARCHS[0]))
        archive.add(evaluation(ARCHS[1]))
    path.with_name("archive.db.sha256").unlink()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE archs SET choices = (SELECT choices FROM archs WHERE key = ?)", (ARCHS[0].key,))
    db.close()
    with Archive(path, SPACE, "hash") as archive, pytest.raises(ResumeError, match="has the choices of another one"):
        archive.archs()
