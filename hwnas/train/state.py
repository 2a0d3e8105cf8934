"""What does a training carry from step to step, and how does it outlive the process?

Everything a step does follows from (settings, seed, step number) and this state. There is no other, so a killed
training that goes on from its checkpoint ends with the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from hwnas.data import NOT_BINDING_DATA, DataConfig
from hwnas.errors import CheckpointError, ResumeError, UnreadableError
from hwnas.progress import Progress, silent
from hwnas.reading import made_of
from hwnas.supernet import SuperNet
from hwnas.train.checkpoint import load_weights
from hwnas.train.last_good import load_checkpoint, save_checkpoint
from hwnas.train.phases import TrainConfig

NOT_BINDING = {"checkpoint_every_s", "start_from", "tensorboard", "device"}
"""Settings that may change between two starts of the same training."""


@dataclass
class TrainState:
    """What a training carries from step to step."""

    supernet: SuperNet
    optimiser: torch.optim.SGD
    scaler: torch.amp.GradScaler
    """Of float16 losses; switched off for other precisions."""
    phase: int = 0
    step: int = 0
    """Next step inside the phase."""
    teacher: dict[str, Tensor] = field(default_factory=dict)
    """State of the largest net at the end of the first phase, or at the start; empty where no phase needs it."""
    pet: dict[str, Tensor] = field(default_factory=dict)
    """State of the largest net at the beginning of this phase, where it is the teacher."""
    average: dict[str, Tensor] = field(default_factory=dict)
    """Moving average of the supernet's state within this phase."""

    def write(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write a checkpoint, atomically.

        Args:
            path: the file.
            settings: what the training was started with; `read` compares them.
        """
        groups = {
            "supernet": self.supernet.state_dict(), "teacher": self.teacher, "pet": self.pet, "average": self.average,
            "momentum": state_of_optimiser(self.supernet, self.optimiser, MOMENTUM),
        }  # fmt: skip
        tensors = {f"{group}.{k}": v for group, named in groups.items() for k, v in named.items()}
        metadata = {
            "settings": dict(settings), "phase": self.phase, "step": self.step, "scaler": self.scaler.state_dict(),
        }  # fmt: skip
        save_checkpoint(path, tensors, metadata)

    def read(self, path: Path, settings: Mapping[str, Any], progress: Progress = silent) -> bool:
        """Go on where a checkpoint was written; return whether there is one.

        Raises:
            ResumeError: it was written with other settings.
            CheckpointError: it is damaged.
        """
        found = load_checkpoint(path, progress)
        if found is None:
            return False
        tensors, metadata = found
        try:
            with made_of(path):
                check_settings(metadata.get("settings", {}), settings, path)
                load_weights(self.supernet, under_prefix(tensors, "supernet."), str(path))
                restore_state_of_optimiser(self.supernet, self.optimiser, MOMENTUM, under_prefix(tensors, "momentum."))
                if metadata.get("scaler"):
                    self.scaler.load_state_dict(metadata["scaler"])
                self.phase, self.step = int(metadata["phase"]), int(metadata["step"])
                self.teacher, self.pet = under_prefix(tensors, "teacher."), under_prefix(tensors, "pet.")
                own, average = self.supernet.state_dict(), under_prefix(tensors, "average.")
                self.average = {k: torch.empty_like(own[k]).copy_(v) for k, v in average.items()}
        except UnreadableError as error:
            raise CheckpointError(f"{path} is damaged: {error.reason}; remove it: the training begins anew") from None
        return True


def check_settings(found: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    """Compare the settings in a file with those of now; ones younger than the file stand at their defaults in it.

    Raises:
        ResumeError: they differ; the sections are named.
    """
    there: dict[str, Any] = json.loads(json.dumps(found))
    now: dict[str, Any] = json.loads(json.dumps(expected))
    with suppress(ValidationError):
        there["train"] = TrainConfig.model_validate(there.get("train")).model_dump(mode="json", exclude=NOT_BINDING)
        there["data"] = DataConfig.model_validate(there.get("data")).model_dump(mode="json", exclude=NOT_BINDING_DATA)
    if there == now:
        return
    differing = [k for k in {**now, **there} if there.get(k) != now.get(k)]
    raise ResumeError(
        f"{path} was made with other settings of {', '.join(differing)}; "
        "use another --out, or go back to the recipe it was made with"
    )


MOMENTUM = "momentum_buffer"
"""As PyTorch's SGD calls it."""


def state_of_optimiser(net: nn.Module, optimiser: torch.optim.Optimizer, name: str) -> dict[str, Tensor]:
    """Return one tensor that an optimiser keeps of each of a network's parameters, as far as there are any yet.

    Args:
        net: with the parameters.
        optimiser: over them.
        name: of the tensor, as the optimiser calls it, such as `MOMENTUM`.
    """
    found = {parameter: optimiser.state.get(p, {}).get(name) for parameter, p in net.named_parameters()}
    return {parameter: tensor for parameter, tensor in found.items() if tensor is not None}


def restore_state_of_optimiser(
    net: nn.Module, optimiser: torch.optim.Optimizer, name: str, tensors: Mapping[str, Tensor]
) -> None:
    """Set tensors that `state_of_optimiser` returned."""
    parameters = dict(net.named_parameters())
    for parameter, tensor in tensors.items():
        own = parameters[parameter]
        # A buffer keeps the parameter's memory format; counters of steps are scalars.
        buffer = torch.empty_like(own) if tensor.shape == own.shape else torch.empty_like(tensor)
        optimiser.state[own][name] = buffer.copy_(tensor)


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of their own with the same values."""
    return {k: v.detach().clone() for k, v in tensors.items()}


def under_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
