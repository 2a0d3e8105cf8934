"""Does introspectability tell anything that structure and accuracy do not? Partial correlations over 60 subnets.

    python benchmarks/introspectability.py --data SHARED/images    # prints, and stores it in benchmarks/results/

For MNIST and for CIFAR-10 one supernet is trained on 6,000 images of nine classes, of which a tenth has a wrong label;
the tenth class is left out. 60 random subnets of it (inherited weights, batch norms recalibrated) are asked

- how much top-1 they lose on noisy, blurred and shifted images,
- how well their loss finds the wrong labels among the training images (area under the ROC curve),
- how well their confidence tells images of the class that was left out from others (likewise),

and for their introspectability, exactly as published. Every answer is correlated with introspectability by ranks: as it
is; with structure regressed out of both (logarithms of parameters and multiply-adds, resolution, depth of each stage,
mean kernel and mean expansion of its blocks); and with structure and clean top-1. With each stands how often a random
order of the residuals correlates as strongly (of 10,000).
"""

from __future__ import annotations

import argparse
import io
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import hwnas
from hwnas.data import ImageSet
from hwnas.objectives.introspectability import introspectability
from hwnas.runs.run import Run

OUT = Path(__file__).resolve().parent / "results" / "introspectability.txt"
LEFT_OUT, WRONG_PERCENT, SUBNETS, SHUFFLES = 9, 10, 60, 10_000
TRAIN, VALIDATION, UNKNOWN = 6000, 2000, 1000
WIDTH = "{name: width, epochs: 5, lr: 0.03, elastic: {kernel_size: all, depth: all, expand_ratio: all}, " \
    "sampling: sandwich, subnets_per_step: 3, teacher: inplace, sort_channels: true}"  # fmt: skip
SETTINGS = ["train.batch_size=32", "supernet.classes=9", "evaluation.calibration_images=1000"]
Floats = NDArray[np.float64]


