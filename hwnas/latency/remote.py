"""How are models timed on another machine? The system's ssh carries one file and the models there, and timings back."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hwnas.errors import HostError, MeasurementError, shown
from hwnas.latency.job import (
    JOB,
    SCRIPT,
    burst_in,
    facts_in,
    files_of_model,
    job_of_facts,
    job_of_timings,
    last_line,
    read_lines,
    script,
)
from hwnas.latency.time_onnx import Burst, BurstConfig, Facts

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5")
"""Never asks for a password; a host that stops answering is given up after 15 seconds."""
HOST = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_\[:][A-Za-z0-9_.:\[\]-]*")
"""Neither part begins with ``-``: ssh would take it for an option."""


class RemoteHost:
    """A machine behind ssh that has python3 with numpy and onnxruntime; the `hwnas.latency.target.Target` ``ssh``.

    Keys, ports and jump hosts are those of the user's ``~/.ssh/config``. Everything is copied into a fresh folder
    under the host's temporary directory, which is removed afterwards.
    """

    def __init__(self, host: str, python: str = "python3", options: Sequence[str] = ()) -> None:
        """Name a host; nothing is sent yet.

        Args:
            host: as ssh takes it, such as ``user@board``.
            python: the interpreter there.
            options: further options of ssh, such as ``("-p", "2222")``.

        Raises:
            HostError: the name cannot be one of a host.
        """
        if not isinstance(host, str) or len(host) > 255 or not HOST.fullmatch(host):
            raise HostError(f"{shown(host)} is no host; give it as ssh takes it, such as user@board")
        self.host = host
        self.python = python
        self._ssh = [*SSH, *options, host]

    def facts(self) -> Facts:
        """Ask the machine what it is.

        Raises:
            HostError: it does not answer, or lacks python, numpy or onnxruntime.
        """
        with self._folder({JOB: job_of_facts()}) as folder:
            for line in self._lines(folder):
                if (found := facts_in(line)) is not None:
                    return found
        raise HostError(f"{self.host} says nothing about itself; try `ssh {self.host} {self.python} -V`")

    def bursts(
        self, models: Sequence[str | bytes], names: Sequence[str], reference: bytes, config: BurstConfig,
        schedule: Sequence[tuple[int, int]],
    ) -> Iterator[Burst]:  # fmt: skip
        """Time models there; see `hwnas.latency.time_onnx.bursts`.

        Raises:
            MeasurementError: a model cannot be timed there.
            HostError: it does not answer, or the connection ends early; what was yielded before is good.
        """
        files: dict[str, bytes | Path] = {"reference.onnx": reference}
        paths = [""] * len(models)
        for number in sorted({m for m, _ in schedule}):
            its = files_of_model(models[number], number)
            paths[number] = next(iter(its))
            files |= its
        files[JOB] = job_of_timings(paths, names, "reference.onnx", config, schedule)
        done = 0
        with self._folder(files) as folder:
            for line in self._lines(folder):
                burst = burst_in(line, f"{self.host}: ")
                if burst is not None:
                    done += burst.model >= 0
                    yield burst
                if "done" in line:
                    return
        raise HostError(f"{self.host} was lost after {done} of {len(schedule)} timings; start again to continue")

    @contextmanager
    def _folder(self, files: Mapping[str, bytes | Path]) -> Iterator[str]:
        """Make a folder there that holds ``files`` and `hwnas.latency.time_onnx`, and remove it afterwards."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
            for name, content in {**files, SCRIPT: script()}.items():
                if isinstance(content, Path):
                    try:
                        tar.add(content, name, recursive=False)
                    except OSError as error:
                        raise MeasurementError(f"{content} cannot be read: {error.strerror}") from None
                else:
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
        make = 'd=$(mktemp -d "${TMPDIR:-/tmp}/hwnas-XXXXXX") && tar -xf - -C "$d" && echo "$d"'
        made = self._run(make, archive.getvalue())
        folder = made.stdout.decode().strip().splitlines()[-1] if made.stdout.strip() else ""
        if made.returncode or not folder:
            raise HostError(f"{self.host} does not answer: {last_line(made.stderr) or f'exit {made.returncode}'}")
        try:
            yield folder
        finally:
            with suppress(HostError):
                self._run(f"rm -rf {shlex.quote(folder)}")

    def _lines(self, folder: str) -> Iterator[dict[str, Any]]:
        """Run it there and yield what it prints."""
        command = f"cd {shlex.quote(folder)} && {shlex.quote(self.python)} -u {SCRIPT} {JOB}"
        with subprocess.Popen(
            [*self._ssh, command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                yield from read_lines(process.stdout)
                said = last_line(process.stderr.read())
            finally:
                process.terminate()
        if process.returncode not in (0, 2, -15) and said and "Connection" not in said and "Timeout" not in said:
            raise HostError(f"{self.host}: {said}; it needs {self.python} with numpy and onnxruntime")

    def _run(self, command: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run([*self._ssh, command], input=data, capture_output=True, check=False, timeout=600)
        except FileNotFoundError:
            raise HostError("there is no ssh on this machine; install openssh-client") from None
        except subprocess.TimeoutExpired:
            raise HostError(f"{self.host} does not answer within 10 minutes") from None
