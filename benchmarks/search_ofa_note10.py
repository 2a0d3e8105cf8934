"""What does a search find in the Once-For-All space, against the original evolutionary search?

Space: OFA-MobileNetV3 of width 1.2 at resolutions 160 to 224 in steps of 16. Accuracy of an arch is what the published
accuracy predictor says (the oracle: each call counts; it is biased upward, see the results), latency is the sum over
the published block table of a Samsung Note10. The original search runs in the same process, by the package ``ofa``,
with the same predictor and table.

    python benchmarks/search_ofa_note10.py --data DIR --parts limits,speed,front,ablation
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import importlib.util
import io
import json
import random
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.objectives import Objective
from hwnas.objectives.exact import macs_of_space, params_of_space
from hwnas.pareto import hypervolume
from hwnas.runs.recipe import load_recipe
from hwnas.search import Limit, Problem, Region, evolve, make_searcher, run_search
from hwnas.space import Arch
from hwnas.space.dialects.once_for_all import format_ofa
from hwnas.supernet import make_layout
from hwnas.supernet.slot_sum import SlotSum

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
OfGenomes = Callable[[IntArray], FloatArray]

RESOLUTIONS = [160, 176, 192, 208, 224]
LIMITS_MS = [20, 25, 30, 40]
ALGORITHMS = ("hurricane", "natv2", "nsga2", "random")
PARTS = ("limits", "speed", "front", "ablation")
IDEAL, NADIR = np.array([-85.0, 9.0]), np.array([-75.0, 60.0])
"""Losses (negative top-1 in %, latency in ms) between which hypervolume is measured."""


def read_table(path: Path) -> dict[str, float]:
    """Return mean ms by the key of once-for-all's latency files, those of all resolutions in one."""
    table = {}
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            kind = row["type"]
            if kind == "Logits":
                shapes = [f"1x1x{row['cin']}", row["cout"]]
            else:
                shapes = [f"{row[h]}x{row[h]}x{row[c]}" for h, c in (("hw_in", "cin"), ("hw_out", "cout"))]
            parts = [kind, f"input:{shapes[0]}", f"output:{shapes[1]}"]
            if kind == "expanded_conv":
                parts += [f"expand:{row['mid']}", f"kernel:{row['kernel']}", f"stride:{row['stride']}"]
                parts += [f"idskip:{row['idskip']}", f"se:{row['se']}", f"hs:{row['hswish']}"]
            table[f"{row['r']}/" + "-".join(parts)] = float(row["mean_ms"])
    return table


def original_package() -> Any:
    """Import ``ofa.tutorial``; stand-ins satisfy its imports of packages for images and downloads, not needed here."""
    vision = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.datasets")
    for name in (*vision, "gdown"):
        if name in sys.modules or (name in ("torchvision", "gdown") and importlib.util.find_spec(name)):
            continue
        parent, _, last = name.rpartition(".")
        sys.modules[name] = types.ModuleType(name)
        if parent:
            setattr(sys.modules[parent], last, sys.modules[name])
        for attribute in ("RandomResizedCrop", "Compose"):
            setattr(sys.modules[name], attribute, type(attribute, (), {}))
    from ofa import tutorial

    return tutorial


