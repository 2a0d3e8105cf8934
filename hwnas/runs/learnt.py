"""Has a supernet learnt enough for its networks to be ranked? Their scores beside one that needs no learning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hwnas.data import Splits
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.search.problem import Problem
from hwnas.space import Arch

STDERRS = 3.0
"""By so many standard errors of the blind answer's score a network has to be better to have learnt anything."""
BATCH = 4096


def blind_score(splits: Splits, n_outputs: int, images: int | None = None) -> tuple[float, float]:
    """Return the score of one answer for every validation image, and its standard error (NaN: the task gives none).

    The answer is what training images have on average: the frequencies of classes, or the mean of other targets. Where
    a task's outputs are not of that form, both are NaN.

    Args:
        splits: images and task.
        n_outputs: of a network.
        images: the first so many validation images; None: all.
    """
    targets, score = splits.train.labels, splits.task.score
    if targets.is_floating_point():
        answer = targets.float().reshape(len(targets), -1).mean(0)
    else:
        answer = torch.bincount(targets.clamp(min=0), minlength=n_outputs).float()
    if len(answer) != n_outputs:
        return float("nan"), float("nan")
    meter = splits.task.meter()
    seen: Tensor = splits.validation.labels[:images]
    for batch in seen.split(BATCH):
        meter.add(answer.expand(len(batch), -1), batch)
    values = meter.values()
    return values[score.name], values.get(score.named("stderr"), float("nan"))


def not_learnt(
    evaluations: Evaluations, problem: Problem, archs: Sequence[Arch], weights_version: str, images: int
) -> str:
    """Return what to tell whoever searches a supernet whose networks know nothing; empty where they do.

    It is empty, too, where the search does not look at the score, such as one by proxies that need no training.

    Args:
        evaluations: where the scores are known.
        problem: of the search.
        archs: that a search asked for.
        weights_version: that it looked at last.
        images: on so many validation images.
    """
    context = evaluations.context
    score = context.score
    if score.name not in [column.name for column in problem.columns]:
        return ""
    candidates = [Candidate(arch, weights_version) for arch in archs]
    found = [evaluations.known(c, (score.name,), images).get(score.name, float("nan")) for c in candidates]
    finite = np.array([v for v in found if np.isfinite(v)])
    if not len(finite):
        return ""
    blind, stderr = blind_score(context.splits, context.recipe.supernet.classes, images)
    median = float(np.median(finite))
    if not np.isfinite(blind) or score.sign * (median - blind) > STDERRS * (stderr if np.isfinite(stderr) else 0.0):
        return ""
    at = "at most" if score.direction == "max" else "at least"
    unit = f" {score.unit}" if score.unit else ""
    return (
        f"half of the {len(finite)} networks looked at have a {score.title} of {at} {median:.4g}{unit}, and one answer "
        f"for every image has {blind:.4g}{unit}: the supernet has learnt too little for its networks to be ranked; "
        "give train.phases more epochs or another lr, or train the models alone (search.strategy=direct)"
    )
