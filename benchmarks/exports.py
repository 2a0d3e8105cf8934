"""What do exports of a whole front cost and keep? Size, measured latency and test accuracy in FP32, FP16 and INT8.

    python benchmarks/exports.py RUN [RUN ...]

exports every model of the first front of each run (on a copy of it) in three number formats, scores each file in ONNX
Runtime on all test images, and times it on this machine (batch 1, one thread). "Same" is the share of test images that
a file puts into the same class as the network in PyTorch does. The standard error of a loss comes from the images whose
answer became right or wrong (McNemar), not from all of them.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
from pathlib import Path

import onnxruntime
import torch

import hwnas
from hwnas.latency.profile import profile_all

FILES = {"FP32": "model.onnx", "FP16": "model.fp16.onnx", "INT8": "model.int8.onnx"}
TIME_LIMIT_S = 400.0
"""For the files of a front: further sessions of those whose interval is wider than 10 %."""
MOST_LOST = 0.1
"""Points of test accuracy that FP32 and FP16 may lose."""


def main() -> None:
    """Export, score, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    worst = dict.fromkeys(FILES, 0.0)
    for folder in given.runs:
        with tempfile.TemporaryDirectory() as work:
            for label, lost in exports(hwnas.open_run(shutil.copytree(folder, Path(work) / "run"))).items():
                worst[label] = max(worst[label], lost)
    print("largest loss against the network in PyTorch: " + ", ".join(f"{k} {v:.2f} points" for k, v in worst.items()))
    for label in ("FP32", "FP16"):
        verdict = "holds" if worst[label] <= MOST_LOST else "DOES NOT HOLD"
        print(f"{label} loses at most {MOST_LOST:g} point: {verdict}")


def exports(run: hwnas.Run) -> dict[str, float]:
    """Print the table of one run; return the largest loss of each number format, in points."""
    device = next(n for n in run.searched() if run.devices[n].profile.precision != "int8")
    bundles = run.export(device=device, select=["all"], int8=True, fp16=True)
    test, worst = run.splits.test, dict.fromkeys(FILES, 0.0)
    labels = test.labels
    print(f"{run.recipe.name}: front of {device}, {len(bundles)} models, {len(test)} test images")
    heading = (
        f"{'model':<13} {'file':<5} {'kB':>8} {'ms':>9} {'± %':>5} {'test %':>8} {'lost':>7} {'±':>5} {'same %':>7}"
    )
    print(heading)
    # One call: all files are timed in turns, so that what the machine does can be told from what a file takes.
    files = [bundle.folder / file for bundle in bundles for file in FILES.values()]
    timed = iter(profile_all(files, threads=1, ci_percent=10, time_limit_s=TIME_LIMIT_S))
    for bundle in bundles:
        network = hwnas.load_model(bundle.folder)
        px = bundle.arch_json["input"]["shape"][1]
        inputs = hwnas.as_input(test.images, px, *run.splits.mean_std)
        with torch.inference_mode():
            own = torch.cat([network(x) for x in inputs.split(500)]).argmax(1)
        right = own == labels
        for label, file in FILES.items():
            guessed = classes(bundle.folder / file, inputs)
            rights = guessed == labels
            lost = 100 * float(right.float().mean() - rights.float().mean())
            changed = int((right != rights).sum())
            stderr = 100 * math.sqrt(changed) / len(test)
            same = 100 * float((guessed == own).float().mean())
            worst[label] = max(worst[label], lost)
            ms = next(timed)
            print(
                f"{bundle.folder.name:<13} {label:<5} {(bundle.folder / file).stat().st_size / 1000:>8.1f} "
                f"{ms.median_ms:>9.4f} {ms.ci_percent:>5.1f} {100 * float(rights.float().mean()):>8.2f} {lost:>+7.2f} "
                f"{stderr:>5.2f} {same:>7.2f}"
            )
    return worst


def classes(path: Path, inputs: torch.Tensor) -> torch.Tensor:
    """Return the class that an ONNX file gives each image."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"input": x.contiguous().numpy()})[0] for x in inputs.split(500)]
    return torch.cat([torch.from_numpy(part) for part in parts]).argmax(1)


if __name__ == "__main__":
    main()
