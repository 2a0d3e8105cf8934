"""OFAv2 and what follows it: fronts of supernets with and without exits, ensembles, AEP, fine-tuning, cascades.

CIFAR-10 at 32 pixels with the paper's strides, which are those for ImageNet: four pixels are left after two of five
stages. Four supernets (SE_B, SE_D, EE_B, EE_D: single or early exits, base or dense skips), each phase with the same
number of epochs in all of them, progressively extracted teachers. Every supernet is searched (top-1, latency,
parameters); then

- fronts: test top-1 of the models that are best on validation images within limits of parameters and of latency, as
  the supernet gives them; with early exits also of all exits up to a model's own together (their mean);
- one model for each of some latencies is fine-tuned: in one step, in two (the epochs of the first on training and
  validation images), and, with early exits, with its earlier exits (AEP: joint loss, then the best subset of exits);
- cascades: the exits trained by AEP, an image leaves where its confidence passes a threshold (chosen on validation
  images); the time is measured here, image by image in ONNX Runtime, against the fine-tuned models of one exit.

    python benchmarks/ofav2_fronts.py --data cifar10_jpeg.npz --out results_folder [--only EE_D --seeds 0]
    python benchmarks/ofav2_fronts.py --data cifar10_jpeg.npz --out results_folder --table   # times cascades, prints

Each supernet and seed is kept in the folder, so a second start continues, and in ``--collected``, so that several
machines can each do some seeds. One thread; latencies of searches and fronts
are those of the profile cortex-a76-cpu.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnxruntime
import torch
from common import Kept, hypervolumes
from torch import nn

from hwnas.data.joined import joined
from hwnas.export.exits import export_cascade
from hwnas.export.onnx_check import session
from hwnas.export.onnx_file import to_onnx
from hwnas.files import make_folder
from hwnas.finetune import FinetuneResult, Student, finetune, train_together
from hwnas.finetune.exits import cascade, choose_cascades, exit_answers, prune_exits
from hwnas.latency.exits import exit_latencies_ms
from hwnas.pareto import non_dominated
from hwnas.runs.evaluations import Candidate
from hwnas.runs.recipe import Recipe
from hwnas.runs.run import Run
from hwnas.runs.start import open_run, start_run
from hwnas.space import Arch
from hwnas.supernet.exits import ExitNetwork, extract_exits

DEVICE = "cortex-a76-cpu"
SUPERNETS = ("SE_B", "SE_D", "EE_B", "EE_D")
PARAMS = (40_000, 100_000, 400_000, 700_000)
"""Limits at which fronts are compared."""
LATENCIES_MS = (0.2, 0.28, 0.4)
"""The same; for each one model is fine-tuned."""
EPOCHS = {"full": 8, "kernel": 3, "height": 4, "depth": 4, "width": 4}
PEAK_LR = {"full": 0.08, "kernel": 0.03, "height": 0.03, "depth": 0.03, "width": 0.03}
SUBNETS = {"full": 1, "kernel": 1, "height": 2, "depth": 2, "width": 4}
FIELDS = {"kernel": "kernel_size", "height": "exit", "depth": "depth", "width": "expand_ratio"}
TUNING = {
    "SE": {"optimiser": "sgd", "lr": 0.06, "weight_decay": 5e-4},
    "EE": {"optimiser": "adamw", "lr": 3e-3, "weight_decay": 0.01},
}
"""Optimiser by kind of supernet, as in NATv2; rates are higher than its 0.0001, since there are fewer epochs than its
150 (the best of 0.02 and 0.06, and of 0.0003, 0.001 and 0.003, on seed 10)."""


def recipe(args: argparse.Namespace, name: str, seed: int) -> Recipe:
    """Return the recipe of one supernet, ``{SE|EE}_{B|D}``."""
    exits, form = name.split("_")
    sizes = zip((16, 24, 32, 48, 64), (2, 2, 2, 1, 2), strict=True)
    elastic: dict[str, str] = {}
    phases = []
    for phase, epochs in EPOCHS.items():
        if phase == "height" and exits == "SE":
            continue
        if phase in FIELDS:
            elastic[FIELDS[phase]] = "all"
        every = exits == "EE"
        phases.append({
            "name": phase, "epochs": epochs * args.scale, "lr": PEAK_LR[phase], "elastic": dict(elastic),
            "warmup_epochs": 0.5 * args.scale,
            "subnets_per_step": SUBNETS[phase], "sort_channels": phase == "width",
            "exits": "all" if phase == "full" and every else "own", "teacher": "none" if phase == "full" else "pet",
            "teacher_exits": "all" if phase != "full" and every else "last",
        })  # fmt: skip
    return Recipe.model_validate({
        "name": f"ofav2-{name.lower().replace('_', '-')}", "devices": [DEVICE],
        "objectives": ["top1_percent", "latency_ms", "params"],
        "data": {
            "source": "jpeg", "path": str(args.data.resolve()), "max_images": args.images, "validation_percent": 5,
            "augment": {"flip": True, "shift_percent": 12.5},
        },
        "supernet": {
            "family": "ofav2", "dense_skips": "D" in form, "early_exits": exits == "EE", "in_channels": 3,
            "classes": 10, "resolutions": [32], "stem_width": 16, "stem_stride": 2, "first_block": False,
            "expand_width": 384, "feature_width": 512, "dropout_percent": 0,
            "stages": [
                {"width": w, "stride": s, "depths": [2, 3, 4], "kernel_sizes": [3, 5], "expand_ratios": [2, 3, 4],
                 "act": "relu" if i < 2 else "hswish", "se": i in (1, 3, 4)}
                for i, (w, s) in enumerate(sizes)
            ],
        },
        "train": {"batch_size": 64, "weight_decay": 3e-5, "clip_grad_norm": 5, "seed": seed, "phases": phases,
                  "device": "cpu", "checkpoint_every_s": 1e6},
        "evaluation": {"calibration_images": 500, "calibration_batch_size": 100},
        "search": {"evaluations": args.evaluations, "algorithm": "nsga2", "seed": seed, "validation_images": 1000},
        "finish": {"models": 0},
        "finetune": {"epochs": args.tune_epochs, "distill_ratio": 0, "seed": seed, "device": "cpu", **TUNING[exits]},
    })  # fmt: skip


def one(args: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Train and search a supernet; return what its models give."""
    folder = make_folder(args.out / f"{name}-{seed}")
    started = time.process_time()
    run = start_run(recipe(args, name, seed), folder / "run")
    run.train()
    trained_s = time.process_time() - started
    run.search()
    searched_s = time.process_time() - started - trained_s
    every = values_of_searched(run)
    known = {row["key"]: row for row in every}
    losses = [np.array([[-r["validation"], r[cost]] for r in every]) for cost in ("params", "ms")]
    on_front = non_dominated(losses[0]) | non_dominated(losses[1])
    front = [r["key"] for r, on in zip(every, on_front, strict=True) if on]
    archs = {a.key: a for a in archs_of(run, front)}
    for key in front:
        known[key]["test"] = test_percent(run, run.evaluator.subnet(archs[key]), archs[key])
        if name.startswith("EE"):
            known[key]["together"] = together(run, archs[key])
    members = [known[key] for key in front]
    tuned: list[dict[str, Any]] = []
    for limit in LATENCIES_MS:
        within = [m for m in members if m["ms"] <= limit]
        best = max(within, key=lambda m: m["validation"], default=None)
        if best is not None and best["key"] not in {m["key"] for m in tuned}:
            tuned.append({"limit_ms": limit, **fine_tuned(run, archs[best["key"]], best, folder / f"{limit:g}ms")})
    return {
        "train_s": trained_s, "search_s": searched_s, "front": members, "tuned": tuned,
        "all_s": time.process_time() - started,
    }  # fmt: skip


