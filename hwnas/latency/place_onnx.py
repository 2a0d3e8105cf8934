"""On which provider does each node of an ONNX model run? ONNX Runtime's own profile of one run says.

Run as ``python -m hwnas.latency.place_onnx JOB.json`` in a process of its own, since a provider may bring the process
down; it prints one JSON value. A compiled subgraph counts as the one node that the runtime makes of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from hwnas.latency.time_onnx import BurstConfig, TimingError, open_session, tell

KERNEL = "_kernel_time"


def nodes_of(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return provider and operator of each node in the order of the first run, from ONNX Runtime's profiling events."""
    found: dict[str, tuple[float, str, str]] = {}
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") != "Node" or not str(event.get("name", "")).endswith(KERNEL) or "provider" not in arguments:
            continue
        name = str(arguments.get("node_index", "")) + str(event["name"])
        found.setdefault(name, (float(event["ts"]), str(arguments["provider"]), str(arguments.get("op_name", ""))))
    return [(provider, op) for _, provider, op in sorted(found.values(), key=lambda v: v[0])]


def main(path: str) -> int:
    """Run a model once and print where its nodes ran."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    shape = job["input_shape"]
    config = BurstConfig(
        job["provider"], (1.0,), threads=job["threads"], batch_size=job["batch_size"],
        input_shape=None if shape is None else tuple(shape),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        try:
            runner = open_session(job["model"], job["name"], config, str(Path(folder) / "profile"))
        except TimingError as error:
            tell(error=" ".join(str(error).split()))
            return 2
        events = json.loads(Path(runner.end_profiling()).read_text(encoding="utf-8"))
    tell(nodes=nodes_of(events))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
