"""How does a recipe become a run folder? Train, table, search, export, check, report: each step once, then kept.

Every step first looks for what an earlier start left; what is complete is not computed again. Files appear whole or not
at all, so a run may be killed at any moment and started again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from hwnas.archive import Archive, Evaluation
from hwnas.data import Splits, load_data
from hwnas.errors import CheckpointError, RecipeError, ResumeError
from hwnas.export.bundle import Bundle, write_bundle
from hwnas.export.onnx_file import quantize_onnx
from hwnas.files import exclusive, make_folder, n_ranks, write_json, write_text
from hwnas.finetune import FinetuneConfig, FinetuneResult, finetune
from hwnas.latency.build import build_table, needs_table
from hwnas.latency.checks import is_here
from hwnas.latency.table import Device, load_device
from hwnas.objectives import Objective, as_losses
from hwnas.objectives.proxies.by_name import PROXIES
from hwnas.objectives.subnets import SubnetEvaluator, fvcore_macs, macs_of_space, params_of_space
from hwnas.pareto import non_dominated
from hwnas.runs import adaptation as adapt
from hwnas.runs.budget import check_sizable, size_search
from hwnas.runs.front import FRONT_FILE, Front, choose_front, read_front, write_front
from hwnas.runs.latency_check import check_models, keep_measured, measured_columns, was_checked
from hwnas.runs.manifest import make_manifest
from hwnas.runs.noise import latency_variance, may_be_on_front, near_ties
from hwnas.runs.recipe import Recipe, check_recipe, load_recipe
from hwnas.predictors import CellFeatures, RankMetrics
from hwnas.progress import Progress, silent
from hwnas.search.adapt import plan_rounds
from hwnas.search.config import SearchConfig
from hwnas.search.loop import run_search
from hwnas.search.natv2 import PredictorQuality
from hwnas.search.limits import Limit
from hwnas.search.problem import Problem, Searcher
from hwnas.space import Arch
from hwnas.space.dialects.nasbench201 import EDGES, edge_name
from hwnas.supernet import Layout, SuperNet, count_params, make_layout
from hwnas.supernet.slot_sum import SlotSum
from hwnas.train.checkpoint import load_supernet, weights_version
from hwnas.train.evaluate import top1_percent
from hwnas.train.loop import train_supernet
from hwnas.train.phases import phase_space


PARITY_IMAGES = 64

SEARCH_FILE = "search.json"

_P = ParamSpec("_P")

_R = TypeVar("_R")

def _writes(verb: Callable[Concatenate[Run, _P], _R]) -> Callable[Concatenate[Run, _P], _R]:
    """Let one process at a time do ``verb`` in a run folder; of several that belong together only to train."""

    @wraps(verb)
    def alone(run: Run, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if n_ranks() > 1 and verb.__name__ != "train":
            raise RecipeError(
                f"{n_ranks()} processes were started by torchrun, but only `hwnas train` shares its work among them; "
                "train so, then go on with one process and the same --out"
            )
        with exclusive(run.folder):
            return verb(run, *args, **kwargs)

    return alone

@dataclass
class Run:
    """One run folder and the verbs that fill it; every verb continues what is there."""

    folder: Path
    recipe: Recipe
    progress: Progress = silent
    budget_s: float | None = None
    """Seconds for the search of all devices, which then is sized by them; None: the recipe says its size."""
    _adapted_evaluator: tuple[str, SubnetEvaluator] | None = field(default=None, init=False, repr=False)

    # -- what the verbs share ------------------------------------------------------------------------

    @cached_property
    def splits(self) -> Splits:
        """The dataset."""
        net = self.recipe.supernet
        return load_data(self.recipe.data, net.in_channels, net.classes, max(net.resolutions))

    @cached_property
    def layout(self) -> Layout:
        """Space and blocks of the recipe's supernet."""
        return make_layout(self.recipe.supernet)

    @cached_property
    def devices(self) -> dict[str, Device]:
        """The recipe's devices by name, in their order; tables measured by this run included."""
        found: dict[str, Device] = {}
        for given in self.recipe.devices:
            device = load_device(given)
            if device.name in found:
                raise RecipeError(f"devices name {device.name!r} twice")
            own = self._device_folder(device.name) / "table"
            found[device.name] = load_device(own) if (own / "profile.yaml").exists() else device
        return found

    @cached_property
    def supernet(self) -> SuperNet:
        """The trained supernet; `train` makes it."""
        found = load_supernet(self.folder / "train")
        if found.config != self.recipe.supernet:
            raise ResumeError(
                f"{self.folder / 'train' / 'supernet.safetensors'} was made with other settings of supernet; "
                "restore it, or train again with another --out"
            )
        return found

    @cached_property
    def weights(self) -> str:
        """Version of the trained weights."""
        return weights_version(self.folder / "train" / "supernet.safetensors")

    @cached_property
    def evaluator(self) -> SubnetEvaluator:
        """Extracts and evaluates subnets of the trained supernet."""
        return SubnetEvaluator(self.supernet, self.splits, self.recipe.evaluation)

    def weights_of(self, device: str) -> str:
        """Return the version of the weights that a device's models come from: the trained or the last adapted ones."""
        adapted = self.adapted(device)
        return adapted[-1].weights_version if adapted else self.weights

    def adapted(self, device: str) -> list[adapt.Adapted]:
        """Return how the supernet was adapted in the search of a device; empty where it was not."""
        return adapt.read_adapted(self._device_folder(device) / SEARCH_FILE)

    def use_weights(self, version: str, supernet: SuperNet) -> SubnetEvaluator:
        """Keep what evaluates subnets of adapted weights, in place of the last such; return it."""
        self._adapted_evaluator = version, replace(self.evaluator, supernet=supernet)
        return self._adapted_evaluator[1]

    def evaluator_of(self, weights: str) -> SubnetEvaluator:
        """Return what extracts and evaluates subnets of the trained weights, or of ones that a search adapted."""
        if weights == self.weights:
            return self.evaluator
        if self._adapted_evaluator is not None and self._adapted_evaluator[0] == weights:
            return self._adapted_evaluator[1]
        for marker in sorted(self.folder.glob(f"devices/*/{SEARCH_FILE}")):
            for one in adapt.read_adapted(marker):
                if one.weights_version == weights:
                    return self.use_weights(weights, adapt.load_adapted(marker.parent / one.folder, weights))
        raise ResumeError(f"{self.folder} has no weights {weights}; search it again with `hwnas search`")

    @cached_property
    def macs(self) -> SlotSum:
        """Multiply-adds of every arch."""
        return macs_of_space(self.layout)

    @cached_property
    def params(self) -> SlotSum:
        """Parameters of every arch."""
        return params_of_space(self.layout)

    @cached_property
    def n_validation(self) -> int:
        """Validation images of a full evaluation."""
        n = len(self.splits.validation)
        return min(n, self.recipe.evaluation.validation_images or n)

    @property
    def n_searched(self) -> int:
        """Validation images of an evaluation while searching."""
        return min(self.n_validation, self.recipe.search.validation_images or self.n_validation)

    @property
    def proxies(self) -> list[str]:
        """Zero-cost proxies among the recipe's objectives."""
        return [name for name in self.recipe.objectives if name in PROXIES]

    def check_phases(self) -> None:
        """Raise where a training phase names a field or value that the space does not have."""
        for phase in self.recipe.train.phases:
            phase_space(phase, self.layout.space)

    def check_devices(self) -> None:
        """Raise where limits contradict each other, or a device has no time for a block."""
        names = [Objective(name, "min", self._unevaluated) for name in self.recipe.objectives]
        Problem(self.layout.space, tuple(names), tuple(map(Limit.parse, self.recipe.constraints)))
        for device in self.devices.values():
            if not needs_table(device):
                self.problem(device)

    def archive(self) -> Archive:
        """Open the run's archive; use it as a context."""
        return Archive(self.folder / "archive.db", self.layout.space, self.recipe.values_hash())

    def _device_folder(self, name: str) -> Path:
        return self.folder / "devices" / name

    def _progress(self, device: str) -> Progress:
        def told(task: str, done: float, total: float, note: str = "") -> None:
            self.progress(f"{task} for {device}", done, total, note)

        return told

    def predictor_quality(self, device: str) -> dict[str, PredictorQuality]:
        """Return how well the search of a device could predict each expensive objective, judged at its end.

        Empty where the algorithm has no predictor, or too few archs were evaluated.
        """
        marker = self._device_folder(device) / SEARCH_FILE
        if not marker.exists():
            return {}
        listed = json.loads(marker.read_text(encoding="utf-8")).get("predictor", {})
        return {n: PredictorQuality(**{**q, "metrics": RankMetrics(**q["metrics"])}) for n, q in listed.items()}

    # -- verbs ---------------------------------------------------------------------------------------

    @_writes
    def train(self) -> SuperNet:
        """Train the supernet, or read it where it is trained already."""
        self.supernet = train_supernet(
            self.recipe.supernet, self.recipe.train, self.recipe.data, self.splits, self.folder / "train", self.progress
        )  # fmt: skip
        return self.supernet

    @_writes
    def tables(self) -> None:
        """Measure the block tables of devices that are measured on the spot."""
        for name, device in self.devices.items():
            if needs_table(device):
                self.devices[name] = build_table(
                    self.layout, device.profile, self._device_folder(name) / "table", self.recipe.tables,
                    self._progress(name),
                )  # fmt: skip

    @_writes
    def search(self) -> None:
        """Search every device and write its ``front.csv``.

        Modelled devices come first: their fronts must not depend on timings of this machine. An evaluation serves all
        devices that are searched after it, and the fronts of a group are chosen from all archs seen so far.

        Where the recipe adapts the supernet (``search.adaptation``), every device has weights of its own from the first
        round on: its search begins with nothing but evaluations of the trained weights that the archive happens to
        know, and its front is chosen from its own archs, with the values of its last weights.
        """
        if self.budget_s is not None:
            plan = size_search(self, self.budget_s)
            self.progress("budget", 1, 1, str(plan))
            sized = {"evaluations": plan.evaluations, "validation_images": plan.validation_images}
            self.recipe = self.recipe.model_copy(update={"search": self.recipe.search.model_copy(update=sized)})
            write_text(self.folder / "recipe.yaml", self.recipe.as_yaml())
        with self.archive() as archive:
            searched: list[str] = []
            for group in self._groups():
                for name in group:
                    self._search_device(self.devices[name], archive, tuple(searched))
                    searched.append(name)
                for name in group:
                    self._write_front(self.devices[name], archive)

    def _groups(self) -> tuple[list[str], list[str]]:
        """Names of the devices whose latencies do not depend on this machine, and of those timed on it."""
        timed = [name for name, device in self.devices.items() if device.profile.conditions is not None]
        return [name for name in self.devices if name not in timed], timed

    def considered(self, device: str, archive: Archive) -> list[Arch]:
        """Return the archs from which the front of ``device`` was chosen, in the order of evaluation."""
        if self.adapted(device):
            return archive.requested([device])
        modelled, timed = self._groups()
        return archive.requested([*modelled, *timed] if device in timed else modelled)

    def problem(self, device: Device) -> Problem:
        """Return what is searched for a device: objectives by the recipe's names, limits, capacity, a cell's graph."""
        latency = device.compile(self.layout)
        cheap: dict[str, SlotSum] = {"latency_ms": latency, "params": self.params, "macs": self.macs}
        made = [
            _cheap(name, cheap[name])
            if name in cheap
            else Objective(name, PROXIES[name].direction if name in PROXIES else "max", self._unevaluated)
            for name in self.recipe.objectives
        ]
        constraints = tuple(Limit.parse(text) for text in self.recipe.constraints)
        capacity = tuple(_cheap(n, cheap[n]) for n in ("macs", "params") if n not in self.recipe.objectives)
        graph = None
        if self.recipe.supernet.family == "nasbench201":
            graph = CellFeatures(self.layout.space, {edge_name(i, j): (i, j) for i, j in EDGES})
        return Problem(self.layout.space, tuple(made), constraints, capacity, graph)

    @staticmethod
    def _unevaluated(archs: Sequence[Arch]) -> list[float]:
        raise RecipeError("expensive objectives are evaluated by the run, through its archive")

    def _search_device(self, device: Device, archive: Archive, before: tuple[str, ...]) -> None:
        marker = self._device_folder(device.name) / SEARCH_FILE
        config = self.recipe.search
        before = () if config.adaptation is not None else before  # values of other weights do not mix
        settings = {
            "search": config.model_dump(mode="json"),
            "objectives": list(self.recipe.objectives),
            "constraints": list(self.recipe.constraints),
            "device": json.loads(device.profile.model_dump_json()),
            "weights": self.weights,
            "after": list(before),
        }
        if _searched_with(marker, settings):
            return
        archive.forget_requests(device.name)
        problem = self.problem(device)
        known, n_images = archive.requested(before), self.n_searched
        searcher = config.searcher(problem)
        rounds = plan_rounds(searcher, config.adaptation.rounds) if config.adaptation is not None else ()
        lineage = adapt.Lineage(self, device.name, problem, archive, rounds)
        n_done = 0

        def evaluate(archs: Sequence[Arch]) -> NDArray[np.float64]:
            nonlocal n_done
            for arch in archs:
                self.evaluated(arch, archive, n_images, lineage.weights)
                n_done += 1
                self.progress(f"search for {device.name}", n_done, config.evaluations, config.algorithm)
            archive.request(device.name, archs)
            return self.values(problem, archs, archive, n_images, lineage.weights)

        started = time.monotonic()
        warm_start = (known, self.values(problem, known, archive, n_images)) if known else None
        result = run_search(
            problem, searcher, evaluate, config.evaluations, warm_start=warm_start, renew=lineage.renew,
            renew_at=[r.share for r in rounds],
        )  # fmt: skip
        duration_s = round(time.monotonic() - started, 3)
        message, more = result.message, _judged(searcher)
        if lineage.adapted:
            message = f"{message}; {lineage.note}"
            more |= {"repeated": result.repeated, "adapted": adapt.as_json(lineage.adapted)}
        write_json(marker, {
            "settings": settings, "evaluations": result.evaluated, "ended": result.ended, "message": message,
            "duration_s": duration_s, **more,
        })  # fmt: skip

    def _split(self, images: int) -> str:
        """Name under which the archive keeps evaluations on so many validation images."""
        return "validation" if images == self.n_validation else f"validation:{images}"

    def evaluated(
        self, arch: Arch, archive: Archive, images: int | None = None, weights: str | None = None
    ) -> dict[str, float]:
        """Return the values that need the network, from the archive or, once, from an evaluation.

        Args:
            arch: of the run's space.
            archive: of this run.
            images: validation images; None: all.
            weights: version of the supernet; None: the trained one.
        """
        n, weights = images or self.n_validation, weights or self.weights
        known = archive.values(arch, weights, self._split(n))
        if "top1_percent" not in known:
            known |= self._kept(arch, archive, n, n, weights, lambda: asdict(self.evaluator_of(weights).score(arch, n)))
        if missing := [name for name in self.proxies if name not in known]:
            used, seed = self.recipe.evaluation.proxy_images, self.recipe.train.seed
            known |= self._kept(
                arch, archive, n, used, weights, lambda: self.evaluator_of(weights).proxies(arch, missing, seed)
            )
        return known

    def _kept(
        self, arch: Arch, archive: Archive, n: int, images: int, weights: str, values: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        """Compute values on ``images`` images and keep them beside those of ``n`` validation images."""
        started = time.monotonic()
        made = values()
        seconds, conditions = time.monotonic() - started, {"images": images, "torch": torch.__version__}
        seed = self.recipe.search.seed
        archive.add(Evaluation(arch, made, weights, self._split(n), seed, seconds, conditions))
        return made

    def known(
        self, arch: Arch, archive: Archive, images: int | None = None, weights: str | None = None
    ) -> dict[str, float]:
        """Return what evaluations of ``arch`` gave, by name.

        Args:
            arch: evaluated or not.
            archive: of this run.
            images: on exactly so many validation images; None: on most images.
            weights: version of the supernet; None: the trained one.
        """
        weights = weights or self.weights
        if images is not None:
            return archive.values(arch, weights, self._split(images))
        full = archive.values(arch, weights, "validation")
        return full or archive.values(arch, weights, self._split(self.n_searched))

    def values(
        self, problem: Problem, archs: Sequence[Arch], archive: Archive, images: int | None = None,
        weights: str | None = None,
    ) -> NDArray[np.float64]:  # fmt: skip
        """Return ``(n, m)`` values of the problem's objectives for evaluated archs; see `known`."""
        found = [self.known(a, archive, images, weights) for a in archs]
        genomes = self.layout.space.encode_many(archs)
        columns = []
        for objective in problem.objectives:
            if objective.evaluate_genomes is not None:
                columns.append(objective.evaluate_genomes(genomes))
            else:
                columns.append(np.array([values.get(objective.name, math.nan) for values in found]))
        return np.stack(columns, axis=1)

    def _write_front(self, device: Device, archive: Archive) -> None:
        problem = self.problem(device)
        archs = self.considered(device.name, archive)
        values = self._refined(device, problem, archs, archive)
        feasible = np.isfinite(values).all(axis=1) & (problem.violation(as_losses(values, problem.objectives)) <= 0)
        if not feasible.any():
            marker = self._device_folder(device.name) / SEARCH_FILE
            message = json.loads(marker.read_text(encoding="utf-8"))["message"]
            raise RecipeError(f"{device.name} has no model within the limits: {message}; loosen the constraints")
        rows = choose_front(values, problem.objectives, feasible, self.recipe.export.front_size)
        chosen = [archs[i] for i in rows]
        write_front(
            self._device_folder(device.name) / FRONT_FILE, chosen, self.columns(device, chosen, archive),
            self.weights_of(device.name) if self.adapted(device.name) else "",
        )  # fmt: skip

    def _refined(
        self, device: Device, problem: Problem, archs: Sequence[Arch], archive: Archive
    ) -> NDArray[np.float64]:
        """``(n, m)`` values, those of archs that may be on the front from all validation images.

        What is evaluated again follows from the archs alone, so a second start evaluates and finds the same.
        """
        weights = self.weights_of(device.name)
        values = self.values(problem, archs, archive, self.n_searched, weights)
        names = [o.name for o in problem.objectives]
        if self.n_searched == self.n_validation or "top1_percent" not in names:
            return values
        column = names.index("top1_percent")
        stderr = np.zeros_like(values)
        stderr[:, column] = [
            self.known(a, archive, self.n_searched, weights).get("top1_stderr_percent", 0.0) for a in archs
        ]
        certain = np.zeros(len(archs), dtype=bool)
        while True:
            rows = np.flatnonzero(may_be_on_front(problem, as_losses(values, problem.objectives), stderr) & ~certain)
            if not len(rows):
                return values
            again = [archs[int(i)] for i in rows]
            for done, arch in enumerate(again, 1):
                self.evaluated(arch, archive, None, weights)
                self.progress(f"more images for {device.name}", done, len(rows), f"{self.n_validation} images")
            values[rows] = self.values(problem, again, archive, self.n_validation, weights)
            stderr[rows] = 0.0  # there are no further images
            certain[rows] = True

    def columns(self, device: Device, archs: Sequence[Arch], archive: Archive) -> dict[str, NDArray[np.float64]]:
        """Return ``(n,)`` values by name: everything known of evaluated archs on a device."""
        weights = self.weights_of(device.name)
        known = [self.known(a, archive, None, weights) for a in archs]
        out = {n: np.array([k.get(n, math.nan) for k in known]) for n in ("top1_percent", "introspectability")}
        out["latency_ms"] = device.compile(self.layout).of_archs(archs)
        out["params"], out["macs"] = self.params.of_archs(archs), self.macs.of_archs(archs)
        out |= {name: np.array([k.get(name, math.nan) for k in known]) for name in self.proxies}
        out["top1_stderr_percent"] = np.array([k.get("top1_stderr_percent", math.nan) for k in known])
        out["latency_stderr_ms"] = np.sqrt(latency_variance(device, self.layout).of_archs(archs))
        members = non_dominated(np.stack([-out["top1_percent"], out["latency_ms"]], axis=1))
        out["on_accuracy_latency_front"] = members.astype(float)
        out["near_tie"] = near_ties(
            out["top1_percent"], out["top1_stderr_percent"], out["latency_ms"], out["latency_stderr_ms"], members
        ).astype(float)
        out |= measured_columns(archive, device.name, archs, weights, out["top1_percent"])
        return out

    def front(self, device: str) -> Front:
        """Return the front of a device.

        Raises:
            RecipeError: the run has no such device, or it has not been searched.
        """
        path = self._device_folder(device) / FRONT_FILE
        if not path.exists():
            known = sorted(p.parent.name for p in self.folder.glob(f"devices/*/{FRONT_FILE}"))
            raise RecipeError(
                f"{self.folder} has no front of {device!r}; it has {known}; search it with `hwnas search`"
            )
        return read_front(path, device)

    @_writes
    def export(self) -> None:
        """Write a bundle for every member of every front, with test accuracy."""
        fronts = {name: self.front(name) for name in self.devices}
        total = sum(map(len, fronts.values()))
        with self.archive() as archive:
            done = 0
            for name, front in fronts.items():
                for model in front:
                    done += 1
                    if not self._is_exported(model.folder, self.weights_of(name)):
                        arch = archive.find(model.key)
                        assert arch is not None, "the front is made from the archive"
                        self.export_model(arch, self.devices[name], model.folder, archive)
                    self.progress("export", done, total, f"{name} {model.key}")

    @staticmethod
    def _is_exported(folder: Path, weights: str) -> bool:
        """Whether a bundle is there and of these weights; another search may have left one of others."""
        return (folder / "metrics.json").exists() and Bundle(folder).metrics.get("weights_version", weights) == weights

    def export_model(self, arch: Arch, device: Device, folder: Path, archive: Archive) -> Bundle:
        """Write the bundle of one arch, evaluated on validation and, once, on test."""
        weights = self.weights_of(device.name)
        evaluator, values = self.evaluator_of(weights), self.evaluated(arch, archive, None, weights)
        subnet = evaluator.subnet(arch)
        test = archive.values(arch, weights, "test").get("top1_percent")
        if test is None:
            started = time.monotonic()
            test = top1_percent(subnet, evaluator.inputs(self.splits.test, arch), self.splits.test.labels)
            archive.add(
                Evaluation(arch, {"top1_percent": test}, weights, "test", self.recipe.search.seed,
                           time.monotonic() - started, {"images": len(self.splits.test)})
            )  # fmt: skip
        metrics = {
            "key": arch.key,
            "device": device.name,
            "latency_ms": float(device.compile(self.layout).of_archs([arch])[0]),
            "latency_origin": device.profile.origin,
            "top1_percent": values["top1_percent"],
            "top1_stderr_percent": values["top1_stderr_percent"],
            "test_top1_percent": test,
            "introspectability": values["introspectability"],
            "params": count_params(subnet),
            "macs": fvcore_macs(subnet, self.layout.input_shape(arch)),
            "weights_version": weights,
        }
        bundle = self._write_bundle(subnet, arch, folder, metrics)
        return bundle

    def _write_bundle(self, subnet: torch.nn.Sequential, arch: Arch, folder: Path, metrics: dict[str, Any]) -> Bundle:
        inputs = self.evaluator.inputs(self.splits.validation, arch)[:PARITY_IMAGES]
        bundle = write_bundle(
            folder, subnet, arch, self.recipe.supernet, self.splits.classes, self.splits.mean_std, metrics, inputs
        )
        if self.recipe.export.int8:
            calibration = self.evaluator.inputs(self.splits.train, arch)[:128]
            quantize_onnx(folder / "model.onnx", folder / "model.int8.onnx", calibration)
        return bundle

    @_writes
    def check_latency(self) -> None:
        """Time the exported models of every device that this machine is, beside their estimates."""
        for name, device in self.devices.items():
            if not is_here(device):
                continue
            path = self._device_folder(name) / "latency_check.json"
            front = self.front(name)
            if not was_checked(path, list(front)):
                with self.archive() as archive:
                    archs = [self.find(m.key, archive) for m in front]
                    folder = self._device_folder(name)
                    checked = check_models(self.layout, device, folder, list(front), archs, self._progress(name))
                    keep_measured(archive, name, checked, self.weights_of(name), self.recipe.search.seed)
                    self._write_front(device, archive)
                write_json(path, checked.values)

    @_writes
    def report(self, others: Sequence[Run] = ()) -> Path:
        """Write ``report.html`` and ``fronts.png``; return the HTML file.

        Args:
            others: runs on the same data, such as ones of other seeds: the page shows what all, half and one of them
                reached on each device.

        Raises:
            RecipeError: a run on other data, or one that has no device in common.
        """
        from hwnas.runs.analysis.results import collect
        from hwnas.report.html import write_report

        with self.archive() as archive:
            results = collect(self, archive, others)
        return write_report(results, self.folder)

    def finetune(
        self, key: str, out: Path, config: FinetuneConfig | None = None, device: str | None = None
    ) -> tuple[FinetuneResult, Bundle]:
        """Fine-tune one evaluated arch with distillation from the largest net; write a new bundle.

        Args:
            key: of the arch; the first few digits are enough where they are unique.
            out: the new bundle's folder.
            config: default: that of the recipe.
            device: whose latency the bundle states, and whose weights are meant where they were adapted; default: the
                first device.

        Raises:
            RecipeError: no such arch in the archive.
        """
        config = config or self.recipe.finetune
        with self.archive() as archive:
            arch = self.find(key, archive)
        target = self.devices[device] if device else next(iter(self.devices.values()))
        weights = self.weights_of(target.name)
        evaluator = self.evaluator_of(weights)
        resolution = arch.int("resolution")
        largest = self.layout.space.restrict({"resolution": [resolution]}).largest()
        teacher = evaluator.subnet(largest) if config.distill_ratio else None
        result = finetune(
            evaluator.subnet(arch), resolution, self.splits, config, self.recipe.data.augment, teacher,
            self.progress,
        )  # fmt: skip
        network = result.network
        assert isinstance(network, torch.nn.Sequential)
        score = evaluator.score_network(network, arch)
        test = top1_percent(network, evaluator.inputs(self.splits.test, arch), self.splits.test.labels)
        metrics = {
            "key": arch.key,
            "device": target.name,
            "latency_ms": float(target.compile(self.layout).of_archs([arch])[0]),
            "latency_origin": target.profile.origin,
            "top1_before_percent": result.top1_before_percent,
            **asdict(score),
            "test_top1_percent": test,
            "params": count_params(network),
            "macs": fvcore_macs(network, self.layout.input_shape(arch)),
            "finetuned_from": weights,
            "best_epoch": result.best_epoch,
        }
        return result, self._write_bundle(network, arch, out, metrics)

    def find(self, key: str, archive: Archive) -> Arch:
        """Return the evaluated arch whose key begins with ``key``."""
        arch = archive.find(key)
        if arch is None:
            known = ", ".join(m.key for name in self.devices for m in self.front(name)[:3])
            raise RecipeError(f"no single model {key!r} in {self.folder}; keys of its fronts are {known}, ...")
        return arch

    @_writes
    def run(self) -> Run:
        """Do everything that is not done yet."""
        steps: list[Callable[[], object]] = [
            self.train, self.tables, self.search, self.export, self.check_latency, self.report,
        ]  # fmt: skip
        for step in steps:
            step()
        return self

def _judged(searcher: Searcher) -> dict[str, Any]:
    """What ``search.json`` says of the predictor, for searchers that have one."""
    judge = getattr(searcher, "predictor_quality", None)
    return {} if judge is None else {"predictor": {name: asdict(found) for name, found in judge().items()}}

def _searched_with(marker: Path, settings: dict[str, Any]) -> bool:
    """Whether a device was searched with these settings; ones younger than the file stand at their defaults in it."""
    if not marker.exists():
        return False
    found = json.loads(marker.read_text(encoding="utf-8"))["settings"]
    with suppress(ValidationError, KeyError):
        found["search"] = SearchConfig.model_validate(found["search"]).model_dump(mode="json")
    return bool(found == settings)

def _cheap(name: str, sums: SlotSum) -> Objective:
    return Objective(name, "min", sums.of_archs, cheap=True, evaluate_genomes=sums.of_genomes)

def start_run(recipe: Recipe, out: Path, progress: Progress = silent) -> Run:
    """Open or create a run folder for a recipe; nothing is computed yet.

    Raises:
        ResumeError: the folder holds a run whose supernet, training, data or evaluation differ.
        OutputError: it cannot be written.
        DeviceError, DataError: devices or data of the recipe cannot be used; nothing is written then.
    """
    run = Run(out, recipe, progress)
    run.devices  # noqa: B018 (a mistake in the recipe is found before anything is written)
    run.check_phases()
    run.check_devices()
    path = out / "recipe.yaml"
    if path.exists():
        known = load_recipe(path)
        if known.values_hash() != recipe.values_hash():
            differing = [
                s for s in ("supernet", "train", "data", "evaluation") if getattr(known, s) != getattr(recipe, s)
            ]
            raise ResumeError(
                f"{out} holds a run with other settings of {', '.join(differing)}; "
                "use another --out, or the same recipe"
            )
    run.splits  # noqa: B018
    make_folder(out)
    write_text(path, recipe.as_yaml())
    if not (out / "manifest.json").exists():
        write_json(out / "manifest.json", make_manifest(recipe, run.splits))
    return run

def open_run(folder: str | Path, progress: Progress = silent) -> Run:
    """Open an existing run folder with the recipe it was made with.

    Raises:
        CheckpointError: the folder holds no run.
    """
    path = Path(folder) / "recipe.yaml"
    if not path.exists():
        raise CheckpointError(f"{folder} is no run folder: it has no recipe.yaml; make one with `hwnas run RECIPE`")
    return Run(Path(folder), load_recipe(path), progress)

def run(
    recipe: str | Path,
    devices: Sequence[str] | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    progress: Progress = silent,
    budget_s: float | None = None,
) -> Run:
    """Do the whole chain: train, search every device, export, check and report; continue what is there.

    Args:
        recipe: a YAML file or the name of a shipped recipe.
        devices: names or folders of device profiles; default: those of the recipe.
        out: the run folder; default: ``runs/<name of the recipe>``.
        overrides: dotted settings such as ``search.evaluations=50``.
        progress: told of everything that takes time.
        budget_s: seconds for the search of all devices, which is sized by them; None: as the recipe says.

    Returns:
        The run; ``run.front("hexagon-dsp").knee().export("out/")`` gives a model.

    Raises:
        HwnasError: anything the user can correct, in one line.
    """
    loaded = load_recipe(recipe, overrides)
    if devices is not None:
        loaded = check_recipe({**loaded.model_dump(mode="json"), "devices": list(devices)}, str(recipe))
    if budget_s is not None:
        check_sizable(loaded.search)
    started = start_run(loaded, Path(out) if out is not None else Path("runs") / loaded.name, progress)
    started.budget_s = budget_s
    return started.run()
