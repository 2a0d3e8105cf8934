"""How much of the true front does a search find on NAS-Bench-201, at equal numbers of evaluations?

Error and latency are minimised. Latency and params of every cell are known beforehand, accuracy only of evaluated
cells. Each loss is scaled from its minimum over all cells (0) to 20 % error or the 99th percentile of latency (1);
regret is 1 - hypervolume(evaluated) / hypervolume(all cells) under the reference (1, 1), in %. Every number of
evaluations is a search of its own, since a search may use that it knows its budget.

    python benchmarks/search_nb201.py --data DIR --algorithms hurricane,nsga2,random --workers 2 --json OUT
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
from nb201_cells import CellEncoder, Cells  # beside this file
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hwnas.objectives import Objective
from hwnas.pareto import hypervolume
from hwnas.search import SEARCHERS, Problem, make_searcher, run_search
from hwnas.space import Arch, SearchSpace

FloatArray = NDArray[np.float64]

OPERATORS = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
EDGES = ["0->1", "0->2", "1->2", "0->3", "1->3", "2->3"]
WITH_PREDICTOR = ("hurricane", "natv2")
PEERS = ("optuna-tpe", "optuna-nsga2", "pymoo-nsga2")


class Bench:
    """The tables, indexed by the six digits of a cell."""

    def __init__(self, folder: Path, graph: bool = True) -> None:
        accuracy = _rows(folder / "nb201_accuracy.csv.gz")
        latency = _rows(folder / "nb201_latency_ms.csv.gz")
        if [r["index"] for r in accuracy] != [r["index"] for r in latency]:
            raise SystemExit("the two tables do not list the same cells")
        self.devices = [c for c in latency[0] if c != "index"]
        self.space = SearchSpace.of_choices(dict.fromkeys(EDGES, OPERATORS), stages=[EDGES[:3], EDGES[3:]])
        ends = {edge: (int(edge[0]), int(edge[-1])) for edge in EDGES}
        self.graph = Cells(self.space, ends) if graph else None
        weights = 5 ** np.arange(5, -1, -1)
        self._weights = weights
        place = np.array([int(r["code"], 5) for r in accuracy])
        self.error = np.empty(5**6)
        self.params = np.empty(5**6)
        self.latency = {d: np.empty(5**6) for d in self.devices}
        self.error[place] = [100.0 - float(r["c10_test_200"]) for r in accuracy]
        self.params[place] = [float(r["params_m"]) for r in accuracy]
        for d in self.devices:
            self.latency[d][place] = [float(r[d]) for r in latency]

    def rows(self, genomes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of every genome."""
        return np.asarray(genomes @ self._weights, dtype=np.int64)

    def problem(self, device: str) -> Problem:
        """Return error against latency on ``device``, with params known."""

        def column(table: FloatArray) -> Callable[[NDArray[np.int64]], FloatArray]:
            return lambda genomes: table[self.rows(genomes)]

        def objective(name: str, table: FloatArray, cheap: bool) -> Objective:
            of_genomes = column(table)

            def of_archs(archs: Sequence[Arch]) -> FloatArray:
                return of_genomes(self.space.encode_many(archs))

            return Objective(name, "min", of_archs, cheap, of_genomes if cheap else None)

        return Problem(
            self.space,
            (
                objective("error_percent", self.error, False),
                objective("latency_ms", self.latency[device], True),
            ),
            capacity=(objective("params_m", self.params, True),),
            features=self.graph,
        )

    def regret(self, device: str, rows: NDArray[np.int64]) -> float:
        """Return the regret of the evaluated ``rows`` in %."""
        latency = self.latency[device]
        error = (self.error - self.error.min()) / (20.0 - self.error.min())
        scaled = np.stack([error, (latency - latency.min()) / (np.percentile(latency, 99) - latency.min())], axis=1)
        one = np.ones(2)
        return 100.0 * (1.0 - hypervolume(scaled[rows], one) / hypervolume(scaled, one))


def search(bench: Bench, device: str, algorithm: str, evaluations: int, seed: int) -> NDArray[np.int64]:
    """Return the rows that ``algorithm`` evaluated."""
    problem = bench.problem(device)
    if algorithm == "pymoo-nsga2":
        return _pymoo(bench, device, evaluations, seed)
    if algorithm.startswith("optuna-"):
        return _optuna(bench, device, algorithm, evaluations, seed)

    def evaluate(archs: Sequence[Arch]) -> FloatArray:
        return np.stack([np.asarray(o.evaluate(archs), dtype=float) for o in problem.objectives], axis=1)

    reads_cells = bench.graph is not None and algorithm in WITH_PREDICTOR
    settings = {"encoder": partial(CellEncoder, cells=bench.graph)} if reads_cells else {}
    searcher = make_searcher(algorithm, problem, evaluations=evaluations, seed=seed, **settings)
    result = run_search(problem, searcher, evaluate, evaluations)
    return bench.rows(bench.space.encode_many(result.archs))


