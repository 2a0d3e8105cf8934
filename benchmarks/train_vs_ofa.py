"""How fast are training steps and evaluations of subnets here, against the original package `ofa` in the same process?

Both run the full MobileNetV3 supernet (recipe ofa-mbv3-w1.0, 1,000 classes) on the same archs and images, in turn
(hwnas, ofa, ofa with channels-last memory, hwnas, ...); every ratio is the median over the rounds of such a turn.

- ``train``: steps of the optimiser on batches of 64, each with the gradients of two random subnets.
- ``evaluate``: random subnets extracted, their batch norm calibrated on 2,000 images and validated on 2,000 more;
  `ofa` takes the batch size that is its fastest.
- ``memory``: peak resident memory (VmHWM) of processes that do nothing but a few training steps.

    python benchmarks/train_vs_ofa.py train --size 64 --rounds 8
    python benchmarks/train_vs_ofa.py evaluate --size 64 --rounds 20
    python benchmarks/train_vs_ofa.py memory --size 64
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import original_ofa
from torch import Tensor

import hwnas
from hwnas.objectives.config import EvaluationConfig
from hwnas.space import Arch
from hwnas.space.dialects.once_for_all import format_ofa
from hwnas.supernet import SuperNet, SupernetConfig, build_supernet, calibrate_bn, extract_subnet, make_layout
from hwnas.task.classification import CLASSIFICATION
from hwnas.train.evaluate import scores
from hwnas.train.phases import PhaseConfig
from hwnas.train.step import make_optimiser, train_step

BATCH, SUBNETS, CLASSES, IMAGES = 64, 2, 1000, 2000
OFA_BATCHES = (50, 100, 200, 500)
PHASE = PhaseConfig(
    name="all", epochs=1, lr=0.01, elastic={"kernel_size": "all", "depth": "all", "expand_ratio": "all"},
    subnets_per_step=SUBNETS,
)  # fmt: skip


def images(n: int, size: int) -> tuple[Tensor, Tensor]:
    """Return ``(n, 3, size, size)`` channels-last pixels of noise and ``(n,)`` labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def supernet_config(size: int) -> SupernetConfig:
    """Return the recipe's supernet at one resolution."""
    return hwnas.load_recipe("ofa-mbv3-w1.0").supernet.model_copy(update={"resolutions": (size,)})


class Ours:
    """hwnas as its users run it."""

    def __init__(self, size: int) -> None:
        self.config = hwnas.load_recipe("ofa-mbv3-w1.0").train
        self.net: SuperNet = build_supernet(supernet_config(size), 0)
        self.optimiser = make_optimiser(self.net, self.config)

    def step(self, x: Tensor, y: Tensor, archs: Sequence[Arch]) -> None:
        """One step of the optimiser."""
        self.net.train()
        train_step(self.net, self.optimiser, x, y, list(archs), PHASE, self.config, PHASE.lr, CLASSIFICATION)

    def evaluate(self, calibration: Tensor, x: Tensor, y: Tensor, arch: Arch, batch: int) -> None:
        """Extract, calibrate, validate."""
        subnet = extract_subnet(self.net, arch)
        calibrate_bn(subnet, calibration.split(batch))
        scores(subnet, x, y, CLASSIFICATION)


