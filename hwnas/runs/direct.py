"""How do devices get models without a supernet? Archs chosen without training, each trained from fresh weights.

For few models this is the better use of the time: nothing is spent on weights that no model keeps. The archs are those
of greatest capacity at each latency; all are trained together, the largest teaching the others (`hwnas.runs.finish`).
Where the time is short, one network stands for several latencies and devices, and is trained for longer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SearchError
from hwnas.latency.build import needs_table
from hwnas.latency.table import Device
from hwnas.runs.choose import ToFinish, front_stands
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.runs.history import DeviceSearch, SearchRecord, read_history, write_history
from hwnas.runs.problem import make_problem
from hwnas.search.capacity import ROUNDING, Capable, Values, capacity, most_capable
from hwnas.search.problem import Problem
from hwnas.search.region import Region
from hwnas.search.sharing import share
from hwnas.space import Arch, SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Devices = Mapping[str, tuple[Device, DeviceSearch]]
"""Devices with their settings, by name."""

LOOKED_AT = 2000
"""Archs from which a message takes how near the space comes to a limit."""

FRESH = ""
"""Stands for the version of weights that nothing has trained."""


@dataclass(frozen=True)
class DirectChoice:
    """Which networks are trained for devices."""

    archs: Mapping[str, Sequence[Arch]]
    """By device, fastest first."""
    longer: float = 1.0
    """Times ``finish.epochs`` that each is trained, since some serve several latencies: for the same compute."""

    @property
    def networks(self) -> list[Arch]:
        """Different archs of all devices."""
        return list(dict.fromkeys(arch for archs in self.archs.values() for arch in archs))


class DirectWishes:
    """What devices want without a supernet: for each of several latencies the network that can learn most.

    The latency of a device whose table is still to be measured is taken to grow with the multiply-adds.

    Raises:
        SearchError: no arch is within the limits of a device that can be checked without training.
    """

    def __init__(self, context: RunContext, devices: Devices):
        self.context, self.devices = context, devices
        self.capable = {name: self._capable(device, settings) for name, (device, settings) in devices.items()}

    @property
    def n_latencies(self) -> int:
        """Wanted latencies of all devices."""
        return sum(len(capable.targets) for capable in self.capable.values())

    def own(self) -> DirectChoice:
        """Return for each latency of each device the network that can learn most."""
        return DirectChoice({name: capable.archs for name, capable in self.capable.items()})

    def choice(self, epochs: float) -> DirectChoice:
        """Return the networks that are best trained.

        Args:
            epochs: passes over the images of each network, if each latency got its own; the compute that this takes
                is what there is.
        """
        own = self.own()
        settings = [settings for _, settings in self.devices.values()]
        if not all(s.finish.shared for s in settings) or self.context.recipe.supernet.precisions:
            return own  # of a network in two precisions two are trained
        fronts = [*self.capable.values(), *([self._for_all_devices()] if len(self.devices) > 1 else [])]
        pool = list(dict.fromkeys(arch for capable in fronts for arch in capable.all_archs))
        macs, compute = self._macs(pool), epochs * float(self._macs(own.networks).sum())
        rows = share(np.concatenate([self._worth(name, pool) for name in self.devices], axis=1), macs, compute)
        ends = np.cumsum([len(capable.targets) for capable in self.capable.values()])[:-1]
        archs = {
            name: list(dict.fromkeys(pool[row] for row in of_device if row >= 0))
            for name, of_device in zip(self.devices, np.split(rows, ends), strict=True)
        }
        chosen = DirectChoice(archs)
        if len(chosen.networks) >= len(own.networks):
            return own
        return DirectChoice(archs, float(self._macs(own.networks).sum() / self._macs(chosen.networks).sum()))

    def _capable(self, device: Device, settings: DeviceSearch) -> Capable:
        if needs_table(device):
            return _by_macs(self.context, settings)
        problem, whole = make_problem(self.context, device, settings), self.context.layout.space

        def whole_of(genomes: IntArray) -> IntArray:
            return whole.genomes_of(problem.space, genomes)

        found = most_capable(
            problem.space, lambda genomes: self._capacity(whole_of(genomes)),
            lambda genomes: self._latency(device)(whole_of(genomes)), lambda genomes: _violation(problem, genomes),
            settings.finish.models, settings.finish.latencies_ms.get(device.name, ()), settings.search.seed,
            _largest_images(problem.space),
        )  # fmt: skip
        if not found.fronts:
            raise SearchError(
                f"no arch of this space {_how_near(problem, device.name)}; loosen a limit or change supernet"
            )
        if not found.archs:
            wanted = ", ".join(f"{ms:g}" for ms in settings.finish.latencies_ms[device.name])
            fastest_ms = float(np.exp(min(at[0] for _, at in found.fronts)))
            limits = f" that keeps {', '.join(settings.constraints)}" if settings.constraints else ""
            raise SearchError(
                f"no arch of this space{limits} is as fast as {wanted} ms on {device.name} (finish.latencies_ms); the "
                f"fastest takes {fastest_ms:.4g} ms: ask for that or more, or change supernet"
            )
        return found

    def _for_all_devices(self) -> Capable:
        """Archs of greatest capacity for all devices at once.

        Their latency is the one that is longest, each in units of the shortest that is wanted of its device.
        """
        space, timed, problems = self.context.layout.space, [], []
        for name, (device, settings) in self.devices.items():
            timed.append((self._latency(device), float(np.exp(self.capable[name].targets[0]))))
            if not needs_table(device):
                problems.append(make_problem(self.context, device, settings))
        seed = next(settings.search.seed for _, settings in self.devices.values())
        return most_capable(
            space, self._capacity,
            lambda genomes: np.max([latency_of(genomes) / shortest for latency_of, shortest in timed], axis=0),
            lambda genomes: np.sum([_violation(p, genomes) for p in problems], axis=0) + np.zeros(len(genomes)), 1,
            seed=seed, preferred=_largest_images(space),
        )  # fmt: skip

    def _capacity(self, genomes: IntArray) -> FloatArray:
        context = self.context
        return capacity(*(of.of_genomes(genomes) for of in (context.macs, context.params, context.entropy)))

    def _latency(self, device: Device) -> Values:
        """Of genomes; multiply-adds stand for it where it is still to be measured."""
        if needs_table(device):
            return self.context.macs.of_genomes
        return device.compile(self.context.layout).of_genomes

    def _worth(self, name: str, archs: Sequence[Arch]) -> FloatArray:
        """``(archs, latencies)`` capacity of archs at each latency of a device, -inf where they may not be chosen."""
        device, settings = self.devices[name]
        targets, context = self.capable[name].targets, self.context
        genomes, allowed = context.layout.space.encode_many(archs), np.ones(len(archs), dtype=bool)
        if not needs_table(device):
            problem = make_problem(context, device, settings)
            allowed = _violation(problem, problem.space.encode_many(archs)) <= 0
        at, worth = np.log(self._latency(device)(genomes)), self._capacity(genomes)
        fast = allowed[:, None] & (at[:, None] <= targets + ROUNDING)
        largest = context.layout.space["resolution"].options[-1]
        preferred = fast & np.array([arch["resolution"] == largest for arch in archs])[:, None]
        return np.where(np.where(preferred.any(axis=0), preferred, fast), worth[:, None], -np.inf)

    def _macs(self, archs: Sequence[Arch]) -> FloatArray:
        return np.asarray(self.context.macs.of_archs(archs), dtype=float)


def _violation(problem: Problem, genomes: IntArray) -> FloatArray:
    return problem.violation(problem.cheap_losses(genomes))


def _how_near(problem: Problem, device: str) -> str:
    """Say which limits no arch keeps, and how near the archs come to each that keep the others."""
    space = problem.space
    ends = space.encode_many([space.smallest(), space.largest()])
    genomes = np.concatenate([ends, space.sample_genomes(np.random.default_rng(0), LOOKED_AT)])
    values = {
        c.name: np.asarray(c.evaluate_genomes(genomes), dtype=float)
        for c in problem.columns
        if c.evaluate_genomes is not None
    }
    limits = [limit for limit in problem.limits if limit.value in values]
    kept = [np.array([limit.holds(v) for v in values[limit.value].tolist()]) for limit in limits]
    near = []
    for i, limit in enumerate(limits):
        others = np.all([np.ones(len(genomes), dtype=bool), *kept[:i], *kept[i + 1 :]], axis=0)
        if others.any():
            found = values[limit.value][others]
            nearest = float(found.min() if limit.comparison == "<=" else found.max())
            which = f"to {limit} that keeps the others " if len(limits) > 1 else ""
            near.append(f"the nearest {which}has {nearest:.4g} {limit.value}")
    said = ", and ".join(near) or "none keeps all limits but one"
    return f"keeps {' and '.join(map(str, limits))} on {device}; of {len(genomes):,} that were looked at {said}"


def _by_macs(context: RunContext, settings: DeviceSearch) -> Capable:
    """Archs whose multiply-adds, which stand for latencies, are spread evenly over their logarithm."""
    space, n = context.layout.space, settings.finish.models
    archs = [space.smallest(), *space.sample(np.random.default_rng(0), 500), space.largest()]
    macs = np.log(context.macs.of_archs(archs))
    targets = np.linspace(macs[0], macs[-1], n) if n > 1 else macs[-1:]
    near = np.unique([int(np.argmin(np.abs(macs - target))) for target in targets])
    near = near[np.argsort(macs[near], kind="stable")]
    return Capable(space, ((space.encode_many([archs[i] for i in near]), macs[near]),), macs[near])


def _identity(device: Device, settings: DeviceSearch) -> dict[str, Any]:
    """What tells one choice of archs from another."""
    return settings.identity(device, FRESH) | {
        "strategy": "direct",
        "finish": settings.finish.model_dump(mode="json"),
    }


def _largest_images(space: SearchSpace) -> Region:
    """The part of the space at its largest resolution.

    At equal latency smaller images leave room for more parameters, but in a short training such networks came out 1 to
    1.5 points behind (CIFAR-10, 5,400 images, two latencies).
    """
    last = len(space["resolution"].options) - 1
    return Region.whole(space).with_options("resolution", np.array([last], dtype=np.int64))


def _missed(context: RunContext, device: Device, settings: DeviceSearch, archs: Sequence[Arch]) -> str:
    """Say which wanted latencies no arch reaches."""
    fastest_ms = float(device.compile(context.layout).of_archs(archs).min())
    wanted = sorted(settings.finish.latencies_ms.get(device.name, ()))
    missed = ", ".join(f"{ms:g}" for ms in wanted if ms < fastest_ms)
    return f"; none within the limits is as fast as {missed} ms" if missed else ""


def search_directly(evaluations: Evaluations, devices: Devices) -> None:
    """Choose the archs of devices together and note them as their searches, but for devices where that was done.

    A device that has its search but no front yet is of a choice that was interrupted, and is looked at again with the
    others: they would get other archs without it.
    """
    context, archive = evaluations.context, evaluations.archive
    histories = {name: read_history(context.folder.device(name)) for name in devices}
    identities = {name: _identity(device, settings) for name, (device, settings) in devices.items()}
    names = {name: histories[name].name_of(name, identities[name]) for name in devices}
    missing = [name for name in devices if not histories[name].done(names[name])]
    if not missing:
        return
    together = {n: d for n, d in devices.items() if n in missing or not front_stands(evaluations, *d)}
    started = time.monotonic()
    wishes = DirectWishes(context, together)
    n_own = len(wishes.own().networks)
    choice = wishes.choice(min(settings.finish.epochs for _, settings in together.values()))
    shared = ""
    if choice.longer > 1:
        shared = (
            f"; of all devices together {len(choice.networks)} instead of {n_own}, and so {choice.longer:.2g} times as "
            "long (finish.shared)"
        )
    duration_s = round(time.monotonic() - started, 3)
    for name in missing:
        (device, settings), archs = devices[name], choice.archs[name]
        archive.begin(names[name], name)
        archive.forget_requests(names[name])
        archive.request(names[name], archs)
        message = (
            f"{len(archs)} arch{'s' * (len(archs) > 1)} chosen by MACs, parameters and depth, without a supernet, and "
            f"trained from fresh weights{shared}{_missed(context, device, settings, archs)}"
        )
        record = SearchRecord(
            names[name], identities[name], len(archs), 0, "direct", message, duration_s, longer=choice.longer
        )
        write_history(context.folder.device(name), histories[name].with_search(record))


def chosen_directly(evaluations: Evaluations, device: Device, settings: DeviceSearch) -> ToFinish:
    """Return the archs that `search_directly` chose with these settings, to begin with fresh weights."""
    history = read_history(evaluations.context.folder.device(device.name))
    name = history.name_of(device.name, _identity(device, settings))
    longer = next(record.longer for record in history.searches if record.search == name)
    return ToFinish([Candidate(arch, FRESH) for arch in evaluations.archive.requested([name])], longer)
