"""Which models make a device's front? The best of every comparable evaluation that the archive holds.

Comparable are values of the same precision on validation images; what was seen on few of them is evaluated on all
where that may change who is on the front. More evaluations, another search or a limit that does not bind only ever add
candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SearchError
from hwnas.latency.number_format import Precision
from hwnas.latency.table import Device
from hwnas.objectives import as_losses
from hwnas.objectives.exact import FALLBACK_LAYERS
from hwnas.pareto import non_dominated
from hwnas.reading import sha256_of
from hwnas.runs.evaluations import Candidate, Evaluations, as_in
from hwnas.runs.folder import DeviceFolder
from hwnas.runs.front import choose_front, read_front, write_front
from hwnas.runs.history import DeviceSearch, History, read_history, write_history, write_settings
from hwnas.runs.latency_check import measured_columns
from hwnas.runs.noise import latency_variance, may_be_on_front, near_ties
from hwnas.runs.problem import evaluated_values, make_problem
from hwnas.search.problem import Problem

FloatArray = NDArray[np.float64]

SLOWER = 1.1
"""Times a latency for which a model is chosen."""

SMALLEST_MS = 1e-6
"""A correction that is fitted to few networks can put the smallest ones below 0."""

BITS: Mapping[Precision, int] = {"fp32": 32, "int8": 8}


@dataclass(frozen=True)
class ToFinish:
    """Models of a device that are to be trained to their end."""

    models: Sequence[Candidate]
    """Archs, and the weights that they begin with; fastest first."""
    longer: float = 1.0
    """Times ``finish.epochs`` that they are trained."""


def update_front(evaluations: Evaluations, device: Device, settings: DeviceSearch) -> None:
    """Choose the front of a device and write it, unless it stands; its settings become those in force for the device.

    Raises:
        SearchError: no model is within the limits.
    """
    evaluations = evaluations.of_device(device)
    folder = evaluations.context.folder.device(device.name)
    if not front_stands(evaluations, device, settings):
        _complete_front(evaluations, device.name, settings)
        trained_alone = finished_models(evaluations, only_finetuned=not settings.finish.models)
        evaluations.evaluate(trained_alone, evaluated_values(evaluations.context, settings))
        chosen = choose_models(evaluations, device, settings)
        write_models(evaluations, device, settings, chosen)
        history = read_history(folder)
        search = history.name_of(device.name, settings.identity(device, evaluations.weights.trained))
        write_history(folder, history.with_front(settings, search, evaluations.weights.finished.finetuned))
    write_settings(folder, settings)


def front_stands(evaluations: Evaluations, device: Device, settings: DeviceSearch) -> bool:
    """Say whether the front of a device was chosen with these settings from all searches that were done."""
    folder = evaluations.context.folder.device(device.name)
    history = read_history(folder)
    search = history.name_of(device.name, settings.identity(device, evaluations.weights.trained))
    return front_is_whole(folder, history) and history.front == history.front_identity(
        settings, search, evaluations.weights.finished.finetuned
    )


def front_is_whole(folder: DeviceFolder, history: History) -> bool:
    """Say whether the front of a device is there as it was written."""
    if not folder.front.exists():
        return False
    return not history.front_sha256 or sha256_of(folder.front) == history.front_sha256


def _complete_front(evaluations: Evaluations, device: str, settings: DeviceSearch) -> None:
    """Evaluate what is newly asked for of the models that are on the front, so that they stay candidates."""
    evaluations = evaluations.of_device(device)
    context = evaluations.context
    folder = context.folder.device(device)
    if front_is_whole(folder, read_history(folder)):
        models = read_front(folder.front, device, context.score).models
        archs = evaluations.archive.archs_of([m.key for m in models])
        trained = evaluations.weights.trained
        candidates = [Candidate(a, m.weights_version or trained) for a, m in zip(archs, models, strict=True)]
        evaluations.evaluate(candidates, evaluated_values(context, settings))


def write_models(evaluations: Evaluations, device: Device, settings: DeviceSearch, models: Sequence[Candidate]) -> None:
    """Write the front of a device with these models, and everything that is known of them.

    Models in 8 bits are evaluated in float, too, unless that is known: what quantisation costs stands beside. So does
    what the supernet gave them, of models that were chosen for another device also in this one's precision.
    """
    evaluations = evaluations.of_device(device)
    context = evaluations.context
    in_8_bits = [m for m in models if evaluations.precision_of(m.arch) == "int8"]
    wanted = {context.score.name: context.score.name}
    evaluations.in_precision("fp32").evaluate(in_8_bits, wanted)
    origins = [Candidate(m.arch, evaluations.weights.finished.origin(m.weights_version)) for m in models]
    unknown = [one for one in dict.fromkeys(origins) if one.weights_version and not evaluations.known(one, wanted)]
    evaluations.evaluate(unknown, wanted, context.searched_images(settings.search))
    folder = context.folder.device(device.name)
    versions = [m.weights_version for m in models]
    write_front(
        folder.front, [m.arch for m in models],
        model_columns(evaluations, device, settings, models), context.score,
        versions if set(versions) != {evaluations.weights.trained} else None,
    )  # fmt: skip
    kept = tuple((m.arch.key, m.weights_version) for m in models)
    write_history(
        folder, replace(read_history(folder), front_sha256=sha256_of(folder.front), front_models=kept)
    )  # fmt: skip


def mend_front(evaluations: Evaluations, device: Device, settings: DeviceSearch) -> None:
    """Write a damaged front again, with the models that it had; one of an older version is chosen again."""
    kept = read_history(evaluations.context.folder.device(device.name)).front_models
    if not kept:
        update_front(evaluations, device, settings)
        return
    archs = evaluations.archive.archs_of([key for key, _ in kept])
    models = [Candidate(arch, version) for arch, (_, version) in zip(archs, kept, strict=True)]
    write_models(evaluations, device, settings, models)


def finished_models(evaluations: Evaluations, only_finetuned: bool = False) -> list[Candidate]:
    """Return the models of the run that were trained to their end, or of these the ones that somebody fine-tuned."""
    models = [m for m in evaluations.weights.finished.by_version.values() if m.finetuned or not only_finetuned]
    archs = evaluations.archive.archs_of([m.key for m in models])
    return [Candidate(arch, m.weights_version) for arch, m in zip(archs, models, strict=True)]


def candidates_of(evaluations: Evaluations, device: str, settings: DeviceSearch) -> list[Candidate]:
    """Return every model that the device may get, one for each arch: of several weights, those that score best.

    Where models are trained to their end (``settings.finish``), only such are handed over; else inherited ones, and
    those that somebody fine-tuned.
    """
    evaluations = evaluations.of_device(device)
    finished = finished_models(evaluations, only_finetuned=not settings.finish.models)
    versions = [m.weights_version for m in finished]
    if not settings.finish.models or not versions:
        versions = [*evaluations.weights.of_device(device), *versions]
    return _best_weights(evaluations, settings, versions)


def inherited_candidates(evaluations: Evaluations, device: str, settings: DeviceSearch) -> list[Candidate]:
    """Return every model that the device may get as the supernet gives it."""
    evaluations = evaluations.of_device(device)
    return _best_weights(evaluations, settings, evaluations.weights.of_device(device))


def _best_weights(evaluations: Evaluations, settings: DeviceSearch, versions: Iterable[str]) -> list[Candidate]:
    context, wanted = evaluations.context, evaluated_values(evaluations.context, settings)
    best: dict[str, tuple[float, Candidate]] = {}
    for version in versions:
        for arch in evaluations.evaluated(version, list(wanted.values())):
            candidate = Candidate(arch, version)
            loss = -context.score.sign * evaluations.known(candidate, wanted.values())[context.score.name]
            if arch.key not in best or not loss > best[arch.key][0]:
                best[arch.key] = loss, candidate
    return [candidate for _, candidate in best.values()]


def choose_to_finish(evaluations: Evaluations, device: Device, settings: DeviceSearch) -> ToFinish:
    """Return the models that are to be trained to their end for a device.

    For each wanted latency the model of best inherited score that is as fast; see `FinishConfig.latencies_ms`. Limits
    on the score are for finished models, so they do not count yet. The chosen ones are evaluated on all validation
    images, so that what they inherit can be compared with what they become.

    Raises:
        SearchError: no model is within the limits.
    """
    evaluations = evaluations.of_device(device)
    problem = make_problem(evaluations.context, device, settings)
    score = evaluations.context.score
    problem = replace(problem, limits=tuple(limit for limit in problem.limits if limit.value != score.name))
    candidates = inherited_candidates(evaluations, device.name, settings)
    # On as many images as the search looked at: what is inherited says only roughly what a model can become.
    feasible = _inside(evaluations, device, problem, evaluations.values(problem, candidates))
    models = [c for c, inside in zip(candidates, feasible, strict=True) if inside]
    columns = model_columns(evaluations, device, settings, models)
    losses = -score.sign * columns[score.name]
    rows = spread_over_latency(
        losses, columns["latency_ms"], settings.finish.models, settings.finish.latencies_ms.get(device.name, ())
    )
    if not rows:
        wanted = ", ".join(f"{ms:g}" for ms in settings.finish.latencies_ms[device.name])
        raise SearchError(
            f"no evaluated model of {device.name} is as fast as {wanted} ms (finish.latencies_ms); the fastest takes "
            f"{columns['latency_ms'].min():.4g} ms"
        )
    chosen = [models[i] for i in rows]
    evaluations.evaluate(chosen, {score.name: score.name})
    return ToFinish(chosen)


def spread_over_latency(
    losses: FloatArray, latency_ms: FloatArray, n: int, wanted_ms: Sequence[float] = ()
) -> list[int]:  # fmt: skip
    """Choose rows of least loss for ``n`` latencies, even in the logarithm from the fastest to the best row.

    A row may be `SLOWER` than its latency: at the fast end of a front a little time is often worth many points.

    Args:
        losses: ``(rows,)``.
        latency_ms: ``(rows,)``.
        n: how many at most; fewer where the front of both has fewer.
        wanted_ms: these latencies instead, which are limits; one below every row's gets none.

    Returns:
        Different row numbers, by ascending latency.
    """
    front = np.flatnonzero(non_dominated(np.stack([losses, latency_ms], axis=1)))
    front = front[np.argsort(latency_ms[front], kind="stable")]
    chosen: dict[int, None] = {}
    logarithm = np.log(np.maximum(latency_ms, SMALLEST_MS))
    if wanted_ms:
        for limit in sorted(wanted_ms):
            if len(within := front[latency_ms[front] <= limit]):
                chosen[int(within[-1])] = None
        return list(chosen)
    if len(front) <= n:
        return [int(i) for i in front]
    at = logarithm[front]
    for target in np.linspace(at[0], at[-1], n) if n > 1 else at[-1:]:
        chosen[int(front[np.flatnonzero(at <= target + np.log(SLOWER) + 1e-12)[-1]])] = None
    while len(chosen) < n:  # several wanted latencies had the same model: those farthest from all chosen ones follow
        taken = logarithm[list(chosen)]
        gaps = np.abs(at[:, None] - taken[None]).min(axis=1)
        chosen[int(front[int(np.argmax(gaps))])] = None
    return sorted(chosen, key=lambda i: latency_ms[i])


def choose_models(evaluations: Evaluations, device: Device, settings: DeviceSearch) -> list[Candidate]:
    """Return the models of the front of a device, in the order of their first evaluation.

    Raises:
        SearchError: no model is within the limits.
    """
    evaluations = evaluations.of_device(device)
    problem = make_problem(evaluations.context, device, settings)
    candidates = candidates_of(evaluations, device.name, settings)
    values, feasible = _feasible(evaluations, device, settings, problem, candidates)
    rows = choose_front(values[:, : problem.n_objectives], problem.objectives, feasible, settings.front_size)
    return [candidates[int(i)] for i in rows]


def _feasible(
    evaluations: Evaluations, device: Device, settings: DeviceSearch, problem: Problem, candidates: Sequence[Candidate]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """``(n, columns)`` values of models, and which of them are within the limits: at least one."""
    values = _refined(evaluations, device, problem, settings, candidates)
    return values, _inside(evaluations, device, problem, values)


def _inside(evaluations: Evaluations, device: Device, problem: Problem, values: FloatArray) -> NDArray[np.bool_]:
    """``(n,)`` which rows of values are within the limits; at least one is."""
    inside = problem.violation(as_losses(values, problem.columns)) <= 0
    feasible = np.asarray(np.isfinite(values).all(axis=1) & inside, dtype=bool)
    if not feasible.any():
        last = read_history(evaluations.context.folder.device(device.name)).last
        said = "nothing was evaluated" if last is None else last.message
        raise SearchError(f"{device.name} has no model within the limits: {said}; loosen the limits")
    return feasible


def _refined(
    evaluations: Evaluations, device: Device, problem: Problem, settings: DeviceSearch, candidates: Sequence[Candidate]
) -> FloatArray:
    """``(n, columns)`` values, those of models that may be on the front from all validation images.

    What is evaluated again follows from the candidates alone, so a second start evaluates and finds the same.
    """
    context, wanted = evaluations.context, evaluated_values(evaluations.context, settings)
    names = [column.name for column in problem.columns]
    values = evaluations.values(problem, candidates)
    certain = np.array([evaluations.is_full(c, wanted.values()) for c in candidates], dtype=bool)
    if certain.all() or context.score.name not in names:
        return values
    stderr = np.zeros_like(values)
    known = [evaluations.known(c, wanted.values()) for c in candidates]
    stderr[:, names.index(context.score.name)] = [k.get(context.score.named("stderr"), 0.0) for k in known]
    stderr[certain] = 0.0  # there are no further images
    told = context.told_for(device.name)
    while True:
        rows = np.flatnonzero(may_be_on_front(problem, as_losses(values, problem.columns), stderr) & ~certain)
        if not len(rows):
            return values
        again = [candidates[int(i)] for i in rows]

        def on_done(done: int, total: int = len(rows)) -> None:
            told("more images", done, total, f"{context.validation_images} images")

        evaluations.evaluate(again, wanted, None, on_done)
        values[rows] = evaluations.values(problem, again)
        stderr[rows] = 0.0
        certain[rows] = True


def model_columns(
    evaluations: Evaluations, device: Device, settings: DeviceSearch, models: Sequence[Candidate]
) -> dict[str, FloatArray]:
    """Return ``(n,)`` values by name: everything known of evaluated models on a device, scores first."""
    evaluations = evaluations.of_device(device)
    context = evaluations.context
    score, wanted = context.score, evaluated_values(context, settings)
    archs = [m.arch for m in models]
    known = [evaluations.known(m, wanted.values()) for m in models]

    def column(name: str) -> FloatArray:
        return np.array([k.get(name, math.nan) for k in known])

    out = {score.name: column(score.name), "latency_ms": device.compile(context.layout).of_archs(archs)}
    out["params"], out["macs"] = context.params.of_archs(archs), context.macs.of_archs(archs)
    out |= {name: column(name) for name in wanted.values() if name not in out}
    out |= _further_exact(evaluations, device, settings, models, out)
    if device.profile.missing_operators:
        out[FALLBACK_LAYERS.name] = FALLBACK_LAYERS.compile(context.layout, device).of_archs(archs)
    stderr = score.named("stderr")
    out[stderr] = column(stderr)
    bits = np.array([BITS[evaluations.precision_of(arch)] for arch in archs], dtype=float)
    if evaluations.precision is None:
        out["precision_bits"] = bits
    if evaluations.precision != "fp32":
        out[score.named("fp32")] = np.where(bits == BITS["fp32"], out[score.name], column(score.named("fp32")))
    out["latency_stderr_ms"] = np.sqrt(latency_variance(device, context.layout).of_archs(archs))
    if any(m.weights_version in evaluations.weights.finished.by_version for m in models):
        out[score.named("inherited")] = np.array([_inherited(evaluations, m) for m in models])
    losses = -score.sign * out[score.name]
    members = non_dominated(np.stack([losses, out["latency_ms"]], axis=1))
    out["on_accuracy_latency_front"] = members.astype(float)
    out["near_tie"] = near_ties(losses, out[stderr], out["latency_ms"], out["latency_stderr_ms"], members).astype(float)
    return out | measured_columns(evaluations.archive, device.name, models, losses)


def _inherited(evaluations: Evaluations, model: Candidate) -> float:
    """Score of a finished model as the supernet gave it; NaN where it did not begin there."""
    origin, name = evaluations.weights.finished.origin(model.weights_version), evaluations.context.score.name
    if origin in ("", model.weights_version):
        return math.nan
    return evaluations.known(Candidate(model.arch, origin), [name]).get(name, math.nan)


def _further_exact(
    evaluations: Evaluations, device: Device, settings: DeviceSearch, models: Sequence[Candidate],
    have: dict[str, FloatArray],
) -> dict[str, FloatArray]:  # fmt: skip
    """Exact objectives and limited values that are not there yet, such as those of plug-ins."""
    problem = make_problem(evaluations.context, device, settings)
    genomes = problem.space.encode_many([as_in(problem.space, m.arch) for m in models])
    return {
        column.name: np.asarray(column.evaluate_genomes(genomes), dtype=float)
        for column in problem.columns
        if column.evaluate_genomes is not None and column.name not in have
    }