def archs_of(run: Run, keys: Sequence[str]) -> list[Arch]:
    """Return archs of the run by their keys."""
    with run.archive() as archive:
        return archive.archs_of(keys)


def values_of_searched(run: Run) -> list[dict[str, Any]]:
    """Return key, exit, latency, parameters and validation top-1 of the searched archs that may be on a front.

    Two layers of both fronts get all validation images; the search looked at fewer.
    """
    with run.evaluations() as evaluations:
        archs = evaluations.evaluated(run.weights.trained, ["top1_percent"])
        candidates = [Candidate(a, run.weights.trained) for a in archs]
        costs = [cost(run, a) for a in archs]
        rough = [evaluations.known(c, ["top1_percent"])["top1_percent"] for c in candidates]
        near = np.zeros(len(archs), bool)
        for of in (0, 1):
            rows, left = np.array([[-s, c[of]] for s, c in zip(rough, costs, strict=True)]), np.arange(len(archs))
            for _ in range(2):
                on = non_dominated(rows[left])
                near[left[on]], left = True, left[~on]
        chosen = np.flatnonzero(near)
        evaluations.evaluate([candidates[i] for i in chosen], {"top1_percent": "top1_percent"})
        return [
            {
                "key": archs[i].key, "exit": archs[i].get("exit"), "ms": costs[i][0], "params": costs[i][1],
                "validation": evaluations.known(candidates[i], ["top1_percent"])["top1_percent"],
            }
            for i in chosen
        ]  # fmt: skip


