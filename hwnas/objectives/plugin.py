"""What is an objective? A named value of every arch that has a direction, and a way to compute it.

There are two sorts, told apart by `cost`:

- ``exact``: known for every arch of a space without running a network, such as latency or parameters;
- ``evaluated``: found while a subnet answers the validation images, such as accuracy. All evaluated objectives of a
  recipe share one forward pass, and those that nobody asked for cost nothing.

An objective of one's own inherits from `ExactObjective` or `EvaluatedObjective`, or has the same attributes::

    class Confidence(EvaluatedObjective):
        name, title, direction = "confidence_percent", "mean confidence", "max"

        def observer(self, case):
            return nullcontext(MeanOfMaxima())  # has add(outputs, targets) and values()

    confidence = Confidence()  # in a recipe: objectives: [top1_percent, my_package.objectives:confidence]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hwnas.space import Arch
from hwnas.task import Task

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.latency.table import Device
    from hwnas.objectives.case import SubnetCase
    from hwnas.supernet import Layout


class ObjectivePlugin(Protocol):
    """What both sorts of objectives have."""

    name: str
    """Of its values in files, limits and pages; ends in the unit where there is one, such as ``latency_ms``."""
    title: str
    """For people, such as ``latency``."""
    direction: Literal["min", "max"]
    """Which way is better."""
    cost: Literal["exact", "evaluated"]
    """Which sort it is."""


class ValuesOfArchs(Protocol):
    """Values of a whole space; `hwnas.supernet.slot_sum.SlotSum` is one."""

    def of_genomes(self, genomes: NDArray[np.int64], /) -> NDArray[np.float64]:
        """Return ``(n,)`` values of ``(n, n_choices)`` genomes."""
        ...

    def of_archs(self, archs: Sequence[Arch], /) -> NDArray[np.float64]:
        """Return ``(n,)`` values of archs."""
        ...


class ExactObjective(ObjectivePlugin, Protocol):
    """An objective that needs no network: it is computed for every candidate before anything expensive is."""

    cost: Literal["exact"] = "exact"

    def compile(self, layout: Layout, device: Device) -> ValuesOfArchs:
        """Return what computes it for whole populations; called once, then asked for millions of archs.

        Args:
            layout: the space, and the blocks that each arch puts where; `SlotSum.of` adds up over blocks.
            device: what is searched for; an objective may look at it or not. Where a search chooses the precision of
                every arch, `Device.in_each_precision` makes one look-up of those for the two precisions.
        """
        ...


class Observer(Protocol):
    """Watches a subnet while it answers the validation images. A `hwnas.task.Meter` is one."""

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """See ``(B, k)`` outputs of the forward pass that has just ended, and the targets of the same images."""
        ...

    def values(self) -> dict[str, float]:
        """Return its objective's value by the objective's name; further values, such as a standard error, may follow.

        Called once, after the last batch. NaN says that there is no value, as where an output was not finite.
        """
        ...


@runtime_checkable
class LimitsBatches(Protocol):
    """What an observer may also have: how many images it can take at a time, where it holds much of each."""

    @property
    def most_images(self) -> int:
        """In a batch, at least 1; fewer may come."""
        ...


class EvaluatedObjective(ObjectivePlugin, Protocol):
    """An objective that is found while a subnet runs."""

    cost: Literal["evaluated"] = "evaluated"

    def check(self, task: Task) -> None:
        """Raise where it has no meaning for a task; without anything said, it has one for all.

        Raises:
            RecipeError: what the task lacks.
        """
        return None

    def observer(self, case: SubnetCase) -> AbstractContextManager[Observer]:
        """Return a context that is open during the forward pass and until `Observer.values` was asked.

        Gradients are off during the pass, and on when values are asked for. Random numbers come from ``case.seed``.
        """
        ...


@runtime_checkable
class HasLayers(Protocol):
    """What an evaluated objective may also have: its value for every layer by itself, for bundles and the report."""

    def by_layer(self, case: SubnetCase) -> Mapping[str, float]:
        """Return values by the layer's name in the network (slot, then module), input to output; empty: too large."""
        ...
