"""How differently does a network respond to different classes? The introspectability score of XNAS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.errors import RecipeError
from hwnas.objectives.case import SubnetCase
from hwnas.objectives.class_pairs import confusion_weights, read_similarities
from hwnas.objectives.plugin import EvaluatedObjective
from hwnas.task import Task
from hwnas.task.classification import CLASSIFICATION
from hwnas.task.task import PredictsClasses

MOST_IMAGES = 25_000
"""Of which profiles are made, as in XNAS."""

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.SiLU, nn.GELU, nn.Tanh)


class ClassProfiles:
    """Sums of activations per predicted class, gathered while a network runs.

    Use as a context around the forward passes, and call `add` with the outputs of each batch::

        with ClassProfiles(net) as profiles:
            for batch in batches:
                profiles.add(net(batch))
        score = profiles.introspectability()
    """

    def __init__(
        self, net: nn.Module, reduce: Literal["none", "channel_mean"] = "none", task: PredictsClasses = CLASSIFICATION
    ) -> None:  # fmt: skip
        """Watch the outputs of every convolution and activation of ``net``, which should be in eval mode."""
        self._reduce = reduce
        self._task = task
        self._layers = {name: m for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, *ACTIVATIONS))}
        self._outputs: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._counts: Tensor | None = None
        self._confusions: Tensor | None = None
        self._seen = 0
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> ClassProfiles:
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._keep(name)))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._outputs.clear()

    def _keep(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._outputs[name] = output

        return hook

    @torch.no_grad()
    def add(self, outputs: Tensor, labels: Tensor | None = None) -> None:
        """Add the activations of the last forward pass to the profiles of its predicted classes.

        Images beyond the first `MOST_IMAGES` are left out.

        Args:
            outputs: ``(B, classes)`` of that pass.
            labels: ``(B,)`` true classes, for weights by confusion; None: these cannot be asked for.
        """
        room = max(0, MOST_IMAGES - self._seen)
        self._seen += len(outputs)
        outputs, labels = outputs[:room], None if labels is None else labels[:room]
        if not len(outputs):
            self._outputs.clear()
            return
        predicted, n_classes = self._task.predicted_classes(outputs), outputs.shape[1]
        if labels is not None:
            if labels.is_floating_point():
                raise RecipeError(
                    "pair_weights confusion needs labels that are classes; those of the task are other numbers: use "
                    "uniform"
                )
            pairs = torch.bincount(labels * n_classes + predicted, minlength=n_classes**2).view(n_classes, n_classes)
            self._confusions = pairs if self._confusions is None else self._confusions + pairs
        members = nn.functional.one_hot(predicted, n_classes).to(torch.float32)  # (B, classes)
        counts = members.sum(0)
        self._counts = counts if self._counts is None else self._counts + counts
        for name, whole in self._outputs.items():
            output = whole[:room]
            if output.ndim == 4:
                # (B, H, W, C) is how channels-last maps lie in memory; the order of features does not matter.
                output = output.mean((2, 3)) if self._reduce == "channel_mean" else output.permute(0, 2, 3, 1)
            batch_sums = (members.T @ output.reshape(len(output), -1)).double()  # (classes, features)
            known = self._sums.get(name)
            self._sums[name] = batch_sums if known is None else known + batch_sums
        self._outputs.clear()

    @property
    def confusions(self) -> Tensor | None:
        """``(classes, classes)`` images by true and predicted class; None where labels were not given."""
        return self._confusions

    def introspectability(self, weights: Tensor | None = None) -> float:
        """Return the mean cosine distance over all pairs of predicted classes, 0 to 2; larger is better.

        A network that predicts fewer than two classes has no pairs and scores 0.

        Args:
            weights: ``(classes, classes)`` by which each pair's distance is multiplied before the mean, as XNAS does
                with similarities of WordNet; None: all alike.

        Raises:
            RecipeError: weights of another number of classes.
        """
        return self._score(list(self._sums), weights)

    def by_layer(self, weights: Tensor | None = None) -> dict[str, float]:
        """Return the score of every convolution and activation by itself, by the layer's name, input to output."""
        return {name: self._score([name], weights) for name in self._sums}

    def _score(self, layers: Sequence[str], weights: Tensor | None) -> float:
        if self._counts is None:
            return float("nan")
        if weights is not None and weights.shape != (len(self._counts), len(self._counts)):
            raise RecipeError(
                f"weights of class pairs are of {len(weights)} classes, the network has {len(self._counts)}; give a "
                "row and a column for each"
            )
        predicted = self._counts > 0
        m = int(predicted.sum())
        if m < 2:
            return 0.0
        gram = torch.zeros(m, m, dtype=torch.float64)
        for name in layers:
            profiles = self._sums[name][predicted]
            gram += profiles @ profiles.T
        norm = gram.diagonal().sqrt()
        cosine = gram / (norm[:, None] * norm[None, :])
        pairs = torch.triu_indices(m, m, 1).unbind()
        distances = 1.0 - cosine[pairs]
        if weights is not None:
            distances = distances * weights[predicted][:, predicted][pairs]
        distances = distances[~distances.isnan()]
        return float(distances.mean()) if len(distances) else float("nan")


