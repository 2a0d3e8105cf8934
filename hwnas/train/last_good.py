"""How does a training go on where its last checkpoint is damaged? From the one before, which is kept beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hwnas.errors import CheckpointError
from hwnas.files import first_rank
from hwnas.progress import Progress, silent
from hwnas.train.checkpoint import load_tensors, save_tensors


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one that was there is kept beside it."""
    if first_rank() and path.exists():
        os.replace(path, before(path))
    save_tensors(path, tensors, metadata)


def load_checkpoint(path: Path, progress: Progress = silent) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return tensors and metadata of the last checkpoint that is whole; None where none was written.

    Args:
        path: of the last one.
        progress: told where it is damaged, so that the training goes on from the one before.

    Raises:
        CheckpointError: it is damaged, and the one before is not there or damaged, too.
    """
    if not path.exists() and not before(path).exists():
        return None
    try:
        return load_tensors(path)
    except CheckpointError as error:
        if not before(path).exists():
            raise
        if path.exists():  # else it was being written when the training was stopped
            progress("resume", 1, 1, f"from the checkpoint before the last: {error}")
        return load_tensors(before(path))


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and the one before it."""
    path.unlink(missing_ok=True)
    before(path).unlink(missing_ok=True)


def before(path: Path) -> Path:
    """Return where the checkpoint before the last one lies."""
    return path.with_name(f"{path.stem}.before{path.suffix}")
