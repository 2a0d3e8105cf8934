"""What does a network do for each class that it predicts? Sums of its activations, gathered while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hwnas.errors import RecipeError
from hwnas.task.classification import CLASSIFICATION
from hwnas.task.task import PredictsClasses

MOST_IMAGES = 25_000
"""Of which profiles are made, as in XNAS."""
PASS_BYTES = 2**29
"""What the profiles of one pass over the images may take; a score that needs more is gathered in several passes."""
HELD_BYTES = 2**29
"""What the watched outputs of a batch may take, which are held until it is known what was predicted for its images."""
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.SiLU, nn.GELU, nn.Tanh)
Reduce = Literal["none", "channel_mean"]
"""See `hwnas.objectives.config.IntrospectabilityConfig`."""


class Features(NamedTuple):
    """Some outputs of a layer."""

    layer: str
    first: int
    """Of the features of the layer, in whatever order."""
    last: int
    """The one behind the last."""


class Division(NamedTuple):
    """How a score is gathered within bounds of memory."""

    passes: list[list[Features]]
    """What each pass over the images watches."""
    most_images: int
    """In a batch."""


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
        reduce: Reduce = "none",
        task: PredictsClasses = CLASSIFICATION,
        only: Sequence[Features] | None = None,
    ) -> None:
        """Watch the outputs of every convolution and activation of ``net``, which should be in eval mode.

        Args:
            net: whose outputs are watched.
            reduce: see `hwnas.objectives.config.IntrospectabilityConfig`.
            task: says which class is predicted.
            only: some outputs alone, such as those of one of `Division.passes`; None: all.
        """
        layers = watched_layers(net)
        self.reduce, self.task = reduce, task
        self._only = None if only is None else {name: [f for f in only if f.layer == name] for name in layers}
        self._layers = {n: m for n, m in layers.items() if self._only is None or self._only[n]}
        self._outputs: dict[str, Tensor] = {}
        self._sums: dict[str, list[Tensor]] = {}
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
        """Forget the sums; what was predicted stays known."""
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
                output = output.mean((2, 3)) if self.reduce == "channel_mean" else output.permute(0, 2, 3, 1)
            parts = self._parts(name, output.reshape(len(output), -1))
            sums = [(members.T @ part).double() for part in parts]  # (classes, features) each
            known = self._sums.get(name)
            self._sums[name] = sums if known is None else [a.add_(b) for a, b in zip(known, sums, strict=True)]
        self._outputs.clear()

    def _parts(self, name: str, features: Tensor) -> Iterator[Tensor]:
        """Those of ``(B, features)`` of a layer that are watched."""
        if self._only is None:
            yield features
        else:
            yield from (features[:, f.first : f.last] for f in self._only[name])

    @property
    def confusions(self) -> Tensor | None:
        """``(classes, classes)`` images by true and predicted class; None where labels were not given."""
        return self._confusions

    @property
    def predicted(self) -> Tensor | None:
        """``(classes,)`` bool: those that were predicted for an image; None before anything is added."""
        return None if self._counts is None else self._counts > 0

    def gram(self, predicted: Tensor, layers: Sequence[str] | None = None) -> Tensor:
        """Return ``(m, m)`` scalar products between the profiles of m predicted classes, over watched outputs.

        Args:
            predicted: ``(classes,)`` bool with m True.
            layers: some of them; None: all.
        """
        m = int(predicted.sum())
        gram = torch.zeros(m, m, dtype=torch.float64, device=predicted.device)
        for name in self._sums if layers is None else layers:
            for sums in self._sums[name]:
                profiles = sums[predicted]
                gram += profiles @ profiles.T
        return gram

    def introspectability(self, weights: Tensor | None = None) -> float:
        """Return the mean cosine distance over all pairs of predicted classes, 0 to 2; larger is better.

        A network that predicts fewer than two classes has no pairs and scores 0.

        Args:
            weights: ``(classes, classes)`` by which each pair's distance is multiplied before the mean, as XNAS does
                with similarities of WordNet; None: all alike.

        Raises:
            RecipeError: weights of another number of classes.
        """
        return self._score(None, weights)

    def by_layer(self, weights: Tensor | None = None) -> dict[str, float]:
        """Return the score of every convolution and activation by itself, by the layer's name, input to output."""
        return {name: self._score([name], weights) for name in self._sums}

    def _score(self, layers: Sequence[str] | None, weights: Tensor | None) -> float:
        predicted = self.predicted
        return float("nan") if predicted is None else score_of(self.gram(predicted, layers), predicted, weights)


def score_of(gram: Tensor, predicted: Tensor, weights: Tensor | None = None) -> float:
    """Return the score of the scalar products between the profiles of classes.

    Args:
        gram: ``(m, m)``.
        predicted: ``(classes,)`` bool: the m classes.
        weights: see `ClassProfiles.introspectability`, which also says what is raised.
    """
    if weights is not None and weights.shape != (len(predicted), len(predicted)):
        raise RecipeError(
            f"weights of class pairs are of {len(weights)} classes, the network has {len(predicted)}; give a "
            "row and a column for each"
        )
    m = len(gram)
    if m < 2:
        return 0.0
    norm = gram.diagonal().sqrt()
    cosine = gram / (norm[:, None] * norm[None, :])
    pairs = torch.triu_indices(m, m, 1, device=gram.device).unbind()
    distances = 1.0 - cosine[pairs]
    if weights is not None:
        distances = distances * weights.to(gram.device)[predicted][:, predicted][pairs]
    distances = distances[~distances.isnan()]
    return float(distances.mean()) if len(distances) else float("nan")


def watched_layers(net: nn.Module) -> dict[str, nn.Module]:
    """Return the layers whose outputs make the profiles, by name."""
    return {name: m for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, *ACTIVATIONS))}


@torch.inference_mode()
def divide(net: nn.Module, one: Tensor, reduce: Reduce = "none", most_bytes: int = PASS_BYTES) -> Division:
    """Divide the outputs of a network among passes whose profiles fit into memory, and images into batches.

    Args:
        net: in eval mode.
        one: ``(1, C, H, W)`` image as it takes them.
        reduce: see `hwnas.objectives.config.IntrospectabilityConfig`.
        most_bytes: that the profiles of one pass take.
    """
    counts: dict[str, int] = {}
    outputs: dict[str, int] = {}

    def counter(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[name] = output.numel()
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
    return Division(found, max(1, HELD_BYTES // max(1, 4 * sum(outputs.values()))))
