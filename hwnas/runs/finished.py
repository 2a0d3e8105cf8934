"""Which models of a run were trained to their end, and where do their weights lie?

Models that were trained together stand in one folder, ``finished/<group>/``: a safetensors file each, and, written
last, ``models.json``. A group that has no such file is not there yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from hwnas.errors import CheckpointError, ResumeError, SpaceError, UnreadableError
from hwnas.files import write_json
from hwnas.reading import inside, read_as
from hwnas.runs.folder import RunFolder
from hwnas.space import Arch, check_key
from hwnas.supernet import Layout
from hwnas.train.checkpoint import load_tensors, load_weights, weights_version

FORMAT = 1


@dataclass(frozen=True)
class FinishedModel:
    """One model that was trained to its end."""

    key: str
    """Of its arch."""
    weights_version: str
    file: str
    """Below the folder of finished models."""
    parent: str
    """Version of the weights that it began with, the supernet's or another finished model's; empty: fresh weights."""
    settings: str
    """Digest of everything that decided its training, but which other models were trained beside it."""
    epochs: float
    best_epoch: int
    score_before: float
    """Main score of the task on validation images, with the weights that it began with."""
    score: float
    """The same of the trained model."""
    finetuned: bool = False
    """Whether somebody asked for it (`hwnas finetune`): it may be on any front, also on one of inherited models."""


@dataclass
class FinishedModels:
    """The finished models of a run."""

    folder: RunFolder
    layout: Layout

    @cached_property
    def by_version(self) -> dict[str, FinishedModel]:
        """Every finished model, in the order of the groups' names."""
        found = [model for path in sorted(self.folder.finished.glob("*/models.json")) for model in _read(path)]
        return {model.weights_version: model for model in found}

    @property
    def finetuned(self) -> list[str]:
        """Versions of the models that somebody fine-tuned."""
        return [version for version, model in self.by_version.items() if model.finetuned]

    def lineage(self, version: str) -> list[FinishedModel]:
        """Return the trainings that led to weights, first to last; empty where they are a supernet's or fresh ones.

        Raises:
            ResumeError: they lead back to themselves.
        """
        found: list[FinishedModel] = []
        while (model := self.by_version.get(version)) is not None:
            if model in found:
                raise ResumeError(
                    f"{self.folder.finished} is damaged: weights {version} began with themselves; restore its "
                    "models.json, or remove the folder and run `hwnas search`"
                )
            found.insert(0, model)
            version = model.parent
        return found

    def origin(self, version: str) -> str:
        """Return the version of the supernet's weights that others go back to; empty: fresh weights."""
        lineage = self.lineage(version)
        return lineage[0].parent if lineage else version

    def find(self, key: str, settings: str) -> FinishedModel | None:
        """Return the model of an arch that was trained with such settings."""
        found = (m for m in self.by_version.values() if m.key == key and m.settings == settings)
        return next(found, None)

    def add(self, group: Path, models: Sequence[FinishedModel]) -> None:
        """Say that a group is there: the files of its models have been written."""
        write_json(group / "models.json", {"format": FORMAT, "models": [asdict(m) for m in models]})
        self.__dict__.pop("by_version", None)

    def network(self, version: str, arch: Arch) -> nn.Sequential:
        """Return the trained network, in eval mode.

        Raises:
            ResumeError: the file is missing, damaged or holds other weights.
        """
        path = self.folder.finished / self.by_version[version].file
        try:
            found = weights_version(path)
        except CheckpointError:
            found = ""
        if found != version:
            raise ResumeError(
                f"{path} has other weights than were trained ({version}); restore it, or remove {path.parent} and run "
                "`hwnas search` to train them again"
            )
        network = self.layout.build_subnet(arch, fresh_weights=False)
        load_weights(network, load_tensors(path)[0], str(path))
        return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class _Group:
    """What ``models.json`` holds."""

    format: int
    models: tuple[FinishedModel, ...]


def _read(path: Path) -> list[FinishedModel]:
    try:
        models = read_as(_Group, path).models
        for model in models:
            check_key(model.key)
            inside(path.parent.parent, model.file)
    except (UnreadableError, SpaceError) as error:
        reason = error.reason if isinstance(error, UnreadableError) else str(error)
        raise ResumeError(
            f"{path} is damaged: {reason}; remove {path.parent} and run `hwnas search` to train its models again"
        ) from None
    return list(models)
