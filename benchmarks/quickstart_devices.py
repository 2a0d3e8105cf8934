"""Do the quickstart's devices differ, and can the models of its fronts be told apart?

    hwnas quickstart --out runs/quickstart
    python benchmarks/quickstart_devices.py runs/quickstart     # prints, and stores it in benchmarks/results/

Kendall's tau of how each pair of devices ranks 1,000 random archs, the models that fronts share, and on each front
the longest chain of models, faster to slower, of which each scores better than the one before by more than the standard
error of the difference: as the run publishes it for each model, and of the paired difference on the same pictures, with
the pictures of one digit taken together, since a network that errs on one of them often errs on the others.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

import hwnas
from hwnas.data.sources.cluttered_digits import PARTS
from hwnas.export.onnx_check import run_onnx
from hwnas.runs.front import Front
from hwnas.runs.run import Run

OUT = Path(__file__).resolve().parent / "results" / "quickstart_devices.txt"


def longest(n: int, better: Callable[[int, int], bool]) -> int:
    """Return the length of the longest chain of ``n`` models, faster to slower, each ``better`` than the one before."""
    best = [1] * n
    for i, j in itertools.product(range(n), repeat=2):
        if j < i and better(i, j):
            best[i] = max(best[i], best[j] + 1)
    return max(best)


def distinct(front: Front) -> int:
    """Return the length of the longest chain of models that differ by more than their standard errors."""
    name, stderr = front.score.name, front.score.named("stderr")
    values = [m.values for m in sorted(front, key=lambda m: m.values["latency_ms"])]

    def better(i: int, j: int) -> bool:
        return values[i][name] - values[j][name] > math.hypot(values[i][stderr], values[j][stderr])

    return longest(len(values), better)


def distinct_paired(run: Run, front: Front) -> int:
    """Return the same with the standard error of paired differences, pictures of one digit taken together."""
    validation, right = run.splits.validation, []
    for model in sorted(front, key=lambda m: m.values["latency_ms"]):
        with run.evaluations() as evaluations:
            (arch,) = evaluations.archive.archs_of([model.key])
        x, y = run.context.networks.inputs(validation, arch).tensors()
        right.append((run_onnx(model.folder / "model.onnx", x).argmax(1) == y).numpy().astype(float))
    times = PARTS["validation"][1]  # the pictures of a digit: one in each of so many equal parts of the split

    def better(i: int, j: int) -> bool:
        of_digits = (right[i] - right[j]).reshape(times, -1).mean(0)
        return float(of_digits.mean()) > float(of_digits.std(ddof=1)) / math.sqrt(len(of_digits))

    return longest(len(right), better)


def main() -> None:
    """Compare, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = hwnas.open_run(parser.parse_args().run)
    names = run.searched()
    archs = run.layout.space.sample(np.random.default_rng(0), 1000)
    ms = {name: run.devices[name].compile(run.layout).of_archs(archs) for name in names}
    fronts = {name: run.front(name) for name in names}
    score = run.context.score.name
    lines = [f"Devices of the quickstart ({run.recipe.name}) and their fronts (quickstart_devices.py)", "",
             f"{'devices':<52}{'tau':>6}{'models on both fronts':>24}"]  # fmt: skip
    for a, b in itertools.combinations(names, 2):
        shared = {m.key for m in fronts[a]} & {m.key for m in fronts[b]}
        of = min(len(fronts[a]), len(fronts[b]))
        lines.append(f"{a + ', ' + b:<52}{kendalltau(ms[a], ms[b]).statistic:>6.2f}{f'{len(shared)} of {of}':>24}")
    heading = f"{'device':<26}{'models':>8}{'differ by more than an error':>30}{'paired':>8}{'top-1, %':>16}{'ms':>18}"
    lines += ["", heading]
    for name, front in fronts.items():
        values, latencies = [m.values[score] for m in front], [m.values["latency_ms"] for m in front]
        lines.append(
            f"{name:<26}{len(front):>8}{distinct(front):>30}{distinct_paired(run, front):>8}"
            f"{f'{min(values):.1f} to {max(values):.1f}':>16}{f'{min(latencies):.3g} to {max(latencies):.3g}':>18}"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    OUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
