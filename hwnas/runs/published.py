"""How do published weights enter hwnas? Checked against a recipe, and kept as safetensors."""

from __future__ import annotations

from pathlib import Path

from hwnas.errors import CheckpointError
from hwnas.runs.recipe import load_recipe, shipped_recipes
from hwnas.supernet import FamilyConfig, build_supernet, make_layout
from hwnas.supernet.weights.once_for_all import differences, fitting_recipes, load_ofa_weights, read_ofa_checkpoint
from hwnas.train.checkpoint import save_supernet


def import_ofa(checkpoint: Path, recipe: str, out: Path) -> Path:
    """Read a once-for-all supernet checkpoint and write ``supernet.safetensors`` into ``out``; return its path.

    Args:
        checkpoint: ``{"state_dict": ...}`` or a bare state dict; only tensors are read, never code.
        recipe: whose supernet it is.
        out: a folder that `hwnas.load_supernet` reads.

    Raises:
        CheckpointError: unreadable, refused, or of another network (with the shipped recipe that fits, if one does).
    """
    config = load_recipe(recipe).supernet
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
    load_ofa_weights(supernet, tensors, str(checkpoint))
    return save_supernet(supernet, out, {"imported_from": checkpoint.name})


def _shipped() -> dict[str, FamilyConfig]:
    """Supernets of the shipped recipes, by recipe."""
    return {name: load_recipe(name).supernet for name in shipped_recipes()}
