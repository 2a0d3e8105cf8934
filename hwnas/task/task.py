"""What is a task? What its labels mean, which loss teaches them, and which scores say how well they were learnt.

A network gives ``(B, k)`` outputs (the logits of a classifier, the predicted values of a regression); how many is the
recipe's ``supernet.classes``. Everything else that depends on what they mean is asked of the task.

A recipe names a task of one's own as ``task: my_package.tasks:ages``, where ``ages`` is an object of a class that
inherits from `Task`. Of what a task has, a regression needs little: labels become float targets, the loss is a mean
squared error, a teacher's outputs are soft targets as they are, and the meter adds up errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Score:
    """How good a network is, by one number."""

    name: str
    """Such as ``top1_percent``; its last word is the unit, where it has one."""
    direction: Literal["min", "max"]
    title: str
    """For people, without the unit: ``top-1``."""
    unit: str = ""
    """For people: ``%``. Empty where the score has none; then nor has its name."""
    range: tuple[float, float] | None = None
    """Least and greatest value that it can have, so that limits beyond are refused; None: not known."""

    def __post_init__(self) -> None:
        if self.direction not in ("min", "max"):
            raise PluginError(f"score {self.name!r} has direction {self.direction!r}; use 'min' or 'max'")
        if self.unit and "_" not in self.name:
            raise PluginError(f"score {self.name!r} has the unit {self.unit!r}; name it {self.name}_<unit>")

    def named(self, what: str) -> str:
        """Return the name of something about this score; ``top1_percent`` and ``stderr`` give ``top1_stderr_percent``.

        The word comes before the unit; where there is no unit, it comes last.
        """
        if not self.unit:
            return f"{self.name}_{what}"
        quantity, _, unit = self.name.rpartition("_")
        return f"{quantity}_{what}_{unit}"

    @property
    def sign(self) -> float:
        """1 where larger is better, -1 where smaller is: ``sign * value`` is better the larger it is."""
        return 1.0 if self.direction == "max" else -1.0


class Meter(Protocol):
    """Adds up what a network answers, batch after batch, and says how well it did."""

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch: ``(B, k)`` outputs and the targets of the same images."""
        ...

    def values(self) -> dict[str, float]:
        """Return every score by its name, and its standard error by ``score.named("stderr")``, of all batches so far.

        All are NaN where an output was not finite, or nothing was added.
        """
        ...


class Task(Protocol):
    """What learning means. A task of one's own inherits from this class, or has the same attributes."""

    name: str
    """As recipes write it."""
    scores: tuple[Score, ...]
    """What a `Meter` of this task gives, at least one; see `score`."""

    @property
    def score(self) -> Score:
        """The first of `scores`: the one that chooses epochs, and that a search optimises unless told otherwise."""
        return self.scores[0]

    def check(
        self, train: NDArray[np.generic], test: NDArray[np.generic] | None, n_outputs: int, names: Sequence[str],
        where: str,
    ) -> None:  # fmt: skip
        """Raise where the labels of a source cannot be learnt by a network of ``n_outputs`` outputs.

        Args:
            train: ``(N, ...)`` labels of training images, as the source gives them; N is at least 1.
            test: labels of test images, if the source has such images; there may be none.
            n_outputs: of the network.
            names: what the source calls the classes, or whatever the outputs stand for.
            where: begins the message: which source it is.

        Raises:
            DataError: what was given, what is allowed, what to do.
        """
        ...

    def strata(self, labels: NDArray[np.generic]) -> NDArray[np.int64]:
        """Return ``(N,)`` numbers of groups; every split has the same share of each.

        The classes of a classification; all 0 where labels are no groups.
        """
        ...

    def targets(self, labels: NDArray[np.generic]) -> Tensor:
        """Return labels as `loss` takes them: int64 ``(N,)`` or float32 ``(N, k)``."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the mean loss of a batch, a scalar with gradients.

        Args:
            outputs: ``(B, k)`` float32.
            targets: of the same images.
            smoothing: 0 to 1, how little single labels are trusted; a task without such a notion leaves it alone.
        """
        ...

    def soft_targets(self, outputs: Tensor) -> Tensor:
        """Return what a teacher's ``(B, k)`` outputs tell a student, such as the probabilities of classes."""
        ...

    def distillation_loss(self, outputs: Tensor, soft: Tensor) -> Tensor:
        """Return the mean loss of a student's ``(B, k)`` outputs against `soft_targets` of its teacher."""
        ...

    def meter(self) -> Meter:
        """Return a meter that has seen nothing."""
        ...


@runtime_checkable
class HasAlphaDivergence(Protocol):
    """What a task also has whose outputs are a distribution, for phases with ``divergence: alpha``."""

    def alpha_divergence(self, outputs: Tensor, soft: Tensor) -> Tensor:
        """Return the mean divergence of a student's ``(B, k)`` outputs from `Task.soft_targets` of its teacher."""
        ...


@runtime_checkable
class HasLargestStderr(Protocol):
    """What a task also has that can say how uncertain its score is at most."""

    def largest_stderr(self, n_images: int) -> float:
        """Return the largest standard error that the first score of ``n_images`` images can have, in its unit."""
        ...


@runtime_checkable
class PredictsClasses(Protocol):
    """What a task also has whose outputs choose one class for each image."""

    def predicted_classes(self, outputs: Tensor) -> Tensor:
        """Return ``(B,)`` int64 numbers of classes, below the number of outputs."""
        ...
