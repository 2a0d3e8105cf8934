"""How far are the scores that subnets inherit from those that they reach when trained alone?

A search trusts the supernet twice: that it ranks subnets as training alone would (Kendall's tau), and that what it says
of a subnet is close to what the subnet could do (the gap).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from hwnas.errors import RecipeError
from hwnas.files import write_json
from hwnas.finetune import FinetuneConfig, finetune
from hwnas.latency.table import Device
from hwnas.objectives.exact import params_of_space
from hwnas.progress import silent
from hwnas.runs.context import RunContext
from hwnas.runs.finish import augment_of, training_of
from hwnas.runs.kept import read_kept
from hwnas.runs.recipe import with_values
from hwnas.space import Arch
from hwnas.supernet import fresh_subnet
from hwnas.train.phases import trained_options

FloatArray = NDArray[np.float64]

BAND_PERCENT = 10.0
"""Subnets whose latencies differ by no more compete for the same place."""


@dataclass(frozen=True)
class SubnetQuality:
    """One subnet, as the supernet gives it and trained alone; scores on the test images."""

    key: str
    resolution_px: int
    params: int
    inherited: float
    alone: float
    inherited_stderr: float
    """Standard error from the number of test images."""
    alone_stderr: float
    finished: float | None = None
    """Trained to its end from what it inherited; None: that was not asked for."""


@dataclass(frozen=True)
class Ranking:
    """How well scores that subnets inherit, and those of finished ones, rank as training alone does."""

    device: str
    """Whose latency makes bands; empty: none was given."""
    n_pairs: int
    """Pairs of subnets whose latencies differ by at most `BAND_PERCENT`."""
    inherited_tau: float
    """Kendall's tau over all subnets; NaN where all of one kind are equal."""
    inherited_tau_in_bands: float
    """Over the pairs of equal latency only, where a search has to decide; NaN: there are none."""
    finished_tau: float | None
    finished_tau_in_bands: float | None


@dataclass(frozen=True)
class SupernetQuality:
    """What `supernet_quality` found; scores have the unit of the task's score."""

    score_title: str
    score_unit: str
    subnets: tuple[SubnetQuality, ...]
    epochs: float
    """Of the training alone, from random weights."""
    kendall_tau: float
    """Between inherited and alone; NaN where all of one kind are equal."""
    mean_gap: float
    """Mean of alone minus inherited."""
    mean_stderr: float
    """Standard error of one score from the number of test images, mean over all."""
    finish_epochs: float = 0.0
    """Of finished subnets, from what they inherit; 0: none."""
    ranking: Ranking | None = None

    def as_dict(self) -> dict[str, object]:
        """Return plain values; NaN becomes None."""
        return dict(_without_nan(asdict(self)))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def supernet_quality(
    context: RunContext, n_subnets: int, epochs: float, lr: float | None = None, seed: int = 0,
    finish_epochs: float = 0.0, device: Device | None = None,
) -> SupernetQuality:  # fmt: skip
    """Compare random subnets of a trained run with the same networks trained alone.

    Networks alone are trained with the recipe's batch size, augmentation (``finish.trivial_epochs``, too), decay and
    label smoothing, from random weights, without a teacher; the epoch of best validation score counts. Each is kept in
    the run folder, so a second start continues.

    Args:
        context: of a run with a trained supernet.
        n_subnets: drawn uniformly over options; a larger number begins with the same ones.
        epochs: of the training alone.
        lr: its peak learning rate; default: that of the recipe's first phase.
        seed: of the draw and of the weights.
        finish_epochs: train each subnet, too, from what it inherits, as ``finish`` of the recipe says; 0: not.
        device: whose latency says which subnets compete; None: rank correlation over all of them only.
    """
    archs, score = draw(context, n_subnets, seed), context.score
    config = alone_config(context, epochs, lr, seed)
    params = params_of_space(context.layout).of_archs(archs)
    found = []
    for number, (arch, size) in enumerate(zip(archs, params, strict=True), 1):
        inherited = context.test_scores(context.trained_evaluator.subnet(arch), arch)
        alone = alone_scores(context, arch, config)
        finished = finished_score(context, arch, finish_epochs) if finish_epochs else None
        (a, b), (da, db) = (
            [s.get(name, float("nan")) for s in (inherited, alone)] for name in (score.name, score.named("stderr"))
        )
        found.append(SubnetQuality(arch.key, arch.int("resolution"), int(size), a, b, da, db, finished))
        said = f"inherited {a:.2f} {score.unit}, alone {b:.2f} {score.unit}"
        context.progress("subnets", number, n_subnets, said)
    inherited_all, alone_all = (np.array([getattr(q, name) for q in found]) for name in ("inherited", "alone"))
    stderr = float(np.mean([[q.inherited_stderr, q.alone_stderr] for q in found]))
    tau = float(scipy.stats.kendalltau(inherited_all, alone_all).statistic) if n_subnets > 1 else float("nan")
    gap = float((alone_all - inherited_all).mean())
    latency = None if device is None else device.compile(context.layout).of_archs(archs)
    finished_all = np.array([q.finished for q in found], dtype=float) if finish_epochs else None
    ranking = Ranking(
        "" if device is None else device.name, int(_competing(latency).sum()) // 2 if latency is not None else 0, tau,
        tau_in_bands(inherited_all, alone_all, latency),
        None if finished_all is None else tau_in_bands(finished_all, alone_all),
        None if finished_all is None else tau_in_bands(finished_all, alone_all, latency),
    )  # fmt: skip
    return SupernetQuality(score.title, score.unit, tuple(found), epochs, tau, gap, stderr, finish_epochs, ranking)


