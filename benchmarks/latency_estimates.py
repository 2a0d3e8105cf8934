"""How long do a million latency estimates take? Genomes of the once-for-all space, looked up in a compiled table.

    python benchmarks/latency_estimates.py

Beside it: the same sums block by block, every block's time read from a dict (2,000 archs, scaled up). Times are those
of the processor, so that other programs on a shared machine do not count. Writes
``benchmarks/results/latency_estimates.txt``.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from hwnas.latency.table import load_device
from hwnas.runs.recipe import load_recipe
from hwnas.supernet import make_layout
from hwnas.supernet.slot_sum import distinct_blocks

N = 1_000_000
N_SLOW = 2_000
RESULT = Path(__file__).resolve().parent / "results" / "latency_estimates.txt"


def main() -> None:
    """Time both ways, check that they agree, and write the result."""
    layout = make_layout(load_recipe("ofa-mbv3-w1.0").supernet)
    device = load_device("note10-cpu")
    started = time.process_time()
    compiled = device.compile(layout)
    compile_s = time.process_time() - started
    archs = layout.space.sample(np.random.default_rng(0), N_SLOW)
    genomes = layout.space.encode_many(archs)
    many = genomes[np.random.default_rng(1).integers(0, N_SLOW, N)]
    known = {block: device.block_ms(block) for block in distinct_blocks(layout)}
    seconds = []
    for _ in range(3):
        started = time.process_time()
        estimates = compiled.of_genomes(many)
        seconds.append(time.process_time() - started)
    started = time.process_time()
    one_by_one = np.array([device.constant_ms + sum(known[block] for _, block in layout.blocks(a)) for a in archs])
    slow_s = (time.process_time() - started) * N / N_SLOW
    np.testing.assert_allclose(compiled.of_genomes(genomes), one_by_one, rtol=1e-9)
    assert len(estimates) == N
    best = min(seconds)
    text = (
        f"{N:,} estimates of once-for-all genomes (at most 24 blocks), seconds of one core\n\n"
        f"compiled table   {best:.2f} s (median of 3 {np.median(seconds):.2f} s); compiling it once {compile_s:.2f} s\n"
        f"block by block   {slow_s:.0f} s (from {N_SLOW:,} archs), {slow_s / best:.0f} times as long\n"
    )
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
