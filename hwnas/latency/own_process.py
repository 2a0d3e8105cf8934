"""How are models of unknown origin timed on this machine? In a process of their own, which can be ended."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hwnas.errors import MeasurementError, OutputError
from hwnas.latency import time_onnx
from hwnas.latency.job import JOB, burst_in, files_of_model, job_of_timings, last_line, read_lines
from hwnas.latency.target import ThisMachine
from hwnas.latency.time_onnx import Burst, BurstConfig

SCRIPT_FILE = Path(time_onnx.__file__)
"""What runs there."""


class OwnProcess(ThisMachine):
    """ONNX Runtime on this machine, in another process; the `hwnas.latency.target.Target` ``process``.

    A model that never ends, takes all memory or brings the runtime down ends that process and becomes an error.
    """

    def bursts(
        self, models: Sequence[str | bytes], names: Sequence[str], reference: bytes, config: BurstConfig,
        schedule: Sequence[tuple[int, int]],
    ) -> Iterator[Burst]:  # fmt: skip
        """Time models there; see `hwnas.latency.time_onnx.bursts`.

        Raises:
            MeasurementError: a model cannot be timed, does not end within ``config.limit_s``, or the process died.
        """
        with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
            folder = Path(name)
            try:
                files = [_file(model, folder, number) for number, model in enumerate(models)]
                (folder / "reference.onnx").write_bytes(reference)
                (folder / JOB).write_bytes(job_of_timings(files, names, "reference.onnx", config, schedule))
            except OSError as error:
                raise OutputError(f"cannot write in {folder}: {error.strerror}; free space there") from None
            command = [sys.executable, "-u", str(SCRIPT_FILE), str(folder / JOB)]
            with subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                current = names[schedule[0][0]] if schedule else ""
                try:
                    for line in read_lines(process.stdout):
                        if "done" in line:
                            return
                        current = line.get("opens", current)
                        burst = burst_in(line)
                        if burst is not None:
                            yield burst
                    said = last_line(process.stderr.read())
                finally:
                    process.kill()
            raise MeasurementError(f"{current}: {_how_it_ended(process.returncode)}{said and f': {said[:300]}'}")


def _file(model: str | bytes, folder: Path, number: int) -> str:
    """The file of a model: its own, or one in the folder."""
    if isinstance(model, bytes):
        path = folder / f"{number}.onnx"
        path.write_bytes(model)
        return str(path)
    files = files_of_model(model, number)  # names a file that is missing
    first = next(iter(files))
    if isinstance(files[first], Path):
        return str(Path(model).absolute())
    for inside, content in files.items():
        path = folder / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, path)
        else:
            path.write_bytes(content)
    return str(folder / first)


def _how_it_ended(returncode: int) -> str:
    """Why there is no answer, in words."""
    if returncode == -signal.SIGKILL:
        return "the system ended the process that timed it; is there enough memory for the model?"
    if returncode < 0:
        return f"the runtime broke down with {signal.Signals(-returncode).name}"
    return f"the process that timed it ended with {returncode}"
