"""What may an evaluated objective look at? One subnet: its arch, its networks, and images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor, nn

from hwnas.data import NetworkInputs
from hwnas.data.random_state import seeded
from hwnas.objectives.config import EvaluationConfig
from hwnas.space import Arch
from hwnas.supernet import Layout
from hwnas.task import Task

T = TypeVar("T")


@dataclass
class SubnetCase:
    """One subnet under evaluation; what is expensive is made when it is asked for first, and kept."""

    arch: Arch
    layout: Layout
    task: Task
    config: EvaluationConfig
    seed: int
    """Of everything that an objective draws."""
    make_network: Callable[[], nn.Module]
    load_training: Callable[[], NetworkInputs]
    load_validation: Callable[[], NetworkInputs]
    _shared: dict[Callable[[SubnetCase], Any], Any] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def network(self) -> nn.Module:
        """The network that is evaluated, calibrated and in eval mode; leave it as it is."""
        return self.make_network()

    @cached_property
    def fresh_network(self) -> nn.Module:
        """The same architecture with weights as before any training, in train mode; leave it as it is."""
        with seeded(self.seed):
            return self.layout.build_subnet(self.arch)

    @cached_property
    def training_inputs(self) -> NetworkInputs:
        """Training images as the network takes them, as many as batch norms are calibrated with.

        That is ``evaluation.calibration_images``; ask for some of them (`NetworkInputs.first`) or for batches: where
        images are large, all of them together are not in memory.
        """
        return self.load_training()

    @cached_property
    def validation_inputs(self) -> NetworkInputs:
        """Validation images as the network takes them; ask for some of them, or for batches."""
        return self.load_validation()

    @property
    def training(self) -> tuple[Tensor, Tensor]:
        """``(N, C, H, W)`` of all `training_inputs`, and their targets."""
        return self.training_inputs.tensors()

    @property
    def calibration_batches(self) -> Iterator[Tensor]:
        """The training images in the batches that batch norms are calibrated with."""
        return (x for x, _ in self.training_inputs.batches(self.config.calibration_batch_size))

    @property
    def validation(self) -> tuple[Tensor, Tensor]:
        """``(N, C, H, W)`` of all `validation_inputs`, and their targets."""
        return self.validation_inputs.tensors()

    def once(self, make: Callable[[SubnetCase], T]) -> T:
        """Return ``make(self)``, computed by whoever asks first: for what several objectives share."""
        if make not in self._shared:
            self._shared[make] = make(self)
        found: T = self._shared[make]
        return found
