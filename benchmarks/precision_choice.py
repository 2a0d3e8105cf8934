"""Is 8 bits worth it on this CPU, arch by arch? Searched with the choice, in float only and in int8 only.

One supernet is trained for each seed; `local-cpu` is searched three times from nothing with as many evaluations: with
``supernet.precisions: [fp32, int8]``, in float, and in int8 (`local-cpu-int8`), each by the same measured tables.
Models are tested in their own precision (int8 as the exported file in ONNX Runtime). Compared are
hypervolumes of test error and latency, scaled by everything that was found with the seed.

    python benchmarks/precision_choice.py --data ../shared/data/images    # prints, stores it in benchmarks/results/
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import SHORT_MNIST, hypervolumes

import hwnas
from hwnas.runs.evaluations import Candidate
from hwnas.runs.run import Run

OUT = Path(__file__).resolve().parent / "results" / "precision_choice.txt"
SEEDS, EVALUATIONS = (0, 1, 2), 40
BOTH = "supernet.precisions=[fp32, int8]"


def tested(run: Run, device: str) -> tuple[np.ndarray, list[float]]:
    """Return ``(n, 2)`` test error and latency of the models of a front, and the bits that each computes in."""
    rows, bits = [], []
    with run.evaluations() as evaluations:
        view = evaluations.of_device(device)
        for found in run.front(device):
            (arch,) = evaluations.archive.archs_of([found.key])
            subnet = run.context.trained_evaluator.subnet(arch)
            score = view.test(Candidate(arch, evaluations.weights.trained), subnet)["top1_percent"]
            rows.append((100 - score, found.values["latency_ms"]))
            bits.append(8.0 if view.precision_of(arch) == "int8" else 32.0)
    return np.array(rows), bits


def main() -> None:
    """Train, search, compare, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Folder of mnist_uint8.npz.")
    parser.add_argument("--recipe", default="mnist-mbv3")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="The first so many seeds.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"Precision as a choice of the search: local-cpu, {args.recipe}, {EVALUATIONS} evaluations each "
        "(precision_choice.py)", "",
        f"{'seed':<6}{'chosen':>10}{'float only':>12}{'int8 only':>11}   models chosen in int8, of all",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder, tables = Path(name), None
        for seed in SEEDS[: args.seeds]:
            given = [
                *SHORT_MNIST,
                f"data.path={args.data}/mnist_uint8.npz",
                f"train.seed={seed}",
                f"search.seed={seed}",
            ]
            results: list[tuple[np.ndarray, list[float]]] = []
            start: list[str] = []
            for way, device, more in (
                ("both", "local-cpu", [BOTH]), ("float", "local-cpu", []), ("int8", "local-cpu-int8", [])
            ):  # fmt: skip
                out = folder / f"{seed}-{way}"
                if tables is not None:
                    shutil.copytree(tables, out / "devices")
                run = hwnas.run(
                    args.recipe, out=out, devices=[device], evaluations=EVALUATIONS, overrides=[*given, *start, *more]
                )
                if tables is None:  # measured once: noise between tables is not what is compared
                    tables = folder / "tables"
                    for own in ("local-cpu", "local-cpu-int8"):
                        shutil.copytree(out / "devices" / own / "table", tables / own / "table")
                start = ["train.phases=[]", f"train.start_from={folder / f'{seed}-both' / 'train'}"]
                results.append(tested(run, device))
            volumes = hypervolumes([rows for rows, _ in results])
            bits = results[0][1]
            lines.append(
                f"{seed:<6}{volumes[0]:>10.4f}{volumes[1]:>12.4f}{volumes[2]:>11.4f}   {bits.count(8.0)} of {len(bits)}"
            )
            print(lines[-1], flush=True)
        latency = {}
        for way, device in (("float", "local-cpu"), ("int8", "local-cpu-int8")):
            opened = hwnas.open_run(folder / f"{SEEDS[0]}-{way}")
            archs = opened.layout.space.sample(np.random.default_rng(0), 1000)
            latency[way] = opened.devices[device].compile(opened.layout).of_archs(archs)
        ratio = latency["int8"] / latency["float"]
        lines += ["", "time in int8 of that in float, 1,000 random archs: "
                  f"median {np.median(ratio):.2f}, {ratio.min():.2f} to {ratio.max():.2f}"]  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    OUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
