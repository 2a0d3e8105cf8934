"""How well do zero-cost proxies rank networks of a space that people search, overall and among equals in multiply-adds?

The truth is the measured ImageNet top-1 of subnets of once-for-all's MobileNetV3 (width 1.0, 224 pixels, weights of the
supernet). A random sample of them is built as real networks, and every proxy is computed on CIFAR-10 images, enlarged:
ImageNet's own images are not at hand. Rank correlations with the measured accuracies are given over all nets and within
bands of equal MACs, which is where a proxy would have to help: more MACs alone is known to be better.

    python benchmarks/proxies_ofa.py --data DIR --values proxies.csv

DIR holds ``ofa/ofa_mbv3_imagenet_accuracy.csv.gz`` and ``images/cifar10_jpeg.npz``. Values that ``--values`` has are
not computed again, so the script may be stopped and started; ``--minutes`` limits the CPU time of one start.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from common import cifar10
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata, spearmanr
from torch import Tensor

from hwnas.objectives.exact import entropy_of_space, macs_of_space, params_of_space
from hwnas.objectives.proxies.by_name import PROXIES, ProxyCase
from hwnas.runs.recipe import load_recipe
from hwnas.search.capacity import capacity
from hwnas.space import Arch
from hwnas.space.dialects.once_for_all import parse_ofa
from hwnas.supernet import Layout, make_layout
from hwnas.task.classification import CLASSIFICATION

SOURCE, PUBLISHED_PX, N_BANDS = "dynas_t", 224, 5
UNTRAINED = [name for name in PROXIES if name != "flatness"]
"""Flatness is a property of trained weights, of which there are none here."""

FloatArray = NDArray[np.float64]
Known = dict[tuple[str, str], tuple[float, float]]


def main() -> None:
    """Compute what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--values", type=Path, required=True, help="CSV of computed values, continued")
    parser.add_argument("--proxies", default=",".join(UNTRAINED), help="which to compute; default: all but flatness")
    parser.add_argument("--nets", type=int, default=250, help="how many of the measured ones")
    parser.add_argument("--pixels", type=int, default=64, help="edge of the images")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="CPU time; start again to go on")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with gzip.open(args.data / "ofa" / "ofa_mbv3_imagenet_accuracy.csv.gz", "rt") as file:
        rows = [r for r in csv.DictReader(file) if r["source"] == SOURCE and r["r"] == str(PUBLISHED_PX)]
    order = np.random.default_rng(args.seed).permutation(len(rows))
    sample = [rows[i] for i in order[: args.nets]]
    supernet = load_recipe("ofa-mbv3-w1.0").supernet
    small = make_layout(supernet.model_copy(update={"resolutions": (args.pixels,), "classes": 10}))
    x, y = cifar10(args.data / "images" / "cifar10_jpeg.npz", max(args.images, 72), args.pixels)
    x = x.contiguous(memory_format=torch.channels_last)
    known = read(args.values)
    for row in sample:
        missing = [n for n in args.proxies.split(",") if (code(row), n) not in known]
        if missing and time.process_time() > 60 * args.minutes:
            break
        for name, value in scores(small, arch_of(row, small), x, y, args.images, args.seed, missing).items():
            known[code(row), name] = value
            append(args.values, code(row), name, value)
    published = make_layout(supernet.model_copy(update={"resolutions": (PUBLISHED_PX,)}))
    print(table(published, rows, sample, known, args.pixels, args.seed))


def code(row: dict[str, str]) -> str:
    """Return what names a net."""
    return f"{row['ks']}-{row['e']}-{row['d']}"


def arch_of(row: dict[str, str], layout: Layout) -> Arch:
    """Return the arch of a row, at the layout's only resolution."""
    return parse_ofa({name: [int(digit) for digit in row[name]] for name in ("ks", "e", "d")}, layout.space)


def scores(
    layout: Layout, arch: Arch, images: Tensor, labels: Tensor, n: int, seed: int, names: list[str]
) -> dict[str, tuple[float, float]]:
    """Return value and CPU seconds of the named proxies of one net."""
    torch.manual_seed(seed)
    case = ProxyCase(
        layout.build_subnet(arch), layout.blocks(arch), images[:n], labels[:n], CLASSIFICATION, seed=seed,
        ntk_images=images[:72],
    )  # fmt: skip
    found = {}
    for name in names:
        started = time.process_time()
        value = PROXIES[name].value(case)
        found[name] = (value, time.process_time() - started)
    return found


