"""Classification: every image has one class, and a network gives one logit a class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hwnas.errors import DataError, some
from hwnas.task.task import Score, Task

ALPHA_CLIP = 5.0
"""Largest ratio of a student's probability to its teacher's that counts."""

TOP1 = Score("top1_percent", "max", "top-1", "%", (0.0, 100.0))


class Classification(Task):
    """One class an image. Labels are ``(N,)`` integers from 0, targets int64 ``(N,)``, outputs logits."""

    name = "classification"
    scores = (TOP1,)

    def check(
        self, train: NDArray[np.generic], test: NDArray[np.generic] | None, n_outputs: int, names: Sequence[str],
        where: str,
    ) -> None:  # fmt: skip
        """Raise where there are fewer than two classes, one without images, or others than the network has."""
        if train.ndim != 1 or not np.issubdtype(train.dtype, np.integer):
            numbers = np.issubdtype(train.dtype, np.floating) and train.size == len(train)
            whole = numbers and bool((train.astype(np.float64) % 1 == 0).all())
            advice = (
                "they are whole numbers: keep them as integers" if whole
                else "for labels of another kind name a task that learns them (key task of the recipe)"
            )  # fmt: skip
            raise DataError(f"{where}: labels are {train.dtype}; they must be integers, one an image; {advice}")
        if len(names) < 2 or train.min() == train.max():
            raise DataError(f"{where} has one class only; a classifier needs at least two")
        self._check_range(train, "", names, where)
        if test is not None and len(test):
            self._check_range(test, "test ", names, where)
        unseen = np.setdiff1d(np.arange(len(names)), train)
        if len(unseen):
            without = [names[i] for i in unseen.tolist()]
            raise DataError(
                f"{where} has no training image of the class{'es' if len(without) > 1 else ''} {some(without)}; give "
                "images of each, or take what has none out of the classes, so that these count from 0 without gaps"
            )
        high = int(train.max())
        if high >= n_outputs:
            raise DataError(
                f"{where} has labels from {int(train.min())} to {high}, but the network has {n_outputs} classes "
                f"(0 to {n_outputs - 1}); set supernet.classes={len(names)}"
            )
        if len(names) != n_outputs:
            raise DataError(
                f"{where} has {len(names)} classes, the network {n_outputs}; set supernet.classes={len(names)}"
            )

    @staticmethod
    def _check_range(labels: NDArray[np.generic], which: str, names: Sequence[str], where: str) -> None:
        """Raise where labels are no numbers of the classes ``names``."""
        low, high = int(labels.min()), int(labels.max())
        n_negative = int((labels.astype(np.int64) < 0).sum())
        if low < 0:
            raise DataError(
                f"{where} has {which}labels from {low} to {high}, {n_negative} of them below 0, which is no class "
                "(-1 often stands for a missing label); remove these images or correct their labels"
            )
        unnamed = not which and names[0] == "0" and high == len(names) - 1
        if low == 1 and (unnamed or high == len(names)):
            raise DataError(
                f"{where} has {which}labels from 1 to {high} and none is 0; classes count from 0: subtract 1 from all "
                "labels, or give images of class 0"
            )
        if high >= len(names):
            raise DataError(
                f"{where} has {which}labels from {low} to {high}, but the {len(names)} classes are numbered from 0 to "
                f"{len(names) - 1}; correct the labels, or name and train all of their classes"
            )

    def strata(self, labels: NDArray[np.generic]) -> NDArray[np.int64]:
        """Return the classes."""
        return labels.astype(np.int64)

    def targets(self, labels: NDArray[np.generic]) -> Tensor:
        """Return int64 ``(N,)``."""
        return torch.from_numpy(labels.astype(np.int64))

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the cross entropy.

        Reference:
            Szegedy et al., 2016, Rethinking the Inception Architecture, section 7 (label smoothing).
        """
        return F.cross_entropy(outputs, targets, label_smoothing=smoothing)

    def soft_targets(self, outputs: Tensor) -> Tensor:
        """Return ``(B, classes)`` probabilities."""
        return F.softmax(outputs, dim=1)

    def distillation_loss(self, outputs: Tensor, soft: Tensor) -> Tensor:
        """Return the cross entropy against probabilities.

        Reference:
            Hinton et al., 2015, Distilling the Knowledge in a Neural Network, at temperature 1 as in once-for-all.
        """
        return F.cross_entropy(outputs, soft)

    def alpha_divergence(self, outputs: Tensor, soft: Tensor) -> Tensor:
        """Return the adaptive, clipped alpha-divergence from probabilities.

        Per image the larger of two: at alpha 1, the Kullback-Leibler divergence, which punishes too little probability
        where the teacher has much, and at alpha -1, which punishes too much where the teacher has little.

        Reference:
            Wang et al., 2021, AlphaNet, section 3 (alpha -1 and 1, ratios of probabilities clipped at 5). Here ratios
            are clipped for alpha -1 only, and without a gradient of their own beyond the clip.
        """
        log_q, log_p = F.log_softmax(outputs, dim=1), soft.clamp_min(1e-12).log()
        over = (log_q - log_p).exp().clamp(max=ALPHA_CLIP)  # (p / q) to the power of -1
        at_minus_one = 0.5 * (log_q.exp() * (over - 1)).sum(1)
        at_one = (soft * (log_p - log_q)).sum(1)
        return torch.maximum(at_minus_one, at_one).mean()

    def predicted_classes(self, outputs: Tensor) -> Tensor:
        """Return ``(B,)`` classes of the highest logits; of equal ones the first."""
        return outputs.argmax(1)

    def largest_stderr(self, n_images: int) -> float:
        """Return the standard error of the top-1 of ``n_images`` where half of them are right, in percent."""
        return 100 * math.sqrt(0.25 / n_images)

    def meter(self) -> Accuracy:
        """Return a counter of right answers."""
        return Accuracy()


class Accuracy:
    """Counts images whose highest logit is their label."""

    def __init__(self) -> None:
        self._right = self._n = 0
        self._finite = True

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count ``(B, classes)`` logits beside ``(B,)`` labels."""
        self._finite = self._finite and bool(torch.isfinite(outputs).all())
        self._right += int((outputs.argmax(1) == targets).sum())
        self._n += len(targets)

    def values(self) -> dict[str, float]:
        """Return top-1 and its standard error, in percent.

        The error is that of a share of independent images; near 0 and 100 % it is not taken to vanish: half an image
        stays uncertain.
        """
        if not self._finite or not self._n:
            return {TOP1.name: math.nan, TOP1.named("stderr"): math.nan}
        share = self._right / self._n
        stderr = 100 * math.sqrt(max(share * (1 - share), 0.25 / self._n) / self._n)
        return {TOP1.name: 100 * share, TOP1.named("stderr"): stderr}


CLASSIFICATION = Classification()
