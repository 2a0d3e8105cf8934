"""How does a training go? One JSON line a step, and for TensorBoard the same numbers as curves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from hwnas.data import NetworkInputs, Splits
from hwnas.data.network_inputs import batch_of_pixels
from hwnas.errors import OutputError, RecipeError, ResumeError, UnreadableError
from hwnas.files import write_text
from hwnas.reading import as_type, read_text
from hwnas.space import Arch, SearchSpace
from hwnas.supernet import SuperNet, calibrate_bn, extract_subnet
from hwnas.train.evaluate import scores_of
from hwnas.train.phases import TrainConfig

CALIBRATION_IMAGES, CALIBRATION_BATCH = 2000, 200
"""For batch norms of subnets that are looked at, and of teachers that are extracted; those of once-for-all."""
CALIBRATION_PIXELS = 2_500_000
"""Of a batch: at 224 pixels 200 images would need gigabytes for the maps of the first layers."""
VALIDATION_IMAGES = 2000


class Monitor:
    """Writes what a training tells; use as a context."""

    def __init__(self, folder: Path, splits: Splits, config: TrainConfig, writes: bool = True) -> None:
        """Make a monitor; TensorBoard's writer is opened when the context begins.

        Args:
            folder: receives ``metrics.jsonl`` and, where the config asks for it, ``tensorboard/``.
            splits: ``train`` calibrates batch norms, ``validation`` is scored.
            config: what is written.
            writes: off for all but the first of several ranks.
        """
        self._path = folder / "metrics.jsonl"
        self._splits = splits
        self._config = config
        self._writes = writes
        self._lines: list[dict[str, Any]] = []
        self._board: Any = None

    def __enter__(self) -> Monitor:
        if self._config.tensorboard and self._writes:
            try:
                from torch.utils.tensorboard.writer import SummaryWriter
            except ImportError:
                raise RecipeError(
                    "train.tensorboard needs the package tensorboard: pip install 'hwnas[tensorboard]'"
                ) from None
            logged = self._path.read_text(encoding="utf-8").count("\n") if self._path.exists() else 0
            self._board = SummaryWriter(str(self._path.parent / "tensorboard"), purge_step=logged + 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._board is not None:
            self._board.close()

    def log(self, values: dict[str, Any]) -> None:
        """Note one step; lines reach the file with `flush`."""
        self._lines.append(values)
        if self._board is not None:
            self._board.add_scalar(f"loss/{values['phase']}", values["loss"], values["step"])
            self._board.add_scalar("lr", values["lr"], values["step"])
            score = self._splits.task.score.name
            for name, value in values.get(score, {}).items():
                self._board.add_scalar(f"{score}/{name}", value, values["step"])

    def forget_after(self, step: int) -> None:
        """Drop the lines that a killed training logged after its last checkpoint: they will be computed again."""
        lines, damaged = read_log(self._path) if self._path.exists() else ([], None)
        kept = [values for values in lines if values["step"] <= step]
        # The kill may have cut the log short, but only after what the checkpoint has.
        if damaged is not None and len(kept) < step:
            raise ResumeError(f"{self._path}, line {damaged} is damaged; remove the file: the log then begins here")
        write_text(self._path, "".join(json.dumps(values) + "\n" for values in kept))

    def flush(self) -> None:
        """Append the lines since the last call to the log."""
        if self._writes:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(line) + "\n" for line in self._lines)
            except OSError as error:
                raise OutputError(
                    f"cannot write {self._path}: {error.strerror}; free space or choose another folder"
                ) from None
        self._lines.clear()

    def scores(self, supernet: SuperNet) -> dict[str, float]:
        """Return the task's main score of the smallest, middle and largest subnet, extracted and calibrated.

        On validation images; rounded to three digits after the point.
        """
        if not self._writes:
            return {}
        found = {}
        for name, arch in landmarks(supernet.space).items():
            device = next(supernet.parameters()).device
            subnet = extract_subnet(supernet, arch).to(device)
            px = arch.int("resolution")
            seen = calibration_inputs(self._splits, px, device)
            calibrate_bn(subnet, (x for x, _ in seen.batches(calibration_batch(px))))
            held_out = self._splits.validation.first(VALIDATION_IMAGES)
            inputs = NetworkInputs(held_out, px, *self._splits.mean_std, device)
            found[name] = round(scores_of(subnet, inputs, self._splits.task)[self._splits.task.score.name], 3)
        return found


def calibration_inputs(splits: Splits, resolution: int, device: torch.device) -> NetworkInputs:
    """Return the training images from which batch norms are recalibrated."""
    return NetworkInputs(splits.train.first(CALIBRATION_IMAGES), resolution, *splits.mean_std, device)


def calibration_batch(resolution: int) -> int:
    """Return how many images are looked at together: `CALIBRATION_BATCH` up to 111 pixels, fewer of larger ones."""
    return batch_of_pixels(resolution, CALIBRATION_PIXELS, 16, CALIBRATION_BATCH)


def read_log(path: Path) -> tuple[list[dict[str, Any]], int | None]:
    """Return the lines of a log, one for each step, up to the first that is damaged, and the number of that line.

    Raises:
        ResumeError: the file cannot be read at all.
    """
    found: list[dict[str, Any]] = []
    try:
        text = read_text(path, LOG_BYTES)
    except UnreadableError as error:
        raise ResumeError(f"{path} is damaged: {error.reason}; remove it") from None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            values = json.loads(line)  # scores of a plug-in's task may be NaN
            as_type(_Step, values, str(path))
        except (ValueError, RecursionError):
            return found, number
        found.append(values)
    return found, None


@dataclass(frozen=True)
class _Step:
    """What every line of a log has."""

    phase: str
    step: int
    loss: float


LOG_BYTES = 2**28
"""Of a log: 100 bytes for each of two million steps."""


def landmarks(space: SearchSpace) -> dict[str, Arch]:
    """Return the smallest and largest arch, and the one of every choice's middle option."""
    middle = space.decode((space.n_options - 1) // 2)
    return {"smallest": space.smallest(), "middle": middle, "largest": space.largest()}
