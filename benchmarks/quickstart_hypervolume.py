"""Does the search beat random sampling on a real supernet, at the same number of evaluations?

Every algorithm searches every device of a run from scratch with several seeds; subnets are really extracted, calibrated
and validated, each once for all algorithms. Losses are scaled by the minimum and maximum of everything that any
algorithm evaluated for the device; the reference is 1.1 in every column. ``--against`` adds an older checkout's
``hurricane``: its rooms ``search`` and ``predictors``, on the same problems and the same evaluations.

    python benchmarks/quickstart_hypervolume.py runs/quickstart --evaluations 60 --seeds 5
    git worktree add ../first b7f3978
    python benchmarks/quickstart_hypervolume.py runs/quickstart --against first=../first
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import hwnas
from hwnas.objectives import as_losses
from hwnas.pareto import hypervolume, normalise
from hwnas.runs.problem import make_problem
from hwnas.runs.run import Run
from hwnas.search.loop import run_search
from hwnas.search.problem import Problem, Searcher
from hwnas.search.searchers import make_searcher
from hwnas.space import Arch


def evaluate_all(run: Run, problem: Problem, archs: Sequence[Arch], known: dict[Arch, dict[str, float]]) -> np.ndarray:
    """Return ``(n, m)`` values; scores of subnets are kept in ``known``."""
    for arch in archs:
        if arch not in known:
            known[arch] = run.evaluator.score(arch, ["introspectability"])
    genomes = run.layout.space.encode_many(archs)
    columns = [
        o.evaluate_genomes(genomes) if o.evaluate_genomes else np.array([known[a][o.name] for a in archs])
        for o in problem.objectives
    ]
    return np.stack(columns, axis=1)


def searchers_of(checkout: Path, package: Path) -> Callable[..., Searcher]:
    """Return `make_searcher` of an older checkout, as the new package ``package`` beside the present one."""
    for room in ("search", "predictors"):
        for source in (checkout / "hwnas" / room).glob("*.py"):
            text = source.read_text()
            for moved in ("search", "predictors"):
                text = text.replace(f"hwnas.{moved}", f"{package.name}.{moved}")
            (package / room).mkdir(parents=True, exist_ok=True)
            (package / room / source.name).write_text(text)
    sys.path.insert(0, str(package.parent))
    make: Callable[..., Searcher] = importlib.import_module(f"{package.name}.search.searchers").make_searcher
    room = importlib.import_module(f"{package.name}.search.problem")

    def make_for_its_own_problem(name: str, problem: Problem, **settings: Any) -> Searcher:
        if hasattr(room, "Constraint"):  # before limits of values that are not optimised
            limits = tuple(room.Constraint.parse(str(limit)) for limit in problem.limits)
            problem = room.Problem(problem.space, problem.objectives, limits, problem.capacity)
        return make(name, problem, **settings)

    return make_for_its_own_problem


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--algorithms", default="hurricane,natv2,nsga2,random")
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--against", action="append", default=[], metavar="NAME=CHECKOUT", help="whose hurricane is compared too"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    run = hwnas.open_run(args.run)
    algorithms = args.algorithms.split(",")
    make: dict[str, Callable[..., Searcher]] = {a: partial(make_searcher, a) for a in algorithms}
    with tempfile.TemporaryDirectory() as folder:
        for name, checkout in (text.split("=", 1) for text in args.against):
            algorithms.append(name)
            make[name] = partial(searchers_of(Path(checkout), Path(folder) / f"hwnas_{name}"), "hurricane")
        compare(run, algorithms, make, args.evaluations, args.seeds, args.json)


def compare(
    run: Run,
    algorithms: Sequence[str],
    make: dict[str, Callable[..., Searcher]],
    evaluations: int,
    seeds: int,
    json_path: Path | None,
) -> None:
    """Search every device with every algorithm and print a table."""
    known: dict[Arch, dict[str, float]] = {}
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    seconds = dict.fromkeys(algorithms, 0.0)
    for name, device in run.devices.items():
        problem = make_problem(run.context, device, run.settings(name))
        found[name] = {a: [] for a in algorithms}
        for algorithm in algorithms:
            for seed in range(seeds):
                searcher = make[algorithm](problem, evaluations=evaluations, seed=seed)
                spent = time.perf_counter()
                inside = 0.0

                def evaluate(archs: Sequence[Arch], problem: Problem = problem) -> np.ndarray:
                    nonlocal inside
                    start = time.perf_counter()
                    values = evaluate_all(run, problem, archs, known)
                    inside += time.perf_counter() - start
                    return values

                result = run_search(problem, searcher, evaluate, evaluations)
                seconds[algorithm] += time.perf_counter() - spent - inside
                found[name][algorithm].append(as_losses(result.values, problem.objectives))
        print(f"{name}: {len(known)} distinct subnets evaluated so far", flush=True)
    out: dict[str, dict[str, dict[str, float]]] = {}
    width = len(run.recipe.objectives)
    print(f"\nmean hypervolume over {seeds} seeds, {evaluations} evaluations (standard deviation)")
    print(f"{'device':14} {'algorithm':10} {width} objectives     accuracy-latency")
    for name, by_algorithm in found.items():
        everything = np.concatenate([x for runs in by_algorithm.values() for x in runs])
        ideal, nadir = np.nanmin(everything, axis=0), np.nanmax(everything, axis=0)
        out[name] = {}
        for algorithm, runs in by_algorithm.items():
            scaled = [normalise(x, ideal, nadir) for x in runs]
            full = [hypervolume(x, np.full(width, 1.1)) / 1.1**width for x in scaled]
            two = [hypervolume(x[:, :2], np.full(2, 1.1)) / 1.1**2 for x in scaled]
            out[name][algorithm] = {"all": float(np.mean(full)), "accuracy_latency": float(np.mean(two))}
            print(
                f"{name:14} {algorithm:10} {np.mean(full):.4f} ({np.std(full):.4f})  "
                f"{np.mean(two):.4f} ({np.std(two):.4f})"
            )
    print("search overhead, seconds a search:", {a: round(s / seeds / len(found), 2) for a, s in seconds.items()})
    if json_path:
        json_path.write_text(json.dumps(out, indent=2) + "\n")


if __name__ == "__main__":
    main()
