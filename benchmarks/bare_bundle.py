"""Does a bundle work for somebody who has three packages? In a new virtual environment, against hwnas itself.

    python benchmarks/bare_bundle.py RUN

exports the models of the first front in FP32, FP16 and INT8, makes an environment with onnxruntime, numpy and pillow
only, lets ``run_model.py`` classify test images there as PNG files, and compares with what the network says here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import torch
from PIL import Image

import hwnas

PACKAGES = ("onnxruntime", "numpy", "pillow")
FILES = {"FP32": "model.onnx", "FP16": "model.fp16.onnx", "INT8": "model.int8.onnx"}


def main() -> None:
    """Export, classify there, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=200, help="test images, at most")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        run = hwnas.open_run(shutil.copytree(given.run, work / "run"))
        device = run.searched()[0]
        bundles = run.export(device=device, select=["all"], int8=True, fp16=True, out=work / "chosen")
        test = run.splits.test
        paths = []
        for i, pixels in enumerate(test.images[: given.images]):
            paths.append(work / f"{i}.png")
            array = pixels.numpy()
            Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)).save(paths[-1])
        venv.create(work / "bare", with_pip=True)
        python = work / "bare" / "bin" / "python"
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", *PACKAGES], check=True)
        listed = subprocess.run([*pip, "list", "--format=freeze"], check=True, capture_output=True, text=True).stdout
        print(f"Python {sys.version.split()[0]}, bare environment: {', '.join(listed.split())}")
        print(f"{len(paths)} test images of {given.run.name}, {device}\n")
        print(f"{'model':<14} {'file':<5} {'kB':>8} {'test top-1 here %':>18} {'same class there as here':>25}")
        for bundle in bundles:
            network = hwnas.load_model(bundle.folder)
            px = bundle.arch_json["input"]["shape"][1]
            inputs = torch.nn.functional.interpolate(
                test.images[: len(paths)].float() / 255, (px, px), mode="bilinear",
                antialias=px < test.images.shape[-1],
            )  # fmt: skip
            mean, std = (torch.tensor(v)[:, None, None] for v in run.splits.mean_std)
            with torch.inference_mode():
                here = network((inputs - mean) / std).argmax(1).tolist()
            for label, file in FILES.items():
                done = subprocess.run(
                    [python, bundle.folder / "run_model.py", "--model", file, "--json", "--top", "1", *paths],
                    check=True, capture_output=True, text=True, cwd=work,
                )  # fmt: skip
                there = [run.splits.classes.index(next(iter(one["classes"]))) for one in json.loads(done.stdout)]
                same = sum(a == b for a, b in zip(here, there, strict=True))
                score = bundle.metrics["test_top1_percent" if label == "FP32" else f"test_top1_{label.lower()}_percent"]
                size = (bundle.folder / file).stat().st_size / 1000
                print(f"{bundle.folder.name:<14} {label:<5} {size:>8.1f} {score:>18.2f} {same:>14} of {len(paths)}")


if __name__ == "__main__":
    main()
