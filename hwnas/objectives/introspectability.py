"""How differently does a network respond to different classes? The introspectability score of XNAS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.errors import RecipeError
from hwnas.objectives.case import SubnetCase
from hwnas.objectives.plugin import EvaluatedObjective
from hwnas.task import Task
from hwnas.task.classification import CLASSIFICATION
from hwnas.task.task import PredictsClasses

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
    def add(self, outputs: Tensor) -> None:
        """Add the activations of the last forward pass to the profiles of its predicted classes.

        Args:
            outputs: ``(B, classes)`` of that pass.
        """
        predicted, n_classes = self._task.predicted_classes(outputs), outputs.shape[1]
        members = nn.functional.one_hot(predicted, n_classes).to(torch.float32)  # (B, classes)
        counts = members.sum(0)
        self._counts = counts if self._counts is None else self._counts + counts
        for name, output in self._outputs.items():
            if output.ndim == 4:
                # (B, H, W, C) is how channels-last maps lie in memory; the order of features does not matter.
                output = output.mean((2, 3)) if self._reduce == "channel_mean" else output.permute(0, 2, 3, 1)
            batch_sums = (members.T @ output.reshape(len(output), -1)).double()  # (classes, features)
            known = self._sums.get(name)
            self._sums[name] = batch_sums if known is None else known + batch_sums
        self._outputs.clear()

    def introspectability(self) -> float:
        """Return the mean cosine distance over all pairs of predicted classes, 0 to 2; larger is better.

        A network that predicts fewer than two classes has no pairs and scores 0.
        """
        if self._counts is None:
            return float("nan")
        predicted = self._counts > 0
        m = int(predicted.sum())
        if m < 2:
            return 0.0
        gram = torch.zeros(m, m, dtype=torch.float64)
        for sums in self._sums.values():
            profiles = sums[predicted]
            gram += profiles @ profiles.T
        norm = gram.diagonal().sqrt()
        cosine = gram / (norm[:, None] * norm[None, :])
        distances = 1.0 - cosine[torch.triu_indices(m, m, 1).unbind()]
        distances = distances[~distances.isnan()]
        return float(distances.mean()) if len(distances) else float("nan")


def introspectability(
    net: nn.Module, inputs: Tensor, reduce: Literal["none", "channel_mean"] = "none", batch_size: int = 500
) -> float:
    """Return the introspectability score of a network.

    Every image adds the outputs of all convolutions and activations (squeeze-excite's included; batch norm, pooling,
    additions and the classifier are not) to the profile of the class that the network *predicts* for it; the score is
    the mean over pairs of classes of 1 minus the cosine of their profiles.

    Args:
        net: in eval mode, its batch norm calibrated and not folded.
        inputs: ``(N, C, H, W)`` validation images without augmentation.
        reduce: see `hwnas.objectives.config.IntrospectabilityConfig`.
        batch_size: images in one pass; does not change the score.

    Reference:
        Carmichael, Moon and Jacobs, 2023, Learning Debuggable Models Through Multi-Objective NAS (XNAS), and its
        code: features of all layers are joined without scaling, classes are the predicted ones.
    """
    with torch.inference_mode(), ClassProfiles(net, reduce) as profiles:
        for i in range(0, len(inputs), batch_size):
            profiles.add(net(inputs[i : i + batch_size]))
        return profiles.introspectability()


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
        with ClassProfiles(case.network, case.config.introspectability.reduce, case.task) as profiles:
            yield _Profiled(profiles)


@dataclass
class _Profiled:
    """Class profiles of a network whose outputs are finite."""

    profiles: ClassProfiles
    finite: bool = True

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self.finite = self.finite and bool(torch.isfinite(outputs).all())
        if self.finite:
            self.profiles.add(outputs)

    def values(self) -> dict[str, float]:
        value = self.profiles.introspectability() if self.finite else float("nan")
        return {INTROSPECTABILITY.name: value}


INTROSPECTABILITY = Introspectability()
