"""Another machine: models are pushed over ssh, and a host that does not answer or is lost says so."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from hwnas.errors import HostError, MeasurementError
from hwnas.export.graph import trace
from hwnas.export.onnx_nodes import build_onnx
from hwnas.latency import time_onnx
from hwnas.latency.measure import MeasureConfig, measure, reference_model
from hwnas.latency.remote import RemoteHost
from hwnas.latency.time_onnx import REFERENCE, Burst, BurstConfig, Facts

QUICK = MeasureConfig(sessions=2, burst_s=0.001, min_runs=3, warmup_runs=3)
SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").exists() else None)


def model(px=9):
    return build_onnx(trace(nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1))), 3, px)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    """An ssh server on this machine that lets this user in; the options that reach it."""
    if SSHD is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no sshd and ssh here; install openssh-server to test another machine")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized").write_text((folder / "user_key.pub").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile {folder}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL)
    options = (
        "-p", str(port), "-i", str(folder / "user_key"), "-F", "/dev/null", "-o", "StrictHostKeyChecking=no",
        "-o", f"UserKnownHostsFile={folder}/known", "-o", "LogLevel=ERROR",
    )  # fmt: skip
    try:
        for _ in range(50):
            if (
                subprocess.run(["ssh", "-o", "BatchMode=yes", *options, "127.0.0.1", "true"], check=False).returncode
                == 0
            ):
                break
            time.sleep(0.1)
        else:
            pytest.skip("sshd does not let this user in here")
        yield options
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_a_model_is_timed_on_another_machine(sshd):
    host = RemoteHost("127.0.0.1", sys.executable, sshd)
    first, second = measure([model(), model(12)], QUICK, target=host)
    assert first.conditions.input_shape == (3, 9, 9)
    assert second.conditions.input_shape == (3, 12, 12)
    assert first.conditions.device == time_onnx.device_name()
    assert first.conditions.runtime.startswith("onnxruntime-")
    assert (first.sessions, first.conditions.warmup_runs) == (2, 3)
    assert 0 < first.p10_ms <= first.median_ms <= first.p90_ms
    assert first.conditions.reference_ms > 0


@pytest.mark.slow
def test_nothing_is_left_on_the_other_machine(sshd, tmp_path, monkeypatch):
    host = RemoteHost("127.0.0.1", sys.executable, sshd)
    with host._folder({"x": b"1"}) as folder:
        assert sorted(p.name for p in Path(folder).iterdir()) == ["time_onnx.py", "x"]
    assert not Path(folder).exists()


@pytest.mark.slow
def test_a_model_that_the_other_machine_cannot_time_is_named(sshd):
    host = RemoteHost("127.0.0.1", sys.executable, sshd)
    config = BurstConfig("QNNExecutionProvider", (0.001,), min_runs=3, warmup_runs=3)
    with pytest.raises(MeasurementError, match=r"127\.0\.0\.1: provider 'QNNExecutionProvider' is not in this onnx"):
        list(
            host.bursts([model().SerializeToString()], ["m"], reference_model(1).SerializeToString(), config, [(0, 0)])
        )


@pytest.mark.slow
def test_a_host_without_the_interpreter_says_what_it_needs(sshd):
    with pytest.raises(HostError, match="it needs no-such-python with numpy and onnxruntime"):
        RemoteHost("127.0.0.1", "no-such-python", sshd).facts()


def test_a_host_that_does_not_answer_is_an_error():
    if shutil.which("ssh") is None:
        pytest.skip("no ssh here")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]  # bound, but nobody listens
        host = RemoteHost("127.0.0.1", options=("-p", str(port), "-F", "/dev/null"))
        with pytest.raises(HostError, match=r"127\.0\.0\.1 does not answer: .*refused"):
            host.facts()


@pytest.mark.parametrize("name", ["", "-oProxyCommand=x", "a b", "user@board;rm"])
def test_names_that_are_no_hosts_are_refused(name):
    with pytest.raises(HostError, match="is no host; give it as ssh takes it"):
        RemoteHost(name)


class Dropping:
    """A host that is lost after some timings."""

    host = "board"

    def __init__(self, after):
        self.after = after

    def facts(self):
        return Facts("a board", "onnxruntime-1", "CPUExecutionProvider")

    def bursts(self, models, names, reference, config, schedule):
        yield Burst(REFERENCE, 0, (0.1, 0.1, 0.1), 1.0)
        for number, (which, session) in enumerate(schedule):
            if number == self.after:
                raise HostError(f"board was lost after {number} of {len(schedule)} timings; start again to continue")
            yield Burst(which, session, (1.0 + which, 1.0 + which, 1.0 + which), 1.0, (3, 9, 9))


def test_a_host_that_is_lost_keeps_what_it_timed():
    found = measure([model(), model(12)], MeasureConfig(sessions=3), target=Dropping(after=4))
    assert [m.median_ms for m in found] == pytest.approx([1.0, 2.0])
    assert [m.sessions for m in found] == [2, 2]
    assert all("board was lost after 4 of 6 timings" in m.warnings[-1] for m in found)
    with pytest.raises(HostError, match="lost after 1 of 6"):
        measure([model(), model(12)], MeasureConfig(sessions=3), target=Dropping(after=1))


def test_the_file_that_times_models_needs_nothing_of_hwnas(tmp_path):
    """It runs from a folder of its own, and prints one JSON value a line."""
    (tmp_path / "time_onnx.py").write_bytes(Path(time_onnx.__file__).read_bytes())
    (tmp_path / "0.onnx").write_bytes(model().SerializeToString())
    (tmp_path / "reference.onnx").write_bytes(reference_model(1).SerializeToString())
    config = asdict(BurstConfig("CPUExecutionProvider", (0.001,), min_runs=3, warmup_runs=3))
    job = {"models": ["0.onnx"], "names": ["m"], "reference": "reference.onnx", "config": config,
           "schedule": [[0, 0]]}  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(job))
    code = "import sys, runpy; sys.argv = ['time_onnx.py', 'job.json']; sys.modules['hwnas'] = None\n"
    code += "runpy.run_path('time_onnx.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [next(iter(line)) for line in lines] == ["facts", "burst", "burst", "burst", "done"]
    assert np.median(lines[2]["burst"]["values_ms"]) > 0