def cost(run: Run, arch: Arch) -> tuple[float, int]:
    """Return latency in milliseconds and parameters."""
    layout, device = run.layout, run.devices[DEVICE]
    blocks = [spec for _, spec in layout.blocks(arch)]
    network = layout.build_subnet(arch)
    return device.constant_ms + sum(device.block_ms(b) for b in blocks), sum(p.numel() for p in network.parameters())


def test_percent(run: Run, network: nn.Module, arch: Arch) -> float:
    """Return top-1 on test images."""
    return run.context.test_scores(network, arch)["top1_percent"]


def validation_percent(run: Run, network: nn.Module, arch: Arch) -> float:
    """Return top-1 on validation images."""
    return run.context.networks.score(lambda: network, arch)["top1_percent"]  # type: ignore[arg-type,return-value]


def params_of(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in network.parameters())


def stated(run: Run, network: ExitNetwork, arch: Arch) -> dict[str, float]:
    """Return what a network with several exits gives and costs."""
    return {
        "exits": len(network.names), "params": params_of(network),
        "ms": exit_latencies_ms(run.devices[DEVICE], network)[-1],
        "validation": validation_percent(run, network, arch), "test": test_percent(run, network, arch),
    }  # fmt: skip


def together(run: Run, arch: Arch) -> dict[str, float]:
    """Return what all exits up to that of an arch give together, as the supernet gives them."""
    network = extract_exits(run.supernet, arch)
    run.evaluator.calibrate(network, arch)
    return stated(run, network, arch)


def second_step(run: Run, arch: Arch, first: FinetuneResult) -> nn.Module:
    """Train a model anew for as many epochs as were best, on training and validation images.

    What `FinetuneConfig.two_step` does, but for the first step, which is known.
    """
    splits = run.splits
    both = replace(splits, train=joined(splits.train, splits.validation))
    both.__dict__["mean_std"] = splits.mean_std
    student = Student("network", run.evaluator.subnet(arch), arch.int("resolution"))
    if not first.best_epoch:
        return first.network
    config, augment = run.recipe.finetune, run.recipe.data.augment
    return train_together([student], both, config, augment, last_epoch=first.best_epoch)[0].network


