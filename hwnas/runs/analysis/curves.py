"""How fast did a search get how far, and what would drawing at random have reached? Hypervolume over evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwnas.latency.table import Device
from hwnas.objectives import as_losses
from hwnas.pareto import hypervolume, normalise
from hwnas.predictors import Encoder, cross_validate, fit_or_fall_back, make_predictor
from hwnas.report.data import Curve
from hwnas.runs.evaluations import Candidate, Evaluations, as_in
from hwnas.runs.history import DeviceSearch, read_history
from hwnas.runs.problem import make_problem
from hwnas.search.config import SearchConfig
from hwnas.search.problem import Problem

FloatArray = NDArray[np.float64]

POINTS = 50
"""Of a curve."""
REPETITIONS = 20
"""Random searches that are predicted."""
LEARNT = 400
"""Archs from which scores of random ones are predicted, at most: more take long and say little more."""
FEWEST = 12
"""Archs without which nothing is predicted."""
USUAL = SearchConfig.model_fields["algorithm"].default
RANDOM = "random"
"""Name of the searcher that draws archs at random."""


def curves_of(
    evaluations: Evaluations, device: Device, settings: DeviceSearch, candidates: Sequence[Candidate]
) -> list[Curve]:
    """Return how the hypervolume of score and latency grew in the searches of a device, with random search beside.

    The curve of a search is over the archs that it asked for, in its order, with the values that they have now. Where a
    device was not searched at random, what that gives is predicted: latencies of drawn archs are exact, scores come
    from a predictor that learnt from every evaluated arch. A share of 1 is the box from the best to the worst score
    and latency of what was evaluated.

    Args:
        evaluations: of the run.
        device: searched.
        settings: of its last search.
        candidates: what was evaluated for it, one model an arch.
    """
    evaluations = evaluations.of_device(device)
    problem = make_problem(evaluations.context, device, settings)
    rows = {c.arch.key: i for i, c in enumerate(candidates)}
    losses, inside = _losses(evaluations, device, problem, candidates)
    usable = losses[inside]
    if len(usable) < 2:
        return []
    low, high = usable.min(axis=0), usable.max(axis=0)
    algorithms = {
        record.search: str(dict(record.settings.get("search", {})).get("algorithm", USUAL))  # defaults are left out
        for record in read_history(evaluations.context.folder.device(device.name)).searches
    }
    found, longest, at_random = [], 0, False
    for number, search in enumerate(evaluations.archive.searches(device.name), 1):
        asked = [rows[a.key] for a in evaluations.archive.requested([search]) if a.key in rows]
        if len(asked) < 2:
            continue
        algorithm = algorithms.get(search, "unfinished search")
        at_random |= algorithm == RANDOM
        longest = max(longest, len(asked))
        steps, share = _curve(losses[asked], inside[asked], low, high)
        found.append(Curve(f"{number}: {algorithm}", steps, share))
    if found and not at_random:
        found += _predicted_random(evaluations, problem, device, candidates, losses, (low, high), longest)
    return found


def _losses(
    evaluations: Evaluations, device: Device, problem: Problem, candidates: Sequence[Candidate]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """``(n, 2)`` losses of score and latency, and which models are within the limits."""
    score = evaluations.context.score
    scores = np.array([evaluations.known(c, [score.name]).get(score.name, np.nan) for c in candidates])
    latency = device.compile(evaluations.context.layout).of_archs([c.arch for c in candidates])
    losses = np.stack([-score.sign * scores, latency], axis=1)
    values = evaluations.values(problem, candidates)
    inside = (problem.violation(as_losses(values, problem.columns)) <= 0) & np.isfinite(losses).all(axis=1)
    return losses, np.asarray(inside, dtype=bool)


def _curve(
    losses: FloatArray, inside: NDArray[np.bool_], low: FloatArray, high: FloatArray
) -> tuple[list[int], list[float]]:
    """Numbers of evaluations, and the share of the box from ``low`` to ``high`` that is dominated after them."""
    steps = np.unique(np.linspace(1, len(losses), min(POINTS, len(losses))).astype(int))
    scaled = normalise(losses, low, high)
    scaled[~inside] = np.nan
    shares = [hypervolume(np.clip(scaled[:n], 0.0, None), np.ones(2)) for n in steps]
    return steps.tolist(), [float(s) for s in shares]


def _predicted_random(
    evaluations: Evaluations, problem: Problem, device: Device, candidates: Sequence[Candidate], losses: FloatArray,
    box: tuple[FloatArray, FloatArray], n: int,
) -> list[Curve]:  # fmt: skip
    """What random search reaches in ``n`` evaluations, predicted; empty where too little is known to predict it."""
    context = evaluations.context
    known = np.flatnonzero(np.isfinite(losses).all(axis=1))
    if len(known) < FEWEST:
        return []
    known = known[np.unique(np.linspace(0, len(known) - 1, min(LEARNT, len(known))).astype(int))]
    encoder, predictor = Encoder(problem.space, problem.known), make_predictor("gp_groups")
    inputs = encoder(problem.space.encode_many([as_in(problem.space, candidates[i].arch) for i in known]))
    model, replaced = fit_or_fall_back(predictor, inputs, losses[known, 0])
    try:
        tau = cross_validate(predictor, inputs, losses[known, 0]).kendall_tau
    except (ValueError, np.linalg.LinAlgError):  # of a part of the archs
        return []
    if replaced:
        return []
    latency_ms, whole = device.compile(context.layout), context.layout.space
    curves = []
    for seed in range(REPETITIONS):
        genomes = problem.space.sample_genomes(np.random.default_rng(seed), n)
        scores, _ = model.predict(encoder(genomes))
        drawn = np.stack([scores, latency_ms.of_genomes(whole.genomes_of(problem.space, genomes))], axis=1)
        allowed = problem.violation(problem.cheap_losses(genomes)) <= 0
        steps, share = _curve(drawn, np.asarray(allowed, dtype=bool), *box)
        curves.append(share)
    low, median, high = np.quantile(np.array(curves), [0.1, 0.5, 0.9], axis=0).tolist()
    return [Curve(f"random, predicted (Kendall's tau {tau:.2f})", steps, median, low, high)]
