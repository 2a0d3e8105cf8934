"""A command that is stopped says how to go on; a full disk is one line and leaves what was there."""

import os
import resource
import signal
import subprocess
import sys
from types import ModuleType

import pytest

from hwnas.__main__ import main
from hwnas.errors import OutputError
from hwnas.files import write_text

SCRIPT = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what it starts in the background
sys.argv = ["hwnas", *sys.argv[2:]]
import hwnas.runs.run
number = int(os.environ["NUMBER"])

def stopped(*args, **kwargs):
    os.kill(os.getpid(), number)
    time.sleep(20)

hwnas.runs.run.train_supernet = stopped
from hwnas.cli import main
main()
"""


@pytest.mark.slow
def test_sigterm_ends_as_sigint_does(recipe_file, tmp_path):
    said = []
    for number in (signal.SIGINT, signal.SIGTERM):
        out = tmp_path / str(int(number))
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, "-", "train", str(recipe_file()), "--out", str(out)],
            capture_output=True, text=True, check=False, timeout=900, env={**os.environ, "NUMBER": str(int(number))},
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1] == "stopped; the same command continues where it stopped"
        assert (out / "recipe.yaml").is_file()
        assert not [p for p in out.rglob("*") if p.name.endswith(".partial")]
        said.append(done.returncode)
    assert said == [130, 130]


def test_a_stop_before_the_command_line_is_there_is_one_line(monkeypatch, capsys):
    class Stopped(ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "hwnas.cli", Stopped("hwnas.cli"))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "stopped; the same command continues where it stopped\n"


@pytest.fixture
def full_disk():
    """No file of this process may grow beyond the given bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda n_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_is_full_while_weights_are_saved(make_net, tmp_path, full_disk):
    from hwnas.train.checkpoint import load_supernet, save_supernet

    net = make_net()
    path = save_supernet(net, tmp_path)
    before = path.read_bytes()
    full_disk(len(before) // 2)
    with pytest.raises(OutputError, match=r"cannot write .*supernet\.safetensors: .*; free space or choose another"):
        save_supernet(make_net(1), tmp_path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["supernet.safetensors"]
    load_supernet(tmp_path)


def test_a_disk_that_is_full_while_a_model_is_written(tmp_path, full_disk):
    from torch import nn

    from hwnas.export.onnx_file import to_onnx

    full_disk(500)
    with pytest.raises(OutputError, match=r"cannot write .*m\.onnx: .*; free space"):
        to_onnx(nn.Sequential(nn.Conv2d(3, 64, 3)), 3, 9, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_while_timings_are_kept(tmp_path, full_disk):
    from hwnas.latency.journal import Journal
    from hwnas.latency.time_onnx import Burst

    journal = Journal(tmp_path / "timings.jsonl", {"plan": "x"})
    full_disk(600)

    def fill():
        with journal:
            for _ in range(20):
                journal.add(Burst(0, 1, (0.5,) * 30, 1.0))

    with pytest.raises(OutputError, match=r"cannot write .*timings\.jsonl: .*; free space"):
        fill()
    full_disk(10**9)
    assert len(Journal(tmp_path / "timings.jsonl", {"plan": "x"}).bursts) >= 1, "what was kept is good"


def test_a_disk_that_is_full_while_the_archive_grows(tmp_path, full_disk, layout):
    from hwnas.archive import Archive, Evaluation

    archs = [layout.space.smallest(), layout.space.largest()]
    with Archive(tmp_path / "archive.db", layout.space, "r") as archive:
        archive.add(Evaluation(archs[0], {"a": 1.0}, "w", "validation", 0, 0.1, {}))
    with Archive(tmp_path / "archive.db", layout.space, "r") as archive:
        full_disk(2000)
        with pytest.raises(OutputError, match=r"cannot write .*archive\.db: .*; free space and start again"):
            archive.add(Evaluation(archs[1], {f"v{i}": 1.0 for i in range(900)}, "w", "validation", 0, 0.1, {}))
        full_disk(10**9)
    with Archive(tmp_path / "archive.db", layout.space, "r") as archive:
        assert archive.archs() == archs[:1]


def test_a_full_disk_is_named_by_write_text(tmp_path, full_disk):
    full_disk(10)
    with pytest.raises(OutputError, match=r"cannot write .*x: File too large; free space"):
        write_text(tmp_path / "x", "a" * 100)
