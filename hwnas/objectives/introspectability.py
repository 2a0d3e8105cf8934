"""How differently does a network respond to different classes? The introspectability score of XNAS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hwnas.errors import RecipeError
from hwnas.objectives.case import SubnetCase
from hwnas.objectives.class_pairs import confusion_weights, of_classes, read_similarities, score_of
from hwnas.objectives.plugin import EvaluatedObjective
from hwnas.task import Task
from hwnas.task.classification import CLASSIFICATION
from hwnas.task.task import PredictsClasses
from hwnas.train.evaluate import inference_batch_size

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.SiLU, nn.GELU, nn.Tanh)

MOST_IMAGES = 25_000
"""Of which profiles are made, as in XNAS."""

PASS_BYTES = 2**30
"""What the profiles of one pass over the images may take; a score that needs more is gathered in several passes."""


class Features(NamedTuple):
    """Some outputs of a layer."""

    layer: str
    first: int
    """Of the features of the layer, in whatever order."""
    last: int
    """The one behind the last."""


class ClassProfiles:
    """Sums of activations per predicted class, gathered while a network runs.

    Use as a context around the forward passes, and call `add` with the outputs of each batch::

        with ClassProfiles(net) as profiles:
            for batch in batches:
                profiles.add(net(batch))
        score = profiles.introspectability()
    """

    def __init__(
        self,
        net: nn.Module,
        reduce: Literal["none", "channel_mean"] = "none",
        task: PredictsClasses = CLASSIFICATION,
        only: Sequence[Features] | None = None,
    ) -> None:
        """Watch the outputs of every convolution and activation of ``net``, which should be in eval mode.

        Args:
            net: whose outputs are watched.
            reduce: see `hwnas.objectives.config.IntrospectabilityConfig`.
            task: says which class is predicted.
            only: some outputs alone, such as one of `passes`.
        """
        self.reduce = reduce
        self.task = task
        layers = watched_layers(net)
        self._only = None if only is None else {name: [f for f in only if f.layer == name] for name in layers}
        self._layers = {n: m for n, m in layers.items() if self._only is None or self._only[n]}
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

    def clear(self) -> None:
        """Forget the sums."""
        self._sums.clear()

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
        predicted, n_classes = self.task.predicted_classes(outputs), outputs.shape[1]
        members = nn.functional.one_hot(predicted, n_classes).to(torch.float32)  # (B, classes)
        counts = members.sum(0)
        self._counts = counts if self._counts is None else self._counts + counts
        if labels is not None:
            self._confuse(labels, predicted, n_classes)
        for name, whole in self._outputs.items():
            output = whole[:room]
            if output.ndim == 4:
                # (B, H, W, C) is how channels-last maps lie in memory; the order of features does not matter.
                output = output.mean((2, 3)) if self.reduce == "channel_mean" else output.permute(0, 2, 3, 1)
            features = output.reshape(len(output), -1)
            for key, part in self._parts(name, features):
                batch_sums = (members.T @ part).double()  # (classes, features)
                known = self._sums.get(key)
                self._sums[key] = batch_sums if known is None else known.add_(batch_sums)
        self._outputs.clear()

    def _confuse(self, labels: Tensor, predicted: Tensor, n: int) -> None:
        if labels.is_floating_point():
            raise RecipeError(
                "pair_weights confusion needs labels that are classes; those of the task are other numbers: use uniform"
            )
        pairs = torch.bincount(labels * n + predicted, minlength=n * n).view(n, n)
        self._confusions = pairs if self._confusions is None else self._confusions + pairs

    def _parts(self, name: str, features: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Those of ``(B, features)`` of a layer that are watched, and what they are called."""
        if self._only is None:
            yield name, features
        else:
            yield from ((f"{name}[{f.first}:{f.last}]", features[:, f.first : f.last]) for f in self._only[name])

    @property
    def predicted(self) -> Tensor:
        """``(classes,)`` bool: those that were predicted for an image."""
        assert self._counts is not None, "nothing was added yet"
        return self._counts > 0

    def gram(self, predicted: Tensor) -> Tensor:
        """Return ``(m, m)`` scalar products between the profiles of m predicted classes, over the watched outputs."""
        m = int(predicted.sum())
        gram = torch.zeros(m, m, dtype=torch.float64, device=predicted.device)
        for sums in self._sums.values():
            profiles = sums[predicted]
            gram += profiles @ profiles.T
        return gram

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
        if self._counts is None:
            return float("nan")
        return score_of(self.gram(self.predicted), of_classes(weights, self.predicted))

    def by_layer(self, weights: Tensor | None = None) -> dict[str, float]:
        """Return the score of every convolution and activation by itself, by the layer's name, input to output."""
        if self._counts is None:
            return {}
        own = of_classes(weights, self.predicted)
        profiles = {name: sums[self.predicted] for name, sums in self._sums.items()}
        return {name: score_of(of @ of.T, own) for name, of in profiles.items()}


