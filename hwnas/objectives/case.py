"""What may an evaluated objective look at? One subnet: its arch, its networks, and images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor, nn

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
    load_training: Callable[[], tuple[Tensor, Tensor]]
    load_validation: Callable[[], tuple[Tensor, Tensor]]
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
    def training(self) -> tuple[Tensor, Tensor]:
        """``(N, C, H, W)`` training images as the network takes them, and their targets.

        As many as batch norms are calibrated with (``evaluation.calibration_images``).
        """
        return self.load_training()

    @property
    def calibration_batches(self) -> Sequence[Tensor]:
        """The training images in the batches that batch norms are calibrated with."""
        batches: Sequence[Tensor] = self.training[0].split(self.config.calibration_batch_size)
        return batches

    @cached_property
    def validation(self) -> tuple[Tensor, Tensor]:
        """``(N, C, H, W)`` validation images as the network takes them, and their targets."""
        return self.load_validation()

    def once(self, make: Callable[[SubnetCase], T]) -> T:
        """Return ``make(self)``, computed by whoever asks first: for what several objectives share."""
        if make not in self._shared:
            self._shared[make] = make(self)
        found: T = self._shared[make]
        return found
