"""Do the quickstart's devices differ, and can the models of its fronts be told apart?

    hwnas quickstart --out runs/quickstart
    python benchmarks/quickstart_devices.py runs/quickstart     # prints, and stores it in benchmarks/results/

Kendall's tau of how each pair of devices ranks 1,000 random archs, the models that fronts share, and on each front
the longest chain of models, faster to slower, of which each scores better than the one before by more than the standard
error of the difference.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

import hwnas
from hwnas.runs.front import Front

OUT = Path(__file__).resolve().parent / "results" / "quickstart_devices.txt"


def distinct(front: Front) -> int:
    """Return the length of the longest chain of models that differ by more than the standard error."""
    name, stderr = front.score.name, front.score.named("stderr")
    models = sorted(front, key=lambda m: m.values["latency_ms"])
    best = [1] * len(models)
    for i, j in itertools.product(range(len(models)), repeat=2):
        if j < i:
            more = models[i].values[name] - models[j].values[name]
            if more > math.hypot(models[i].values[stderr], models[j].values[stderr]):
                best[i] = max(best[i], best[j] + 1)
    return max(best)


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
    lines += ["", f"{'device':<26}{'models':>8}{'differ by more than a standard error':>38}{'top-1, %':>16}{'ms':>16}"]
    for name, front in fronts.items():
        values, latencies = [m.values[score] for m in front], [m.values["latency_ms"] for m in front]
        lines.append(
            f"{name:<26}{len(front):>8}{distinct(front):>38}{f'{min(values):.1f} to {max(values):.1f}':>16}"
            f"{f'{min(latencies):.3g} to {max(latencies):.3g}':>16}"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    OUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
