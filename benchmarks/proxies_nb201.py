"""How well do zero-cost proxies rank the cells of NAS-Bench-201?

A random sample of cells is built as real networks (16 channels, 5 cells a stage), every proxy is computed on CIFAR-10
images, and its rank correlation with the published test accuracy after 200 epochs is written down. A proxy that has no
finite value for a cell (disconnected ones) ranks it last. Flatness is a property of trained weights, of which there are
none here: its value on random weights is shown for completeness.

    python benchmarks/proxies_nb201.py --data DIR --values proxies.csv

DIR holds ``nasbench201/nb201_accuracy.csv.gz`` and ``images/cifar10_jpeg.npz``. Cells that ``--values`` has are not
computed again, so the script may be stopped and started.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import cifar10
from scipy.stats import kendalltau, spearmanr
from torch import Tensor

from hwnas.objectives.exact import entropy_of_space, macs_of_space, params_of_space
from hwnas.objectives.proxies.by_name import PROXIES, ProxyCase
from hwnas.runs.recipe import load_recipe
from hwnas.search.capacity import capacity
from hwnas.space import Arch
from hwnas.space.dialects.nasbench201 import EDGES, edge_name
from hwnas.supernet import Layout, make_layout
from hwnas.task.classification import CLASSIFICATION

BY_DIGIT = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
FLATNESS_IMAGES = 16
HEADINGS = ("proxy", "cells", "Spearman", "Kendall", "learning only", "no value", "s a cell")
WIDTHS = (16, 7, 10, 10, 15, 10, 10)


def main() -> None:
    """Compute what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--values", type=Path, required=True, help="CSV of computed values, continued")
    parser.add_argument("--proxies", default=",".join(PROXIES), help="which to compute; default: all")
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this time; start again to go on")
    args = parser.parse_args()
    torch.set_num_threads(1)
    layout = make_layout(load_recipe("nasbench201").supernet)
    with gzip.open(args.data / "nasbench201" / "nb201_accuracy.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(args.seed)
    sample = [rows[i] for i in rng.choice(len(rows), args.cells, replace=False)]
    known = read(args.values)
    images, labels = cifar10(args.data / "images" / "cifar10_jpeg.npz", 2 * args.images)
    deadline = time.monotonic() + 60 * args.minutes
    wanted = args.proxies.split(",")
    for row in sample:
        if not (missing := [name for name in wanted if (row["code"], name) not in known]):
            continue
        if time.monotonic() > deadline:
            break
        found = scores(layout, cell(layout, row["code"]), images, labels, args.seed, missing)
        known |= {(row["code"], name): value for name, value in found.items()}
        append(args.values, row["code"], found)
    print(table(layout, sample, known, args.images))


def cell(layout: Layout, code: str) -> Arch:
    """Return the arch of six digits."""
    operators = {edge_name(*e): BY_DIGIT[int(d)] for e, d in zip(EDGES, code, strict=True)}
    return layout.space.arch({"resolution": layout.space["resolution"].options[0], **operators})


def scores(
    layout: Layout, arch: Arch, images: Tensor, labels: Tensor, seed: int, names: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Return value and seconds of the named proxies of one cell."""
    torch.manual_seed(seed)
    net = layout.build_subnet(arch)
    half = len(images) // 2
    x, y = images[:half], labels[:half]

    def untrained() -> tuple[torch.nn.Module, Tensor, Tensor, Sequence[Tensor]]:
        few = slice(half, half + FLATNESS_IMAGES)
        return net, images[few], labels[few], [x[:FLATNESS_IMAGES]]

    case = ProxyCase(net, layout.blocks(arch), x, y, CLASSIFICATION, untrained, seed)
    found = {}
    for name in names:
        started = time.perf_counter()
        value = PROXIES[name].formula(case)
        found[name] = (value, time.perf_counter() - started)
    return found


def read(path: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """Return value and seconds of what was computed before, by cell and proxy."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {(r["code"], r["proxy"]): (float(r["value"]), float(r["seconds"])) for r in csv.DictReader(file)}


def append(path: Path, code: str, found: dict[str, tuple[float, float]]) -> None:
    """Add one row a proxy."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["code", "proxy", "value", "seconds"])
        writer.writerows([code, name, value, round(seconds, 4)] for name, (value, seconds) in found.items())


def table(
    layout: Layout, sample: list[dict[str, str]], known: dict[tuple[str, str], tuple[float, float]], n_images: int
) -> str:
    """Return rank correlations of every proxy with test accuracy, over the cells for which it is known."""
    accuracy = np.array([float(r["c10_test_200"]) for r in sample])
    archs = [cell(layout, r["code"]) for r in sample]
    of_space = {"params": params_of_space, "macs": macs_of_space, "entropy": entropy_of_space}
    counted = {name: of(layout).of_archs(archs) for name, of in of_space.items()}
    counted["capacity"] = capacity(counted["macs"], counted["params"], counted["entropy"])
    lines = [
        f"{len(sample)} cells of NAS-Bench-201, up to {n_images} CIFAR-10 images, against accuracy after 200 epochs",
        "".join(f"{h:>{w}}" for h, w in zip(HEADINGS, WIDTHS, strict=True)),
    ]
    for name in [*counted, *PROXIES]:
        if name in counted:
            rows, values, seconds = np.arange(len(sample)), counted[name], 0.0
        else:
            rows = np.array([i for i, r in enumerate(sample) if (r["code"], name) in known], dtype=int)
            if len(rows) < 3:
                continue
            pairs = np.array([known[sample[i]["code"], name] for i in rows])
            values = pairs[:, 0] * (1 if PROXIES[name].direction == "max" else -1)
            seconds = float(np.median(pairs[:, 1]))
        failed = ~np.isfinite(values)
        ranks, truth = rank(np.where(failed, -np.inf, values)), accuracy[rows]
        learns = truth > 15.0
        lines.append(
            f"{name:>16}{len(rows):>7}{spearmanr(ranks, truth).statistic:>10.3f}"
            f"{kendalltau(ranks, truth).statistic:>10.3f}{spearmanr(ranks[learns], truth[learns]).statistic:>15.3f}"
            f"{int(failed.sum()):>10}{seconds:>10.2f}"
        )
    lines.append("learning only: Spearman over cells of more than 15 % test accuracy; seconds: median")
    return "\n".join(lines)


def rank(values: np.ndarray) -> np.ndarray:
    """Return dense ranks, so that cells without a value tie at the bottom."""
    return np.unique(values, return_inverse=True)[1].astype(float)


if __name__ == "__main__":
    main()
