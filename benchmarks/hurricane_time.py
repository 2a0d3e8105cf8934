"""HURRICANE: how much training does it take to reach an accuracy at a latency, stage by stage and otherwise?

MNIST reduced to 12 pixels and a part of its training images; 6 layers of a pool of 32 operators (or a searched space of
inverted bottlenecks of the same stages). For every device, latency and seed each method hands over one model:

- staged: every layer keeps K = 4 operators; the later layers are trained and searched, then the earlier ones with
  inherited weights (`search.strategy: staged`), for each latency of a device. The later layers' training is the same
  for all latencies, and is done once.
- joint, K = 4: all layers of the same operators vary in every step; then one search for the latencies of a device.
- joint, all 32: the same with the whole pool, for both devices.
- mbv3: a supernet of inverted bottlenecks, for both devices; a step trains two networks, so it has half the epochs.

Joint training of K = 4 has two lengths, so that the table can say how long it takes to the accuracy of staged training;
the paper reports 30.4 % less time than joint training (SPOS). Inherited is the validation accuracy of the model before
it was trained to its end: where it is that of guessing (11 %), the search chose by noise.
Accuracy is that of the handed-over model on test images, its latency within the limit, every model trained to its end
for the same few epochs, at the peak rate of its supernet. Seconds are CPU seconds of supernet training on one thread.

    python benchmarks/hurricane_time.py --data mnist_uint8.npz --out results_folder [--seeds 0,1,2,3,4] [--smoke]

What is finished is kept in the folder, so a second start continues, and in ``--collected``, so that several machines
can each do some seeds; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Kept

import hwnas
from hwnas.runs.recipe import Recipe
from hwnas.runs.start import start_run

PIXELS, BATCH, KEPT = 12, 32, 4
DEVICES = {"myriad-vpu": (1.5, 1.56, 1.62), "cortex-a76-cpu": (0.1, 0.15, 0.2)}
"""Two that rank operators differently, each with three latencies in ms."""
LENGTHS = {"staged": (0.5,), "joint, K = 4": (0.5, 1.0), "joint, all 32": (1.0,), "mbv3": (0.5,)}
"""Of training, as shares of ``--epochs``; of staged training for one latency."""
RATES = {"staged": 0.1, "joint, K = 4": 0.3, "joint, all 32": 0.3, "mbv3": 0.1}
"""Peak learning rates, chosen on another seed (10): joint (K = 4) from 0.03 to 1, staged from 0.1 and 0.3."""
ALL = dict.fromkeys(("operator", "expand_ratio", "kernel_size", "se"), "all")
WIDTHS = ((16, 2), (32, 2), (48, 1))
POOL = {
    "family": "hurricane", "in_channels": 1, "classes": 10, "resolutions": [PIXELS], "stem_width": 16,
    "stem_stride": 1, "feature_width": 192,
    "stages": [{"width": w, "stride": s, "layers": 2} for w, s in WIDTHS],
}  # fmt: skip
MBV3 = {
    "family": "mbv3", "in_channels": 1, "classes": 10, "resolutions": [PIXELS], "stem_width": 16, "stem_stride": 1,
    "first_block": False, "expand_width": 192, "feature_width": 0,
    "stages": [
        {"width": w, "stride": s, "depths": [1, 2], "kernel_sizes": [3, 5, 7], "expand_ratios": [1, 3, 6]}
        for w, s in WIDTHS
    ],
}  # fmt: skip


def main() -> None:
    """Do what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="MNIST as .npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2,3,4", type=lambda t: [int(v) for v in t.split(",")])
    parser.add_argument("--images", type=int, default=2000, help="training images")
    parser.add_argument("--epochs", type=float, default=48, help="of joint training")
    parser.add_argument("--evaluations", type=int, default=40, help="of each search, for each latency")
    parser.add_argument("--finish-epochs", type=float, default=3, help="of the models that are handed over")
    parser.add_argument("--devices", default=",".join(DEVICES))
    parser.add_argument("--collected", type=Path, help="file with the results of earlier starts; new ones are added")
    parser.add_argument("--table", action="store_true", help="print what is there")
    parser.add_argument("--smoke", action="store_true", help="one seed, one device, one latency, hardly trained")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.smoke:
        args.seeds, args.images, args.epochs, args.evaluations, args.devices = [0], 800, 4, 8, "myriad-vpu"
    devices = {name: DEVICES[name][1:2] if args.smoke else DEVICES[name] for name in args.devices.split(",")}
    args.out.mkdir(parents=True, exist_ok=True)
    kept = Kept(args.out, args.collected)
    found = []
    for seed in args.seeds:
        for device, targets in devices.items():
            for method in ("staged", "joint, K = 4"):
                for length in LENGTHS[method]:
                    found += one(kept, args, method, {device: targets}, seed, length)
        for method in ("joint, all 32", "mbv3"):
            for length in LENGTHS[method]:
                found += one(kept, args, method, devices, seed, length)
    kept.collect()
    print(table(found, devices))


