"""How do published weights enter hwnas? Checked against a recipe, and kept as safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwnas.arguments import checked_arguments
from hwnas.errors import CheckpointError
from hwnas.progress import Progress, silent
from hwnas.runs.recipe import load_recipe, shipped_recipes
from hwnas.supernet import FamilyConfig, build_supernet, make_layout
from hwnas.supernet.weights.once_for_all import (
    differences,
    fitting_recipes,
    load_ofa_weights,
    other_classes,
    read_ofa_checkpoint,
)
from hwnas.supernet.weights.other_classes import new_head
from hwnas.train.checkpoint import save_supernet


@checked_arguments
def import_ofa(
    checkpoint: Path, recipe: str, out: Path, overrides: Sequence[str] = (), progress: Progress = silent
) -> Path:
    """Read a once-for-all supernet checkpoint and write ``supernet.safetensors`` into ``out``; return its path.

    For another number of classes than the checkpoint tells apart, the head is new, and ``progress`` is told so.

    Args:
        checkpoint: ``{"state_dict": ...}`` or a bare state dict; only tensors are read, never code.
        recipe: whose supernet it is.
        out: a folder that `hwnas.load_supernet` reads.
        overrides: of the recipe, such as ``supernet.classes=4``.
        progress: told what is new.

    Raises:
        CheckpointError: unreadable, refused, or of another network (with the shipped recipe that fits, if one does).
    """
    config = load_recipe(recipe, overrides).supernet
    if make_layout(config).ofa_names is None:
        known = [name for name, settings in _shipped().items() if make_layout(settings).ofa_names is not None]
        raise CheckpointError(
            f"recipe {recipe!r} is of family {config.family!r}, of which once-for-all has no networks; "
            f"it has those of the recipes {', '.join(known)}"
        )
    tensors = read_ofa_checkpoint(checkpoint)
    supernet = build_supernet(config)
    if problems := differences(supernet, tensors):
        fits = fitting_recipes(tensors, _shipped())
        hint = f"it fits recipe {', '.join(fits)}" if fits else "no shipped recipe fits it; write one with its sizes"
        raise CheckpointError(f"{checkpoint} does not fit recipe {recipe!r}: {'; '.join(problems)}; {hint}")
    if (classes := other_classes(supernet, tensors)) is not None:
        progress("import", 1, 1, new_head(classes, config.classes))
    load_ofa_weights(supernet, tensors, str(checkpoint))
    return save_supernet(supernet, out, {"imported_from": checkpoint.name})


def _shipped() -> dict[str, FamilyConfig]:
    """Supernets of the shipped recipes, by recipe."""
    return {name: load_recipe(name).supernet for name in shipped_recipes()}
