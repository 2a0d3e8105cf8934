"""How differently does a network respond to different classes? The introspectability score of XNAS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hwnas.errors import RecipeError
from hwnas.objectives.case import SubnetCase
from hwnas.objectives.class_pairs import confusion_weights, read_similarities
from hwnas.objectives.class_profiles import MOST_IMAGES, ClassProfiles, Division, Features, Reduce, divide, score_of
from hwnas.objectives.plugin import EvaluatedObjective
from hwnas.reading.memory import give_back
from hwnas.task import Task
from hwnas.task.task import PredictsClasses
from hwnas.train.evaluate import inference_batch_size

LAYER_IMAGES = 1000
"""Validation images from which the score of each layer is found."""


def introspectability(
    net: nn.Module, inputs: Tensor, reduce: Reduce = "none", batch_size: int = 500, weights: Tensor | None = None
) -> float:
    """Return the introspectability score of a network, from as many passes over the images as memory makes necessary.

    Every image adds the outputs of all convolutions and activations (squeeze-excite's included; batch norm, pooling,
    additions and the classifier are not) to the profile of the class that the network *predicts* for it; the score is
    the mean over pairs of classes of 1 minus the cosine of their profiles.

    Args:
        net: in eval mode, its batch norm calibrated and not folded.
        inputs: ``(N, C, H, W)`` validation images without augmentation.
        reduce: see `hwnas.objectives.config.IntrospectabilityConfig`.
        batch_size: images at a time, fewer where a network is large; does not change the score.
        weights: of pairs of classes, see `ClassProfiles.introspectability`.

    Reference:
        Carmichael, Moon and Jacobs, 2023, Learning Debuggable Models Through Multi-Objective NAS (XNAS), and its
        code: features of all layers are joined without scaling, classes are the predicted ones, at most 25,000 images
        are taken.
    """
    taken = inputs[:MOST_IMAGES]
    division = divide(net, inputs[:1], reduce) if len(inputs) else Division([[]], 1)
    size = min(batch_size, division.most_images)
    with torch.inference_mode(), ClassProfiles(net, reduce, only=_first(division)) as profiles:
        for batch in taken.split(size):
            profiles.add(net(batch))
    return _with_further_passes(profiles, net, division, lambda: taken.split(size), weights)


def class_profiles(
    net: nn.Module, inputs: Tensor, labels: Tensor | None = None, reduce: Reduce = "none", batch_size: int = 500
) -> ClassProfiles:
    """Return the class profiles of a network on images: its score, the score of each layer, its confusions.

    All profiles are in memory: 8 bytes for each class and each output of each layer.

    Args:
        net: in eval mode, its batch norm calibrated and not folded.
        inputs: ``(N, C, H, W)`` images without augmentation.
        labels: ``(N,)`` their classes, for `ClassProfiles.confusions`.
        reduce: see `hwnas.objectives.config.IntrospectabilityConfig`.
        batch_size: images at a time, fewer where a network is large.
    """
    if len(inputs):
        batch_size = min(batch_size, divide(net, inputs[:1], reduce).most_images)
    with torch.inference_mode(), ClassProfiles(net, reduce) as profiles:
        for i in range(0, min(len(inputs), MOST_IMAGES), batch_size):
            own = None if labels is None else labels[i : i + batch_size]
            profiles.add(net(inputs[i : i + batch_size]), own)
    return profiles


def _first(division: Division) -> Sequence[Features] | None:
    """What the first pass watches; None: all."""
    return None if len(division.passes) == 1 else division.passes[0]


@torch.inference_mode()
def _with_further_passes(
    profiles: ClassProfiles,
    net: nn.Module,
    division: Division,
    batches: Callable[[], Iterable[Tensor]],
    weights: Tensor | None,
) -> float:
    """The score, the outputs that the first pass could not hold being gathered by further ones."""
    predicted = profiles.predicted
    if len(division.passes) == 1 or predicted is None:
        return profiles.introspectability(weights)
    gram = profiles.gram(predicted)
    profiles.clear()
    for features in division.passes[1:]:
        with ClassProfiles(net, profiles.reduce, profiles.task, features) as more:
            for batch in batches():
                more.add(net(batch))
        gram += more.gram(predicted)
    return score_of(gram, predicted, weights)


class Introspectability(EvaluatedObjective):
    """The score as an objective: gathered in the forward pass that also gives the accuracy."""

    name, title, direction = "introspectability", "introspectability", "max"

    def check(self, task: Task) -> None:
        """Raise where a task predicts no classes."""
        if not isinstance(task, PredictsClasses):
            raise RecipeError(
                f"objective {self.name!r} needs a task that predicts classes; {task.name!r} does not: leave it out"
            )

    @contextmanager
    def observer(self, case: SubnetCase) -> Iterator[_Profiled]:
        """Watch the network's convolutions and activations."""
        assert isinstance(case.task, PredictsClasses), "checked when the objective was found"
        config = case.config.introspectability
        given = None if config.pair_weights in ("uniform", "confusion") else read_similarities(config.pair_weights)
        division = divide(case.network, case.validation_inputs.first(1).tensors()[0], config.reduce)
        with ClassProfiles(case.network, config.reduce, case.task, _first(division)) as profiles:
            yield _Profiled(profiles, case, division, config.pair_weights == "confusion", given)

    def by_layer(self, case: SubnetCase) -> dict[str, float]:
        """Return the score of every convolution and activation on some validation images, all pairs alike.

        Empty where the profiles of all layers together are not to be kept in memory.
        """
        assert isinstance(case.task, PredictsClasses), "checked when the objective was found"
        config = case.config.introspectability
        inputs = case.validation_inputs.first(LAYER_IMAGES)
        division = divide(case.network, inputs.first(1).tensors()[0], config.reduce)
        if len(division.passes) > 1:
            return {}
        size = min(inference_batch_size(inputs.resolution**2), division.most_images)
        with torch.inference_mode(), ClassProfiles(case.network, config.reduce, case.task) as profiles:
            for batch, _ in inputs.batches(size):
                profiles.add(case.network(batch))
        return profiles.by_layer()


@dataclass
class _Profiled:
    """Class profiles of a network whose outputs are finite."""

    profiles: ClassProfiles
    case: SubnetCase
    division: Division
    by_confusion: bool
    """Whether pairs of classes count as much as the network confuses them."""
    given: Tensor | None
    """Weights of the pairs; None: all alike, or by confusion."""
    n: int = 0
    finite: bool = True

    @property
    def most_images(self) -> int:
        """In a batch."""
        return self.division.most_images

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self.n += len(outputs)
        self.finite = self.finite and bool(torch.isfinite(outputs).all())
        if self.finite:
            self.profiles.add(outputs, targets if self.by_confusion else None)

    def values(self) -> dict[str, float]:
        if not self.finite:
            return {INTROSPECTABILITY.name: float("nan")}
        confusions = self.profiles.confusions
        weights = self.given if confusions is None else confusion_weights(confusions)
        self.profiles.__exit__()  # further passes are watched by others
        inputs = self.case.validation_inputs.first(min(self.n, MOST_IMAGES))
        size = min(inference_batch_size(inputs.resolution**2), self.most_images)
        value = _with_further_passes(
            self.profiles, self.case.network, self.division, lambda: (x for x, _ in inputs.batches(size)), weights
        )
        self.profiles.clear()
        if self.most_images < inference_batch_size(inputs.resolution**2):  # a large network, with much to be freed
            give_back()
        return {INTROSPECTABILITY.name: value}


INTROSPECTABILITY = Introspectability()
