"""How is a supernet trained and searched for one device alone, stage by stage? HURRICANE, from operators to models.

1. Every operator of the pool is timed (or modelled) at every layer, and each layer keeps a few (`operators.txt`).
2. The stages that the recipe's first phase opens, the later ones, are trained with the operators that they kept; every
   other layer stands at its default.
3. For each target latency these stages are searched, and fixed at the most accurate network that is as fast.
4. The next phase, of the earlier stages, begins with the weights so far and ends with the next search.

What is handed over for a latency is the best that any stage found. Target latencies are `FinishConfig.latencies_ms`.

Reference:
    Zhang et al., 2020, HURRICANE. Its full text was not at hand: scores of operators, defaults and the split of the
    evaluations among searches are ours.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import RecipeError, SearchError, TrainingError
from hwnas.files import write_text
from hwnas.latency.table import Device
from hwnas.objectives import as_losses
from hwnas.runs.adaptation import train_for_device
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.runs.history import STAGE, Adapted, DeviceSearch, SearchRecord, read_history, write_history
from hwnas.runs.learnt import not_learnt
from hwnas.runs.problem import evaluated_values, make_problem
from hwnas.runs.search import evaluate_for, predictor_quality
from hwnas.search.loop import run_search
from hwnas.search.operators import keep_operators, operators_table
from hwnas.search.problem import Problem
from hwnas.search.specialise import Specialisation
from hwnas.space import Arch
from hwnas.space.choice import Option
from hwnas.supernet.slot_sum import SlotSum
from hwnas.train.phases import PhaseConfig

FloatArray = NDArray[np.float64]
Options = Mapping[str, Sequence[Option]]


def check_strategy(context: RunContext, wanted: Mapping[str, DeviceSearch], budget_s: float | None = None) -> None:
    """Raise where devices are to be searched in stages and cannot be; others are not looked at.

    Raises:
        RecipeError: a phase opens no stages, or two open the same one; there is no phase; a time is to size it, or
            precisions to choose from are given, or
            devices are to be searched otherwise beside it.
    """
    asked = {settings.search.strategy for settings in wanted.values()}
    if "staged" not in asked:
        return
    if len(asked) > 1:
        raise RecipeError(
            f"search.strategy is {' and '.join(sorted(asked))} for different devices; search them one after the other"
        )
    if budget_s is not None:
        raise RecipeError(
            "a budget does not divide a staged training; set search.evaluations and the epochs of train.phases"
        )
    if context.recipe.supernet.precisions:
        raise RecipeError(
            "search.strategy staged times every operator in one precision; leave out supernet.precisions, and search "
            "the device once in each"
        )
    phases = context.recipe.train.phases
    opened = [stage for phase in phases for stage in phase.open_stages]
    without = [phase.name for phase in phases if not phase.open_stages]
    if not phases or without or len(set(opened)) != len(opened):
        found = {phase.name: list(phase.open_stages) for phase in phases}
        raise RecipeError(
            f"search.strategy staged searches the stages that each phase of train opens (open_stages), each once, but "
            f"the phases open {found}; give every phase stages of its own, the later ones first"
        )


def operators_of(context: RunContext, device: Device, keep: int) -> Specialisation:
    """Return which operators every layer keeps for a device, with their times and scores.

    Layers are the choices of stages that switch no other choice on or off.
    """
    space = context.layout.space
    parents = {choice.parent for choice in space.choices}
    layers = [name for stage in space.stages for name in stage if name not in parents]

    def by_layer(sums: SlotSum) -> dict[str, FloatArray]:
        return {name: _of_options(sums, name) for name in layers}

    capacity = (by_layer(context.macs), by_layer(context.params))
    return keep_operators(space, by_layer(device.compile(context.layout)), capacity, keep, "latency_ms")


def _of_options(sums: SlotSum, name: str) -> FloatArray:
    """``(n_options,)`` what a choice's options contribute in their own blocks, the mean over all other choices."""
    position = sums.layout.space.position(name)
    total = np.zeros(len(sums.layout.space[name].options))
    for positions, values in sums.tables:
        if position in positions:
            axis = positions.tolist().index(position)
            total += np.moveaxis(values, axis, 0).reshape(len(total), -1).mean(axis=1)
    return total


def target_latencies(settings: DeviceSearch, device: Device, fastest_ms: float, largest_ms: float) -> list[float]:
    """Return the latencies for which a device is searched, ascending.

    Those that are asked for; else one for each wanted model, even in the logarithm between the fastest network and the
    one of most capacity.
    """
    asked = settings.finish.latencies_ms.get(device.name, ())
    if asked:
        return sorted(set(asked))
    n = max(1, settings.finish.models)
    return [float(f"{ms:.4g}") for ms in np.geomspace(fastest_ms, largest_ms, n + 2)[1:-1]]


