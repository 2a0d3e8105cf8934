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
import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import kendalltau, spearmanr
from torch import Tensor

from hwnas.objectives.proxies import PROXIES, ProxyCase
from hwnas.objectives.subnets import macs_of_space, params_of_space
from hwnas.pipeline.recipe import load_recipe
from hwnas.space import Arch
from hwnas.space.cell_text import EDGES, edge_name
from hwnas.supernet import Layout, make_layout

BY_DIGIT = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
FLATNESS_IMAGES = 16


def main() -> None:
    """Compute what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--values", type=Path, required=True, help="CSV of computed values, continued")
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
    for row in sample:
        if row["code"] in known:
            continue
        if time.monotonic() > deadline:
            return
        known[row["code"]] = scores(layout, cell(layout, row["code"]), images, labels, args.seed)
        append(args.values, row["code"], known[row["code"]])
    print(table(layout, sample, known, args.images))


def cell(layout: Layout, code: str) -> Arch:
    """Return the arch of six digits."""
    operators = {edge_name(*e): BY_DIGIT[int(d)] for e, d in zip(EDGES, code, strict=True)}
    return layout.space.arch({"resolution": layout.space["resolution"].options[0], **operators})


def cifar10(path: Path, n: int) -> tuple[Tensor, Tensor]:
    """Return the first ``n`` training images, normalised as in training, and their labels."""
    with np.load(path) as file:
        blob, offsets = file["jpeg_train"], file["offset_train"]
        labels = torch.from_numpy(file["y_train"][:n].astype(np.int64))
        decoded = [
            np.asarray(Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]].tobytes())).convert("RGB"))
            for i in range(n)
        ]
    x = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255
    mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    return ((x - mean) / std).contiguous(), labels


def scores(layout: Layout, arch: Arch, images: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
    """Return every proxy of one cell, and the seconds that each took."""
    torch.manual_seed(seed)
    net = layout.build_subnet(arch)
    half = len(images) // 2
    x, y = images[:half], labels[:half]

    def untrained() -> tuple[torch.nn.Module, Tensor, Tensor, Sequence[Tensor]]:
        few = slice(half, half + FLATNESS_IMAGES)
        return net, images[few], labels[few], [x[:FLATNESS_IMAGES]]

    case = ProxyCase(net, layout.chain(arch), x, y, untrained, seed)
    found = {}
    for name, proxy in PROXIES.items():
        started = time.perf_counter()
        found[name] = proxy.score(case)
        found[f"{name}_s"] = time.perf_counter() - started
    return found


def read(path: Path) -> dict[str, dict[str, float]]:
    """Return what was computed before, by cell."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {r.pop("code"): {k: float(v) for k, v in r.items()} for r in csv.DictReader(file)}


def append(path: Path, code: str, values: dict[str, float]) -> None:
    """Add one row."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, ["code", *values])
        if new:
            writer.writeheader()
        writer.writerow({"code": code, **values})


def table(layout: Layout, sample: list[dict[str, str]], known: dict[str, dict[str, float]], n_images: int) -> str:
    """Return rank correlations of every proxy with test accuracy."""
    accuracy = np.array([float(r["c10_test_200"]) for r in sample])
    archs = [cell(layout, r["code"]) for r in sample]
    columns = {"params": params_of_space(layout).of_archs(archs), "macs": macs_of_space(layout).of_archs(archs)}
    seconds = {"params": 0.0, "macs": 0.0}
    failed = {"params": 0, "macs": 0}
    for name, proxy in PROXIES.items():
        values = np.array([known[r["code"]][name] for r in sample]) * (1 if proxy.direction == "max" else -1)
        failed[name] = int((~np.isfinite(values)).sum())
        columns[name] = np.where(np.isfinite(values), values, -np.inf)
        seconds[name] = float(np.mean([known[r["code"]][f"{name}_s"] for r in sample]))
    learns = accuracy > 15.0
    lines = [
        f"{len(sample)} cells of NAS-Bench-201, {n_images} CIFAR-10 images, against test accuracy after 200 epochs",
        f"{'proxy':<16}{'Spearman':>10}{'Kendall':>10}{'learning only':>15}{'no value':>10}{'s a cell':>10}",
    ]
    for name, values in columns.items():
        ranks = rank(values)
        lines.append(
            f"{name:<16}{spearmanr(ranks, accuracy).statistic:>10.3f}{kendalltau(ranks, accuracy).statistic:>10.3f}"
            f"{spearmanr(ranks[learns], accuracy[learns]).statistic:>15.3f}{failed[name]:>10}{seconds[name]:>10.2f}"
        )
    lines.append(f"learning only: Spearman over the {int(learns.sum())} cells of more than 15 % test accuracy")
    return "\n".join(lines)


def rank(values: np.ndarray) -> np.ndarray:
    """Return dense ranks, so that cells without a value tie at the bottom."""
    return np.unique(values, return_inverse=True)[1].astype(float)


if __name__ == "__main__":
    main()
