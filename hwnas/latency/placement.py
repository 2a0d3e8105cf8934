"""Which nodes of a model run where, and how often does the work change hands? A provider may fall back to the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from hwnas.arguments import checked_arguments
from hwnas.errors import MeasurementError
from hwnas.latency.job import files_of_model, last_line, read_lines
from hwnas.latency.time_onnx import CPU


@dataclass(frozen=True)
class Placement:
    """Where the nodes of a model ran, as ONNX Runtime counts them after its own optimisation."""

    provider: str
    """The one that was asked for."""
    nodes: tuple[tuple[str, str], ...]
    """Provider and operator of each node, in the order in which they ran."""

    @property
    def by_provider(self) -> dict[str, int]:
        """Nodes of each provider, most first."""
        names = [p for p, _ in self.nodes]
        return {p: names.count(p) for p in sorted(set(names), key=lambda p: (-names.count(p), p))}

    @property
    def partitions(self) -> int:
        """Runs of nodes on one provider; each border between two of them copies feature maps."""
        return sum(1 for _ in groupby(p for p, _ in self.nodes))

    @property
    def fallbacks(self) -> dict[str, int]:
        """Operators that ran elsewhere than asked, and how many of each."""
        names = [op for p, op in self.nodes if p != self.provider]
        return {op: names.count(op) for op in sorted(set(names))}

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"nodes": self.by_provider, "partitions": self.partitions, "fallbacks": self.fallbacks}

    def __str__(self) -> str:
        where = ", ".join(f"{n} on {p}" for p, n in self.by_provider.items())
        text = f"nodes: {where}; {self.partitions} partition{'s' * (self.partitions != 1)}"
        if self.fallbacks:
            text += f"; not on {self.provider}: " + ", ".join(f"{n} {op}" for op, n in self.fallbacks.items())
        return text


@checked_arguments
def node_placement(
    model: str | Path, provider: str | None = None, threads: int = 1, batch_size: int = 1,
    input_shape: Sequence[int] | None = None, time_limit_s: float = 60.0,
) -> Placement:  # fmt: skip
    """Run an ONNX file once, in a process of its own, and say on which provider each node ran.

    Args:
        model: an ONNX file, or the folder of a bundle.
        provider: execution provider; default: that of the CPU.
        threads: of the runtime.
        batch_size: images in one inference.
        input_shape: for models whose axes are open, as in `hwnas.profile`.
        time_limit_s: a model that takes longer is given up.

    Raises:
        MeasurementError: there is no such file, it does not run, or it takes longer.
    """
    path = Path(model) / "model.onnx" if Path(model).is_dir() else Path(model)
    if not path.is_file():
        raise MeasurementError(f"{path} does not exist; give an .onnx file or a model folder of a run")
    wanted = provider or CPU
    with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
        files = files_of_model(str(path), 0)
        first = files[next(iter(files))]
        file = path.absolute()
        if isinstance(first, bytes):
            if len(files) > 1:  # its weights lie beside it, and what is run must, too
                raise MeasurementError(f"{path} has axes of 0 and weights in other files; write it with open axes")
            file = Path(name) / "model.onnx"
            file.write_bytes(first)
        job = {
            "model": str(file), "name": path.name, "provider": wanted, "threads": threads, "batch_size": batch_size,
            "input_shape": None if input_shape is None else list(input_shape),
        }  # fmt: skip
        (Path(name) / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "hwnas.latency.place_onnx", str(Path(name) / "job.json")]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=time_limit_s or None
            )
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"{path.name} took longer than {time_limit_s:g} s for one run") from None
    for line in read_lines(done.stdout.splitlines()):
        if "error" in line:
            raise MeasurementError(line["error"])
        if "nodes" in line:
            return Placement(wanted, tuple((str(p), str(op)) for p, op in line["nodes"]))
    raise MeasurementError(
        f"{path.name}: the process that ran it ended with {done.returncode}: {last_line(done.stderr)[:300]}"
    )
