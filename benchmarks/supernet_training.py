"""Which way of training a supernet gives better subnets, at equal multiply-adds?

A small `mbv3` space (half the widths of worth_it.py, images of 16 and 20 pixels) on 5,400 images of CIFAR-10 (JPEG).
Every way has the same multiply-adds, counted over forward and backward passes; ``sandwich`` is that of worth_it.py.
Each supernet is judged by ``--subnets`` random subnets (30) on the test images: mean accuracy with inherited weights,
of the faster and the slower half by cortex-a76-cpu, too, and Kendall's tau against the same networks trained alone,
over all pairs and over those within 10 % of latency (not with ``--inherited-only``: minutes instead of hours).
Ways named by ``--finish`` are judged again after each subnet was trained to its end.

    python benchmarks/supernet_training.py --data cifar10_jpeg.npz --work DIR [--only sandwich,uniform] --seeds 10

Everything is kept in the folder, so a second start continues.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from worth_it import STAGES

from hwnas.latency.table import load_device
from hwnas.runs.analysis.quality import draw, supernet_quality
from hwnas.runs.plan import macs_per_image
from hwnas.runs.run import Run
from hwnas.runs.start import start_run
from hwnas.supernet import Layout, make_layout
from hwnas.supernet.families.mbv3 import MBV3Config
from hwnas.train.phases import PhaseConfig

DEVICE = "cortex-a76-cpu"
ALONE_EPOCHS, FINISH_EPOCHS = 20, 5
DRAWN_STEPS = 300
"""Of which the multiply-adds of a phase are the mean."""

ELASTIC = {"kernel_size": "all", "depth": "all", "expand_ratio": "all"}
FULL = {"name": "full", "lr": 0.1, "warmup_epochs": 1}
SANDWICH = {
    "name": "all", "lr": 0.1, "warmup_epochs": 1, "elastic": ELASTIC, "sampling": "sandwich", "subnets_per_step": 3,
    "teacher": "inplace",
}  # fmt: skip
UNIFORM = {"name": "all", "lr": 0.1, "warmup_epochs": 1, "elastic": ELASTIC}
LATER = {"lr": 0.05, "warmup_epochs": 0}
"""Of a phase that begins with trained weights."""

Share = tuple[float, dict[str, Any]]
"""Share of the multiply-adds, and the phase."""

WAYS: dict[str, tuple[list[Share], dict[str, Any]]] = {
    "sandwich": ([(1, SANDWICH)], {}),
    "sandwich, 2 random": ([(1, {**SANDWICH, "subnets_per_step": 4})], {}),
    "uniform": ([(1, UNIFORM)], {}),
    "uniform, 4 a step": ([(1, {**UNIFORM, "subnets_per_step": 4})], {}),
    "full, then sandwich": ([(0.5, FULL), (0.5, {**SANDWICH, **LATER})], {}),
    "full, then uniform": ([(0.5, FULL), (0.5, {**UNIFORM, **LATER, "teacher": "fixed"})], {}),
    "progressive": ([
        (0.4, FULL),
        (0.1, {**SANDWICH, **LATER, "name": "kernel", "elastic": {"kernel_size": "all"}, "teacher": "fixed"}),
        (0.2, {**SANDWICH, **LATER, "name": "depth", "elastic": {"kernel_size": "all", "depth": "all"},
               "teacher": "fixed"}),
        (0.3, {**SANDWICH, **LATER, "teacher": "fixed", "sort_channels": True}),
    ], {}),
    "sandwich, coupled": ([(1, {**SANDWICH, "coupled": ["depth", "expand_ratio"]})], {}),
    "sandwich, alpha": ([(1, {**SANDWICH, "divergence": "alpha"})], {}),
    "sandwich, average": ([(1, SANDWICH)], {"ema_decay": 0.99}),
    "sandwich, half rate": ([(1, {**SANDWICH, "lr": 0.05})], {}),
    "sandwich, double rate": ([(1, {**SANDWICH, "lr": 0.2})], {}),
}  # fmt: skip


def space() -> dict[str, Any]:
    """Values of the supernet."""
    stages = [{**s, "width": s["width"] // 2, "kernel_sizes": [3, 5], "expand_ratios": [2, 3, 4, 6]} for s in STAGES]
    return {
        "family": "mbv3", "classes": 10, "resolutions": [16, 20], "stem_width": 8, "stem_stride": 1,
        "stages": stages, "expand_width": 144, "feature_width": 192, "dropout_percent": 0,
    }  # fmt: skip


def phases_of(layout: Layout, way: str, macs: float) -> list[dict[str, Any]]:
    """The phases of a way, as long as its multiply-adds for each image allow."""
    return [
        {
            **phase,
            "epochs": round(macs * share / macs_per_image(layout, PhaseConfig(epochs=1, **phase), DRAWN_STEPS), 2),
        }
        for share, phase in WAYS[way][0]
    ]


def recipe(arguments: argparse.Namespace, way: str, seed: int) -> dict[str, Any]:
    """Values of the recipe of a way."""
    layout = make_layout(MBV3Config.model_validate(space()))
    macs = arguments.epochs * macs_per_image(layout, PhaseConfig(epochs=1, **SANDWICH), DRAWN_STEPS)
    return {
        "name": "supernet-training", "devices": [DEVICE], "objectives": ["top1_percent", "latency_ms"],
        "data": {
            "source": "jpeg", "path": str(Path(arguments.data).resolve()), "max_images": 5400,
            "validation_percent": 1.2, "augment": {"flip": True, "shift_percent": 12.5, "cutout_percent": 25},
        },
        "supernet": space(),
        "train": {
            "batch_size": 64, "weight_decay": 0.0005, "clip_grad_norm": 5, "seed": seed,
            "phases": phases_of(layout, way, macs), **WAYS[way][1],
        },
        "evaluation": {"calibration_images": 500},
    }  # fmt: skip


def trained(arguments: argparse.Namespace, way: str, seed: int) -> tuple[Run, float]:
    """Train a supernet in one way, or read it from the folder; return it and the CPU seconds of its training."""
    folder = Path(arguments.work) / f"{way.replace(', ', '-').replace(' ', '_')}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    path, out = folder / "recipe.yaml", folder / "run"
    path.write_text(yaml.safe_dump(recipe(arguments, way, seed), sort_keys=False))
    run, began = start_run(path, out), time.process_time()
    time_file = folder / "train_s.json"
    run.train()
    if not time_file.exists():
        time_file.write_text(json.dumps(time.process_time() - began))
        print(f"{way}, seed {seed}: trained in {time.process_time() - began:.0f} s", flush=True)
    return run, json.loads(time_file.read_text())


def judged(arguments: argparse.Namespace, way: str, seed: int) -> dict[str, float]:
    """Judge what one way of training gives."""
    run, train_s = trained(arguments, way, seed)
    device, archs = load_device(DEVICE), draw(run.context, arguments.subnets, 0)
    fast = np.argsort(device.compile(run.layout).of_archs(archs), kind="stable")
    finish = FINISH_EPOCHS if way in arguments.finish else 0
    values: dict[str, float] = {"train_s": train_s, "epochs": sum(p.epochs for p in run.recipe.train.phases)}
    if arguments.inherited_only:
        context, name = run.context, run.context.score.name
        scores = [context.test_scores(context.trained_evaluator.subnet(arch), arch)[name] for arch in archs]
        return said(way, seed, values | halves(np.array(scores)[fast]))
    alone = Path(arguments.work) / "alone"  # the same networks for every way
    alone.mkdir(exist_ok=True)
    if not run.context.folder.alone.exists():
        run.context.folder.alone.symlink_to(alone.resolve())
    found = supernet_quality(run.context, arguments.subnets, ALONE_EPOCHS, finish_epochs=finish, device=device)
    values |= halves(np.array([s.inherited for s in found.subnets])[fast])
    values |= {
        "tau": found.kendall_tau, "tau in bands": found.ranking.inherited_tau_in_bands if found.ranking else np.nan,
        "alone": float(np.mean([s.alone for s in found.subnets])),
    }  # fmt: skip
    if finish and found.ranking:
        values["finished"] = np.mean([s.finished for s in found.subnets])
        values["finished tau"] = found.ranking.finished_tau
        values["finished tau in bands"] = found.ranking.finished_tau_in_bands
    return said(way, seed, values)


def halves(scores: NDArray[np.float64]) -> dict[str, float]:
    """Mean scores of subnets, fastest first."""
    half = len(scores) // 2
    return {"inherited": scores.mean(), "fast half": scores[:half].mean(), "slow half": scores[half:].mean()}


def said(way: str, seed: int, values: dict[str, float]) -> dict[str, float]:
    """Print what is known of a way, and return it."""
    print(f"{way}, seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()), flush=True)
    return {k: float(v) for k, v in values.items()}


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", default="runs/supernet-training")
    parser.add_argument("--epochs", type=float, default=12, help="Of the way `sandwich`: the compute of all.")
    parser.add_argument("--subnets", type=int, default=30, help="By which a supernet is judged.")
    parser.add_argument("--inherited-only", action="store_true")
    parser.add_argument("--only", default=",".join(w.replace(", ", ":") for w in WAYS), help="`:` stands for `, `.")
    parser.add_argument("--finish", default="sandwich", help="Ways whose subnets are also trained to their end.")
    parser.add_argument("--seeds", default="10", type=lambda t: [int(v) for v in t.split(",")])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.finish = [w.replace(":", ", ") for w in arguments.finish.split(",") if w]
    torch.set_num_threads(1)
    ways = [w.replace(":", ", ") for w in arguments.only.split(",")]
    for seed in arguments.seeds:
        for way in ways:
            trained(arguments, way, seed)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in arguments.seeds:
        for way in ways:
            found.setdefault(way, []).append(judged(arguments, way, seed))
    columns = ("epochs", "inherited", "fast half", "slow half", "tau", "tau in bands", "train_s")
    print("\n" + f"{'way':<24}" + "".join(f"{column:>14}" for column in columns))
    for way, rows in found.items():
        mean = {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}
        print(f"{way:<24}" + "".join(f"{mean.get(column, np.nan):>14.2f}" for column in columns))
        if "finished" in mean:
            own = (FINISH_EPOCHS, mean["finished"], "", "", mean["finished tau"], mean["finished tau in bands"])
            print(f"{'  finished':<24}" + "".join(f"{v:>14}" if v == "" else f"{v:>14.2f}" for v in own))
            print(f"{'  trained alone':<24}{ALONE_EPOCHS:>14}{mean['alone']:>14.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
