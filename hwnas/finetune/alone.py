"""How is one network trained alone? Like several together; in one step, or in two as NATv2 does."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from hwnas.data import AugmentConfig, Splits
from hwnas.data.joined import joined
from hwnas.finetune.config import FinetuneConfig
from hwnas.finetune.together import FinetuneResult, Student, train_together
from hwnas.progress import Progress, silent


def finetune(
    network: nn.Module,
    resolution: int,
    splits: Splits,
    config: FinetuneConfig | None = None,
    augment: AugmentConfig | None = None,
    teacher: nn.Module | None = None,
    progress: Progress = silent,
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

    Raises:
        TrainingError: the loss is not finite.

    Reference:
        Sarti et al., 2023, NATv2, post-processing step 1 (the epoch of best validation accuracy is kept; here of the
        task's main score), and step 2 (`FinetuneConfig.two_step`).
    """
    given = None if teacher is None else (teacher, resolution)
    student, config = Student("network", network, resolution), config or FinetuneConfig()
    first = train_together([student], splits, config, augment, given, progress=progress, task="finetune")[0]
    if not config.two_step or not first.best_epoch:
        return first
    (second,) = train_together(
        [student], _with_validation(splits), config, augment, given, progress=progress,
        task="finetune with validation images", last_epoch=first.best_epoch,
    )  # fmt: skip
    return replace(first, network=second.network, saw_validation=True)


def _with_validation(splits: Splits) -> Splits:
    """The same images with those of validation among the training images; normalised as before."""
    found = replace(splits, train=joined(splits.train, splits.validation))
    found.__dict__["mean_std"] = splits.mean_std  # what the network's first layer was trained with
    return found
