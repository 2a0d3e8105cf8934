"""Are the models that hwnas hands over better than what the same compute gives by hand?

Contenders get the same time, the same images and the same latencies to meet:

- ``default``: `hwnas run` with its defaults and ``--budget``; ``direct`` and ``supernet``: the same with that strategy;
- ``hand``: the family scaled by hand (`hwnas bench baseline`), each network at the better of two learning rates by its
  validation images; the time of the second rate is not counted; ``hand-one``: the same with one network for all
  latencies of all devices;
- ``random``: random archs of the space near each latency, trained alone.

Accuracy is that of the test images, at each wanted latency: the best model that is as fast, within 5 %. All models of a
seed for this computer are timed in one pass at the end; those of other devices have the latency of the device's model.
Times are CPU seconds of everything, tables included. Every unit (contender, seed) is kept in ``--work``, so a second
start continues.

    python benchmarks/worth_it.py --data cifar10_jpeg.npz --latencies-ms 0.15,0.2,0.3,0.5 --seeds 0,1,2
    python benchmarks/worth_it.py --data cifar10_jpeg.npz --devices cortex-a76-cpu,adreno-gpu,myriad-vpu \
        --contenders supernet,direct,hand

Of several devices, accuracies are means over the devices, and hypervolumes are summed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import yaml

import hwnas
from hwnas.finetune import FinetuneConfig, Student, train_together
from hwnas.latency.device import load_profile
from hwnas.latency.measure import MeasureConfig, measure
from hwnas.latency.table import load_device
from hwnas.pareto import hypervolume
from hwnas.runs.analysis.baseline import hand_scaled_baselines
from hwnas.runs.finish import SCORED_PERCENT, augment_of, epochs_in
from hwnas.runs.plan import RESERVE
from hwnas.runs.recipe import find_recipe
from hwnas.runs.run import Run
from hwnas.runs.start import start_run
from hwnas.supernet import fresh_subnet, make_layout
from hwnas.supernet.families.mbv3 import MBV3Config
from hwnas.supernet.families.scaled import scaled_by_hand
from hwnas.train.evaluate import scores_of

TOLERANCE = 1.05
"""A model counts for a latency that it exceeds by less: tables and timings differ by a few per cent."""

STAGES = [
    {"width": 16, "stride": 1, "depths": [1, 2], "act": "relu"},
    {"width": 24, "stride": 2, "depths": [1, 2, 3], "act": "relu", "se": True},
    {"width": 48, "stride": 2, "depths": [1, 2, 3], "act": "hswish"},
    {"width": 96, "stride": 2, "depths": [1, 2], "act": "hswish", "se": True},
]
"""Of the CIFAR-10 space; kernels and expansion are the same everywhere."""


def cifar10(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Values of the recipe."""
    elastic = {"kernel_size": "all", "depth": "all", "expand_ratio": "all"}
    return {
        "name": "worth-it",
        "devices": arguments.devices.split(","),
        "objectives": ["top1_percent", "latency_ms", "params"],
        "data": {
            # Nine tenths to train, one tenth to validate; the source has 50,000.
            "source": "jpeg", "path": str(Path(arguments.data).resolve()), "max_images": arguments.images * 9 // 10,
            "validation_percent": arguments.images / 5000,
            "augment": {"flip": True, "shift_percent": 12.5, "cutout_percent": 25},
        },
        "supernet": cifar10_space(),
        "train": {
            "batch_size": 64, "weight_decay": 0.0005, "clip_grad_norm": 5, "seed": seed,
            "phases": [
                {"name": "all", "epochs": 40, "lr": 0.1, "warmup_epochs": 1, "elastic": elastic,
                 "sampling": "sandwich", "subnets_per_step": 3, "teacher": "inplace"},
            ],
        },
        "search": {"seed": seed, "evaluations": 200},
        "finish": {"models": len(next(iter(arguments.wanted.values()))), "latencies_ms": arguments.wanted},
        "evaluation": {"calibration_images": 500},
    }  # fmt: skip


def cifar10_space() -> dict[str, Any]:
    """Values of the supernet: a MobileNetV3 space of four stages at up to 32 pixels."""
    stages = [{**s, "kernel_sizes": [3, 5], "expand_ratios": [2, 3, 4, 6]} for s in STAGES]
    return {
        "family": "mbv3", "classes": 10, "resolutions": [24, 28, 32], "stem_width": 16, "stem_stride": 1,
        "stages": stages, "expand_width": 288, "feature_width": 384, "dropout_percent": 0,
    }  # fmt: skip


