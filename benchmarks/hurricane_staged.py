"""HURRICANE: does staged training of a single-path supernet save time against joint training, at which cost?

A small supernet of 8 layers over the pool of 32 operators, on MNIST reduced to 12 pixels and 2,000 training images, for
one device. Every layer first keeps the operators that are worth their time there; that holds for all that is compared:

- joint: all layers vary in every step; then 60 archs are searched (NSGA-II, validation accuracy against latency).
- staged: the 4 later layers vary for half of joint's steps, the earlier ones hold their fastest operator; 30 archs of
  the later layers are searched; then the earlier layers vary for a quarter of joint's steps, with inherited weights and
  the later layers at the knee of that search; 30 archs are searched, of the earlier layers with later layers on the
  first front.
- joint, short: joint with three quarters of the steps, which is what staged takes.

Five models of every front are then trained alone, from random weights, all alike; the hypervolume is that of their test
accuracy and latency, in a box common to all.

    python benchmarks/hurricane_staged.py --data mnist_uint8.npz --out results_folder [--seeds 2]

What is finished is kept in the folder, so a second start continues; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from reduced_mnist import reduced_mnist

import hwnas
from hwnas.data import DataConfig, Splits, as_input
from hwnas.files import write_json
from hwnas.finetune import FinetuneConfig, finetune
from hwnas.objectives import Objective
from hwnas.objectives.exact import macs_of_space, params_of_space
from hwnas.pareto import choose_subset, hypervolume, knee, non_dominated
from hwnas.search.problem import Problem
from hwnas.search.specialise import specialise
from hwnas.space import Arch, SearchSpace
from hwnas.supernet import Layout, SuperNet, calibrate_bn, extract_subnet, make_layout
from hwnas.supernet.families.hurricane import HurricaneConfig
from hwnas.train import PhaseConfig, TrainConfig, scores, train_supernet

RESOLUTION_PX, BATCH_SIZE, TRAIN_IMAGES, STEPS, EVALUATIONS, KEPT = 12, 32, 2000, 1200, 60, 4
LATER, FIELDS = (3, 4), ("operator", "expand_ratio", "kernel_size", "se")
MODELS, ALONE = 5, FinetuneConfig(epochs=8, lr=0.1, warmup_epochs=0.5, distill_ratio=0, batch_size=BATCH_SIZE)
METHODS = ("joint", "staged", "joint, short")
NET = HurricaneConfig.model_validate({
    "family": "hurricane", "in_channels": 1, "classes": 10, "resolutions": [RESOLUTION_PX], "stem_width": 16,
    "stem_stride": 1, "feature_width": 192,
    "stages": [
        {"width": 16, "stride": 2, "layers": 2}, {"width": 24, "stride": 1, "layers": 2},
        {"width": 32, "stride": 2, "layers": 2}, {"width": 48, "stride": 1, "layers": 2},
    ],
})  # fmt: skip


class Bench:
    """Data, device and what is counted for one seed."""

    def __init__(self, splits: Splits, device: str, seed: int) -> None:
        self.splits, self.seed = splits, seed
        self.layout: Layout = make_layout(NET)
        self.latency = hwnas.load_device(device).compile(self.layout)
        self.x, self.validation, self.test = (
            as_input(p.images, RESOLUTION_PX, *splits.mean_std) for p in (splits.train, splits.validation, splits.test)
        )
        self.train_s = self.search_s = 0.0

    def milliseconds(self, archs: Sequence[Arch]) -> np.ndarray:
        """Latency of archs."""
        return self.latency.of_archs(archs)

    def specialised(self) -> SearchSpace:
        """Return the space with the operators that each layer keeps on the device."""
        cheap = Objective("latency_ms", "min", self.milliseconds, True, self.latency.of_genomes)
        sums = {"macs": macs_of_space(self.layout), "params": params_of_space(self.layout)}
        capacity = tuple(Objective(n, "min", s.of_archs, True, s.of_genomes) for n, s in sums.items())
        accuracy = Objective("top1_percent", "max", lambda archs: [0.0] * len(archs))
        return specialise(Problem(self.layout.space, (accuracy, cheap), (), capacity), KEPT).restricted

    def train(self, space: SearchSpace, steps: int, folder: Path, start: Path | None = None) -> SuperNet:
        """Train single paths of ``space``; the time is counted."""
        phase = PhaseConfig(
            name="paths", epochs=steps / (TRAIN_IMAGES // BATCH_SIZE), lr=0.1, warmup_epochs=1,
            elastic=dict.fromkeys(FIELDS, "all"), only={c.name: c.options for c in space.choices},
        )  # fmt: skip
        config = TrainConfig(
            batch_size=BATCH_SIZE, phases=(phase,), clip_grad_norm=5, seed=self.seed, device="cpu",
            start_from=None if start is None else str(start),
        )  # fmt: skip
        started = time.process_time()
        net = train_supernet(NET, config, DataConfig(), self.splits, folder)
        self.train_s += time.process_time() - started
        return net

    def search(self, net: SuperNet, space: SearchSpace, evaluations: int) -> tuple[list[Arch], np.ndarray]:
        """Return the front and its ``(n, 2)`` losses: negative validation accuracy, latency."""

        def accuracy(archs: Sequence[Arch]) -> list[float]:
            out = []
            for arch in archs:
                subnet = extract_subnet(net, arch)
                calibrate_bn(subnet, self.x[:500].split(100))
                out.append(self.top1_percent(subnet, self.validation, self.splits.validation.labels))
            return out

        objectives = [
            Objective("top1_percent", "max", accuracy), Objective("latency_ms", "min", self.milliseconds, True),
        ]  # fmt: skip
        started = time.process_time()
        found = hwnas.minimize(space, objectives, searcher="nsga2", evaluations=evaluations, seed=self.seed)
        self.search_s += time.process_time() - started
        losses = np.stack([-found.values[:, 0], found.values[:, 1]], axis=1)
        front = non_dominated(losses)
        return [a for a, f in zip(found.archs, front, strict=True) if f], losses[front]

    def front(self, method: str, space: SearchSpace) -> list[Arch]:
        """Train and search by one of the methods; return the front."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if method != "staged":
                net = self.train(space, STEPS if method == "joint" else STEPS * 3 // 4, folder / "a")
                archs, losses = self.search(net, space, EVALUATIONS)
            else:
                later = [c for s in LATER for c in space.stages[s - 1]]
                earlier = [c for s, stage in enumerate(space.stages, 1) if s not in LATER for c in stage]
                fastest = self.fastest(space)
                first = space.fix(fastest, earlier)
                net = self.train(first, STEPS // 2, folder / "a")
                archs, losses = self.search(net, first, EVALUATIONS // 2)
                winner = archs[knee(losses)]
                second = space.fix(winner, later)
                net = self.train(second, STEPS // 4, folder / "b", folder / "a")
                winners = {c: tuple(dict.fromkeys(a[c] for a in archs)) for c in later}
                archs, losses = self.search(net, space.restrict(winners), EVALUATIONS // 2)
            # Ends of the front and what lies evenly between.
            chosen = choose_subset(losses, MODELS) if len(archs) > MODELS else np.arange(len(archs))
            return [archs[i] for i in chosen]

    def fastest(self, space: SearchSpace) -> Arch:
        """Return the arch of every layer's fastest operator."""
        best = space.smallest()
        for choice in space.choices:
            variants = [space.arch({**best.as_dict(), choice.name: o}) for o in choice.options]
            best = variants[int(np.argmin(self.milliseconds(variants)))]
        return best

    def alone(self, arch: Arch) -> float:
        """Return the test accuracy of an arch trained alone."""
        torch.manual_seed(self.seed)
        net = self.layout.build_subnet(arch).to(memory_format=torch.channels_last)
        result = finetune(net, RESOLUTION_PX, self.splits, ALONE)
        return self.top1_percent(result.network, self.test, self.splits.test.labels)

    def top1_percent(self, net: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Return the share of images whose class is found."""
        return scores(net, images, labels, self.splits.task)["top1_percent"]


def main() -> None:
    """Do what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="MNIST as .npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="hexagon-dsp")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", help="one method and seed, such as staged-0; no table then")
    args = parser.parse_args()
    torch.set_num_threads(1)
    splits = reduced_mnist(args.data, RESOLUTION_PX, TRAIN_IMAGES)
    every: dict[str, list[dict[str, object]]] = {m: [] for m in METHODS}
    for method in METHODS:
        for seed in range(args.seeds):
            entry = f"{method}-{seed}".replace(", ", "-")
            path = args.out / f"{entry}.json"
            if not path.exists():
                if args.only not in (None, entry):
                    continue
                bench = Bench(splits, args.device, seed)
                archs = bench.front(method, bench.specialised())
                write_json(path, {
                    "latency_ms": bench.milliseconds(archs).tolist(), "test_percent": [bench.alone(a) for a in archs],
                    "train_s": bench.train_s, "search_s": bench.search_s, "archs": [a.as_dict() for a in archs],
                })  # fmt: skip
            every[method].append(json.loads(path.read_text(encoding="utf-8")))
    if args.only:
        return
    points = {
        m: [np.stack([-np.array(r["test_percent"]), np.array(r["latency_ms"])], 1) for r in runs]
        for m, runs in every.items()
    }
    all_points = np.concatenate([p for found in points.values() for p in found])
    low, high = all_points.min(0), all_points.max(0)
    print(f"{args.device}, {args.seeds} seeds; CPU seconds on one thread, accuracies of models trained alone")
    print(f"{'method':14}{'training s':>12}{'search s':>10}{'hypervolume':>20}{'best %':>9}{'fastest ms':>12}")
    for m in METHODS:
        volumes = [hypervolume((p - low) / (high - low), np.array([1.1, 1.1])) / 1.21 for p in points[m]]
        training, search = (np.mean([r[k] for r in every[m]]) for k in ("train_s", "search_s"))
        both = np.concatenate(points[m])
        print(
            f"{m:14}{training:12.1f}{search:10.1f}{np.mean(volumes):12.4f} ({np.std(volumes):.4f})"
            f"{-both[:, 0].min():9.2f}{both[:, 1].min():12.4f}"
        )
    times = {m: np.mean([r["train_s"] for r in every[m]]) for m in METHODS}
    print(f"staged takes {100 * (1 - times['staged'] / times['joint']):.1f} % less training time than joint")


if __name__ == "__main__":
    main()