def _optuna(bench: Bench, device: str, algorithm: str, evaluations: int, seed: int) -> NDArray[np.int64]:
    """Optuna's samplers; TPE models all genes together and evaluates what it proposes, repetitions included."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler: optuna.samplers.BaseSampler
    if algorithm == "optuna-tpe":
        sampler = optuna.samplers.TPESampler(seed=seed)
    else:
        sampler = optuna.samplers.NSGAIISampler(population_size=20, seed=seed)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    rows: list[int] = []

    def losses(trial: optuna.Trial) -> tuple[float, float]:
        genome = [OPERATORS.index(trial.suggest_categorical(e, OPERATORS)) for e in EDGES]
        row = int(bench.rows(np.array([genome]))[0])
        rows.append(row)
        return float(bench.error[row]), float(bench.latency[device][row])

    study.optimize(losses, n_trials=evaluations)
    return np.array(rows, dtype=np.int64)


def _pymoo(bench: Bench, device: str, evaluations: int, seed: int) -> NDArray[np.int64]:
    """NSGA-II of pymoo with population 20, integer sampling and operators, duplicates eliminated."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    rows: list[int] = []

    class Cells(PymooProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=6, n_obj=2, xl=0, xu=4, vtype=int)

        def _evaluate(self, x, out, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
            found = bench.rows(x.astype(np.int64))
            rows.extend(found.tolist())
            out["F"] = np.stack([bench.error[found], bench.latency[device][found]], axis=1)

    algorithm = NSGA2(
        pop_size=20,
        sampling=IntegerRandomSampling(),
        crossover=SBX(eta=3, prob=0.9, vtype=float, repair=RoundingRepair()),
        mutation=PM(eta=3, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    minimize(Cells(), algorithm, ("n_eval", evaluations), seed=seed)
    return np.array(rows[:evaluations], dtype=np.int64)


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def one_search(folder: Path, graph: bool, algorithm: str, device: str, evaluations: int, seed: int) -> list[float]:
    """Return the regret in % and the CPU seconds of one search; the tables are read once a process."""
    bench = _bench(folder, graph)
    started = time.process_time()
    with threadpool_limits(limits=1):
        rows = search(bench, device, algorithm, evaluations, seed)
    return [bench.regret(device, rows), time.process_time() - started]


@cache
def _bench(folder: Path, graph: bool) -> Bench:
    return Bench(folder, graph)


def main() -> None:
    """Run every search, print a table and write the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the two tables")
    parser.add_argument("--devices", default="all", help="columns of the latency table")
    parser.add_argument("--algorithms", default="hurricane,natv2,nsga2,random,optuna-tpe,optuna-nsga2,pymoo-nsga2")
    parser.add_argument("--evaluations", default="50,100,200,400")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write {algorithm: {device: {evaluations: mean regret in %%}}}")
    parser.add_argument("--workers", type=int, default=1, help="processes; what is found does not depend on it")
    parser.add_argument("--no-graph", action="store_true", help="hide the cell's graph from predictors")
    args = parser.parse_args()
    bench = Bench(args.data, not args.no_graph)
    devices = bench.devices if args.devices == "all" else args.devices.split(",")
    if unknown := sorted(set(devices) - set(bench.devices)):
        parser.error(f"unknown devices {unknown}; the table has {bench.devices}")
    algorithms = args.algorithms.split(",")
    if unknown := sorted(set(algorithms) - {*SEARCHERS.names(), *PEERS}):
        parser.error(f"unknown algorithms {unknown}; choose from {[*SEARCHERS.names(), *PEERS]}")
    budgets = [int(n) for n in args.evaluations.split(",")]
    out: dict[str, dict[str, dict[str, float]]] = {}
    print(f"mean regret in % over {len(devices)} devices and {args.seeds} seeds, and CPU seconds a search")
    print("".ljust(16) + "".join(f"{n:>9}" for n in budgets) + "".join(f"{f'{n} s':>9}" for n in budgets))
    with ProcessPoolExecutor(args.workers) as pool:
        for algorithm in algorithms:
            tasks = list(product(devices, budgets, range(args.seeds)))
            found = list(
                pool.map(one_search, *zip(*[(args.data, not args.no_graph, algorithm, *t) for t in tasks], strict=True))
            )
            table = np.array(found).reshape(len(devices), len(budgets), args.seeds, 2).mean(axis=2)
            out[algorithm] = {
                device: {str(n): float(table[i, j, 0]) for j, n in enumerate(budgets)}
                for i, device in enumerate(devices)
            }
            regret, seconds = table.mean(axis=0).T
            print(
                algorithm.ljust(16) + "".join(f"{r:9.3f}" for r in regret) + "".join(f"{s:9.1f}" for s in seconds),
                flush=True,
            )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