def images_of(folder: Path, name: str) -> dict[str, NDArray[np.uint8]]:
    """Return ``x`` ``(N, H, W[, 3])`` and ``y`` of the training and test images."""
    if name == "mnist":
        with np.load(folder / "mnist_uint8.npz") as file:
            return {k: file[k] for k in ("x_train", "y_train", "x_test", "y_test")}
    found = {}
    with np.load(folder / "cifar10_jpeg.npz") as file:
        for split, n in (("train", TRAIN * 10 // 9 + 500), ("test", (VALIDATION + UNKNOWN) * 4)):
            blob, at, labels = file[f"jpeg_{split}"], file[f"offset_{split}"], file[f"y_{split}"][:n]
            found[f"y_{split}"] = labels
            found[f"x_{split}"] = np.stack([
                np.asarray(Image.open(io.BytesIO(blob[at[i] : at[i + 1]].tobytes())).convert("RGB"))
                for i in range(len(labels))
            ])  # fmt: skip
    return found


def write_task(path: Path, given: dict[str, NDArray[np.uint8]]) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Write nine classes with some wrong labels; return which are wrong, and images of the class that is left out."""
    rng = np.random.default_rng(0)
    known = {s: given[f"y_{s}"] != LEFT_OUT for s in ("train", "test")}
    x, y = given["x_train"][known["train"]][:TRAIN], given["y_train"][known["train"]][:TRAIN].astype(np.int64)
    wrong = rng.random(len(y)) < WRONG_PERCENT / 100
    y = np.where(wrong, (y + rng.integers(1, 9, len(y))) % 9, y)
    rest, labels = given["x_test"][known["test"]], given["y_test"][known["test"]]
    half = slice(VALIDATION), slice(VALIDATION, 2 * VALIDATION)
    np.savez(
        path, x_train=x, y_train=y, x_validation=rest[half[0]], y_validation=labels[half[0]], x_test=rest[half[1]],
        y_test=labels[half[1]],
    )  # fmt: skip
    return wrong, given["x_test"][~known["test"]][:UNKNOWN]


def noisy(x: Tensor) -> Tensor:
    """Add Gaussian noise of 30 of 255 levels."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 30
    return (x + noise).round().clamp(0, 255).to(torch.uint8)


def blurred(x: Tensor) -> Tensor:
    """Take the mean of each pixel and its neighbours."""
    return F.avg_pool2d(F.pad(x.float(), (1, 1, 1, 1), mode="replicate"), 3, 1).round().to(torch.uint8)


def shifted(x: Tensor) -> Tensor:
    """Move images by three pixels to the right and down."""
    return F.pad(x.float(), (3, 0, 3, 0), mode="replicate")[..., : x.shape[2], : x.shape[3]].to(torch.uint8)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {"noise": noisy, "blur": blurred, "shift": shifted}


@torch.inference_mode()
def logits(net: nn.Module, inputs: Tensor) -> Tensor:
    """Return ``(N, 9)``."""
    return torch.cat([net(x) for x in inputs.split(500)])


def answers(run: Run, arch: hwnas.Arch, wrong: NDArray[np.bool_], unknown: Tensor) -> dict[str, float]:
    """Return everything that is asked of one subnet."""
    evaluator, splits = run.context.trained_evaluator, run.context.splits
    net = evaluator.subnet(arch)

    def answer(images: ImageSet) -> Tensor:
        return logits(net, evaluator.inputs(images, arch))

    validation, labels = splits.validation, splits.validation.labels
    clean = answer(validation)
    top1 = 100 * float((clean.argmax(1) == labels).float().mean())
    found = {"introspectability": introspectability(net, evaluator.inputs(validation, arch)), "top-1": top1}
    for name, change in CHANGES.items():
        predicted = answer(ImageSet(change(validation.images), labels)).argmax(1)
        found[f"top-1 kept under {name}"] = 100 * float((predicted == labels).float().mean()) - top1
    loss = F.cross_entropy(answer(splits.train), splits.train.labels, reduction="none")
    found["wrong labels found"] = float(roc_auc_score(wrong, loss))
    strange = answer(ImageSet(unknown, torch.zeros(len(unknown), dtype=torch.long)))
    sure = torch.cat([clean, strange]).softmax(1).amax(1)
    found["left-out class told"] = float(roc_auc_score(np.r_[np.zeros(len(clean)), np.ones(len(strange))], -sure))
    return found


def structure(run: Run, archs: list[hwnas.Arch]) -> Floats:
    """Return ``(n, k)`` what is known of archs without running them."""
    layout, columns = run.layout, []
    columns.append(np.log(run.context.macs.of_archs(archs)))
    columns.append(np.log([sum(p.numel() for p in layout.build_subnet(a).parameters()) for a in archs]))
    columns.append([float(a.int("resolution")) for a in archs])
    stages = sorted({m[1] for name in archs[0].as_dict() if (m := re.match(r"(stage\d+)\.depth", name))})
    for stage in stages:
        columns.append([float(a.int(f"{stage}.depth")) for a in archs])
        blocks = [[v for k, v in a.as_dict().items() if k.startswith(f"{stage}.block")] for a in archs]
        for part in (0, 1):  # kernel size, expansion
            columns.append([float(np.mean([v[part] for v in of_stage])) for of_stage in blocks])
    return np.array(columns, dtype=np.float64).T


def residuals(values: Floats, known: Floats) -> Floats:
    """Return what ``known`` does not explain of the ranks of values."""
    x = np.column_stack([np.ones(len(values)), *((c - c.mean()) / (c.std() + 1e-12) for c in known.T)])
    ranks = rankdata(values)
    rest: Floats = ranks - x @ np.linalg.lstsq(x, ranks, rcond=None)[0]
    return rest


def correlation(a: Floats, b: Floats) -> tuple[float, float]:
    """Return the correlation of residuals, and how often chance gives as much."""
    rng = np.random.default_rng(0)
    r = float(np.corrcoef(a, b)[0, 1])
    chance = np.array([np.corrcoef(rng.permutation(a), b)[0, 1] for _ in range(SHUFFLES)])
    return r, float((np.abs(chance) >= abs(r)).mean())


def table(found: list[dict[str, float]], known: Floats) -> list[str]:
    """Return the lines of a data set."""
    values = {name: np.array([f[name] for f in found]) for name in found[0]}
    score, nothing = values.pop("introspectability"), np.empty((len(known), 0))
    with_top1 = np.column_stack([known, values["top-1"]])
    rest, all_of = residuals(score, known), residuals(score, nothing)
    lines = [
        f"structure explains {1 - rest.var() / all_of.var():.0%} of introspectability (ranks, {known.shape[1]} numbers)"
    ]
    lines.append(f"{'':26}{'range':>16}  {'alone':>14}  {'structure out':>14}  {'and top-1 out':>14}")
    for name, value in values.items():
        cells = []
        for out in (nothing, known, with_top1):
            if name == "top-1" and out is with_top1:
                continue
            r, p = correlation(residuals(score, out), residuals(value, out))
            cells.append(f"{r:+.2f} ({p:.3f})")
        span = f"{value.min():.2f} to {value.max():.2f}"
        lines.append(f"{name:26}{span:>16}  " + "  ".join(f"{c:>14}" for c in cells))
    return lines


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist_uint8.npz and cifar10_jpeg.npz")
    parser.add_argument("--epochs", type=int, default=5, help="of the largest net, before all others")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["Introspectability over 60 subnets of one supernet (introspectability.py): rank correlations (chance)"]
    for name, channels in (("mnist", 1), ("cifar10", 3)):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            wrong, strange = write_task(work / "task.npz", images_of(args.data, name))
            overrides = [
                *SETTINGS, "data.source=npz", f"data.path={work / 'task.npz'}", f"supernet.in_channels={channels}",
                f"train.phases=[{{name: full, epochs: {args.epochs}, lr: 0.05}}, {WIDTH}]",
            ]  # fmt: skip
            run = hwnas.start_run("mnist-mbv3", work / "run", overrides)
            run.train()
            archs = run.layout.space.sample(np.random.default_rng(1), SUBNETS)
            unknown = torch.from_numpy(strange)
            unknown = unknown[:, None] if unknown.ndim == 3 else unknown.permute(0, 3, 1, 2).contiguous()
            found = [answers(run, arch, wrong, unknown) for arch in archs]
            lines += ["", f"{name}: {TRAIN} training images, {VALIDATION} validation images"]
            lines += table(found, structure(run, archs))
            print("\n".join(lines[-9:]), flush=True)
    OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
