"""How do several exits of one network serve? Pruned after training, and as a cascade that easy images leave early."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.errors import ArgumentError
from hwnas.pareto import non_dominated
from hwnas.supernet import fold_bn
from hwnas.supernet.exits import ExitNetwork, output_weights
from hwnas.task import Task
from hwnas.train.evaluate import inference_batch_size
from hwnas.train.teacher import weighted_sum

FloatArray = NDArray[np.float64]

QUANTILES = np.linspace(0.1, 0.9, 9)
"""Of an exit's confidences, between which thresholds are tried."""


@dataclass(frozen=True)
class PrunedExits:
    """What `prune_exits` found."""

    network: ExitNetwork
    """With the exits that are best together."""
    scores: dict[tuple[int, ...], float]
    """Main score of the task of every subset of the exits, by their names."""


def prune_exits(network: ExitNetwork, inputs: Tensor, targets: Tensor, task: Task) -> PrunedExits:
    """Keep the exits whose weighted outputs score best together; of equal ones the fewest, and those that come first.

    Args:
        network: trained; it is not changed.
        inputs: ``(N, C, H, W)`` validation images as it takes them.
        targets: of the same images.
        task: whose main score decides.

    Reference:
        Sarti et al., 2023, AEP: every subset of exits is evaluated after the joint training.
    """
    names = list(network.names.values())
    subsets = [s for n in range(1, len(names) + 1) for s in itertools.combinations(names, n)]
    outputs = dict(zip(names, _outputs(network, inputs), strict=True))  # those of an exit are the same in every subset
    found = {}
    for subset in subsets:
        weights = output_weights(network.ordering, len(subset))
        meter = task.meter()
        meter.add(weighted_sum([outputs[name] for name in subset], weights), targets)
        found[subset] = meter.values()[task.score.name]
    best = max(found.values()) if task.score.direction == "max" else min(found.values())
    chosen = min((s for s in subsets if found[s] == best), key=lambda s: (len(s), s))
    return PrunedExits(network.with_exits(chosen), found)


@torch.inference_mode()
def _outputs(network: ExitNetwork, inputs: Tensor) -> list[Tensor]:
    """``(N, k)`` of every exit, first to last."""
    size = inference_batch_size(inputs.shape[2:].numel())
    folded = fold_bn(network)
    assert isinstance(folded, ExitNetwork)
    parts = [folded.exits(x) for x in inputs.split(size)]
    return [torch.cat(of) for of in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Cascade:
    """Confidence thresholds of the exits, and what they give on some images."""

    thresholds: tuple[float, ...]
    """Of every exit but the last: an image whose largest class probability is at least as high leaves there."""
    shares: tuple[float, ...]
    """Of the images, that leave at each exit."""
    top1_percent: float
    expected_ms: float
    """Mean latency, from the shares and the time until each exit."""


def exit_answers(network: ExitNetwork, inputs: Tensor, batch_size: int = 500) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return ``(N, exits)`` largest class probabilities and ``(N, exits)`` predicted classes.

    Args:
        network: whose outputs are logits of classes.
        inputs: ``(N, C, H, W)``.
        batch_size: images in one pass.
    """
    sure, said = [], []
    with torch.inference_mode():
        for batch in inputs.split(batch_size):
            best = [z.float().softmax(1).max(1) for z in network.eval().exits(batch)]
            sure.append(torch.stack([b.values for b in best], 1))
            said.append(torch.stack([b.indices for b in best], 1))
    return torch.cat(sure).double().numpy(), torch.cat(said).numpy()


def cascade(
    confidences: FloatArray, correct: NDArray[np.bool_], latencies_ms: Sequence[float], thresholds: Sequence[float]
) -> Cascade:
    """Return what thresholds give.

    Args:
        confidences: ``(N, exits)``.
        correct: ``(N, exits)`` whether each exit's answer is right.
        latencies_ms: until each exit; see `exit_latencies_ms`.
        thresholds: one for every exit but the last.

    Raises:
        ArgumentError: another number of thresholds or latencies than exits ask for.
    """
    n = confidences.shape[1]
    if len(thresholds) != n - 1 or len(latencies_ms) != n:
        raise ArgumentError(
            f"{n} exits need {n - 1} thresholds and {n} latencies, got {len(thresholds)} and {len(latencies_ms)}"
        )
    leaves = np.concatenate([confidences[:, :-1] >= np.asarray(thresholds), np.ones((len(confidences), 1), bool)], 1)
    at = leaves.argmax(1)
    shares = np.bincount(at, minlength=n) / len(at)
    right = correct[np.arange(len(at)), at].mean()
    return Cascade(
        tuple(map(float, thresholds)), tuple(shares.tolist()), 100.0 * float(right),
        float(shares @ np.asarray(latencies_ms)),
    )  # fmt: skip


def choose_cascades(
    confidences: FloatArray, correct: NDArray[np.bool_], latencies_ms: Sequence[float]
) -> list[Cascade]:
    """Return the thresholds that no others beat in accuracy and expected latency, fastest first.

    Tried are `QUANTILES` of every exit's confidences, that nothing leaves there, and that all do; the arguments are as
    of `cascade`, from validation images.
    """
    tried = [[0.0, *np.quantile(of, QUANTILES).tolist(), np.inf] for of in confidences.T[:-1]]
    found = [cascade(confidences, correct, latencies_ms, t) for t in itertools.product(*tried)]
    front = non_dominated(np.array([[-c.top1_percent, c.expected_ms] for c in found]))
    unique = {(c.top1_percent, c.expected_ms): c for c, on in zip(found, front, strict=True) if on}
    return sorted(unique.values(), key=lambda c: c.expected_ms)
