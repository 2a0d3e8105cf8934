"""OFAv2: does extended progressive shrinking with early exits beat plain progressive shrinking, at equal steps?

Small supernets of four stages on MNIST reduced to 12 pixels and 2,000 training images: base (SE_B, which is
Once-For-All), dense skips (D), parallel blocks (P), early exits (EE) and their combinations, each with the teacher that
the first phase leaves (fixed) or with the one extracted before every phase (pet). Supernets with early exits learn from
the ensemble of the teacher's exits. All take the same number of optimiser steps; a supernet without a phase gives its
steps to the others. After every phase 10 random subnets of the phase, its largest and, with exits, the largest of every
exit are extracted, calibrated and validated; the table shows the test accuracy of the best of them on validation,
whatever its size.

    python benchmarks/ofav2_phases.py --data mnist_uint8.npz --out results_folder [--only EE_D-pet]

Each supernet is kept in the folder, so a second start continues; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from reduced_mnist import reduced_mnist

from hwnas.data import DataConfig, ImageSet, Splits, as_input
from hwnas.files import write_json
from hwnas.space import SearchSpace
from hwnas.supernet import SuperNet, calibrate_bn, extract_subnet
from hwnas.supernet.families.ofav2 import OFAv2Config
from hwnas.task import Task
from hwnas.train import PhaseConfig, TrainConfig, scores, train_supernet
from hwnas.train.phases import phase_space

RESOLUTION_PX, BATCH_SIZE, TRAIN_IMAGES, STEPS = 12, 32, 2000, 600
PHASES = ("full", "kernel", "level", "height", "depth", "width")
SHARES = {"full": 12, "kernel": 4, "level": 4, "height": 6, "depth": 5, "width": 6}
"""Of the steps, for a supernet that has all phases."""
PEAK_LR = {"full": 0.08, "kernel": 0.03, "level": 0.03, "height": 0.03, "depth": 0.03, "width": 0.03}
SUBNETS = {"full": 1, "kernel": 1, "level": 2, "height": 2, "depth": 2, "width": 4}
FIELDS = {"kernel": "kernel_size", "level": "level", "height": "exit", "depth": "depth", "width": "expand_ratio"}
DEFAULT = "SE_B-fixed,SE_B-pet,SE_D-fixed,SE_D-pet,EE_B-fixed,EE_B-pet,EE_D-fixed,EE_D-pet,EE_P-pet,EE_DP-pet"


def supernet_config(name: str) -> OFAv2Config:
    """Return the supernet called ``{SE|EE}_{B|D|P|DP}``."""
    exits, form = name.split("_")
    widths, strides = (16, 24, 32, 48), (2, 1, 2, 1)
    return OFAv2Config.model_validate({
        "family": "ofav2", "in_channels": 1, "classes": 10, "resolutions": [RESOLUTION_PX], "stem_width": 8,
        "stem_stride": 1, "stem_act": "hswish", "first_block": False, "expand_width": 144, "feature_width": 192,
        "dense_skips": "D" in form, "parallel": "P" in form, "early_exits": exits == "EE",
        "stages": [
            {"width": w, "stride": s, "depths": [2, 3], "kernel_sizes": [3, 5], "expand_ratios": [2, 3, 4],
             "act": "relu" if i < 2 else "hswish", "se": i in (1, 3)}
            for i, (w, s) in enumerate(zip(widths, strides, strict=True))
        ],
    })  # fmt: skip


def train_config(name: str, teacher: str) -> TrainConfig:
    """Return the phases in the order of OFAv2: Full, Kernel, Level, Height, Depth, Width."""
    exits = name.startswith("EE")
    own = [p for p in PHASES if (p != "level" or "P" in name) and (p != "height" or exits)]
    total = sum(SHARES[p] for p in own)
    per_epoch = TRAIN_IMAGES // BATCH_SIZE
    elastic: dict[str, str] = {}
    phases = []
    for p in own:
        if p in FIELDS:
            elastic[FIELDS[p]] = "all"
        phases.append(PhaseConfig(
            name=p, epochs=round(STEPS * SHARES[p] / total) / per_epoch, lr=PEAK_LR[p], elastic=dict(elastic),
            warmup_epochs=0.5, subnets_per_step=SUBNETS[p], sort_channels=p == "width",
            exits="all" if p == "full" and exits else "own", teacher="none" if p == "full" else teacher,
            teacher_exits="all" if p != "full" and exits else "last",
        ))  # fmt: skip
    return TrainConfig(batch_size=BATCH_SIZE, phases=tuple(phases), weight_decay=3e-5, clip_grad_norm=5, device="cpu")


def top1_percent(net: torch.nn.Module, images: torch.Tensor, part: ImageSet, task: Task) -> float:
    """Return the share of images whose class is found."""
    return scores(net, images, part.labels, task)["top1_percent"]


def best_subnet(net: SuperNet, space: SearchSpace, splits: Splits) -> dict[str, float | str | int]:
    """Return the best subnet of ``space`` on validation images among some, with its test accuracy."""
    archs = [space.largest(), *space.sample(np.random.default_rng(1), 10)]
    if "exit" in space:
        archs += [space.restrict({"exit": [e]}).largest() for e in space["exit"].options]
    x, validation, test = (
        as_input(part.images, RESOLUTION_PX, *splits.mean_std)
        for part in (splits.train, splits.validation, splits.test)
    )
    candidates = []
    for arch in dict.fromkeys(archs):
        subnet = extract_subnet(net, arch)
        calibrate_bn(subnet, x[:500].split(100))
        candidates.append((top1_percent(subnet, validation, splits.validation, splits.task), arch, subnet))
    accuracy, arch, subnet = max(candidates, key=lambda s: s[0])
    return {
        "validation_percent": accuracy, "test_percent": top1_percent(subnet, test, splits.test, splits.task),
        "exit": str(arch.get("exit", "-")), "key": arch.key,
    }  # fmt: skip


def one(name: str, teacher: str, splits: Splits) -> dict[str, object]:
    """Train one supernet and look at it after every phase."""
    found: dict[str, object] = {}
    config = train_config(name, teacher)

    def after_phase(phase: PhaseConfig, net: SuperNet) -> None:
        found[phase.name] = best_subnet(net, phase_space(phase, net.space), splits)
        print(f"  {name}-{teacher} {phase.name}: {found[phase.name]}", flush=True)

    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        train_supernet(
            supernet_config(name), config, DataConfig(), splits, Path(folder) / "train", after_phase=after_phase
        )
    per_epoch = TRAIN_IMAGES // BATCH_SIZE
    steps = sum(max(1, round(p.epochs * per_epoch)) for p in config.phases)
    return {"phases": found, "steps": steps, "cpu_s": time.process_time() - started}


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="MNIST as .npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=DEFAULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    splits = reduced_mnist(args.data, RESOLUTION_PX, TRAIN_IMAGES)
    names = args.only.split(",")
    for entry in names:
        path = args.out / f"{entry}.json"
        if not path.exists():
            write_json(path, one(*entry.rsplit("-", 1), splits))
    print(f"{'supernet':12}{'steps':>6}" + "".join(f"{p:>9}" for p in PHASES) + "   exit of the best, CPU s")
    for entry in names:
        values = json.loads((args.out / f"{entry}.json").read_text(encoding="utf-8"))
        cells, last = [], ""
        for p in PHASES:
            last = f"{values['phases'][p]['test_percent']:.2f}" if p in values["phases"] else last
            cells.append(f"{last:>9}")
        best = values["phases"]["width"]["exit"]
        print(f"{entry:12}{values['steps']:6d}" + "".join(cells) + f"   {best}, {values['cpu_s']:.0f}")


if __name__ == "__main__":
    main()
