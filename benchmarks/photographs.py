"""Photographs that do not fit into memory: what the whole chain takes of it, and how fast images are fed.

    python benchmarks/photographs.py make --images 50000 --data SHARED/images/cifar10_jpeg.npz FOLDER
    python benchmarks/photographs.py chain FOLDER
    python benchmarks/photographs.py feeding
    python benchmarks/photographs.py classes

- ``make``: writes CIFAR-10 pictures, enlarged to 320x256 pixels and varied, as JPEG files in a folder a class.
- ``chain``: train, tables, search (20), export, check, report of the published once-for-all space (MobileNetV3, width
  1.0, 128 to 224 pixels) on such a folder, by the command line; the memory of all processes together (proportional set
  size, which counts shared pages once), sampled twice a second, and when the first step was done.
- ``feeding``: images a second at 224 pixels, ready for a network, uncached and from the cache, against a `DataLoader`
  written plainly (Pillow's open, convert, resize and crop, then a float tensor), in turn in one process.
- ``classes``: 1,000 classes: memory of one training step of four subnets, one introspectability, three evaluations.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from hwnas.data import AugmentConfig, DataConfig, TrainBatches, load_data
from hwnas.files import shipped_folder
from hwnas.task import TASKS

PX, BATCH, SEED = 224, 64, 0


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(p for child in children for p in tree(int(child)))]


def pss_mib(pid: int) -> float:
    """Return the proportional set size of a process and all below it."""
    total = 0
    for process in tree(pid):
        try:
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total / 1024


class Watch:
    """Samples the memory of a process and all below it while a context is open."""

    def __init__(self, pid: int) -> None:
        self._pid, self._done = pid, threading.Event()
        self.peak_mib = 0.0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._done.wait(0.5):
            self.peak_mib = max(self.peak_mib, pss_mib(self._pid))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def make(folder: Path, data: Path, n: int, size: tuple[int, int]) -> None:
    """Write ``n`` photographs, in folders of ten classes."""
    arrays = np.load(data)
    content, offsets, labels = arrays["jpeg_train"], arrays["offset_train"], arrays["y_train"]
    rng = np.random.default_rng(SEED)
    for i in range(n):
        j = i % len(labels)
        picture = Image.open(io.BytesIO(content[offsets[j] : offsets[j + 1]].tobytes())).convert("RGB")
        picture = picture.resize(size, Image.Resampling.BICUBIC)
        grain = rng.integers(-6, 7, (size[1] // 4, size[0] // 4, 1), dtype=np.int16)  # so that files are not too small
        pixels = np.asarray(picture, np.int16) + grain.repeat(4, 0).repeat(4, 1)
        path = folder / f"{labels[j]}" / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    print(f"{n:,} photographs of {size[0]}x{size[1]} pixels in {folder}")


def recipe(folder: Path, work: Path, steps: int) -> Path:
    """Write the recipe: the shipped space, ``steps`` steps in two phases, evaluations of 200 images."""
    values = yaml.safe_load((shipped_folder("supernets") / "ofa-mbv3-w1.0.yaml").read_text())
    n = sum(1 for _ in folder.rglob("*.jpg"))
    batch, share = 8, 0.8 * 0.95 * n
    values["name"] = "photographs"
    values["data"] = {
        "source": "folder", "path": str(folder.resolve()), "validation_percent": 5, "test_percent": 20,
        "augment": {"flip": True, "crop_percent": 35},
    }  # fmt: skip
    values["supernet"]["classes"] = 10
    phase = {"epochs": steps * batch / share / 2, "lr": 0.02}
    values["train"] = {
        "batch_size": batch,
        "phases": [
            {"name": "full", **phase},
            {
                "name": "all", **phase, "teacher": "fixed", "sampling": "sandwich", "subnets_per_step": 4,
                "elastic": {"kernel_size": "all", "depth": "all", "expand_ratio": "all"},
            },
        ],
    }  # fmt: skip
    values["devices"] = ["local-cpu"]
    values["evaluation"] = {"calibration_images": 100, "calibration_batch_size": 20, "validation_images": 100}
    values["finish"] = {"models": 1, "epochs": 8 * batch / share}
    values["export"] = {"front_size": 2}
    values["tables"] = {
        "n_networks": 8, "n_held_out": 4, "rounds": 1, "block_time_s": 0.002, "network_time_s": 0.05,
    }  # fmt: skip
    path = work / "photographs.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def chain(folder: Path, steps: int) -> None:
    """Run every verb on a folder and print what each took."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        given, run, table = recipe(folder, work, steps), work / "run", work / "table"
        here = [sys.executable, "-m", "hwnas"]
        verbs: list[tuple[str, list[str]]] = [
            ("train", ["train", str(given), "--out", str(run)]),
            ("tables", ["tables", "build", "--recipe", str(given), "--out", str(table)]),
            ("search (20)", ["search", str(run), "--devices", str(table), "--evaluations", "20"]),
            ("export", ["export", str(run)]),
            ("check", ["tables", "check", str(table), "--networks", "5"]),
            ("report", ["report", str(run)]),
        ]
        n = sum(1 for _ in folder.rglob("*.jpg"))
        print(f"{n:,} photographs", flush=True)
        for verb, arguments in verbs:
            started = time.monotonic()
            log = work / "log.txt"
            with log.open("w") as output:
                process = subprocess.Popen([*here, *arguments], stdout=output, stderr=subprocess.STDOUT, cwd=work)
                first_s = None
                with Watch(process.pid) as watch:
                    while process.poll() is None:
                        time.sleep(0.2)
                        if verb == "train" and first_s is None and "train: 1/" in log.read_text():
                            first_s = time.monotonic() - started
            if process.returncode:
                sys.exit(f"{verb}: exit {process.returncode}\n{log.read_text()[-3000:]}")
            first = "" if first_s is None else f", first step after {first_s:.0f} s"
            print(f"  {verb:12} {watch.peak_mib:7.0f} MiB  {time.monotonic() - started:6.0f} s{first}", flush=True)