def search_staged(evaluations: Evaluations, device: Device, settings: DeviceSearch) -> None:
    """Choose operators, then train and search every stage of a device for every target latency; what is done, stands.

    Raises:
        SearchError: no network of a stage is within the limits.
        TrainingError: the loss is not finite.
    """
    evaluations = evaluations.of_device(device)
    context = evaluations.context
    kept = operators_of(context, device, settings.search.operators_kept)
    path = context.folder.device(device.name).operators
    write_text(path, f"{operators_table(kept)}\n")
    context.told_for(device.name)("operators", 1, 1, f"{kept.summary()}; table in {path}")
    _Staged(evaluations, device, settings, kept).run()


@dataclass
class _Begun:
    """Where the search of one target latency has come to."""

    arch: Arch
    """The best so far; at first every layer at its default."""
    start: tuple[Path | str, str] = ("", "")
    """Folder and version of the weights that the next stage begins with."""


@dataclass(frozen=True)
class _Stage:
    """One stage for one target latency, with the weights that were trained for it."""

    number: int
    phase: PhaseConfig
    target_ms: float
    only: Options
    """The options that every choice may take."""
    version: str
    folder: Path
    before: Arch | None
    """The best of the stage before."""

    @property
    def text(self) -> str:
        """For messages."""
        return f"stage {self.number} ({self.phase.name}) under {self.target_ms:g} ms"


