"""Plain networks on a CPU: how long is a training step with hwnas's depthwise gradients and kept memory, and without?

Random subnets of shipped recipes' spaces and of the space of worth_it.py, as `finish`, `direct`, `hwnas finetune` and
`hwnas bench baseline` train them; each in turn as it is, with PyTorch's own `Conv2d` in place of `DepthwiseConv2d`, and
as it is while freed memory is kept. One thread, batch 64; medians over rounds, sums over networks.

    python benchmarks/train_plain.py
"""

from __future__ import annotations

import argparse
import copy
import os
import resource
import time
from contextlib import nullcontext

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from worth_it import STAGES

import hwnas
from hwnas.reading.memory import freed_memory_kept
from hwnas.supernet import Layout, make_layout
from hwnas.supernet.blocks.depthwise import DepthwiseConv2d
from hwnas.supernet.families.mbv3 import MBV3Config

WORTH_IT = MBV3Config.model_validate({
    "family": "mbv3", "classes": 10, "resolutions": [32], "stem_width": 16, "stem_stride": 1, "expand_width": 288,
    "feature_width": 384, "dropout_percent": 0,
    "stages": [{**s, "kernel_sizes": [3, 5], "expand_ratios": [2, 3, 4, 6]} for s in STAGES],
})  # fmt: skip


def with_usual_convolutions(network: nn.Module) -> nn.Module:
    """Return a copy whose depthwise convolutions are PyTorch's own, with the same weights."""
    made = copy.deepcopy(network)
    for module in made.modules():
        for name, child in module.named_children():
            if isinstance(child, DepthwiseConv2d):
                k, (stride, _) = child.kernel_size[0], child.stride
                usual = nn.Conv2d(
                    child.in_channels, child.out_channels, k, stride, k // 2, groups=child.groups, bias=False
                )
                usual.load_state_dict(child.state_dict())
                setattr(module, name, usual)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def step_s(network: nn.Module, x: torch.Tensor) -> float:
    """Return the seconds of one forward and backward pass."""
    network.zero_grad(set_to_none=True)
    started = time.perf_counter()
    network(x).sum().backward()
    return time.perf_counter() - started


def faults() -> int:
    """Return the page faults of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measured(layout: Layout, subnets: int, rounds: int, batch: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return seconds of a step by way, summed over subnets, and page faults of a step."""
    seconds, faulted = {}, {}
    for arch in layout.space.sample(np.random.default_rng(0), subnets):
        channels, size, _ = layout.input_shape(arch)
        network = layout.build_subnet(arch).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn(batch, channels, size, size).to(memory_format=torch.channels_last)
        ways = {"Conv2d": (with_usual_convolutions(network), False), "hwnas": (network, False), "kept": (network, True)}
        found: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, (net, kept) in ways.items():
                with freed_memory_kept() if kept else nullcontext():
                    step_s(net, x)
                    before = faults()
                    found[way] += [step_s(net, x), step_s(net, x)]
                    faulted[way] = faulted.get(way, 0.0) + (faults() - before) / (2 * rounds)
        for way, values in found.items():
            seconds[way] = seconds.get(way, 0.0) + float(np.median(values))
    return seconds, faulted


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subnets", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    layouts = {"worth_it.py": make_layout(WORTH_IT)}
    for name in ("mnist-mbv3", "mnist-ofav2", "mnist-hurricane", "cifar10-mbv3"):
        layouts[name] = make_layout(hwnas.load_recipe(name).supernet)
    print(f"{'space':18}{'Conv2d, s':>11}{'hwnas':>9}{'ratio':>7}{'kept':>9}{'ratio':>7}{'page faults a step':>26}")
    for name, layout in layouts.items():
        s, f = measured(layout, args.subnets, args.rounds, args.batch)
        print(
            f"{name:18}{s['Conv2d']:11.3f}{s['hwnas']:9.3f}{s['Conv2d'] / s['hwnas']:7.2f}{s['kept']:9.3f}"
            f"{s['Conv2d'] / s['kept']:7.2f}{f['Conv2d']:14,.0f} to {f['kept']:,.0f}", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
