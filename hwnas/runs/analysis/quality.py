"""How far are the scores that subnets inherit from those that they reach when trained alone?

A search trusts the supernet twice: that it ranks subnets as training alone would (Kendall's tau), and that what it says
of a subnet is close to what the subnet could do (the gap).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
import scipy
import torch

from hwnas.files import write_json
from hwnas.finetune import FinetuneConfig, finetune
from hwnas.objectives.exact import params_of_space
from hwnas.progress import silent
from hwnas.runs.context import RunContext
from hwnas.space import Arch


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

    def as_dict(self) -> dict[str, object]:
        """Return plain values; NaN becomes None."""
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in asdict(self).items()}


def supernet_quality(
    context: RunContext, n_subnets: int, epochs: float, lr: float | None = None, seed: int = 0
) -> SupernetQuality:
    """Compare random subnets of a trained run with the same networks trained alone.

    Networks alone are trained with the recipe's batch size, augmentation, decay and label smoothing, from random
    weights, without a teacher; the epoch of best validation score counts. Each is kept in the run folder, so a second
    start continues.

    Args:
        context: of a run with a trained supernet.
        n_subnets: drawn uniformly over options; a larger number begins with the same ones.
        epochs: of the training alone.
        lr: its peak learning rate; default: that of the recipe's first phase.
        seed: of the draw and of the weights.
    """
    archs, score = draw(context, n_subnets, seed), context.score
    config = alone_config(context, epochs, lr, seed)
    params = params_of_space(context.layout).of_archs(archs)
    found = []
    for number, (arch, size) in enumerate(zip(archs, params, strict=True), 1):
        inherited = context.test_scores(context.trained_evaluator.subnet(arch), arch)
        alone = alone_scores(context, arch, config)
        values = [s.get(name, float("nan")) for name in (score.name, score.named("stderr")) for s in (inherited, alone)]
        found.append(SubnetQuality(arch.key, arch.int("resolution"), int(size), *values))
        said = f"inherited {values[0]:.2f} {score.unit}, alone {values[1]:.2f} {score.unit}"
        context.progress("subnets", number, n_subnets, said)
    inherited_all, alone_all = (np.array([getattr(q, name) for q in found]) for name in ("inherited", "alone"))
    stderr = float(np.mean([[q.inherited_stderr, q.alone_stderr] for q in found]))
    tau = float(scipy.stats.kendalltau(inherited_all, alone_all).statistic) if n_subnets > 1 else float("nan")
    gap = float((alone_all - inherited_all).mean())
    return SupernetQuality(score.title, score.unit, tuple(found), epochs, tau, gap, stderr)


def draw(context: RunContext, n_subnets: int, seed: int) -> list[Arch]:
    """Draw different subnets, one after the other; fewer where the space has no more."""
    rng = np.random.default_rng(seed)
    space = context.layout.space
    drawn: dict[Arch, None] = {}
    while len(drawn) < min(n_subnets, space.size):
        drawn[space.sample(rng, 1)[0]] = None
    return list(drawn)


def alone_config(context: RunContext, epochs: float, lr: float | None, seed: int) -> FinetuneConfig:
    """Return how networks are trained alone."""
    train = context.recipe.train
    return FinetuneConfig(
        epochs=epochs, lr=lr or train.phases[0].lr, warmup_epochs=min(0.5, epochs / 10), batch_size=train.batch_size,
        momentum=train.momentum, weight_decay=train.weight_decay, label_smoothing=train.label_smoothing,
        distill_ratio=0, seed=seed,
    )  # fmt: skip


def alone_scores(context: RunContext, arch: Arch, config: FinetuneConfig) -> dict[str, float]:
    """Return the test scores of a network trained alone, from the run folder where they are known."""
    settings = {
        "config": config.model_dump(mode="json"), "augment": context.recipe.data.augment.model_dump(mode="json"),
        "supernet": context.recipe.supernet.model_dump(mode="json"), "images": context.splits.sha256,
        "arch": arch.as_dict(),
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    path = context.folder.alone / f"{arch.key}-{digest}.json"
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8"))["test"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = context.layout.build_subnet(arch).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def told(task: str, done: float, total: float, note: str = "") -> None:
        context.progress(f"{arch.key} alone", done, total, note)

    progress = silent if context.progress is silent else told
    result = finetune(
        net, arch.int("resolution"), context.splits, config, context.recipe.data.augment, progress=progress
    )
    test = context.test_scores(result.network, arch)
    write_json(path, {
        **settings, "test": test, "best_epoch": result.best_epoch, "validation": {context.score.name: result.score},
    })  # fmt: skip
    return test
