"""How is one network trained alone? Like several together; in one step, or in two as NATv2 does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from hwnas.data import AugmentConfig, Splits
from hwnas.data.joined import joined
from hwnas.files import make_folder
from hwnas.finetune.config import FinetuneConfig
from hwnas.finetune.together import FinetuneResult, Student, train_together
from hwnas.progress import Progress, silent

SECOND = "with-validation"
"""Folder of the second step's checkpoint, below that of the first."""


def finetune(
    network: nn.Module,
    resolution: int,
    splits: Splits,
    config: FinetuneConfig | None = None,
    augment: AugmentConfig | None = None,
    teacher: nn.Module | None = None,
    progress: Progress = silent,
    folder: Path | None = None,
) -> FinetuneResult:
    """Train one plain network; ``network`` itself is left as it is.

    Args:
        network: an extracted subnet or a loaded bundle; or an `ExitNetwork`, whose exits learn together (AEP).
        resolution: edge of its images in pixels.
        splits: ``train`` is learnt, ``validation`` chooses the epoch; ``test`` is not touched. They say which task.
        config: default: `FinetuneConfig()`.
        augment: default: none.
        teacher: a better network for images of the same resolution, usually the largest subnet of the supernet.
        progress: told after every step.
        folder: receives checkpoints, from which a second start goes on. None: nothing is kept.

    Raises:
        TrainingError: the loss is not finite.
        ResumeError: the checkpoint is of a training with other settings.

    Reference:
        Sarti et al., 2023, NATv2, post-processing step 1 (the epoch of best validation accuracy is kept; here of the
        task's main score), and step 2 (`FinetuneConfig.two_step`).
    """
    given = None if teacher is None else (teacher, resolution)
    student, config = Student("network", network, resolution), config or FinetuneConfig()
    first = train_together([student], splits, config, augment, given, folder, progress, "finetune")[0]
    if not config.two_step or not first.best_epoch:
        return first
    (second,) = train_together(
        [student], _with_validation(splits), config, augment, given,
        None if folder is None else make_folder(folder / SECOND), progress, "finetune with validation images",
        last_epoch=first.best_epoch,
    )  # fmt: skip
    return replace(first, network=second.network, saw_validation=True)


def _with_validation(splits: Splits) -> Splits:
    """The same images with those of validation among the training images; normalised as before."""
    found = replace(splits, train=joined(splits.train, splits.validation))
    found.__dict__["mean_std"] = splits.mean_std  # what the network's first layer was trained with
    return found