class Theirs:
    """`ofa`, as its training and its evaluation do these things, with or without channels-last memory."""

    def __init__(self, channels_last: bool, space: hwnas.SearchSpace) -> None:
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.net: Any = original_ofa().to(memory_format=self.format)
        self.space = space
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        plain = [p for p in self.net.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.SGD(
            [{"params": decayed, "weight_decay": 3e-5}, {"params": plain, "weight_decay": 0.0}],
            lr=PHASE.lr, momentum=0.9, nesterov=True,
        )  # fmt: skip

    def step(self, x: Tensor, y: Tensor, archs: Sequence[Arch]) -> None:
        """One step of the optimiser."""
        self.net.train()
        self.net.zero_grad()
        for arch in archs:
            self._choose(arch)
            F.cross_entropy(self.net(x), y, label_smoothing=0.1).backward()
        self.optimiser.step()

    def evaluate(self, calibration: Tensor, x: Tensor, y: Tensor, arch: Arch, batch: int) -> None:
        """Extract, calibrate, validate."""
        from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics

        self._choose(arch)
        subnet = self.net.get_active_subnet(preserve_weight=True).to(memory_format=self.format)
        set_running_statistics(subnet, [(part, None) for part in calibration.split(batch)])
        subnet.eval()
        with torch.inference_mode():
            sum(int((subnet(i).argmax(1) == j).sum()) for i, j in zip(x.split(batch), y.split(batch), strict=True))

    def _choose(self, arch: Arch) -> None:
        config = format_ofa(arch, self.space)
        self.net.set_active_subnet(ks=config["ks"], e=config["e"], d=config["d"])


def contenders(size: int, names: Sequence[str]) -> dict[str, Any]:
    """Return the named ones, and always hwnas, whose space draws the archs."""
    ours = Ours(size)
    made = {"hwnas": ours}
    for name in names:
        if name != "hwnas":
            made[name] = Theirs(name.endswith("channels-last"), ours.net.space)
    return made


def compare(what: str, images_a_run: int, runs: dict[str, Callable[[int], None]], rounds: int) -> None:
    """Run everything in turn and print medians and ratios."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(number)
            seconds[name].append(time.perf_counter() - start)
    for name, found in seconds.items():
        ratios = [b / a for a, b in zip(seconds["hwnas"], found, strict=True)]
        print(
            f"{what:28} {name:20} {statistics.median(found):7.3f} s {images_a_run / statistics.median(found):8.1f} "
            f"images/s   hwnas is {statistics.median(ratios):5.2f} x as fast ({min(ratios):.2f}..{max(ratios):.2f})",
            flush=True,
        )


def train(size: int, rounds: int, names: Sequence[str]) -> None:
    """Print images per second of training steps; each subnet of a step counts its images."""
    nets = contenders(size, names)
    archs = nets["hwnas"].net.space.sample(np.random.default_rng(0), SUBNETS * (rounds + 1))
    x, y = images(BATCH, size)
    inputs = {n: x if n == "hwnas" or n.endswith("channels-last") else x.contiguous() for n in nets}
    for name, net in nets.items():
        net.step(inputs[name], y, archs[-SUBNETS:])  # warm-up

    def run(name: str) -> Callable[[int], None]:
        return lambda i: nets[name].step(inputs[name], y, archs[SUBNETS * i : SUBNETS * (i + 1)])

    compare(f"train, {size} px", BATCH * SUBNETS, {name: run(name) for name in nets}, rounds)


def evaluate(size: int, rounds: int, names: Sequence[str]) -> None:
    """Print subnets' images per second, calibration and validation together."""
    nets = contenders(size, names)
    archs = nets["hwnas"].net.space.sample(np.random.default_rng(1), rounds + 1)
    x, y = images(IMAGES, size)
    inputs = {n: x if n == "hwnas" or n.endswith("channels-last") else x.contiguous() for n in nets}
    batches = {"hwnas": EvaluationConfig().calibration_batch_size}
    for name, net in nets.items():
        if name == "hwnas":
            net.evaluate(inputs[name][:400], inputs[name][:400], y[:400], archs[-1], batches[name])
            continue
        took = {}
        for batch in OFA_BATCHES:  # its own best, on a part of the images
            start = time.perf_counter()
            net.evaluate(inputs[name][:500], inputs[name][:500], y[:500], archs[-1], batch)
            took[batch] = time.perf_counter() - start
        batches[name] = min(took, key=lambda b: took[b])
    print(f"batch sizes: {batches}")

    def run(name: str) -> Callable[[int], None]:
        return lambda i: nets[name].evaluate(inputs[name], inputs[name], y, archs[i], batches[name])

    compare(f"evaluate, {size} px", 2 * IMAGES, {name: run(name) for name in nets}, rounds)


def memory(size: int, rounds: int, names: Sequence[str]) -> None:
    """Print peak resident memory of child processes."""
    found = {}
    for name in names:
        command = [sys.executable, __file__, "child", "--size", str(size), "--rounds", str(rounds), "--only", name]
        command += ["--threads", str(torch.get_num_threads())]
        found[name] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    for name, kib in found.items():
        share = found["hwnas"] / kib
        print(f"peak memory, {size} px {name:20} {kib / 1024:8.0f} MiB   hwnas takes {share:.2f} of it")


def child(size: int, rounds: int, names: Sequence[str]) -> None:
    """Train a few steps and print VmHWM in KiB."""
    (name,) = names
    space = make_layout(supernet_config(size)).space  # without weights
    archs = [space.largest(), *space.sample(np.random.default_rng(0), SUBNETS * rounds - 1)]
    net = Ours(size) if name == "hwnas" else Theirs(name.endswith("channels-last"), space)
    x, y = images(BATCH, size)
    x = x if name == "hwnas" or name.endswith("channels-last") else x.contiguous()
    for i in range(rounds):
        net.step(x, y, archs[SUBNETS * i : SUBNETS * (i + 1)])
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def main() -> None:
    """Read the arguments and run one of the comparisons."""
    everyone = ["hwnas", "ofa", "ofa channels-last"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "evaluate", "memory", "child"])
    parser.add_argument("--size", type=int, default=64, help="edge of the images, pixels")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=everyone, action="append", help="leave the others out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    functions = {"train": train, "evaluate": evaluate, "memory": memory, "child": child}
    functions[args.what](args.size, args.rounds, args.only or everyone)


if __name__ == "__main__":
    main()