def introspectability(
    net: nn.Module, inputs: Tensor, reduce: Literal["none", "channel_mean"] = "none", batch_size: int = 500,
    weights: Tensor | None = None,
) -> float:  # fmt: skip
    """Return the introspectability score of a network.

    Every image adds the outputs of all convolutions and activations (squeeze-excite's included; batch norm, pooling,
    additions and the classifier are not) to the profile of the class that the network *predicts* for it; the score is
    the mean over pairs of classes of 1 minus the cosine of their profiles.

    Args:
        net: in eval mode, its batch norm calibrated and not folded.
        inputs: ``(N, C, H, W)`` validation images without augmentation.
        reduce: see `hwnas.objectives.config.IntrospectabilityConfig`.
        batch_size: images in one pass; does not change the score.
        weights: of pairs of classes, see `ClassProfiles.introspectability`.

    Reference:
        Carmichael, Moon and Jacobs, 2023, Learning Debuggable Models Through Multi-Objective NAS (XNAS), and its
        code: features of all layers are joined without scaling, classes are the predicted ones, at most 25,000 images
        are taken.
    """
    return class_profiles(net, inputs, reduce=reduce, batch_size=batch_size).introspectability(weights)


def class_profiles(
    net: nn.Module, inputs: Tensor, labels: Tensor | None = None, reduce: Literal["none", "channel_mean"] = "none",
    batch_size: int = 500,
) -> ClassProfiles:  # fmt: skip
    """Return the class profiles of a network on images: its score, the score of each layer, its confusions.

    Args:
        net: in eval mode, its batch norm calibrated and not folded.
        inputs: ``(N, C, H, W)`` images without augmentation.
        labels: ``(N,)`` their classes, for `ClassProfiles.confusions`.
        reduce: see `hwnas.objectives.config.IntrospectabilityConfig`.
        batch_size: images in one pass.
    """
    with torch.inference_mode(), ClassProfiles(net, reduce) as profiles:
        for i in range(0, min(len(inputs), MOST_IMAGES), batch_size):
            own = None if labels is None else labels[i : i + batch_size]
            profiles.add(net(inputs[i : i + batch_size]), own)
    return profiles


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
        with ClassProfiles(case.network, config.reduce, case.task) as profiles:
            yield _Profiled(profiles, config.pair_weights == "confusion", given)


@dataclass
class _Profiled:
    """Class profiles of a network whose outputs are finite."""

    profiles: ClassProfiles
    by_confusion: bool
    """Whether pairs of classes count as much as the network confuses them."""
    given: Tensor | None
    """Weights of the pairs; None: all alike, or by confusion."""
    finite: bool = True

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self.finite = self.finite and bool(torch.isfinite(outputs).all())
        if self.finite:
            self.profiles.add(outputs, targets if self.by_confusion else None)

    def values(self) -> dict[str, float]:
        confusions, weights = self.profiles.confusions, self.given
        if confusions is not None:
            weights = confusion_weights(confusions)
        return {INTROSPECTABILITY.name: self.profiles.introspectability(weights) if self.finite else float("nan")}


INTROSPECTABILITY = Introspectability()
