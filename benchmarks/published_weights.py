"""A published supernet, searched and exported without a training step: does the export compute what `ofa` computes?

    python benchmarks/published_weights.py --data SHARED/images/cifar10_jpeg.npz [--evaluations 20]

A checkpoint in once-for-all's layout (MobileNetV3, width 1.0, random weights and batch norms) becomes a run by
`hwnas import-ofa`, is searched for two devices on 2,000 photographs of 1,000 classes, and exported, all by the command
line. Each exported ONNX file is then compared with the same subnet of the package `ofa`, on test photographs:

- *same statistics*: the subnet of `ofa`, with the batch-norm statistics of the bundle;
- *own statistics*: that subnet, recalibrated by `ofa` on the images and batches that hwnas used.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from common import original_ofa
from photographs import make
from torch import Tensor, nn

import hwnas
from hwnas.data import as_input

CLASSES, PHOTOGRAPHS, TESTED = 1000, 2000, 64


def checkpoint(path: Path) -> Any:
    """Write the supernet of `ofa` with random weights, as its authors save theirs; return it."""
    net = original_ofa(CLASSES).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point() and tensor.ndim == 1:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    torch.save({"state_dict": net.state_dict(), "epoch": 0}, path)
    return net


def photographs(folder: Path, data: Path) -> None:
    """Write two photographs a class: one in ``train``, the other in ``val`` or in ``test``."""
    make(folder / "all", data, PHOTOGRAPHS, (320, 256))
    for i, path in enumerate(sorted((folder / "all").rglob("*.jpg"), key=lambda p: p.name)):
        split = "train" if i < CLASSES else ("val", "test")[i % 2]
        target = folder / "photos" / split / f"{i % CLASSES:04}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def hwnas_cli(work: Path, *arguments: str) -> None:
    """Run a command, say what was run and how long it took."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "hwnas", *arguments], cwd=work, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"hwnas {' '.join(arguments)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    print(f"$ hwnas {' '.join(arguments)}    ({time.monotonic() - started:.0f} s)", flush=True)


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """Return batch norms in the order of their layers."""
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def relative(ours: np.ndarray, theirs: Tensor) -> float:
    """Return the largest difference, as a share of the largest logit."""
    return float(np.abs(ours - theirs.numpy()).max() / theirs.abs().max())


def compare(theirs: Any, run_folder: Path, bundle: Path) -> tuple[float, float, float]:
    """Return the differences of a bundle with both kinds of statistics, and the share of equal answers."""
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics

    run = hwnas.open_run(run_folder)
    arch = run.layout.space.arch(hwnas.Bundle(bundle).arch_json["choices"])
    config = hwnas.format_ofa(arch, run.layout.space)
    theirs.set_active_subnet(ks=config["ks"], e=config["e"], d=config["d"])
    splits, px = run.context.splits, arch.int("resolution")
    x = as_input(next(splits.test.batches(TESTED))[0], px, *splits.mean_std)
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    ours = session.run(None, {session.get_inputs()[0].name: x.contiguous().numpy()})[0]

    same = theirs.get_active_subnet(preserve_weight=True).eval()
    for norm, given in zip(norms(same), norms(hwnas.load_model(bundle)), strict=True):
        norm.running_mean, norm.running_var = given.running_mean, given.running_var
    own = theirs.get_active_subnet(preserve_weight=True)
    settings = run.recipe.evaluation
    calibration = splits.train.first(settings.calibration_images).batches(settings.calibration_batch_size)
    set_running_statistics(own, [(as_input(pixels, px, *splits.mean_std), None) for pixels, _ in calibration])
    with torch.inference_mode():
        with_same, with_own = same(x), own.eval()(x)
    answers = float((ours.argmax(1) == with_same.argmax(1).numpy()).mean())
    return relative(ours, with_same), relative(ours, with_own), answers


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="cifar10_jpeg.npz")
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--work", type=Path, help="folder that is kept; a second start goes on in it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = args.work or Path(name)
        work.mkdir(exist_ok=True)
        theirs = checkpoint(work / "ofa_mbv3_d234_e346_k357_w1.0")
        if not (work / "photos").exists():
            photographs(work, args.data)
        hwnas_cli(
            work, "import-ofa", "ofa_mbv3_d234_e346_k357_w1.0", "data.path=photos",
            "evaluation.calibration_images=100", "evaluation.calibration_batch_size=25",
            "evaluation.validation_images=100",
            "tables.n_networks=8", "tables.n_held_out=4", "tables.rounds=1", "tables.block_time_s=0.002",
            "tables.network_time_s=0.05", "--recipe", "ofa-mbv3-w1.0", "--out", "run",
        )  # fmt: skip
        hwnas_cli(work, "search", "run", "--devices", "note10-cpu,local-cpu", "--evaluations", str(args.evaluations))
        hwnas_cli(work, "export", "run", "--out", "models")
        os.chdir(work)  # the recipe names images by a path relative to it
        bundles = sorted(path.parent for path in Path("models").rglob("model.onnx"))
        print(f"\n{len(bundles)} exported models, {TESTED} test photographs; differences of logits, of the largest one")
        print("device      model         same statistics  own statistics  equal answers")
        for bundle in bundles:
            same, own, answers = compare(theirs, Path("run"), bundle)
            print(f"{bundle.parent.name:11} {bundle.name:12} {same:16.1e} {own:15.1e} {answers:13.0%}", flush=True)


if __name__ == "__main__":
    main()