class _Staged:
    """The search of one device."""

    def __init__(
        self, evaluations: Evaluations, device: Device, settings: DeviceSearch, operators: Specialisation
    ) -> None:  # fmt: skip
        self.evaluations, self.device, self.settings, self.operators = evaluations, device, settings, operators
        self.context = evaluations.context
        self.space = self.context.layout.space
        self.latency = device.compile(self.context.layout)
        self.phases = self.context.recipe.train.phases
        self.kept = {c.name: c.options for c in operators.restricted.choices}
        self.images = self.context.searched_images(settings.search)
        self.wanted = evaluated_values(self.context, settings)

    def run(self) -> None:
        """Train and search every stage for every target latency."""
        fastest, default, largest = self._arch("cost"), self._arch("score"), self._arch("capacity")
        fastest_ms, largest_ms = self.latency.of_archs([fastest, largest]).tolist()
        targets = target_latencies(self.settings, self.device, fastest_ms, max(fastest_ms, largest_ms))
        if targets[0] < fastest_ms:
            raise SearchError(
                f"no network of {self.device.name} is as fast as {targets[0]:g} ms (finish.latencies_ms); the fastest "
                f"takes {fastest_ms:.4g} ms"
            )
        opened = self._open(self.phases[0])
        least = self.space.arch({c: (fastest if c in opened else default)[c] for c in default})
        if float(self.latency.of_archs([least])[0]) > targets[0]:
            default = fastest  # else the smallest target leaves no room for the stages that are searched first
        begun = {target: _Begun(default) for target in targets}
        size = max(1, self.settings.search.evaluations // (len(self.phases) * len(targets)))
        for number, phase in enumerate(self.phases, 1):
            for target, at in begun.items():
                stage = self._trained(number, phase, target, at)
                at.arch, at.start = self._searched(stage, size), (stage.folder, stage.version)

    def _open(self, phase: PhaseConfig) -> set[str]:
        """Choices that vary in a phase: those of its stages, and those outside of all stages."""
        staged = {name for stage in self.space.stages for name in stage}
        inside = {name for s, stage in enumerate(self.space.stages, 1) if s in phase.open_stages for name in stage}
        return inside | {c.name for c in self.space.choices if c.name not in staged}

    def _arch(self, kind: Literal["cost", "score", "capacity"]) -> Arch:
        """Return the arch of every layer's operator of least cost, least score or greatest capacity among those kept.

        Other choices take the first option for the least cost, else the last.
        """
        genome = np.zeros(len(self.space), dtype=np.int64)
        for i, kept in enumerate(self.operators.kept):
            values = getattr(self.operators, kind)[i][kept]
            best = int(np.argmax(values) if kind == "capacity" else np.argmin(values))
            if not self.operators.cost[i].any():  # no layer
                best = 0 if kind == "cost" else -1
            genome[i] = kept[best]
        return self.space.decode(genome)

    def _trained(self, number: int, phase: PhaseConfig, target: float, at: _Begun) -> _Stage:
        """Train a stage, the layers outside of it at the best arch so far."""
        opened, only = self._open(phase), {}
        for choice in self.space.choices:
            held = at.arch[choice.name] if choice.name in at.arch else choice.options[0]
            only[choice.name] = self.kept[choice.name] if choice.name in opened else (held,)
        train = self.context.recipe.train
        # Another seed for every stage, so that images come in another order and with other augmentation.
        config = train.model_copy(
            update={"phases": (phase.model_copy(update={"only": only}),), "seed": train.seed + number - 1}
        )
        label = f"stage {number} ({phase.name}) for {self.device.name}"
        try:
            folder, version = train_for_device(self.evaluations, self.device.name, number, config, at.start, label)
        except TrainingError as error:
            raise TrainingError(f"{label}: {str(error).split(';', 1)[0]}; lower train.phases lr") from None
        return _Stage(number, phase, target, only, version, folder, at.arch if number > 1 else None)

    def _searched(self, stage: _Stage, size: int) -> Arch:
        """Search a stage under its latency, unless that was done; return the most accurate network that is as fast."""
        evaluations, archive, settings = self.evaluations, self.evaluations.archive, self.settings
        files = self.context.folder.device(self.device.name)
        limits = (*settings.constraints, f"latency_ms<={stage.target_ms!r}")
        wanted = {"objectives": (self.context.score.name,), "constraints": limits}
        problem = make_problem(self.context, self.device, settings.model_copy(update=wanted))
        part = problem.within(stage.only)
        before = [] if stage.before is None else [stage.before]
        identity = settings.identity(self.device, stage.version) | {
            STAGE: stage.number, "latency_ms": stage.target_ms, "before": [a.key for a in before],
        }  # fmt: skip
        name = read_history(files).name_of(self.device.name, identity)
        last_row = archive.begin(name, self.device.name)
        evaluations.evaluate([Candidate(a, stage.version) for a in before], self.wanted, self.images)
        known = evaluations.evaluated(stage.version, list(self.wanted.values()), last_row)
        known = list(dict.fromkeys([*before, *(a for a in known if part.space.contains(a))]))
        if not read_history(files).done(name):
            started = time.monotonic()
            archive.forget_requests(name)
            config = settings.search.model_copy(update={"evaluations": size})
            searcher = config.searcher(part)
            result = run_search(
                part, searcher,
                evaluate_for(evaluations, self.device.name, name, problem, config, self.wanted, lambda: stage.version),
                size, warm_start=(known, self._values(problem, known, stage)) if known else None,
            )  # fmt: skip
            _, message = self._best(problem, known, name, stage)
            folder = str(stage.folder.relative_to(files.root))
            record = SearchRecord(
                name, identity, result.evaluated, len(known), result.ended, message,
                round(time.monotonic() - started, 3), predictor_quality(searcher), 0,
                (Adapted(folder, stage.version, result.evaluated, stage.phase.frozen_stages, None, None),),
                not_learnt(evaluations, problem, archive.requested([name]), stage.version, self.images),
            )  # fmt: skip
            write_history(files, read_history(files).with_search(record))
        best, message = self._best(problem, known, name, stage)
        self.context.told_for(self.device.name)("staged search", stage.number, len(self.phases), message)
        return best

    def _values(self, problem: Problem, archs: Sequence[Arch], stage: _Stage) -> FloatArray:
        return self.evaluations.values(problem, [Candidate(a, stage.version) for a in archs], self.images)

    def _best(self, problem: Problem, known: Sequence[Arch], search: str, stage: _Stage) -> tuple[Arch, str]:
        """Return the most accurate network within the limits that a search knew or asked for, and a sentence on it."""
        archs = list(dict.fromkeys([*known, *self.evaluations.archive.requested([search])]))
        values = self._values(problem, archs, stage)
        losses = as_losses(values, problem.columns)
        inside = np.flatnonzero(np.isfinite(values).all(axis=1) & (problem.violation(losses) <= 0))
        if not len(inside):
            raise SearchError(
                f"{self.device.name}, {stage.text}: none of {len(archs)} networks is within the limits; give more time "
                "(finish.latencies_ms) or more evaluations"
            )
        ms = self.latency.of_archs(archs)
        row = int(inside[np.lexsort((ms[inside], losses[inside, 0]))[0]])
        score = self.context.score
        value = f"{values[row, 0]:.2f} {score.unit}".strip()
        return archs[row], f"{stage.text}: {score.title} {value} at {ms[row]:.4g} ms"