class Plain(Dataset[tuple[torch.Tensor, int]]):
    """What people write."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.files[index]) as opened:
            picture = opened.convert("RGB")
        scale = PX / min(picture.size)
        width, height = (max(PX, round(e * scale)) for e in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - PX) // 2, (height - PX) // 2
        pixels = np.asarray(picture.crop((left, top, left + PX, top + PX)))
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div_(255)
        return (x - 0.45) / 0.25, 0


def fed(batches: Iterator[object], n: int, skip: int = 4) -> float:
    """Return images a second of ``n`` batches after the first ones."""
    for _ in range(skip):
        next(batches)
    started = time.perf_counter()
    for _ in range(n):
        next(batches)
    return n * BATCH / (time.perf_counter() - started)


def feeding(data: Path, rounds: int, n: int, workers: int) -> None:
    """Print images a second of both, and the medians of their ratios."""
    torch.set_num_threads(1)
    for size in ((320, 256), (1600, 1200)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "photos"
            make(folder, data, 1600 if size[0] > 1000 else 4000, size)
            files = sorted(folder.rglob("*.jpg"))

            def plain(files: Sequence[Path] = files) -> float:
                order = torch.utils.data.RandomSampler(files, replacement=True, num_samples=10**9)
                loader = DataLoader(Plain(files), BATCH, sampler=order, num_workers=workers)
                return fed(iter(loader), n)

            def ours(cache: Path | None, folder: Path = folder) -> float:
                config = DataConfig(
                    source="folder", path=str(folder), memory_mib=0, workers=workers,
                    cache=None if cache is None else str(cache), test_percent=5, validation_percent=5,
                )  # fmt: skip
                splits = load_data(config, TASKS.get("classification"), 3, 10, PX)
                made = TrainBatches(splits.train, (0.45,) * 3, (0.25,) * 3, BATCH, AugmentConfig(), SEED)
                with made:
                    steps = (made.batch(step, PX) for step in range(10**9))
                    return fed(steps, n if cache is None else 8 * n)

            ours(Path(name) / "cache")  # fills it
            found: dict[str, list[float]] = {"plain": [], "hwnas": [], "hwnas, cached": []}
            for _ in range(rounds):
                found["plain"].append(plain())
                found["hwnas"].append(ours(None))
                found["hwnas, cached"].append(ours(Path(name) / "cache"))
            print(f"{size[0]}x{size[1]} pixels, {workers} workers, {rounds} rounds, images a second:")
            for key, values in found.items():
                ratio = statistics.median(v / p for v, p in zip(values, found["plain"], strict=True))
                print(f"  {key:14} {statistics.median(values):8.0f}   {ratio:5.2f} times", flush=True)


MEMORY = """
import sys, torch, numpy as np
import hwnas
from hwnas.data import ImageSet, Splits
from hwnas.objectives.config import EvaluationConfig
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.supernet import build_supernet
from hwnas.train.phases import PhaseConfig, TrainConfig, sample_step
from hwnas.train.step import make_optimiser, train_step
from hwnas.data import DataConfig, load_data
from hwnas.task import TASKS
torch.set_num_threads(1)
what, folder = sys.argv[1], sys.argv[2]
recipe = hwnas.load_recipe("ofa-mbv3-w1.0")
task = TASKS.get("classification")
splits = load_data(DataConfig(source="folder", path=folder), task, 3, 1000, 224)
net = build_supernet(recipe.supernet, 0)
if what == "train":
    phase = PhaseConfig(name="all", epochs=1, lr=0.01, subnets_per_step=4,
                        elastic={"kernel_size": "all", "depth": "all", "expand_ratio": "all"})
    config = TrainConfig(batch_size=16, phases=[phase])
    x, y = next(iter(splits.train.batches(16)))
    from hwnas.data import as_input
    x = as_input(x, 224, *splits.mean_std)
    archs = [net.space.restrict({"resolution": [224]}).largest()]
    archs += net.space.restrict({"resolution": [224]}).sample(np.random.default_rng(0), 3)
    loss = train_step(net.train(), make_optimiser(net, config), x, y, archs, phase, config, 0.01, task, None)
    print(f"loss {loss:.3f}")
