"""What do a few timed networks say of a device that no constant was fitted to? Errors on the networks not timed.

    python benchmarks/fit_few_networks.py      # prints, and stores the table in benchmarks/results/

Data as in `fit_npu.py`. The device is a Galaxy S24 or S25; every profile of the same chip is kept out of the warm
start, all other shipped ones are in. The networks are drawn at random, a new draw for each seed; 10 seeds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fit_npu import FAMILY, SOURCES, Data, Measured, Source

from hwnas.latency.cost_model import CostModel
from hwnas.latency.cost_terms import kind_sums
from hwnas.latency.device import devices
from hwnas.latency.fit_candidates import best_of, candidates

OUT = Path(__file__).resolve().parent / "results" / "fit_few_networks.txt"
SEEDS = 10
NETWORKS = (8, 12, 18)


def error_on_the_rest(data: Measured, n: int, seed: int, bases: dict[str, CostModel]) -> tuple[float, str]:
    """Return the mean absolute error in percent on the networks that were not drawn, and which model was kept."""
    timed = np.zeros(len(data.ms), dtype=bool)
    timed[np.random.default_rng(seed).permutation(len(timed))[:n]] = True
    sums = kind_sums(data.ops)
    tried = candidates(sums[timed], data.normalises[timed], bases, n)
    best, _ = best_of(tried, data.ms[timed], range(n))
    model = best.made(best.fit(data.ms[timed]).tolist(), "fitted")
    predicted = np.array([model.latency_ms(ops) for ops in data.ops]) + model.input_normalisation_ms * data.normalises
    return 100 * float(np.abs(predicted / data.ms - 1)[~timed].mean()), best.name


def lines_of(source: Source, data: Measured) -> list[str]:
    """Return the rows of one device."""
    chip = source.name.rsplit("-", 1)[0]
    known = {p.name: p.cost_model for p in devices() if p.cost_model is not None and not p.name.startswith(chip)}
    out = []
    for n in NETWORKS:
        if n > len(data.ms) - 2:
            continue
        for how, bases in (("every other device", known), ("none", {})):
            found = [error_on_the_rest(data, n, seed, bases) for seed in range(SEEDS)]
            off = np.array([e for e, _ in found])
            names = [name for _, name in found]
            kept = max(sorted(set(names)), key=names.count)
            out.append(
                f"{source.name:<26}{n:>9}{len(data.ms) - n:>6}  {how:<20}{off.mean():>7.1f}{np.median(off):>8.1f}"
                f"{off.max():>7.1f}  {kept}"
            )
    return out


def main() -> None:
    """Fit, print and store."""
    data = Data()
    lines = [
        "Profiles from a few whole networks (fit_few_networks.py): mean absolute error in percent on the others",
        f"{len(FAMILY)} CNNs of Qualcomm AI Hub Models v0.47.0 in float, 15 in int8; {SEEDS} random draws",
        "",
        f"{'device':<26}{'networks':>9}{'rest':>6}  {'warm start from':<20}{'mean':>7}{'median':>8}{'worst':>7}"
        "  kept most often",
    ]
    for source in SOURCES:
        if source.name.startswith(("snapdragon-8-elite", "snapdragon-8-gen-3")):
            lines += lines_of(source, data.measured(source))
    text = "\n".join(lines) + "\n"
    print(text)
    OUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