def fine_tuned(run: Run, arch: Arch, known: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Fine-tune a model in one step, in two, and with its earlier exits; keep the networks as ONNX files."""
    make_folder(folder)
    config, splits, augment = run.recipe.finetune, run.splits, run.recipe.data.augment
    resolution = arch.int("resolution")
    found: dict[str, Any] = {**known}

    def tuned(network: nn.Module) -> FinetuneResult:
        return finetune(network, resolution, splits, config, augment)

    first = tuned(run.evaluator.subnet(arch))
    found["step1"] = {
        "validation": first.score, "test": test_percent(run, first.network, arch), "epoch": first.best_epoch,
    }  # fmt: skip
    found["step2"] = {"test": test_percent(run, second_step(run, arch, first), arch)}
    to_onnx(first.network, 3, resolution, folder / "step1.onnx")
    if "exit" not in arch or arch["exit"] == 1:
        return found
    network = extract_exits(run.supernet, arch)
    run.evaluator.calibrate(network, arch)
    joint = tuned(network).network
    assert isinstance(joint, ExitNetwork)
    found["joint"] = stated(run, joint, arch)
    x, y = run.context.networks.inputs(splits.validation, arch).tensors()
    found["aep"] = stated(run, prune_exits(joint, x, y, run.context.task).network, arch)
    export_cascade(joint, 3, resolution, folder / "cascade")
    ms = exit_latencies_ms(run.devices[DEVICE], joint)
    answers = {}
    for split, images in (("validation", splits.validation), ("test", splits.test)):
        x, y = run.context.networks.inputs(images, arch).tensors()
        sure, said = exit_answers(joint, x)
        answers[split] = sure, said == y.numpy()[:, None]
    found["cascades"] = []
    for chosen in choose_cascades(*answers["validation"], ms):
        on_test = cascade(*answers["test"], ms, chosen.thresholds)
        found["cascades"].append({
            "thresholds": [None if np.isinf(t) else t for t in chosen.thresholds], "validation": chosen.top1_percent,
            "test": on_test.top1_percent, "ms": on_test.expected_ms, "shares": list(on_test.shares),
        })  # fmt: skip
    return found


# -- the tables ------------------------------------------------------------------------------------------


def within(models: Sequence[dict[str, Any]], cost_name: str, limit: float) -> float:
    """Return the test top-1 of the model that is best on validation images within a limit; NaN where there is none."""
    fitting = [m for m in models if m[cost_name] <= limit]
    return max(fitting, key=lambda m: m["validation"])["test"] if fitting else float("nan")


def mean_sd(values: Sequence[float]) -> str:
    """Return mean and standard deviation of what is known, such as ``61.20 (0.31)``."""
    known = [v for v in values if not np.isnan(v)]
    if not known:
        return "-"
    return f"{np.mean(known):.2f} ({np.std(known, ddof=1):.2f})" if len(known) > 1 else f"{known[0]:.2f}"


def front_table(units: dict[tuple[str, int], dict[str, Any]], seeds: Sequence[int]) -> list[str]:
    """Compare fronts: top-1 within limits, and hypervolume of test error and the logarithm of the cost."""
    rows: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for (name, seed), unit in units.items():
        rows.setdefault(name, {})[seed] = unit["front"]
        if name.startswith("EE"):
            both = [*unit["front"], *(m["together"] for m in unit["front"])]
            rows.setdefault(f"{name} +ensemble", {})[seed] = both
        tuned = [{**m, **m["step1"]} for m in unit["tuned"]]
        rows.setdefault(f"{name} tuned", {})[seed] = tuned
        if name.startswith("EE"):
            rows.setdefault(f"{name} +AEP", {})[seed] = [*tuned, *(m["aep"] for m in unit["tuned"] if "aep" in m)]
    lines = []
    for cost_name, limits, unit_of in (("params", PARAMS, "parameters"), ("ms", LATENCIES_MS, "ms")):
        lines.append(
            f"{'test top-1, % (sd), within':28}"
            + "".join(f"{limit:>10g} {unit_of[:6]:6}" for limit in limits)
            + "   hypervolume"
        )
        volumes = {name: {} for name in rows}
        for seed in seeds:
            fronts = {
                name: np.array([[100 - m["test"], np.log(m[cost_name])] for m in of[seed]])
                for name, of in rows.items() if of.get(seed)
            }  # fmt: skip
            for name, volume in zip(fronts, hypervolumes(list(fronts.values())), strict=True):
                volumes[name][seed] = volume
        for name, of in sorted(rows.items(), key=lambda r: ("tuned" in r[0] or "AEP" in r[0], r[0])):
            cells = [mean_sd([within(of[s], cost_name, limit) for s in seeds if s in of]) for limit in limits]
            volume = [volumes[name][s] for s in seeds if s in volumes[name]]
            lines.append(f"  {name:26}" + "".join(f"{c:>17}" for c in cells) + f"{np.mean(volume):14.4f}")
        lines.append("")
    return lines


def gains_table(units: dict[tuple[str, int], dict[str, Any]]) -> list[str]:
    """What fine-tuning adds to test top-1, over all members of a kind of supernet."""
    lines = [
        f"{'fine-tuning':12}{'models':>7}{'inherited':>11}{'step 1':>18}{'step 2':>18}{'AEP':>18}{'AEP params':>12}"
        f"{'AEP ms':>9}"
    ]
    for kind in (*SUPERNETS, "SE", "EE"):
        models = [m for (name, _), unit in units.items() if name.startswith(kind) for m in unit["tuned"]]
        if not models:
            continue

        def gain(name: str, models: list[dict[str, Any]] = models) -> str:
            of = [m[name]["test"] - m["test"] for m in models if name in m]
            return f"{np.mean(of):+.2f} +- {np.std(of, ddof=1) / np.sqrt(len(of)):.2f}" if len(of) > 1 else "-"

        joint = [m for m in models if "aep" in m]
        more = [
            f"x{np.mean([m['aep'][c] / m[c] for m in joint]):.2f}" if joint else "-" for c in ("params", "ms")
        ]  # fmt: skip
        lines.append(
            f"{kind:12}{len(models):7d}{np.mean([m['test'] for m in models]):11.2f}{gain('step1'):>18}"
            f"{gain('step2'):>18}{gain('aep'):>18}{more[0]:>12}{more[1]:>9}"
        )
    return lines


def run_cascade(parts: Sequence[onnxruntime.InferenceSession], thresholds: Sequence[float], image: np.ndarray) -> int:
    """Return the class that a cascade gives one image, ``(1, C, H, W)``."""
    fed = image
    for part, threshold in zip(parts, [*thresholds, 0.0], strict=True):
        logits, *features = part.run(None, {part.get_inputs()[0].name: fed})
        z = np.exp(logits[0] - logits[0].max())
        if z.max() >= threshold * z.sum() or not features:
            break
        fed = features[0]
    return int(logits[0].argmax())


def time_cascades(args: argparse.Namespace, name: str, seed: int, unit: dict[str, Any]) -> dict[str, Any]:
    """Time fine-tuned models of one exit and cascades that are at least as accurate on validation images.

    For every model of one exit, of the cascades that reach its validation top-1 the one of the least expected latency
    is timed, image by image, both in turn in five rounds; medians of the rounds' means.
    """
    run = open_run(args.out / f"{name}-{seed}" / "run")
    arch = archs_of(run, [unit["tuned"][0]["key"]])[0]
    images = run.context.networks.inputs(run.splits.test.first(args.timed_images), arch)
    x, y = images.tensors()
    pictures = [one[None].contiguous().numpy() for one in x]
    rows = []
    for model in unit["tuned"]:
        able = [
            (c["ms"], other["limit_ms"], c)
            for other in unit["tuned"] for c in other.get("cascades", ())
            if c["validation"] >= model["step1"]["validation"]
        ]  # fmt: skip
        if not able:
            rows.append({"limit_ms": model["limit_ms"], "static_test": model["step1"]["test"], "cascade": None})
            continue
        _, at, chosen = min(able, key=lambda a: a[:2])
        folder = args.out / f"{name}-{seed}"
        static = session(folder / f"{model['limit_ms']:g}ms" / "step1.onnx")
        parts = [session(p) for p in sorted((folder / f"{at:g}ms" / "cascade").glob("part*.onnx"))]
        thresholds = [float("inf") if t is None else t for t in chosen["thresholds"]]
        key = static.get_inputs()[0].name
        spent: dict[str, list[float]] = {"static": [], "cascade": []}
        right = 0
        for turn in range(6):
            started = time.perf_counter()
            for picture in pictures:
                static.run(None, {key: picture})
            between = time.perf_counter()
            said = [run_cascade(parts, thresholds, picture) for picture in pictures]
            ended = time.perf_counter()
            right = int((np.array(said) == y.numpy()).sum())
            if turn:  # the first warms up
                spent["static"].append(1000 * (between - started) / len(pictures))
                spent["cascade"].append(1000 * (ended - between) / len(pictures))
        rows.append({
            "limit_ms": model["limit_ms"], "static_test": model["step1"]["test"],
            "static_ms": float(np.median(spent["static"])),
            "cascade": {
                "test": chosen["test"], "ms": float(np.median(spent["cascade"])), "of": at,
                "shares": chosen["shares"], "timed_percent": 100 * right / len(pictures),
            },
        })  # fmt: skip
    return {"rows": rows}


def cascade_table(timed: dict[tuple[str, int], list[dict[str, Any]]]) -> list[str]:
    """Say what cascades take at equal accuracy."""
    lines = [
        f"{'cascade':10}{'seed':>5}{'one exit: test':>16}{'ms':>8}{'cascade: test':>16}{'mean ms':>9}{'ratio':>7}"
        "  left at each exit"
    ]
    ratios, differences = [], []
    for (name, seed), rows in sorted(timed.items()):
        for row in rows:
            found = row["cascade"]
            if found is None:
                lines.append(
                    f"{name:10}{seed:5d}{row['static_test']:16.2f}        none is as accurate on validation images"
                )
                continue
            ratios.append(found["ms"] / row["static_ms"])
            differences.append(found["test"] - row["static_test"])
            shares = " ".join(f"{100 * s:.0f}%" for s in found["shares"])
            lines.append(
                f"{name:10}{seed:5d}{row['static_test']:16.2f}{row['static_ms']:8.4f}{found['test']:16.2f}"
                f"{found['ms']:9.4f}{ratios[-1]:7.2f}  {shares}"
            )
    if ratios:
        lines.append(
            f"median ratio {np.median(ratios):.2f}, mean difference of test top-1 {np.mean(differences):+.2f} points "
            f"({len(ratios)} models)"
        )
    return lines


def main() -> None:
    """Do what is missing; with ``--table`` time the cascades, which wants a quiet machine, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as .npz of JPEG files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=",".join(SUPERNETS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--images", type=int, default=4000, help="training images")
    parser.add_argument("--scale", type=float, default=1.0, help="of all epochs of supernets")
    parser.add_argument("--tune-epochs", type=float, default=6, help="of each fine-tuning")
    parser.add_argument("--evaluations", type=int, default=120, help="of each search")
    parser.add_argument("--timed-images", type=int, default=500)
    parser.add_argument("--collected", type=Path, help="file with the results of earlier starts; new ones are added")
    parser.add_argument("--table", action="store_true", help="print what is there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds, names = [int(s) for s in args.seeds.split(",")], args.only.split(",")
    kept, units = Kept(args.out, args.collected), {}
    for seed in seeds:
        for name in names:
            make = None if args.table else partial(one, args, name, seed)
            unit = kept.get(f"{name}-{seed}", make)
            if unit is not None:
                units[name, seed] = unit
    if args.table:
        timed: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for (name, seed), unit in units.items():
            if not name.startswith("EE"):
                continue
            found = kept.get(f"cascades-{name}-{seed}", partial(time_cascades, args, name, seed, unit))
            timed[name, seed] = found["rows"]
        kept.collect()
        print("\n".join([*front_table(units, seeds), *gains_table(units), "", *cascade_table(timed)]))


if __name__ == "__main__":
    main()