class Bench:
    """The space with its oracle and its latencies, for genomes."""

    def __init__(self, folder: Path) -> None:
        supernet = load_recipe("ofa-mbv3-w1.2").supernet.model_copy(update={"resolutions": tuple(RESOLUTIONS)})
        self.layout = make_layout(supernet)
        self.space = self.layout.space
        self.table = read_table(folder / "ofa_lut_note10_ms.csv.gz")
        with np.load(folder / "ofa_acc_predictor_mlp.npz") as arrays:
            self.weights = {name: arrays[name] for name in arrays}
        self.calls = 0
        self._latency = self._slot_latency()
        self._rows = self._first_layer()
        self._later = [
            (torch.from_numpy(self.weights[f"{i}_weight"].T.copy()), torch.from_numpy(self.weights[f"{i}_bias"]))
            for i in (2, 4, 6)
        ]

    # -- latency: the same sum over the same table as the original's --------------------------------------

    def _slot_latency(self) -> SlotSum:
        """Latency by slot. Equal blocks are listed once a resolution, so the sum is looked up by resolution too."""
        resolution = self.space.position("resolution")
        tables = []
        for slot in self.layout.slots:
            others = [name for name in slot.choices if name != "resolution"]
            options = [self.space[name].options for name in others]
            values = np.zeros((len(RESOLUTIONS), *map(len, options)))
            for index in np.ndindex(values.shape):
                chosen = {"resolution": RESOLUTIONS[index[0]]}
                chosen |= {n: o[i] for n, o, i in zip(others, options, index[1:], strict=True)}
                spec = slot.spec(*(chosen[name] for name in slot.choices))
                values[index] = sum(self.table[f"{chosen['resolution']}/{k}"] for k in _keys(spec)) if spec else 0.0
            tables.append((np.array([resolution, *map(self.space.position, others)], dtype=np.int64), values))
        return SlotSum(self.layout, tuple(tables), 0.0)

    def latency_ms(self, genomes: IntArray) -> FloatArray:
        """Return ``(n,)`` ms."""
        return self._latency.of_genomes(genomes)

    # -- accuracy: the published perceptron; its first layer is a sum of rows, one a block -----------------

    def _first_layer(self) -> tuple[torch.Tensor, IntArray]:
        """Rows of the first layer's product by choice and option, and where each choice's rows begin."""
        weight, bias = self.weights["0_weight"].T, self.weights["0_bias"]
        kernels, ratios = (3, 5, 7), (3, 4, 6)
        rows, begins = [np.zeros(400, dtype=np.float32)], []
        block = 0
        for choice in self.space.choices:
            begins.append(len(rows))
            for option in choice.options:
                if choice.name == "resolution":
                    rows.append(weight[120 + (option - 112) // 16] + bias)
                elif isinstance(option, tuple):
                    kernel, ratio = option
                    rows.append(
                        weight[3 * block + kernels.index(kernel)] + weight[60 + 3 * block + ratios.index(ratio)]
                    )
                else:
                    rows.append(np.zeros(400, dtype=np.float32))
            block += isinstance(choice.options[0], tuple)
        return torch.from_numpy(np.stack(rows).astype(np.float32)), np.array(begins, dtype=np.int64)

    def top1_percent(self, genomes: IntArray) -> FloatArray:
        """Return ``(n,)`` predicted top-1; every row is an oracle call."""
        self.calls += len(genomes)
        rows, begins = self._rows
        index = np.where(self.space.active(genomes), genomes + begins, 0)
        with torch.inference_mode():
            x = torch.nn.functional.embedding_bag(torch.from_numpy(index), rows, mode="sum").relu_()
            for i, (weight, bias) in enumerate(self._later):
                x = torch.addmm(bias, x, weight)
                x = x.relu_() if i < 2 else x
        return 100.0 * x[:, 0].numpy().astype(float)

    # -- problems -------------------------------------------------------------------------------------------

    def problem(self, limit_ms: float | None = None) -> Problem:
        """Return top-1 against latency, with MACs and params known; with a limit, top-1 alone, as the original asks."""

        def objective(
            name: str, direction: Any, of_genomes: Callable[[IntArray], FloatArray], cheap: bool
        ) -> Objective:
            def of_archs(archs: Sequence[Arch]) -> FloatArray:
                return of_genomes(self.space.encode_many(archs))

            return Objective(name, direction, of_archs, cheap, of_genomes if cheap else None)

        capacity = (
            objective("macs", "min", macs_of_space(self.layout).of_genomes, True),
            objective("params", "min", params_of_space(self.layout).of_genomes, True),
        )
        top1 = objective("top1_percent", "max", self.top1_percent, False)
        latency = objective("latency_ms", "min", self.latency_ms, True)
        if limit_ms is None:
            return Problem(self.space, (top1, latency), capacity=capacity)

        def excess_ms(genomes: IntArray) -> FloatArray:
            return np.maximum(self.latency_ms(genomes) - limit_ms, 0.0)

        limit = (Limit(None, "excess_ms", "<=", 0.0),)
        return Problem(self.space, (top1, objective("excess_ms", "min", excess_ms, True)), limit, (latency, *capacity))

    def search(
        self, algorithm: str, evaluations: int, seed: int, limit_ms: float | None = None, **settings: Any
    ) -> tuple[FloatArray, float]:
        """Return ``(n, 2)`` values in the order of evaluation and the seconds it took."""
        problem = self.problem(limit_ms)
        started = time.perf_counter()
        searcher = make_searcher(algorithm, problem, evaluations=evaluations, seed=seed, **settings)

        def evaluate(archs: Sequence[Arch]) -> FloatArray:
            return np.stack([np.asarray(o.evaluate(archs), dtype=float) for o in problem.objectives], axis=1)

        result = run_search(problem, searcher, evaluate, evaluations)
        seconds = time.perf_counter() - started
        return np.stack([result.values[:, 0], self.latency_ms(self.space.encode_many(result.archs))], axis=1), seconds

    def evolution(self, limit_ms: float, seed: int, population: int, calls: int) -> tuple[float, float]:
        """Evolve predicted top-1 under a limit with exactly ``calls`` oracle calls; return the best and seconds."""
        started, before = time.perf_counter(), self.calls

        def losses_of(genomes: IntArray) -> tuple[FloatArray, FloatArray]:
            return -self.top1_percent(genomes)[:, None], np.maximum(self.latency_ms(genomes) - limit_ms, 0.0)

        _, losses, over = evolve(
            Region.whole(self.space),
            losses_of,
            np.random.default_rng(seed),
            population,
            calls // population - 1,
            screen=lambda genomes: np.maximum(self.latency_ms(genomes) - limit_ms, 0.0),
        )
        if over[0] > 0 or self.calls - before != calls:
            raise SystemExit(f"the evolution made {self.calls - before} calls, not {calls}, or found nothing inside")
        return float(-losses[0, 0]), time.perf_counter() - started


def _keys(spec: Any) -> list[str]:
    """Keys of a block in once-for-all's latency files."""
    size, out, cin = spec.in_size_px, None, spec.in_channels
    if spec.kind == "mbconv":
        out = (size - 1) // spec.stride + 1
        return [
            f"expanded_conv-input:{size}x{size}x{cin}-output:{out}x{out}x{spec.out_channels}-expand:{spec.mid_channels}"
            f"-kernel:{spec.kernel_size}-stride:{spec.stride}-idskip:{int(spec.residual)}-se:{int(spec.se)}"
            f"-hs:{int(spec.act == 'hswish')}"
        ]
    if spec.kind == "head":
        feature = spec.feature_channels
        return [
            f"AvgPool2D-input:{size}x{size}x{cin}-output:1x1x{cin}",
            f"Conv_2-input:1x1x{cin}-output:1x1x{feature}",
            f"Logits-input:1x1x{feature}-output:{spec.out_channels}",
        ]
    out = (size - 1) // spec.stride + 1
    name = "Conv" if cin == 3 else "Conv_1"
    return [f"{name}-input:{size}x{size}x{cin}-output:{out}x{out}x{spec.out_channels}"]


class Original:
    """The search of the package ``ofa`` with the same table and predictor, at its published settings."""

    def __init__(self, bench: Bench) -> None:
        tutorial = original_package()
        latency_table = sys.modules["ofa.tutorial.latency_table"]
        self.latency = tutorial.LatencyTable(resolutions=())
        for resolution in RESOLUTIONS:
            estimator = latency_table.LatencyEstimator.__new__(latency_table.LatencyEstimator)
            prefix = f"{resolution}/"
            estimator.lut = {k[len(prefix) :]: {"mean": v} for k, v in bench.table.items() if k.startswith(prefix)}
            self.latency.latency_tables[resolution] = estimator
        self.predictor = tutorial.AccuracyPredictor(pretrained=False, device="cpu")
        state = {k.replace("_", ".", 1): torch.from_numpy(v) for k, v in bench.weights.items()}
        self.predictor.model.load_state_dict(state)
        self._finder = tutorial.EvolutionFinder

    def evolution(self, limit_ms: float, seed: int, iterations: int = 500) -> tuple[float, float]:
        """Return the best predicted top-1 in % and seconds; population 100, so 100 calls an iteration."""
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the original draws from the global generators
        started = time.perf_counter()
        finder = self._finder("note10", limit_ms, self.latency, self.predictor, max_time_budget=iterations)
        with contextlib.redirect_stderr(io.StringIO()):
            _, best = finder.run_evolution_search()
        return 100.0 * float(best[0]), time.perf_counter() - started

    def check(self, bench: Bench) -> None:
        """Stop unless both compute the same accuracy and latency for 200 archs."""
        genomes = bench.space.sample_genomes(np.random.default_rng(0), 200)
        configs = [format_ofa(a, bench.space) for a in bench.space.decode_many(genomes)]
        for config in configs:
            config["r"] = [config["r"]]
        theirs = 100.0 * self.predictor.predict_accuracy(configs).numpy()[:, 0]
        np.testing.assert_allclose(bench.top1_percent(genomes), theirs, atol=2e-4)
        ms = [self.latency.predict_efficiency(c) for c in configs]
        np.testing.assert_allclose(bench.latency_ms(genomes), ms, rtol=1e-9)


def best_under(values: FloatArray, limit_ms: float) -> float:
    """Return the best top-1 among rows within the limit."""
    inside = values[values[:, 1] <= limit_ms]
    return float(inside[:, 0].max()) if len(inside) else float("nan")


def scaled_hypervolume(values: FloatArray) -> float:
    """Return the share of the box from `IDEAL` to `NADIR` that is dominated."""
    losses = np.stack([-values[:, 0], values[:, 1]], axis=1)
    return hypervolume((losses - IDEAL) / (NADIR - IDEAL), np.ones(2))


def _row(name: str, numbers: Sequence[float], digits: int = 2) -> None:
    print(name.ljust(44) + "".join(f"{x:9.{digits}f}" for x in numbers), flush=True)


def speed(bench: Bench, seeds: int) -> dict[str, Any]:
    """Time 50,000 oracle calls of both evolutions on one thread."""
    original, out = Original(bench), {}
    original.check(bench)
    print("best top-1 in % by 50,000 oracle calls under a limit, mean over seeds; 1 thread")
    _row("limit in ms", LIMITS_MS, 0)
    for name, run in (
        ("ofa, population 100", lambda limit, seed: original.evolution(limit, seed, 499)),
        ("hwnas, population 100", lambda limit, seed: bench.evolution(limit, seed, 100, 50_000)),
        ("hwnas, population 500", lambda limit, seed: bench.evolution(limit, seed, 500, 50_000)),
    ):
        found = np.array([[run(limit, seed) for limit in LIMITS_MS] for seed in range(seeds)])
        out[name] = {"top1": found[..., 0].mean(axis=0).tolist(), "seconds": float(found[..., 1].mean())}
        _row(name, out[name]["top1"])
        print(f"{'':44}{out[name]['seconds']:9.2f} s a run")
    first = out["ofa, population 100"]["seconds"]
    for name in list(out)[1:]:
        print(f"{name}: {first / out[name]['seconds']:.1f} times as fast")
    return out


def limits(bench: Bench, seeds: int, algorithms: Sequence[str]) -> dict[str, Any]:
    """Best top-1 under each limit after 500 and 2,000 calls: of one search for all limits, and of one a limit."""
    out = {}
    print("best top-1 in % under a limit, mean over seeds")
    _row("limit in ms", LIMITS_MS, 0)
    for calls in (500, 2000):
        for algorithm in algorithms:
            runs = [bench.search(algorithm, calls, s) for s in range(seeds)]
            name = f"{algorithm}, {calls} calls for all limits"
            out[name] = np.mean([[best_under(v, ms) for ms in LIMITS_MS] for v, _ in runs], axis=0).tolist()
            _row(name, out[name])
            print(f"{'':44}{np.mean([t for _, t in runs]):9.1f} s a search")
    for calls in (500, 2000):
        for algorithm in algorithms:
            found = [
                [best_under(bench.search(algorithm, calls, s, ms)[0], ms) for ms in LIMITS_MS] for s in range(seeds)
            ]
            name = f"{algorithm}, {calls} calls for each limit"
            out[name] = np.mean(found, axis=0).tolist()
            _row(name, out[name])
            _row("  worst seed", np.min(found, axis=0).tolist())
    return out


def front(bench: Bench, seeds: int, algorithms: Sequence[str]) -> dict[str, Any]:
    """Hypervolume after 100, 200 and 500 calls; each number is a search of its own."""
    out: dict[str, Any] = {}
    print("hypervolume, mean over seeds (deviation)")
    print("oracle calls".ljust(24) + "".join(f"{n:>18}" for n in (100, 200, 500)) + "   s a search of 500")
    for algorithm in algorithms:
        cells, seconds = [], 0.0
        for calls in (100, 200, 500):
            runs = [bench.search(algorithm, calls, s) for s in range(seeds)]
            found = [scaled_hypervolume(v) for v, _ in runs]
            seconds = float(np.mean([t for _, t in runs]))
            cells.append(f"{np.mean(found):.4f} ({np.std(found):.4f})")
            out.setdefault(algorithm, {})[str(calls)] = float(np.mean(found))
        print(algorithm.ljust(24) + "".join(f"{c:>18}" for c in cells) + f"{seconds:10.1f}", flush=True)
    return out


def ablation(bench: Bench, seeds: int) -> dict[str, Any]:
    """Hypervolume of hurricane with and without its two stages and its specialised space."""
    out: dict[str, Any] = {}
    print("hypervolume, mean over seeds (deviation)")
    print("oracle calls".ljust(40) + "".join(f"{n:>18}" for n in (100, 200, 500)))
    for staged in (True, False):
        for specialised in (True, False):
            name = f"{'two stages' if staged else 'one stage'}, {'specialised' if specialised else 'full'} space"
            cells = []
            for calls in (100, 200, 500):
                settings = {"staged": staged, "specialised": specialised}
                found = [scaled_hypervolume(bench.search("hurricane", calls, s, **settings)[0]) for s in range(seeds)]
                cells.append(f"{np.mean(found):.4f} ({np.std(found):.4f})")
                out.setdefault(name, {})[str(calls)] = float(np.mean(found))
            print(name.ljust(40) + "".join(f"{c:>18}" for c in cells), flush=True)
    return out


def main() -> None:
    """Run the asked parts, print tables and write the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the table and the predictor")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS), help="of limits (those with a model) and front")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    parts = args.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"unknown parts {unknown}; choose from {list(PARTS)}")
    algorithms = args.algorithms.split(",")
    if unknown := sorted(set(algorithms) - set(ALGORITHMS)):
        parser.error(f"unknown algorithms {unknown}; choose from {list(ALGORITHMS)}")
    torch.set_num_threads(1)
    bench = Bench(args.data)
    models = [name for name in algorithms if name in ("hurricane", "natv2")]
    run: dict[str, Callable[[], dict[str, Any]]] = {
        "limits": lambda: limits(bench, args.seeds, models),
        "speed": lambda: speed(bench, args.seeds),
        "front": lambda: front(bench, args.seeds, algorithms),
        "ablation": lambda: ablation(bench, args.seeds),
    }
    out = {}
    for part in parts:
        print(f"\n== {part}")
        out[part] = run[part]()
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