else:
    n = 60 if what == "introspectability" else 600  # as published it goes over them some 80 times
    config = EvaluationConfig(calibration_images=200, calibration_batch_size=20, validation_images=n)
    evaluator = SubnetEvaluator(net.eval(), splits, config)
    space = net.space.restrict({"resolution": [224]})
    archs = [space.smallest()] if what == "introspectability" else space.sample(np.random.default_rng(0), 3)
    for arch in archs:
        subnet = evaluator.subnet(arch)
        with torch.no_grad():  # an untrained network predicts few classes: their biases spread the answers
            images = next(iter(splits.validation.batches(16)))[0]
            from hwnas.data import as_input
            subnet[-1].classifier.weight.normal_(0, 1)
            subnet[-1].classifier.bias.zero_()
        names = ["introspectability"] if what == "introspectability" else []
        print(evaluator.score_network(subnet, arch, names))
"""


def classes(data: Path, n: int) -> None:
    """Print the memory of one training step, one introspectability, and three evaluations, with 1,000 classes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        make(folder, data, n, (320, 256))
        files = sorted(folder.rglob("*.jpg"))
        for i, path in enumerate(files):
            target = Path(name) / "classes" / f"{i % 1000:03}" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        for what in ("train", "introspectability", "evaluate"):
            started = time.monotonic()
            command = [sys.executable, "-c", MEMORY, what, str(Path(name) / "classes")]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            with Watch(process.pid) as watch:
                said, _ = process.communicate()
            last = said.strip().splitlines()[-1] if said.strip() else "nothing"
            print(f"  {what:18} {watch.peak_mib:7.0f} MiB  {time.monotonic() - started:6.0f} s  {last}", flush=True)
            if process.returncode:
                sys.exit(f"{what}: exit {process.returncode}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "chain", "feeding", "classes"])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--data", type=Path, help="cifar10_jpeg.npz")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_intermixed_args()
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}))
    if args.what == "make":
        make(args.folder, args.data, args.images, (320, 256))
    elif args.what == "chain":
        chain(args.folder, args.steps)
    elif args.what == "feeding":
        feeding(args.data, args.rounds, args.batches, args.workers)
    else:
        classes(args.data, args.images)


if __name__ == "__main__":
    main()
