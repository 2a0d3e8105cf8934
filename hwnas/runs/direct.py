"""How does a device get models without a supernet? Archs chosen without training, each trained from fresh weights.

For few models this is the better use of the time: nothing is spent on weights that no model keeps. The archs are those
of greatest capacity at each latency; all are trained together, the largest teaching the others (`hwnas.runs.finish`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SearchError
from hwnas.latency.table import Device
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.runs.history import DeviceSearch, SearchRecord, read_history, write_history
from hwnas.runs.problem import make_problem
from hwnas.search.capacity import capacity, most_capable
from hwnas.search.region import Region
from hwnas.space import Arch, SearchSpace

FRESH = ""
"""Stands for the version of weights that nothing has trained."""


def choose_directly(context: RunContext, device: Device, settings: DeviceSearch) -> list[Arch]:
    """Return the archs that a device's models are to have, fastest first.

    Raises:
        SearchError: no arch is within the limits that can be checked without training.
    """
    problem = make_problem(context, device, settings)
    latency, whole = device.compile(context.layout), context.layout.space

    def capacity_of(genomes: NDArray[np.int64]) -> NDArray[np.float64]:
        known = whole.genomes_of(problem.space, genomes)
        return capacity(context.macs.of_genomes(known), context.params.of_genomes(known))

    def latency_of(genomes: NDArray[np.int64]) -> NDArray[np.float64]:
        return latency.of_genomes(whole.genomes_of(problem.space, genomes))

    def violation_of(genomes: NDArray[np.int64]) -> NDArray[np.float64]:
        return problem.violation(problem.cheap_losses(genomes))

    archs = most_capable(
        problem.space, capacity_of, latency_of, violation_of, settings.finish.models,
        settings.finish.latencies_ms.get(device.name, ()), settings.search.seed, _largest_images(problem.space),
    )  # fmt: skip
    if not archs:
        raise SearchError(
            f"no arch of the space is within {', '.join(settings.constraints) or 'the wanted latencies'} on "
            f"{device.name}; loosen the limits"
        )
    return archs


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


def search_directly(evaluations: Evaluations, device: Device, settings: DeviceSearch) -> None:
    """Choose the archs of a device and note them as its search, unless that was done."""
    context, archive = evaluations.context, evaluations.archive
    folder = context.folder.device(device.name)
    identity, history = _identity(device, settings), read_history(folder)
    name = history.name_of(device.name, identity)
    if history.done(name):
        return
    started = time.monotonic()
    archs = choose_directly(context, device, settings)
    archive.begin(name, device.name)
    archive.forget_requests(name)
    archive.request(name, archs)
    message = (
        f"{len(archs)} archs chosen by MACs and parameters at each latency, without a supernet; each was trained "
        f"from fresh weights{_missed(context, device, settings, archs)}"
    )
    duration_s = round(time.monotonic() - started, 3)
    record = SearchRecord(name, identity, len(archs), 0, "direct", message, duration_s)
    write_history(folder, history.with_search(record))


def chosen_directly(evaluations: Evaluations, device: Device, settings: DeviceSearch) -> Sequence[Candidate]:
    """Return the archs that `search_directly` chose with these settings, to begin with fresh weights."""
    history = read_history(evaluations.context.folder.device(device.name))
    name = history.name_of(device.name, _identity(device, settings))
    return [Candidate(arch, FRESH) for arch in evaluations.archive.requested([name])]