def tau_in_bands(a: FloatArray, b: FloatArray, latency: FloatArray | None = None) -> float:
    """Return how often pairs are in the same order by ``a`` and ``b``, less how often in the other.

    Args:
        a: ``(n,)``.
        b: ``(n,)``.
        latency: ``(n,)``; only pairs whose latencies differ by at most `BAND_PERCENT` count. None: all pairs.

    Returns:
        -1 to 1, Kendall's tau-b over these pairs; NaN where none of them differs in ``a`` or in ``b``.
    """
    counted = np.ones((len(a), len(a)), dtype=bool) if latency is None else _competing(latency)
    np.fill_diagonal(counted, False)
    by_a, by_b = (np.sign(v[:, None] - v[None])[counted] for v in (a, b))
    pairs = np.sqrt(float((by_a != 0).sum()) * float((by_b != 0).sum()))
    return float((by_a * by_b).sum() / pairs) if pairs else float("nan")


def _competing(latency: FloatArray) -> NDArray[np.bool_]:
    """``(n, n)``: which pairs have the same latency, nearly."""
    near = np.abs(np.log(latency[:, None] / latency[None])) <= np.log1p(BAND_PERCENT / 100)
    return np.asarray(near & ~np.eye(len(latency), dtype=bool))


MOST_SUBNETS = 10_000
"""Each is trained alone."""


def draw(context: RunContext, n_subnets: int, seed: int) -> list[Arch]:
    """Draw different subnets of options that were trained, one after the other; fewer where there are no more.

    Raises:
        RecipeError: none, or more than `MOST_SUBNETS`.
    """
    if not 1 <= n_subnets <= MOST_SUBNETS:
        raise RecipeError(f"{n_subnets} subnets cannot be compared; give 1 to {MOST_SUBNETS:,}")
    rng = np.random.default_rng(seed)
    space = context.layout.space
    trained = space.restrict(trained_options(context.recipe.train, context.layout))
    drawn: dict[Arch, None] = {}
    while len(drawn) < min(n_subnets, trained.size):
        drawn[space.arch(trained.sample(rng, 1)[0].as_dict())] = None
    return list(drawn)


def alone_config(context: RunContext, epochs: float, lr: float | None, seed: int) -> FinetuneConfig:
    """Return how networks are trained alone."""
    given = {"epochs": epochs, "warmup_epochs": min(0.5, epochs / 10), "seed": seed}
    rate = {} if lr is None else {"lr": lr}
    return with_values(FinetuneConfig.like(context.recipe.train), given | rate, "training alone")


def finished_score(context: RunContext, arch: Arch, epochs: float) -> float:
    """Return the test score of a subnet trained to its end, from the run folder where it is known.

    The supernet's largest net is the teacher: there is no better finished model beside it.
    """
    finish = with_values(context.recipe.finish, {"epochs": epochs}, "training to the end")
    config, augment = training_of(context.recipe.train, finish), augment_of(context, finish, epochs)
    settings = {
        "config": config.binding(), "augment": augment.model_dump(mode="json"),
        "weights": context.trained_weights, "images": context.splits.sha256, "arch": arch.as_dict(),
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    path = context.folder.alone / f"{arch.key}-{digest}.json"
    if not path.exists():
        resolution, evaluator = arch.int("resolution"), context.trained_evaluator
        largest = context.layout.space.restrict({"resolution": [resolution]}).largest()
        result = finetune(
            evaluator.subnet(arch), resolution, context.splits, config, augment,
            evaluator.subnet(largest) if config.distill_ratio else None,
        )  # fmt: skip
        write_json(path, {**settings, "test": context.test_scores(result.network, arch)})
    return _kept(path)[context.score.name]


@dataclass(frozen=True)
class _Tested:
    """What a file of `RunFolder.alone` holds, among other things."""

    test: dict[str, float]


def _kept(path: Path) -> dict[str, float]:
    return read_kept(_Tested, path, "remove it; the network is trained again").test


def alone_scores(context: RunContext, arch: Arch, config: FinetuneConfig) -> dict[str, float]:
    """Return the test scores of a network trained alone, from the run folder where they are known."""
    augment = augment_of(context, context.recipe.finish, config.epochs)
    settings = {
        "config": config.binding(), "augment": augment.model_dump(mode="json"),
        "supernet": context.recipe.supernet.model_dump(mode="json"), "images": context.splits.sha256,
        "arch": arch.as_dict(),
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    path = context.folder.alone / f"{arch.key}-{digest}.json"
    if path.exists():
        return _kept(path)
    net = fresh_subnet(context.layout, arch, config.seed)

    def told(task: str, done: float, total: float, note: str = "") -> None:
        context.progress(f"{arch.key} alone", done, total, note)

    progress = silent if context.progress is silent else told
    result = finetune(net, arch.int("resolution"), context.splits, config, augment, progress=progress)
    test = context.test_scores(result.network, arch)
    write_json(path, {
        **settings, "test": test, "best_epoch": result.best_epoch, "validation": {context.score.name: result.score},
    })  # fmt: skip
    return test