def mnist_space() -> dict[str, Any]:
    """Values of the supernet of the shipped recipe."""
    return dict(yaml.safe_load(find_recipe("mnist-mbv3").read_text(encoding="utf-8"))["supernet"])


def mnist(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The recipe that is shipped for MNIST at its own 28 pixels; ``--images`` of it to train and to validate."""
    values = dict(yaml.safe_load(find_recipe("mnist-mbv3").read_text(encoding="utf-8")))
    values["devices"] = arguments.devices.split(",")
    values["data"] = values["data"] | {
        "path": str(Path(arguments.data).resolve()), "max_images": arguments.images * 9 // 10,
        "validation_percent": arguments.images / 6000,
    }  # fmt: skip
    values["train"] = values["train"] | {"seed": seed}
    values["search"] = values["search"] | {"seed": seed}
    values["finish"] = {"models": len(next(iter(arguments.wanted.values()))), "latencies_ms": arguments.wanted}
    return values


RECIPES: dict[str, Callable[[argparse.Namespace, int], dict[str, Any]]] = {"cifar10": cifar10, "mnist": mnist}
SPACES: dict[str, Callable[[], dict[str, Any]]] = {"cifar10": cifar10_space, "mnist": mnist_space}


def _wanted(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """The latencies that models are to meet, by device: those given, or such that the space can meet.

    Without any given: four, evenly on a logarithmic scale, from a latency that a tenth of random archs are below to one
    that nine tenths are below.
    """
    names = arguments.devices.split(",")
    if arguments.latencies_ms:
        return dict.fromkeys(names, arguments.latencies_ms)
    if measured := [name for name in names if load_profile(name).origin == "measured"]:
        raise SystemExit(f"give --latencies-ms: what {', '.join(measured)} can do is not known before it is measured")
    layout = make_layout(MBV3Config.model_validate(SPACES[arguments.recipe]()))
    archs, found = layout.space.sample(np.random.default_rng(0), 2000), {}
    for name in names:
        low, high = np.quantile(load_device(name).compile(layout).of_archs(archs), [0.1, 0.9])
        found[name] = [float(f"{ms:.3g}") for ms in np.geomspace(low, high, 4)]
    return found


def kept(arguments: argparse.Namespace, name: str, seed: int) -> Path:
    """Where a unit is kept."""
    wanted = hashlib.sha256(json.dumps(arguments.wanted).encode()).hexdigest()[:6]
    name = name if arguments.recipe == "cifar10" else f"{arguments.recipe}-{name}"
    return Path(arguments.work) / f"{name}-{arguments.images}-{arguments.budget_min:g}min-{wanted}-seed{seed}"


def begin(arguments: argparse.Namespace, seed: int, name: str, changes: Sequence[str] = ()) -> tuple[Path, Path]:
    """Write the recipe of a unit; return its file and its run folder."""
    folder = kept(arguments, name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    values = RECIPES[arguments.recipe](arguments, seed)
    for change in changes:
        section, _, value = change.partition("=")
        *parents, last = section.split(".")
        target = values
        for part in parents:
            target = target.setdefault(part, {})
        target[last] = yaml.safe_load(value)
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path, folder / "run"


Model = dict[str, Any]
"""``file`` (ONNX), ``device``, ``ms`` (as the device's table says), ``test``, ``validation``."""


def by_hwnas(arguments: argparse.Namespace, seed: int, name: str, changes: Sequence[str]) -> list[Model]:
    """The front of `hwnas run`."""
    path, out = begin(arguments, seed, name, [*changes, *arguments.set])
    run = hwnas.run(path, out=out, budget=f"{arguments.budget_min:g}min", progress=told(name))
    return [
        {
            "file": str(m.folder / "model.onnx"), "device": device, "key": m.key,
            "test": json.loads((m.folder / "metrics.json").read_text())["test_top1_percent"],
            "validation": m.values["top1_percent"], "ms": m.latency_ms,
        }
        for device in run.searched()
        for m in run.front(device)
    ]  # fmt: skip


def by_hand(arguments: argparse.Namespace, seed: int, name: str, networks: int | None = None) -> list[Model]:
    """The family scaled by hand: of two learning rates the one that is better on validation images."""
    path, out = begin(arguments, seed, name, arguments.set)
    run = with_tables(path, out)
    found: dict[tuple[str, float], Model] = {}
    seconds = arguments.budget_min * 60 * (1 - RESERVE)
    wanted = [(device, arguments.wanted[name]) for name, device in run.devices.items()]
    for lr in arguments.hand_lrs:
        context = run.context
        context.progress = told(f"{name} lr {lr}")
        for baseline in hand_scaled_baselines(context, wanted, None, seconds, lr, networks):
            for m in baseline.models:
                model = {
                    "width": m.width, "device": baseline.device, "test": m.test_score, "validation": m.score,
                    "lr": lr, "epochs": m.epochs, "ms": m.latency_ms,
                }  # fmt: skip
                before = found.get((baseline.device, m.width))
                if before is None or model["validation"] > before["validation"]:
                    found[baseline.device, m.width] = model
    models = []
    for (device, width), model in found.items():
        layout, arch = scaled_by_hand(run.recipe.supernet, width)
        file = out / "hand" / f"{device}-{width:g}.onnx"
        models.append({**model, "file": export(layout.build_subnet(arch), arch, file)})
    return models


def at_random(arguments: argparse.Namespace, seed: int, name: str) -> list[Model]:
    """Random archs of the space, of 80 to 100 % of each latency, trained alone for the same time."""
    path, out = begin(arguments, seed, name, arguments.set)
    run = with_tables(path, out)
    rng, models = np.random.default_rng(seed), []
    context, train = run.context, run.recipe.train
    for device in run.devices.values():
        archs = context.layout.space.sample(rng, 4000)
        ms = device.compile(context.layout).of_archs(archs)
        chosen = []
        for wanted in arguments.wanted[device.name]:
            inside = np.flatnonzero((ms <= wanted) & (ms > 0.8 * wanted))
            if len(inside):
                chosen.append(archs[int(rng.choice(inside))])
        students = [Student(a.key, fresh_subnet(context.layout, a, seed), a.int("resolution")) for a in chosen]
        config = FinetuneConfig.like(train, epochs=1, warmup_epochs=1, scored_percent=SCORED_PERCENT)
        seconds, finish = arguments.budget_min * 60 * (1 - RESERVE) / len(run.devices), run.recipe.finish
        epochs = max(1.0, round(epochs_in(seconds, context, finish, students, config), 2))
        config, augment = config.model_copy(update={"epochs": epochs}), augment_of(context, finish, epochs)
        estimated = device.compile(context.layout).of_archs(chosen)
        results = train_together(students, run.splits, config, augment, progress=told(name))
        for arch, ms_of_arch, result in zip(chosen, estimated, results, strict=True):
            test = run.splits.test
            found = scores_of(result.network, context.networks.inputs(test, arch), context.task)
            file = export(result.network, arch, out / "random" / f"{device.name}-{arch.key}.onnx")
            models.append({
                "file": file, "device": device.name, "test": found["top1_percent"], "validation": result.score,
                "epochs": config.epochs, "ms": float(ms_of_arch),
            })  # fmt: skip
    return models


def with_tables(path: Path, out: Path) -> Run:
    """A run whose devices are ready."""
    run = start_run(path, out)
    run.tables()
    return run


def export(network: torch.nn.Module, arch: hwnas.Arch, file: Path) -> str:
    """Write ONNX."""
    file.parent.mkdir(parents=True, exist_ok=True)
    hwnas.to_onnx(network.eval(), 3, arch.int("resolution"), file)
    return str(file)


def told(name: str) -> Any:
    """A progress that prints a line a minute."""
    last = [0.0]

    def progress(task: str, done: float, total: float, note: str = "") -> None:
        if task == "plan" or cpu_s() - last[0] > 60:
            last[0] = cpu_s()
            print(f"  {name}: {task} {done:g}/{total:g} {note} ({last[0]:.0f} s)", flush=True)

    return progress


def cpu_s() -> float:
    """CPU seconds of this process and its children."""
    found = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        found += usage.ru_utime + usage.ru_stime
    return found


def unit(arguments: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """What one contender reached with one seed, from the work folder where it is known."""
    folder = kept(arguments, name, seed)
    file = folder.with_name(folder.name + ".json")
    if file.exists():
        return dict(json.loads(file.read_text()))
    started = cpu_s()
    if name in ("hand", "hand-one"):
        models = by_hand(arguments, seed, name, 1 if name == "hand-one" else None)
    elif name == "random":
        models = at_random(arguments, seed, name)
    else:
        changes = [] if name == "default" else [f"search.strategy={name}"]
        models = by_hwnas(arguments, seed, name, changes)
    found = {"name": name, "seed": seed, "cpu_min": (cpu_s() - started) / 60, "models": models}
    file.write_text(json.dumps(found, indent=1))
    print(f"{name} seed {seed}: {found['cpu_min']:.1f} CPU min, {[(m['test']) for m in models]}", flush=True)
    return found


def time_all(units: Sequence[dict[str, Any]]) -> None:
    """Measure every model of these units that is for this computer in one pass."""
    models = [m for u in units for m in u["models"] if m["device"] == "local-cpu"]
    if models:
        timed = measure([Path(m["file"]) for m in models], MeasureConfig(sessions=5, burst_s=0.05))
        for model, one in zip(models, timed, strict=True):
            model["ms"] = one.median_ms


def judge(models: Sequence[Model], wanted: dict[str, list[float]]) -> tuple[list[float], float]:
    """Test accuracy at each latency (NaN: no model), mean over devices, and hypervolume, summed over devices.

    Hypervolume is that of log latency, from half of the shortest to the longest that is wanted, and error, 0 to 1.
    """
    rows, volume = [], 0.0
    for device, latencies_ms in wanted.items():
        own = [m for m in models if m["device"] == device]
        rows.append(
            [max((m["test"] for m in own if m["ms"] <= ms * TOLERANCE), default=float("nan")) for ms in latencies_ms]
        )
        low, high = np.log(latencies_ms[0] / 2), np.log(latencies_ms[-1] * TOLERANCE)
        points = [
            [(np.log(m["ms"]) - low) / (high - low), 1 - m["test"] / 100]
            for m in own
            if m["ms"] <= latencies_ms[-1] * TOLERANCE
        ]
        volume += float(hypervolume(np.array(points), np.array([1.0, 1.0]))) if points else 0.0
    return np.nanmean(np.array(rows), axis=0).tolist(), volume


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="cifar10", choices=sorted(RECIPES))
    parser.add_argument("--work", default="runs/worth-it")
    parser.add_argument("--budget-min", type=float, default=40)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--devices", default="local-cpu")
    parser.add_argument(
        "--latencies-ms", default=[], type=lambda t: [float(v) for v in t.split(",")],
        help="Of every device; default: four that the space can meet, for devices that have a cost model.",
    )  # fmt: skip
    parser.add_argument("--seeds", default="0,1,2", type=lambda t: [int(v) for v in t.split(",")])
    parser.add_argument("--contenders", default="default,direct,hand,random")
    parser.add_argument("--hand-lrs", default="0.1,0.05", type=lambda t: [float(v) for v in t.split(",")])
    parser.add_argument("--set", action="append", default=[], help="Settings of the recipe, such as finish.lr=0.05.")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    Path(arguments.work).mkdir(parents=True, exist_ok=True)
    arguments.wanted = _wanted(arguments)
    names = arguments.contenders.split(",")
    found: dict[str, list[tuple[list[float], float, float]]] = {name: [] for name in names}
    for seed in arguments.seeds:
        units = [unit(arguments, name, seed) for name in names]
        time_all(units)
        for one in units:
            at, volume = judge(one["models"], arguments.wanted)
            found[one["name"]].append((at, volume, one["cpu_min"]))
    for device, latencies_ms in arguments.wanted.items():
        print(f"{device}: {', '.join(f'{ms:g}' for ms in latencies_ms)} ms")
    heading = " | ".join(f"latency {number + 1}" for number in range(len(found[names[0]][0][0])))
    print(f"\n{arguments.images} images, {arguments.budget_min:g} min, seeds {arguments.seeds}; mean ± standard error")
    print(f"contender | {heading} | hypervolume | CPU min")
    rows = {}
    for name, results in found.items():
        at = np.array([r[0] for r in results])
        values = np.column_stack([at, [r[1] for r in results], [r[2] for r in results]])
        error = (
            values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.full(values.shape[1], np.nan)
        )
        rows[name] = {"mean": values.mean(axis=0).tolist(), "stderr": error.tolist(), "values": values.tolist()}
        cells = [f"{m:.2f} ± {e:.2f}" for m, e in zip(values.mean(axis=0)[:-2], error, strict=False)]
        print(
            f"{name} | {' | '.join(cells)} | {values[:, -2].mean():.4f} ± {error[-2]:.4f} | {values[:, -1].mean():.1f}"
        )
    if arguments.json:
        about = {k: v for k, v in vars(arguments).items() if k not in ("data", "work", "json")}
        Path(arguments.json).write_text(json.dumps({"arguments": about, "contenders": rows}, indent=1))


if __name__ == "__main__":
    main()