def one(
    kept: Kept, args: argparse.Namespace, method: str, devices: dict[str, tuple[float, ...]], seed: int, length: float
) -> list[dict[str, Any]]:
    """Return a row for each latency: method, share of joint's epochs, CPU seconds of training, test accuracy."""
    of = "-".join([*devices, *(f"{t:g}" for targets in devices.values() for t in targets)])
    name = f"{method}-{of}-{seed}-{length:g}".replace(", ", "-").replace(" ", "")

    def make() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            return measured(args, method, devices, seed, length, Path(folder))

    found = kept.get(name, None if args.table else make)
    return [] if found is None else list(found["rows"])


def measured(
    args: argparse.Namespace, method: str, devices: dict[str, tuple[float, ...]], seed: int, length: float, out: Path
) -> dict[str, Any]:
    """Train and search by one method; return its rows."""
    data = reduced(args.data, args.images, out)
    epochs, common = args.epochs * length, {"lr": RATES[method], "warmup_epochs": 0.2}
    evaluations = args.evaluations * max(map(len, devices.values()))
    if method == "staged":
        phases = [
            {"name": "later", "epochs": epochs * 2 / 3, "open_stages": [2, 3], "elastic": ALL, **common},
            {"name": "earlier", "epochs": epochs / 3, "open_stages": [1], "elastic": ALL, **common},
        ]
    elif method == "mbv3":
        elastic = dict.fromkeys(("depth", "kernel_size", "expand_ratio"), "all")
        phases = [{"name": "all", "epochs": epochs, "elastic": elastic, "sampling": "sandwich", "subnets_per_step": 2,
                   **common}]  # fmt: skip
    else:
        phases = [{"name": "all", "epochs": epochs, "elastic": ALL, **common}]
    recipe = {
        "name": "time", "devices": list(devices), "objectives": ["top1_percent", "latency_ms"],
        "data": {"source": "npz", "path": str(data)}, "supernet": MBV3 if method == "mbv3" else POOL,
        "train": {"batch_size": BATCH, "clip_grad_norm": 5, "phases": phases, "seed": seed, "device": "cpu",
                  "checkpoint_every_s": 1e6},
        "evaluation": {"calibration_images": 500, "calibration_batch_size": 100},
        "search": {"strategy": "staged" if method == "staged" else "supernet", "algorithm": "nsga2",
                   "operators_kept": KEPT, "evaluations": evaluations, "seed": seed},
        "finish": {"epochs": args.finish_epochs, "small_percent": 0,
                   "latencies_ms": {device: list(targets) for device, targets in devices.items()}},
        "constraints": [f"{device}:latency_ms<={max(targets)}" for device, targets in devices.items()],
    }  # fmt: skip
    if method == "joint, K = 4":
        file = out / "recipe.yaml"  # JSON is YAML
        file.write_text(json.dumps(recipe), encoding="utf-8")
        (device,) = devices
        kept = hwnas.operators(file)[device].restricted
        phases[0]["only"] = {c.name: [list(o) for o in c.options] for c in kept.choices if c.name != "resolution"}
    spent: dict[str, float] = defaultdict(float)
    last = time.process_time()

    def told(task: str, done: float, total: float, note: str = "") -> None:
        nonlocal last
        now = time.process_time()
        trains = task == "train" or task.startswith("stage ")
        spent[("once" if task == "train" or task.startswith("stage 1") else "each") if trains else "other"] += (
            now - last
        )
        last = now

    run = start_run(Recipe.model_validate(recipe), out / "run", progress=told)
    if method != "staged":
        run.train()
    run.search()
    run.export()
    rows = []
    with run.evaluations() as evaluations:
        finished = evaluations.weights.finished
    for device, targets in devices.items():
        front = run.front(device)
        for target in targets:
            fitting = [m for m in front if m.latency_ms <= target]
            model = max(fitting, key=lambda m: m.values["top1_percent"], default=None)
            metrics = None if model is None else json.loads((model.folder / "metrics.json").read_text(encoding="utf-8"))
            rows.append({
                "method": method, "device": device, "target_ms": target, "seed": seed, "length": length,
                "train_s": spent["once"] + spent["each"], "train_one_s": spent["once"] + spent["each"] / len(targets),
                "ms": None if model is None else model.latency_ms,
                "inherited_percent": None if model is None else finished.lineage(model.weights_version)[0].score_before,
                "test_percent": None if metrics is None else metrics["test_top1_percent"],
            })  # fmt: skip
    return {"rows": rows}


