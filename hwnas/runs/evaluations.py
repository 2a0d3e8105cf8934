"""What is known of archs, and how does more become known? By running their networks once and keeping the values.

Values are kept by arch, weights, precision and number of validation images. `evaluate` runs networks, through the run's
executor, and writes the archive; everything else only looks up. What is known for a device is in its own precision: the
scores of an int8 device are those of the quantised network, and those in float stand beside them
(`top1_fp32_percent`).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hwnas.archive import Archive, Evaluation
from hwnas.errors import ResumeError
from hwnas.latency.number_format import Precision, evaluated_precision
from hwnas.latency.table import Device
from hwnas.runs.context import RunContext
from hwnas.runs.folder import RunFolder
from hwnas.runs.recipe import Recipe
from hwnas.runs.weights import RunWeights
from hwnas.search.problem import Problem
from hwnas.space import Arch, SearchSpace
from hwnas.supernet.layout import PRECISION
from hwnas.task import Task

FloatArray = NDArray[np.float64]
Splits = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Candidate:
    """One model that a device may get: an arch with certain weights."""

    arch: Arch
    weights_version: str


@dataclass(frozen=True)
class _Job:
    """One evaluation, for an executor."""

    candidate: Candidate
    names: tuple[str, ...]
    """Evaluated objectives, in float."""
    images: int
    in_8_bits: bool = False
    """Whether the scores of the task are wanted in 8 bits, too."""


Found = dict[Precision, dict[str, float]]
"""Values by name, by precision."""


class RunNetwork:
    """Runs the network of a job and says what it gives and how long that took; a function that can be sent elsewhere.

    What is sent is where the run lies and its recipe; a worker opens the run when it is first asked, and keeps it open.
    """

    def __init__(self, weights: RunWeights) -> None:
        self._weights = weights
        self._sent: tuple[str, str] | None = None

    def __call__(self, job: _Job) -> tuple[Found, float]:
        """Return values and seconds."""
        started = time.monotonic()
        try:
            evaluator = self._weights.evaluator(job.candidate.weights_version)
        except ResumeError:
            if self._sent is None:
                raise
            _opened.cache_clear()  # the run has got new weights since this worker opened it
            self._weights = _opened(*self._sent)
            evaluator = self._weights.evaluator(job.candidate.weights_version)
        arch = job.candidate.arch
        if arch.space is None:  # it was sent here
            arch = self._weights.context.layout.space.arch(arch.as_dict())
        if not job.in_8_bits:
            found: Found = {"fp32": evaluator.score(arch, job.names, job.images)}
            return found, time.monotonic() - started
        network, networks = evaluator.subnet(arch), self._weights.context.networks
        found = {"int8": networks.score_in_8_bits(lambda: network, arch, job.images)}
        if job.names:
            found["fp32"] = networks.score(lambda: network, arch, job.names, job.images)
        return found, time.monotonic() - started

    def __getstate__(self) -> tuple[str, str]:
        context = self._weights.context
        recipe, path = context.recipe, context.recipe.data.path
        changes: dict[str, Any] = {"workers": 0}  # a worker decodes what it evaluates
        if path is not None and Path(path).exists():  # a worker may stand in another folder
            changes["path"] = str(Path(path).absolute())
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})
        return str(context.folder.root.absolute()), recipe.model_dump_json()

    def __setstate__(self, state: tuple[str, str]) -> None:
        self._sent, self._weights = state, _opened(*state)


@functools.lru_cache(maxsize=1)
def _opened(folder: str, recipe: str) -> RunWeights:
    """The weights of a run, as a worker sees them."""
    return RunWeights(RunContext(RunFolder(Path(folder)), Recipe.model_validate_json(recipe)))


@dataclass
class Evaluations:
    """The evaluations of one run, while its archive is open."""

    context: RunContext
    weights: RunWeights
    archive: Archive
    precision: Precision | None = "fp32"
    """Of the scores that are evaluated and looked up; None: of each arch the one that it names. See `of_device`."""
    _by_weights: dict[tuple[str, int | None, Precision | None], tuple[int, dict[str, Splits]]] = field(
        default_factory=dict, repr=False
    )

    def of_device(self, device: Device | str) -> Evaluations:
        """Return the same evaluations, as a device sees them: scores are those of its own precision."""
        found = self.context.device(device) if isinstance(device, str) else device
        return self.in_precision(evaluated_precision(found.profile.precision) if found.in_8_bits is None else None)

    def precision_of(self, arch: Arch) -> Precision:
        """Return in which precision an arch is evaluated."""
        if self.precision is not None:
            return self.precision
        return "int8" if arch[PRECISION] == "int8" else "fp32"

    def may_have(self, arch: Arch) -> bool:
        """Say whether an arch is one of the device's: it names no other precision than that of the device."""
        return self.precision is None or arch.get(PRECISION, self.precision) == self.precision

    def in_precision(self, precision: Precision | None) -> Evaluations:
        """Return the same evaluations with scores of a precision; None: of the one that an arch names."""
        return self if precision == self.precision else replace(self, precision=precision)

    # -- running networks ----------------------------------------------------------------------------

    def evaluate(
        self,
        candidates: Sequence[Candidate],
        wanted: Mapping[str, str],
        images: int | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> None:
        """Run the networks of archs of which a value is missing, and keep what they give.

        Args:
            candidates: archs and weights.
            wanted: names of evaluated objectives, and of the values that they give; see `evaluated_values`.
            images: validation images; None: all.
            on_done: told after every candidate, known or evaluated, how many are done.
        """
        n = images or self.context.validation_images
        jobs: dict[Candidate, _Job] = {}
        for candidate in candidates:
            missing, in_8_bits = self._missing(candidate, wanted, self.split(n))
            if missing or in_8_bits:
                jobs[candidate] = _Job(candidate, missing, n, in_8_bits)
        results = self.context.executor.map(RunNetwork(self.weights), list(jobs.values()))
        for done, candidate in enumerate(candidates, 1):
            if candidate in jobs:
                job = jobs.pop(candidate)
                found, seconds = next(results)
                for precision, values in found.items():
                    self.archive.add(
                        Evaluation(
                            candidate.arch, values, candidate.weights_version, self.split(n),
                            self.context.recipe.search.seed, seconds,
                            {"images": job.images, "torch": torch.__version__, **self._parent(candidate)}, precision,
                        )
                    )  # fmt: skip
            if on_done is not None:
                on_done(done)

    def _missing(self, candidate: Candidate, wanted: Mapping[str, str], split: str) -> tuple[tuple[str, ...], bool]:
        """Objectives that are to be evaluated in float, and whether scores are in 8 bits."""
        arch, version = candidate.arch, candidate.weights_version
        precision = self.precision_of(arch)
        in_8_bits = self._scores if precision == "int8" else frozenset()
        known = self.archive.values(arch, version, split)
        missing = tuple(n for n, value in wanted.items() if value not in known and value not in in_8_bits)
        if not in_8_bits & set(wanted.values()):
            return missing, False
        known = self.archive.values(arch, version, split, precision)
        return missing, any(value in in_8_bits and value not in known for value in wanted.values())

    @property
    def _scores(self) -> frozenset[str]:
        """What the task's meter gives, by name."""
        return frozenset(score.name for score in self.context.task.scores)

    def _parent(self, candidate: Candidate) -> dict[str, str]:
        """With which weights a finished model began."""
        finished = self.weights.finished.by_version.get(candidate.weights_version)
        return {} if finished is None else {"parent": finished.parent}

    def test(self, candidate: Candidate, network: nn.Module) -> dict[str, float]:
        """Return the scores of a model on the test images, from the archive or, once, from running its network."""
        precision = self.precision_of(candidate.arch)
        known = self.archive.values(candidate.arch, candidate.weights_version, "test", precision)
        if self.context.score.name in known:
            return known
        started, context = time.monotonic(), self.context
        tested = context.test_scores if precision == "fp32" else context.test_scores_in_8_bits
        found = tested(network, candidate.arch)
        score = self.context.score
        kept = {name: found[name] for name in (score.name, score.named("stderr")) if name in found}
        self.archive.add(
            Evaluation(
                candidate.arch, kept, candidate.weights_version, "test", self.context.recipe.search.seed,
                time.monotonic() - started, {"images": len(self.context.splits.test)}, precision,
            )
        )  # fmt: skip
        return kept

    # -- looking up ----------------------------------------------------------------------------------

    def split(self, images: int) -> str:
        """Return the name under which the archive keeps evaluations on so many validation images."""
        return "validation" if images == self.context.validation_images else f"validation:{images}"

    def images_of(self, split: str) -> int:
        """Return how many validation images a split has; 0 for other splits."""
        if split == "validation":
            return self.context.validation_images
        return int(split.removeprefix("validation:")) if split.startswith("validation:") else 0

    def known(
        self, candidate: Candidate, names: Iterable[str] = (), images: int | None = None, last_row: int | None = None
    ) -> dict[str, float]:
        """Return what evaluations of a model gave, by name; empty where it was not evaluated.

        Args:
            candidate: arch and weights.
            names: values that must be there.
            images: on exactly so many validation images, where that is known, else on the most.
            last_row: only what was known at this row of the archive.
        """
        splits = self._splits(candidate.weights_version, last_row).get(candidate.arch.key, {})
        complete = [s for s, values in splits.items() if self.images_of(s) and all(n in values for n in names)]
        if images is not None and (exact := self.split(images)) in complete:
            return splits[exact]
        best = max(complete, key=self.images_of, default=None)
        return {} if best is None else splits[best]

    def is_full(self, candidate: Candidate, names: Iterable[str]) -> bool:
        """Say whether all validation images have been seen."""
        full = self._splits(candidate.weights_version, None).get(candidate.arch.key, {}).get("validation", {})
        return all(name in full for name in names)

    def evaluated(self, weights_version: str, names: Sequence[str], last_row: int | None = None) -> list[Arch]:
        """Return the archs of which all named values are known, in the order of their first evaluation.

        Where archs name a precision, those of another than the device's are left out: they are the same networks.
        """
        found = [
            key
            for key, splits in self._splits(weights_version, last_row).items()
            if any(self.images_of(s) and all(n in values for n in names) for s, values in splits.items())
        ]
        return [arch for arch in self.archive.archs_of(found) if self.may_have(arch)]

    def values(
        self, problem: Problem, candidates: Sequence[Candidate], images: int | None = None, last_row: int | None = None
    ) -> FloatArray:
        """Return ``(n, columns)`` values of a problem, NaN where unknown; see `known`."""
        evaluated = [column.name for column in problem.columns if column.evaluate_genomes is None]
        found = [self.known(c, evaluated, images, last_row) for c in candidates]
        genomes = problem.space.encode_many([as_in(problem.space, c.arch) for c in candidates])
        columns = [
            column.evaluate_genomes(genomes)
            if column.evaluate_genomes is not None
            else np.array([values.get(column.name, math.nan) for values in found])
            for column in problem.columns
        ]
        return np.stack(columns, axis=1)

    def _splits(self, weights_version: str, last_row: int | None) -> dict[str, Splits]:
        """Everything known under some weights, read again where the archive has grown."""
        n = self.archive.last_row if last_row is None else 0
        kept = self._by_weights.get((weights_version, last_row, self.precision))
        if kept is None or kept[0] != n:
            found = self.archive.splits(weights_version, last_row=last_row)
            if self.precision != "fp32":
                found = self._beside(found, self.archive.splits(weights_version, "int8", last_row))
            kept = n, found
            self._by_weights[weights_version, last_row, self.precision] = kept
        return kept[1]

    def _beside(self, full: Mapping[str, Splits], own: Mapping[str, Splits]) -> dict[str, Splits]:
        """What is known in 8 bits, with what is known in float beside it; archs in the order of both.

        Of archs that name float, where each is seen in the precision that it names, what is known in float.
        """
        found: dict[str, Splits] = {}
        keys = list(dict.fromkeys([*own, *full]))
        for key, arch in zip(keys, self.archive.archs_of(keys), strict=True):
            if self.precision_of(arch) == "fp32":
                found |= {key: full[key]} if key in full else {}
                continue
            mine, others = own.get(key, {}), full.get(key, {})
            found[key] = {
                split: beside(others.get(split, {}), mine.get(split, {}), self.context.task)
                for split in dict.fromkeys([*mine, *others])
            }
        return found


def as_in(space: SearchSpace, arch: Arch) -> Arch:
    """Return an arch as it stands in a space that fixes the precision, as that of a device without the choice does."""
    if PRECISION not in space or len(options := space[PRECISION].options) > 1:
        return arch
    return space.arch({**arch.as_dict(), PRECISION: options[0]})


def beside(full: Mapping[str, float], own: Mapping[str, float], task: Task) -> dict[str, float]:
    """Return values in a device's precision, with the task's scores in float beside them under names of their own."""
    renamed = {score.name: score.named("fp32") for score in task.scores}
    stderrs = {score.named("stderr") for score in task.scores}
    return {renamed.get(name, name): value for name, value in full.items() if name not in stderrs} | dict(own)
