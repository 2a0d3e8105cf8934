"""Files: the old one or the new one, never half of one, and no rest of either."""

import errno
import json
import math
import os
import subprocess
import sys

import pytest

from hwnas.errors import OutputError
from hwnas.files import exclusive, make_folder, write_atomically, write_json, write_text
from hwnas.reading import read_json


def test_a_file_is_written_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "x.txt"
    write_text(path, "größer\n")
    assert path.read_text(encoding="utf-8") == "größer\n"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_json_comes_back_and_nan_is_refused(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1, 2.5, None], "b": {"c": "d"}})
    assert read_json(tmp_path / "x.json") == {"a": [1, 2.5, None], "b": {"c": "d"}}
    assert [*json.loads((tmp_path / "x.json").read_text())] == ["a", "b", "sha256"]
    before = (tmp_path / "x.json").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": math.nan})
    assert (tmp_path / "x.json").read_bytes() == before


def test_a_file_that_holds_the_text_already_is_left_as_it_is(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "größer\n")
    before = path.stat()
    write_text(path, "größer\n")
    assert path.stat() == before
    write_text(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"


class Full(OSError):
    def __init__(self):
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half(path):
    path.write_text("half")
    raise Full


def killed(path):
    path.write_text("half")
    raise KeyboardInterrupt


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize(("write", "error"), [(half, OutputError), (killed, KeyboardInterrupt)])
def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path, existing, write, error):
    path = tmp_path / "x.txt"
    if existing:
        write_text(path, "old")
    with pytest.raises(error):
        write_atomically(path, write)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == ([("x.txt", "old")] if existing else [])


def test_no_space_is_one_line_with_the_next_step(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*x\.txt: No space left on device; free space or choose"):
        write_atomically(tmp_path / "x.txt", half)


def test_a_failing_rename_leaves_the_old_file(tmp_path, monkeypatch):
    write_text(tmp_path / "x.txt", "old")

    def replace(source, target):
        raise Full

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OutputError, match="No space left"):
        write_text(tmp_path / "x.txt", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x.txt", "old")]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            OutputError, match=rf"cannot create folder {path}: .*; allow writing in {path.parent}, or choose another"
        ):
            make_folder(path)
    assert make_folder(tmp_path / "new" / "one").is_dir()
    assert make_folder(tmp_path / "new" / "one").is_dir()


def test_a_folder_that_may_only_be_read_says_what_helps(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with (
        pytest.raises(OutputError, match=rf"cannot write in {tmp_path}: .*; allow writing there, or go on with a copy"),
        exclusive(tmp_path),
    ):
        pass


def test_one_process_at_a_time_writes_in_a_folder(tmp_path):
    other = (
        "import sys, pathlib; from hwnas.errors import OutputError; from hwnas.files import exclusive\n"
        "try:\n    with exclusive(pathlib.Path(sys.argv[1])): print('entered')\n"
        "except OutputError as error: print(error)"
    )

    def ask():
        return subprocess.run(
            [sys.executable, "-c", other, tmp_path], capture_output=True, text=True, check=True
        ).stdout

    with exclusive(tmp_path), exclusive(tmp_path):  # one process may nest it
        assert "is being written by another process" in ask()
    assert ask() == "entered\n"


def test_unfinished_files_of_a_killed_writer_are_removed(tmp_path):
    killed = (
        "import os, sys, pathlib; from hwnas.files import exclusive, write_atomically\n"
        "with exclusive(folder := pathlib.Path(sys.argv[1])):\n"
        "    write_atomically(folder / 'a' / 'x', lambda p: (p.write_text('half'), os.kill(os.getpid(), 9)))"
    )
    subprocess.run([sys.executable, "-c", killed, tmp_path], check=False)
    assert [p.read_text() for p in (tmp_path / "a").iterdir()] == ["half"]
    write_text(tmp_path / "a" / "y.partial", "a file of the user")
    with exclusive(tmp_path):
        assert [p.name for p in (tmp_path / "a").iterdir()] == ["y.partial"]
