"""How is one device searched? From everything that is known already, deterministically, and exactly continued.

A search is named by its settings. When it begins, the archive notes how much was known; what was known then is its warm
start, also when it is continued later. Its evaluations are kept one by one, so a search that was stopped asks again for
the same archs, finds their values, and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwnas.latency.table import Device
from hwnas.runs.adaptation import Lineage
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Candidate, Evaluations, as_in
from hwnas.runs.history import (
    DeviceSearch,
    SearchRecord,
    read_history,
    write_history,
)
from hwnas.runs.learnt import not_learnt
from hwnas.runs.problem import evaluated_values, make_problem
from hwnas.runs.recipe import with_values
from hwnas.search.adapt import plan_rounds
from hwnas.search.config import SearchConfig
from hwnas.search.limits import Limit, limits_for
from hwnas.search.loop import Evaluate, run_search
from hwnas.search.problem import Problem, Searcher
from hwnas.search.quality import PredictorQuality
from hwnas.search.standing import Standing
from hwnas.space import Arch
from hwnas.train.phases import trained_options

FloatArray = NDArray[np.float64]


def search_device(evaluations: Evaluations, device: Device, settings: DeviceSearch) -> None:
    """Search a device with these settings, unless that was done."""
    evaluations = evaluations.of_device(device)
    context, archive = evaluations.context, evaluations.archive
    folder = context.folder.device(device.name)
    identity = settings.identity(device, evaluations.weights.trained)
    history = read_history(folder)
    name = history.name_of(device.name, identity)
    if history.done(name):
        return
    last_row = archive.begin(name, device.name)
    archive.forget_requests(name)
    problem = make_problem(context, device, settings)
    config, wanted = settings.search, evaluated_values(context, settings)
    images, trained = context.searched_images(config), evaluations.weights.trained
    part, left_out = _trained_part(context, problem)
    searcher = config.searcher(part)
    rounds = plan_rounds(searcher, config.adaptation.rounds) if config.adaptation is not None else ()
    lineage = Lineage(evaluations, device.name, problem, config, wanted, rounds)
    # Where the supernet is adapted, archs known with the trained weights would have to be evaluated again every round.
    known = [] if config.adaptation is not None else evaluations.evaluated(trained, list(wanted.values()), last_row)
    known = [arch for arch in known if part.space.contains(as_in(problem.space, arch))]
    evaluate = evaluate_for(evaluations, device.name, name, problem, config, wanted, lambda: lineage.weights)
    started = time.monotonic()
    warm_start = None
    if known:
        warm_start = known, evaluations.values(problem, [Candidate(a, trained) for a in known], images, last_row)
    result = run_search(
        part, searcher, evaluate, config.evaluations, warm_start=warm_start, reevaluate=lineage.renew,
        reevaluate_at=[r.share for r in rounds],
    )  # fmt: skip
    said = (result.message, lineage.note if lineage.adapted else "", left_out)
    message = "; ".join(text for text in said if text)
    record = SearchRecord(
        name, identity, result.evaluated, len(known), result.ended, message, round(time.monotonic() - started, 3),
        predictor_quality(searcher), result.repeated, tuple(lineage.adapted),
        not_learnt(evaluations, problem, archive.requested([name]), lineage.weights, images),
    )  # fmt: skip
    write_history(folder, read_history(folder).with_search(record))


def _trained_part(context: RunContext, problem: Problem) -> tuple[Problem, str]:
    """Return the problem without options that no phase has trained, and a sentence on it; empty where there are none.

    They have the weights with which they began, so whatever their networks score says nothing.
    """
    trained = trained_options(context.recipe.train, context.layout)
    if not trained:
        return problem, ""
    named = ", ".join(sorted(trained)[:3]) + (f" and {len(trained) - 3} more choices" if len(trained) > 3 else "")
    return problem.within(trained), f"options of {named} that no phase of train varies were left out"


def evaluate_for(
    evaluations: Evaluations, device: str, search: str, problem: Problem, config: SearchConfig,
    wanted: Mapping[str, str], weights: Callable[[], str],
) -> Evaluate:  # fmt: skip
    """Return what evaluates the archs that a search asks for, and notes in the archive that it asked.

    Args:
        evaluations: of the run.
        device: name of the device.
        search: name of the search in the archive.
        problem: whose values are returned.
        config: says on how many images, and how many archs there will be.
        wanted: what an evaluation gives; see `evaluated_values`.
        weights: version of the weights now.
    """
    context, told, n_done, note = evaluations.context, evaluations.context.told_for(device), 0, config.algorithm
    images, score = context.searched_images(config), context.score
    standings: dict[str, Standing] = {}  # values under other weights do not mix

    def evaluate(archs: Sequence[Arch]) -> FloatArray:
        nonlocal n_done, note
        version = weights()
        candidates = [Candidate(arch, version) for arch in archs]
        before = n_done

        def on_done(done: int) -> None:
            told("search", before + done, config.evaluations, note)

        evaluations.evaluate(candidates, wanted, images, on_done)
        n_done += len(archs)
        evaluations.archive.request(search, archs)
        values = evaluations.values(problem, candidates, images)
        standing = standings.setdefault(version, Standing(problem, score.name, score.unit))
        standing.add(values)
        note = standing.note(config.algorithm)
        told("search", n_done, config.evaluations, note)
        return values

    return evaluate


def predictor_quality(searcher: Searcher) -> dict[str, PredictorQuality]:
    """How well a search could predict, for searchers that have a predictor."""
    judge: Callable[[], dict[str, PredictorQuality]] | None = getattr(searcher, "predictor_quality", None)
    return {} if judge is None else judge()


def changed_settings(
    known: DeviceSearch, name: str, device: str | None, limits: Sequence[Limit] | None, evaluations: int | None,
    searcher: str | None,
) -> DeviceSearch:  # fmt: skip
    """Return what is searched for a device after what a user has given; None: as it was.

    Args:
        known: what was to be searched.
        name: of the device.
        device: how it was given, for one that is new.
        limits: of all devices, in place of the known ones.
        evaluations: archs to evaluate.
        searcher: algorithm.
    """
    changes: dict[str, object] = {} if device is None else {"device": device}
    if limits is not None:
        own = [str(Limit(None, c.value, c.comparison, c.bound)) for c in limits_for(tuple(limits), name)]
        changes["constraints"] = tuple(own)
    size = {"evaluations": evaluations, "algorithm": searcher}
    changes["search"] = with_values(known.search, {k: v for k, v in size.items() if v is not None}, "search")
    return known.model_copy(update=changes)
