"""Does searching in 8 bits give better models in 8 bits than quantising what a search in float found?

For each seed one supernet is trained, and one NPU searched twice from nothing with as many evaluations: in its own
precision and as if it computed in float (same latencies). The models of both fronts are tested as INT8 files in ONNX
Runtime; compared are hypervolumes of test error and latency, scaled by everything that was found with the seed. Then
which blocks lose most: of the models on the fronts, each block is kept float in turn, and the errors that this takes
back are counted.

    python benchmarks/int8_front.py --data ../shared/data/images    # prints, and stores it in benchmarks/results/
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import SHORT, SHORT_MNIST, hypervolumes

import hwnas
from hwnas.export.graph import trace
from hwnas.export.int8_network import int8_network
from hwnas.export.quantization import QuantizationConfig
from hwnas.latency.device import write_profile
from hwnas.runs.evaluations import Candidate
from hwnas.runs.run import Run

OUT = Path(__file__).resolve().parent / "results" / "int8_front.txt"
DEVICE, SEEDS, EVALUATIONS = "snapdragon-8-elite-int8", (0, 1, 2), 40
RECIPES = {
    "mnist-mbv3": [*SHORT_MNIST, "data.path={data}/mnist_uint8.npz"],
    "cluttered-digits-mbv3": SHORT,
}
"""With what each is searched; both have squeeze-and-excite and depthwise convolutions, MNIST's h-swish, too."""


def tested(run: Run, device: str) -> np.ndarray:
    """Return ``(n, 3)`` int8 test error, latency and float test error of the models of a front."""
    rows = []
    with run.evaluations() as evaluations:
        eight, full = evaluations.in_precision("int8"), evaluations.in_precision("fp32")
        for found in run.front(device):
            (arch,) = evaluations.archive.archs_of([found.key])
            model = Candidate(arch, evaluations.weights.trained)
            subnet = run.context.trained_evaluator.subnet(arch)
            errors = [100 - e.test(model, subnet)["top1_percent"] for e in (eight, full)]
            rows.append((errors[0], found.values["latency_ms"], errors[1]))
    return np.array(rows)


def block_losses(run: Run, device: str) -> dict[str, list[float]]:
    """Return by block how many points of validation top-1 its being float takes back, for each model."""
    found: dict[str, list[float]] = {}
    networks = run.context.networks
    keys = [m.key for m in list(run.front(device))[::4]]
    with run.evaluations() as evaluations:
        archs = evaluations.archive.archs_of(keys)
    for arch in archs:
        graph = trace(run.context.trained_evaluator.subnet(arch))
        images, _ = networks.prepared("quantization", arch).tensors()
        x, y = networks.prepared("validation", arch).first(2000).tensors()

        def top1(*layers: str, graph=graph, images=images, x=x, y=y) -> float:
            made = int8_network(graph, images, QuantizationConfig(float_layers=layers))
            with torch.inference_mode():
                out = torch.cat([made(part).argmax(1) for part in x.split(250)])
            return 100 * float((out == y).double().mean())

        whole = top1()
        for slot, _ in run.layout.blocks(arch):
            found.setdefault(slot, []).append(top1(slot) - whole)
    return found


def compare(recipe: str, data: Path, seeds: Sequence[int], folder: Path) -> list[str]:
    """Train, search and compare with a recipe; return the lines of its table."""
    lines = [
        f"{recipe}",
        f"{'seed':<6}{'hypervolume, searched in int8':>31}{'in float, then int8':>21}{'models':>10}"
        f"{'8 bits cost, points':>21}",
    ]  # fmt: skip
    losses: dict[str, list[float]] = {}
    as_float = folder / "npu-in-float"
    for seed in seeds:
        given = [*(text.replace("{data}", str(data)) for text in RECIPES[recipe])]
        given += [f"train.seed={seed}", f"search.seed={seed}"]
        run = hwnas.run(
            recipe, out=folder / f"{recipe}-{seed}-int8", devices=[DEVICE], evaluations=EVALUATIONS, overrides=given
        )
        # A run of its own: in one run the second search would begin with what the first has found.
        other = hwnas.run(
            recipe, out=folder / f"{recipe}-{seed}-float", devices=[str(as_float)], evaluations=EVALUATIONS,
            overrides=[*given, "train.phases=[]", f"train.start_from={run.folder / 'train'}"],
        )  # fmt: skip
        fronts = [tested(run, DEVICE), tested(other, as_float.name)]
        volumes = hypervolumes([f[:, :2] for f in fronts])
        cost = np.concatenate([f[:, 0] - f[:, 2] for f in fronts])
        lines.append(
            f"{seed:<6}{volumes[0]:>31.4f}{volumes[1]:>21.4f}{f'{len(fronts[0])} / {len(fronts[1])}':>10}"
            f"{cost.mean():>14.2f} (max {cost.max():.2f})"
        )
        print(lines[-1], flush=True)
        for one, device in ((run, DEVICE), (other, as_float.name)):
            for slot, values in block_losses(one, device).items():
                losses.setdefault(slot, []).extend(values)
    lines += ["", "points of validation top-1 that a block takes back when it alone stays float: mean (max), models"]
    lines += [
        f"{slot:<16}{np.mean(v):>6.2f} ({np.max(v):.2f}){len(v):>5}"
        for slot, v in sorted(losses.items(), key=lambda item: -np.mean(item[1]))
    ]
    return [*lines, ""]


def main() -> None:
    """Compare, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Folder of mnist_uint8.npz.")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="The first so many seeds.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"Searched in 8 bits, or in float and quantised afterwards: {DEVICE}, {EVALUATIONS} evaluations each "
        "(int8_front.py)", "",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        as_float = Path(folder) / "npu-in-float"
        as_float.mkdir()
        profile = hwnas.load_device(DEVICE).profile
        write_profile(profile.model_copy(update={"name": as_float.name, "precision": "fp32"}), as_float)
        for recipe in args.recipes:
            lines += compare(recipe, args.data, SEEDS[: args.seeds], Path(folder))
    text = "\n".join(lines)
    print(text)
    OUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
