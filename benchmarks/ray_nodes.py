"""A search on a Ray cluster of two nodes, one of which is killed half-way: is the archive that of one process?

    python benchmarks/ray_nodes.py [--evaluations 40] [--resolution-factor 4]

begins a head and a second node on this machine, one processor each, trains a supernet of digits for seconds, and

- searches it in this process, and once more on the cluster, whose second node is killed after half of the evaluations;
  compares every evaluation of the two archives and both fronts, byte by byte;
- evaluates the same archs on one node and on two, and prints the ratio of their times (one thread each).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml

import hwnas
from hwnas.runs.evaluations import Candidate
from hwnas.runs.start import start_run

RECIPE = {
    "name": "ray", "devices": ["edge-tpu"], "data": {"source": "digits", "validation_percent": 40},
    "supernet": {
        "family": "mbv3", "in_channels": 1, "classes": 10, "resolutions": [24, 32], "stem_width": 16, "stem_stride": 1,
        "first_block": False, "expand_width": 96, "feature_width": 0,
        "stages": [
            {"width": 24, "stride": 2, "depths": [2, 3], "kernel_sizes": [3, 5], "expand_ratios": [3, 4]},
            {"width": 40, "stride": 2, "depths": [2, 3], "kernel_sizes": [3, 5], "expand_ratios": [3, 6], "se": True},
        ],
    },
    "train": {
        "batch_size": 64,
        "phases": [{"name": "all", "epochs": 1, "lr": 0.05, "elastic": {"kernel_size": "all", "depth": "all"}}],
    },
    "search": {"algorithm": "nsga2", "population": 10, "evaluations": 40}, "finish": {"models": 0},
}  # fmt: skip
WARM = 8
"""Archs before those that are timed: with two of them both could go to one node, and the other would begin late."""
RAY = str(Path(sys.executable).with_name("ray"))


def node(*arguments: str) -> None:
    """Begin a node of one processor."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DISABLE_IMPORT_WARNING": "1"}
    command = [RAY, "start", "--num-cpus", "1", "--disable-usage-stats", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def raylets() -> list[int]:
    """Return the processes of the nodes, the oldest first."""
    found = subprocess.run(["pgrep", "-f", "raylet/raylet"], capture_output=True, text=True, check=False).stdout.split()
    return sorted(map(int, found), key=lambda pid: os.stat(f"/proc/{pid}").st_ctime)


def table(folder: Path) -> list[tuple[object, ...]]:
    """Return every evaluation of a run, in the order in which they were asked for."""
    run = hwnas.open_run(folder)
    with run.archive() as archive:
        found = archive.splits(run.context.trained_weights)
    return [(key, split, tuple(sorted(values.items()))) for key, by in found.items() for split, values in by.items()]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # of the nodes and of this process; both listen on this machine alone
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "ray.yaml").write_text(yaml.safe_dump(RECIPE))
        runs = {k: work / k for k in ("one process", "two nodes")}
        for folder in runs.values():
            start_run(work / "ray.yaml", folder).train()
        hwnas.open_run(runs["one process"]).search(evaluations=args.evaluations)

        subprocess.run([RAY, "stop", "--force"], check=False, capture_output=True)
        node("--head", "--port", "6391")
        node("--address", "127.0.0.1:6391")
        killed = []

        def progress(task: str, done: float, total: float, note: str = "") -> None:
            if task.startswith("search") and done >= total / 2 and not killed:
                killed.append(raylets()[-1])
                os.kill(killed[0], signal.SIGKILL)
                print(f"second node killed after {done:.0f} of {total:.0f} evaluations", flush=True)

        ray = {"executor": "ray", "executor_options": {"address": "127.0.0.1:6391"}}
        hwnas.open_run(runs["two nodes"], progress=progress, **ray).search(evaluations=args.evaluations)
        one, two = (table(folder) for folder in runs.values())
        fronts = [(f / "devices" / "edge-tpu" / "front.csv").read_bytes() for f in runs.values()]
        print(
            f"{len(one)} evaluations; archives equal: {one == two}; fronts equal: {fronts[0] == fronts[1]}", flush=True
        )

        archs = hwnas.open_run(runs["one process"]).layout.space.sample(np.random.default_rng(9), WARM + 40)
        seconds = []
        for nodes in (1, 2):
            if nodes == 2:
                node("--address", "127.0.0.1:6391")
                time.sleep(5)
            folder = work / f"timed {nodes}"
            start_run(work / "ray.yaml", folder).train()
            run = hwnas.open_run(folder, **ray)
            weights = run.context.trained_weights
            with run.evaluations() as evaluations:
                warm = [Candidate(a, weights) for a in archs[:WARM]]  # every worker has opened the run
                evaluations.evaluate(warm, {"top1_percent": "top1_percent"})
                started = time.monotonic()
                evaluations.evaluate([Candidate(a, weights) for a in archs[WARM:]], {"top1_percent": "top1_percent"})
                seconds.append(time.monotonic() - started)
        print(f"{len(archs) - WARM} archs: {seconds[0]:.1f} s on one node, {seconds[1]:.1f} s on two: "
              f"{seconds[0] / seconds[1]:.2f} times")  # fmt: skip
        subprocess.run([RAY, "stop", "--force"], check=False, capture_output=True)


if __name__ == "__main__":
    main()