def reduced(path: Path, n: int, out: Path) -> Path:
    """Write MNIST at `PIXELS` pixels with few training images; return the file."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in ("x_train", "y_train", "x_test", "y_test")}

    def small(images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(images).float()[:, None]
        x = torch.nn.functional.interpolate(x, size=(PIXELS, PIXELS), mode="area")
        return x[:, 0].round().to(torch.uint8).numpy()

    written = out / "small.npz"
    np.savez(
        written, x_train=small(arrays["x_train"][: n + 1000]), y_train=arrays["y_train"][: n + 1000],
        x_test=small(arrays["x_test"]), y_test=arrays["y_test"],
    )  # fmt: skip
    return written


def table(rows: list[dict[str, Any]], devices: dict[str, tuple[float, ...]]) -> str:
    """Return accuracies and training times, and how long joint training takes to the accuracy of staged training."""
    lines = [
        f"{'device':15}{'latency':>8}  {'method':14}{'length':>7}{'test top-1, % (se)':>20}{'inherited, %':>13}"
        f"{'train s: one':>13}{'all':>7}{'ms':>9}"
    ]
    for device, targets in devices.items():
        for target in targets:
            here = [r for r in rows if r["device"] == device and r["target_ms"] == target]
            groups = sorted({(r["method"], r["length"]) for r in here}, key=lambda g: (g[0] != "staged", g))
            means: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
            for method, length in groups:
                of = [r for r in here if (r["method"], r["length"]) == (method, length)]
                found = [r for r in of if r["ms"] is not None]
                missing = f"  ({len(of) - len(found)} of {len(of)} found none)" if len(found) < len(of) else ""
                if not found:
                    lines.append(f"{device:15}{target:8.4g}  {method:14}{length:7.2f}{missing}")
                    continue
                top1, inherited, one_s, all_s, ms = (
                    np.array([r[name] for r in found], dtype=float)
                    for name in ("test_percent", "inherited_percent", "train_one_s", "train_s", "ms")
                )
                means[method].append((float(one_s.mean()), float(all_s.mean()), float(top1.mean())))
                error = top1.std(ddof=1) / len(top1) ** 0.5 if len(top1) > 1 else float("nan")
                lines.append(
                    f"{device:15}{target:8.4g}  {method:14}{length:7.2f}{top1.mean():13.2f} ({error:.2f})"
                    f"{inherited.mean():13.1f}{one_s.mean():13.1f}{all_s.mean():7.1f}{ms.mean():9.4g}{missing}"
                )
            lines += [f"    {text}" for text in _to_equal_accuracy(means["staged"], means["joint, K = 4"])]
    return "\n".join(lines)


def _to_equal_accuracy(staged: list[tuple[float, float, float]], joint: list[tuple[float, float, float]]) -> list[str]:
    """Say of every length of staged training how long joint training takes to its accuracy.

    Times of joint training lie on straight lines between its lengths. Given are for each length the seconds for one
    latency, those for all of a device, and the accuracy.
    """
    lines = []
    for one_s, all_s, top1 in staged:
        needed = next(
            (
                b[0] if b[2] == a[2] else a[0] + (b[0] - a[0]) * max(0.0, (top1 - a[2]) / (b[2] - a[2]))
                for a, b in zip([joint[0], *joint], joint, strict=False)
                if b[2] >= top1
            ),
            None,
        ) if joint else None  # fmt: skip
        if needed is None:
            lines.append(f"{top1:.2f} %: joint (K = 4) does not reach it at any of these lengths")
        else:
            less = [100 * (1 - s / needed) for s in (one_s, all_s)]
            lines.append(
                f"{top1:.2f} %: joint (K = 4) takes {needed:.1f} s; staged {less[0]:.0f} % less for this latency, "
                f"{less[1]:.0f} % less for all of the device"
            )
    return lines


if __name__ == "__main__":
    main()
