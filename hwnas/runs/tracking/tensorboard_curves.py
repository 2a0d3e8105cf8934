"""How does one look at a run in TensorBoard? Its training by step, and for each device what was evaluated."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hwnas.errors import OutputError
from hwnas.files import make_folder
from hwnas.runs.evaluations import Evaluations
from hwnas.runs.tracking.trials import TrackedDevice, problem_of, trials_of
from hwnas.search.standing import Standing
from hwnas.train.monitor import read_log


def write_curves(evaluations: Evaluations, devices: Sequence[TrackedDevice], where: Path | str) -> str:
    """Write the curves of a run, in place of those that are there.

    Args:
        evaluations: of the run.
        devices: whose search has begun.
        where: folder that receives ``train/`` and a folder for each device.

    Returns:
        What opens it.

    Raises:
        OutputError: the folder holds other files, or cannot be made.
    """
    from torch.utils.tensorboard.writer import SummaryWriter

    context, folder = evaluations.context, Path(where)
    if folder.is_dir() and (
        others := [p.name for p in folder.rglob("*") if p.is_file() and ".tfevents." not in p.name]
    ):
        raise OutputError(f"{folder} holds {others[0]}, which is no curve of TensorBoard; give a folder of its own")
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    log = context.folder.train / "metrics.jsonl"
    with SummaryWriter(str(folder / "train")) as board:
        for line in read_log(log)[0] if log.exists() else ():
            board.add_scalar(f"loss/{line['phase']}", line["loss"], line["step"])
            for name, value in line.get(context.score.name, {}).items():
                board.add_scalar(f"{context.score.name}/{name}", value, line["step"])
    for device in devices:
        problem = problem_of(evaluations, device)
        standing = Standing(problem, context.score.name)
        with SummaryWriter(str(folder / device.name)) as board:
            for step, one in enumerate(trials_of(evaluations, device), 1):
                for objective, value in zip(problem.objectives, one.values, strict=True):
                    board.add_scalar(f"evaluated/{objective.name}", value, step)
                standing.add(np.array([one.columns]))
                board.add_scalar("search/hypervolume", standing.hypervolume, step)
                if standing.best is not None:
                    board.add_scalar(f"search/best {context.score.name}", standing.best, step)
    return f"tensorboard --logdir {folder}"
