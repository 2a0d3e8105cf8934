"""How do published weights enter hwnas? As the supernet of a run that nothing trains further."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwnas.arguments import checked_arguments
from hwnas.data import DataConfig
from hwnas.data.sources.files import existing_path
from hwnas.errors import CheckpointError, DataError
from hwnas.progress import Progress, silent
from hwnas.runs.recipe import load_recipe, shipped_recipes, with_values
from hwnas.runs.start import start_run
from hwnas.supernet import FamilyConfig, build_supernet, make_layout
from hwnas.supernet.weights.once_for_all import differences, fitting_recipes, read_ofa_checkpoint
from hwnas.train.checkpoint import save_supernet, supernet_file
from hwnas.train.start import starting_state


@checked_arguments
def import_ofa(
    checkpoint: Path, recipe: str, out: Path, overrides: Sequence[str] = (), progress: Progress = silent
) -> Path:
    """Make a run whose supernet has the weights of a once-for-all checkpoint; return the supernet's file.

    `hwnas.open_run` and ``hwnas search`` go on with it: nothing is trained, models are handed over with the weights
    that they inherit, batch norms recalibrated on images of the recipe's data. Where ``data.path`` is not there yet,
    the supernet alone is written, and ``progress`` is told so; likewise where it has a new head, for other classes.

    Args:
        checkpoint: ``{"state_dict": ...}`` or a bare state dict; only tensors are read, never code.
        recipe: whose supernet it is.
        out: the run folder; `hwnas.load_supernet` reads it, too.
        overrides: of the recipe, such as ``data.path=photos``.
        progress: told of what takes time, and of what is missing.

    Raises:
        DataError: ``data.path`` is there, but does not do for this network.
        CheckpointError: unreadable, refused, or of another network (with the shipped recipe that fits, if one does).
    """
    loaded = load_recipe(recipe, overrides)
    if make_layout(loaded.supernet).ofa_names is None:
        known = [name for name, settings in _shipped().items() if make_layout(settings).ofa_names is not None]
        raise CheckpointError(
            f"recipe {recipe!r} is of family {loaded.supernet.family!r}, of which once-for-all has no networks; "
            f"it has those of the recipes {', '.join(known)}"
        )
    tensors = read_ofa_checkpoint(checkpoint)
    supernet = build_supernet(loaded.supernet, loaded.train.seed)
    if problems := differences(supernet, tensors):
        fits = fitting_recipes(tensors, _shipped())
        hint = f"it fits recipe {', '.join(fits)}" if fits else "no shipped recipe fits it; write one with its sizes"
        raise CheckpointError(f"{checkpoint} does not fit recipe {recipe!r}: {'; '.join(problems)}; {hint}")
    state, new = starting_state(supernet, str(checkpoint))

    def supernet_alone(why: str) -> Path:
        progress("import", 1, 1, why)
        supernet.load_state_dict(state)
        return save_supernet(supernet, out, {"imported_from": checkpoint.name})

    if new:
        return supernet_alone(f"{new}; it is to be trained: hwnas run {recipe} train.start_from={out}")
    values: dict[str, Any] = {"train": {"start_from": str(checkpoint), "phases": []}}
    if not any(text.startswith("finish.") for text in overrides):
        values["finish"] = {"models": 0}
    try:
        run = start_run(with_values(loaded, values, recipe), out, progress=progress)
    except DataError as error:
        if loaded.data.path is None or _is_there(loaded.data):
            raise
        return supernet_alone(f"the supernet alone: {error}; with images (data.path=...) it becomes a run")
    run.train()
    return supernet_file(out)


def _is_there(data: DataConfig) -> bool:
    """Whether there is anything at ``data.path``, or below the folder HWNAS_DATA."""
    try:
        existing_path(data)
    except DataError:
        return False
    return True


def _shipped() -> dict[str, FamilyConfig]:
    """Supernets of the shipped recipes, by recipe."""
    return {name: load_recipe(name).supernet for name in shipped_recipes()}
