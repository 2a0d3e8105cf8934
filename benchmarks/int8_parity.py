"""Is a network that is evaluated in 8 bits the file that is exported? On subnets of trained supernets.

For 20 random subnets of a supernet on MNIST and of one on CIFAR-10, both trained for a few minutes: top-1 in float, in
8 bits as searches evaluate it (PyTorch) and of the exported QDQ file in ONNX Runtime, on the same test images; how many
images get another class; and the time of an evaluation in 8 bits beside one in float, both with extraction and
calibration of batch norms, in turns, on one core.

    python benchmarks/int8_parity.py --data ../shared/data/images   # prints, and stores it in benchmarks/results/
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import hwnas
from hwnas.export.onnx_check import run_onnx
from hwnas.export.quantize import to_int8_onnx
from hwnas.runs.run import Run

OUT = Path(__file__).resolve().parent / "results" / "int8_parity.txt"
SUBNETS, TEST_IMAGES = 20, 2000

WIDTH = "{name: width, epochs: %g, lr: 0.03, elastic: {kernel_size: all, depth: all, expand_ratio: all}, " \
    "sampling: sandwich, subnets_per_step: 2, teacher: inplace, sort_channels: true}"  # fmt: skip
RECIPES = {
    "MNIST": ("mnist-mbv3", [
        "data.path=mnist_uint8.npz", "data.max_images=6000",
        "train.batch_size=32",
        "evaluation.validation_images=2000", f"train.phases=[{{name: full, epochs: 3, lr: 0.05}}, {WIDTH % 4}]",
    ]),
    # Half as wide and deep as the shipped recipe, at 24 pixels and 32, in the float32 of a CPU.
    "CIFAR-10": ("cifar10-mbv3", [
        "data.source=jpeg", "data.path=cifar10_jpeg.npz", "data.max_images=4000", "supernet.resolutions=[24, 32]",
        "supernet.stem_width=16", "supernet.stem_stride=2", "supernet.expand_width=192", "supernet.feature_width=256",
        "supernet.stages=["
        "{width: 24, stride: 1, depths: [1, 2], kernel_sizes: [3, 5], expand_ratios: [2, 4], act: relu},"
        "{width: 32, stride: 2, depths: [1, 2], kernel_sizes: [3, 5], expand_ratios: [2, 4], act: relu, se: true},"
        "{width: 64, stride: 2, depths: [1, 2], kernel_sizes: [3, 5], expand_ratios: [2, 4], act: hswish, se: true}]",
        "train.precision=float32", "train.batch_size=32", "evaluation.validation_images=2000",
        "train.ema_decay=0", f"train.phases=[{{name: full, epochs: 5, lr: 0.05}}, {WIDTH % 4}]",
    ]),
}  # fmt: skip


def of_run(run: Run, name: str) -> list[str]:
    """Compare on the subnets of a run, and return the lines that say what was found."""
    context = run.context
    evaluator, networks, task = context.trained_evaluator, context.networks, context.task
    labels = context.splits.test.labels[:TEST_IMAGES]
    archs = context.layout.space.sample(np.random.default_rng(1), SUBNETS)
    n_timed = context.validation_images
    lines = [
        f"{name}: top-1 of {SUBNETS} subnets, {len(labels)} test images; times of evaluations on {n_timed}",
        f"{'subnet':<14}{'float':>8}{'int8':>8}{'QDQ file':>10}{'other class':>13}{'int8 / float time':>19}",
    ]
    off, other, cost, ratios = [], [], [], []
    for arch in archs:
        seconds = {"float": [], "int8": []}
        for _ in range(2):
            start = time.process_time()  # of this process: others may use the cores
            evaluator.score(arch, [task.score.name])
            middle = time.process_time()
            subnet = evaluator.subnet(arch)
            networks.score_in_8_bits(lambda subnet=subnet: subnet, arch)
            seconds["float"].append(middle - start)
            seconds["int8"].append(time.process_time() - middle)
        x, _ = networks.inputs(context.splits.test, arch).first(TEST_IMAGES).tensors()
        made = networks.in_8_bits(subnet, arch)
        channels, px, _ = context.layout.input_shape(arch)
        with tempfile.TemporaryDirectory() as folder:
            to_int8_onnx(made.quantization, channels, px, Path(folder) / "m.onnx")
            file = run_onnx(Path(folder) / "m.onnx", x).argmax(1)
        with torch.inference_mode():
            full, own = subnet(x).argmax(1), torch.cat([made(part) for part in x.split(250)]).argmax(1)
        top1 = [100 * float((p == labels).double().mean()) for p in (full, own, file)]
        off.append(abs(top1[1] - top1[2]))
        other.append(100 * float((own != file).double().mean()))
        cost.append(top1[0] - top1[1])
        ratios.append(min(seconds["int8"]) / min(seconds["float"]))
        lines.append(
            f"{arch.key:<14}{top1[0]:>8.2f}{top1[1]:>8.2f}{top1[2]:>10.2f}{other[-1]:>11.2f} %{ratios[-1]:>19.2f}"
        )
        print(lines[-1], flush=True)
    lines += [
        f"top-1 of the file differs by {np.mean(off):.3f} points on average, {np.max(off):.2f} at most; another class "
        f"for {np.max(other):.2f} % of the images at most",
        f"8 bits cost {np.mean(cost):.2f} points on average, {np.max(cost):.2f} at most; an evaluation in 8 bits takes "
        f"{np.median(ratios):.2f} times as long as one in float (median)", "",
    ]  # fmt: skip
    return lines


def main() -> None:
    """Train, compare, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Folder of mnist_uint8.npz and cifar10_jpeg.npz.")
    parser.add_argument("--runs", type=Path, help="Folder for the trained supernets; default: a temporary one.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["Networks in 8 bits: evaluated in PyTorch, and as the exported file in ONNX Runtime (int8_parity.py)", ""]
    with tempfile.TemporaryDirectory() as folder:
        for name, (recipe, overrides) in RECIPES.items():
            path = [o.replace("data.path=", f"data.path={args.data}/") for o in overrides]
            run = hwnas.start_run(recipe, out=(args.runs or Path(folder)) / name, overrides=path)
            run.train()
            lines += of_run(run, name)
    text = "\n".join(lines)
    print(text)
    OUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