def watched_layers(net: nn.Module) -> dict[str, nn.Module]:
    """Return the layers whose outputs make the profiles, by name."""
    return {name: m for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, *ACTIVATIONS))}


@torch.inference_mode()
def passes(
    net: nn.Module, one: Tensor, reduce: Literal["none", "channel_mean"] = "none", most_bytes: int = PASS_BYTES
) -> list[list[Features]]:
    """Divide the outputs of a network among passes whose profiles fit into memory.

    Args:
        net: in eval mode.
        one: ``(1, C, H, W)`` image as it takes them.
        reduce: see `hwnas.objectives.config.IntrospectabilityConfig`.
        most_bytes: that the profiles of one pass take.
    """
    counts: dict[str, int] = {}

    def counter(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            counts[name] = output.shape[1] if reduce == "channel_mean" else output.numel()

        return hook

    handles = [m.register_forward_hook(counter(name)) for name, m in watched_layers(net).items()]
    try:
        classes = net(one).shape[1]
    finally:
        for handle in handles:
            handle.remove()
    room = max(1, most_bytes // (8 * classes))
    found: list[list[Features]] = [[]]
    left = room
    for name, n in counts.items():
        first = 0
        while first < n:
            if left == 0:
                found.append([])
                left = room
            last = min(n, first + left)
            found[-1].append(Features(name, first, last))
            left -= last - first
            first = last
    return found


def introspectability(
    net: nn.Module, inputs: Tensor, reduce: Literal["none", "channel_mean"] = "none", batch_size: int = 500,
    weights: Tensor | None = None,
) -> float:  # fmt: skip
    """Return the introspectability score of a network, from as many passes over the images as memory makes necessary.

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
    inputs = inputs[:MOST_IMAGES]
    divided = passes(net, inputs[:1], reduce) if len(inputs) else [[]]
    first = None if len(divided) == 1 else divided[0]
    with torch.inference_mode(), ClassProfiles(net, reduce, only=first) as profiles:
        for i in range(0, len(inputs), batch_size):
            profiles.add(net(inputs[i : i + batch_size]))
    return _with_further_passes(profiles, net, divided, lambda: inputs.split(batch_size), weights)


def class_profiles(
    net: nn.Module, inputs: Tensor, labels: Tensor | None = None, reduce: Literal["none", "channel_mean"] = "none",
    batch_size: int = 500,
) -> ClassProfiles:  # fmt: skip
    """Return the class profiles of a network on images: its score, the score of each layer, its confusions.

    All profiles are in memory at once: classes times outputs, 8 bytes each.

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


@torch.inference_mode()
def _with_further_passes(
    profiles: ClassProfiles,
    net: nn.Module,
    divided: Sequence[Sequence[Features]],
    batches: Callable[[], Iterable[Tensor]],
    weights: Tensor | None = None,
) -> float:
    """The score, the outputs that the first pass could not hold being gathered by further ones."""
    if len(divided) == 1:
        return profiles.introspectability(weights)
    predicted = profiles.predicted
    gram = profiles.gram(predicted)
    for features in divided[1:]:
        profiles.clear()
        with ClassProfiles(net, profiles.reduce, profiles.task, features) as more:
            for batch in batches():
                more.add(net(batch))
        gram += more.gram(predicted)
    return score_of(gram, of_classes(weights, predicted))


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
        reduce = config.reduce
        given = None if config.pair_weights in ("uniform", "confusion") else read_similarities(config.pair_weights)
        divided = passes(case.network, case.validation_inputs.first(1).tensors()[0], reduce)
        first = None if len(divided) == 1 else divided[0]
        with ClassProfiles(case.network, reduce, case.task, first) as profiles:
            yield _Profiled(profiles, case, divided, config.pair_weights == "confusion", given)


@dataclass
class _Profiled:
    """Class profiles of a network whose outputs are finite."""

    profiles: ClassProfiles
    case: SubnetCase
    divided: Sequence[Sequence[Features]]
    by_confusion: bool
    """Whether pairs of classes count as much as the network confuses them."""
    given: Tensor | None
    """Weights of the pairs; None: all alike, or by confusion."""
    n: int = 0
    finite: bool = True

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self.n += len(outputs)
        self.finite = self.finite and bool(torch.isfinite(outputs).all())
        if self.finite:
            self.profiles.add(outputs, targets if self.by_confusion else None)

    def values(self) -> dict[str, float]:
        if not self.finite:
            return {INTROSPECTABILITY.name: float("nan")}
        self.profiles.__exit__()  # further passes are watched by others
        confusions = self.profiles.confusions
        weights = self.given if confusions is None else confusion_weights(confusions)
        inputs = self.case.validation_inputs.first(min(self.n, MOST_IMAGES))
        size = inference_batch_size(inputs.resolution**2)
        value = _with_further_passes(
            self.profiles, self.case.network, self.divided, lambda: (x for x, _ in inputs.batches(size)), weights
        )
        return {INTROSPECTABILITY.name: value}


INTROSPECTABILITY = Introspectability()