def read(path: Path) -> Known:
    """Return value and seconds of what was computed before, by net and proxy."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {(r["net"], r["proxy"]): (float(r["value"]), float(r["seconds"])) for r in csv.DictReader(file)}


def append(path: Path, net: str, name: str, found: tuple[float, float]) -> None:
    """Add one row."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["net", "proxy", "value", "seconds"])
        writer.writerow([net, name, found[0], round(found[1], 3)])


def table(
    layout: Layout, rows: list[dict[str, str]], sample: list[dict[str, str]], known: Known, pixels: int, seed: int
) -> str:
    """Return rank correlations of every proxy with measured accuracy, over the nets for which it is known."""
    macs = macs_of_space(layout).of_archs([arch_of(r, layout) for r in rows])
    edges = np.quantile(macs, np.linspace(0, 1, N_BANDS + 1))[1:-1]
    ranges = [f"{macs[np.digitize(macs, edges) == b].min() / 1e6:.0f}-" for b in range(N_BANDS)]
    ranges = [r + f"{macs[np.digitize(macs, edges) == b].max() / 1e6:.0f}" for b, r in enumerate(ranges)]
    lines = [
        f"{len(rows)} measured nets; proxies on CIFAR-10 at {pixels} pixels, sample of {len(sample)} (seed {seed})",
        "Spearman with measured ImageNet top-1 (bootstrap 95 %), and within bands of MACs",
        f"{'proxy':>15}{'nets':>6}{'all':>8}{'95 %':>16}{'Kendall':>9}"
        + "".join(f"{r + 'M':>10}" for r in ranges)
        + f"{'bands, mean':>13}{'s a net':>9}",
    ]
    counted = counts(layout)
    for name, count in counted.items():
        values = count([arch_of(r, layout) for r in rows])
        lines.append(line(name, values, rows, macs, edges, 0.0))
    sampled = macs_of_space(layout).of_archs([arch_of(r, layout) for r in sample])
    for name in [*counted, *UNTRAINED]:
        at = np.array([i for i, r in enumerate(sample) if name in counted or (code(r), name) in known], dtype=int)
        if len(at) < 20:
            continue
        if name in counted:
            values, seconds = counted[name]([arch_of(sample[i], layout) for i in at]), 0.0
        else:
            pairs = np.array([known[code(sample[i]), name] for i in at])
            values, seconds = pairs[:, 0] * (1 if PROXIES[name].direction == "max" else -1), float(pairs[:, 1].mean())
        values = np.where(np.isfinite(values), values, -np.inf)
        lines.append(line(name, values, [sample[i] for i in at], sampled[at], edges, seconds))
    lines.append("nets: for which it was computed; seconds: CPU, one thread; '-': fewer than 10 nets in the band")
    return "\n".join(lines)


def counts(layout: Layout) -> dict[str, Callable[[Sequence[Arch]], FloatArray]]:
    """What is counted, not computed by a network; by `capacity` archs are chosen where no supernet is trained."""
    macs, params, entropy = macs_of_space(layout), params_of_space(layout), entropy_of_space(layout)

    def capacity_of(archs: Sequence[Arch]) -> FloatArray:
        return capacity(macs.of_archs(archs), params.of_archs(archs), entropy.of_archs(archs))

    return {
        "params": params.of_archs, "macs": macs.of_archs, "entropy": entropy.of_archs, "capacity": capacity_of,
    }  # fmt: skip


def line(
    name: str, values: FloatArray, rows: list[dict[str, str]], macs: FloatArray, edges: FloatArray, seconds: float
) -> str:
    """Return one line of the table."""
    truth, ranks = np.array([float(r["top1"]) for r in rows]), rankdata(values)
    rng = np.random.default_rng(0)
    draws = [spearman(ranks[i], truth[i]) for i in (rng.integers(0, len(rows), len(rows)) for _ in range(500))]
    low, high = np.quantile(draws, [0.025, 0.975])
    band = np.digitize(macs, edges)
    within = [
        spearman(ranks[band == b], truth[band == b]) if (band == b).sum() >= 10 else np.nan for b in range(N_BANDS)
    ]
    mean = f"{np.nanmean(within):.3f}" if np.isfinite(within).any() else "-"
    return (
        f"{name:>15}{len(rows):>6}{spearman(ranks, truth):>8.3f}{f'{low:.2f} to {high:.2f}':>16}"
        f"{kendalltau(ranks, truth).statistic:>9.3f}"
        + "".join(f"{w:>10.3f}" if np.isfinite(w) else f"{'-':>10}" for w in within)
        + f"{mean:>13}{seconds:>9.2f}"
    )


def spearman(a: FloatArray, b: FloatArray) -> float:
    """Return the rank correlation."""
    return float(spearmanr(a, b).statistic)


if __name__ == "__main__":
    main()
