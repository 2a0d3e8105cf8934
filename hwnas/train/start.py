"""With which weights does a training begin? Those of a supernet of hwnas, or of a checkpoint that others published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from hwnas.errors import CheckpointError, UnreadableError
from hwnas.reading import sha256_of
from hwnas.supernet import SuperNet, build_supernet, make_layout
from hwnas.supernet.build import of_width, separate_widths
from hwnas.supernet.side_by_side import states_side_by_side
from hwnas.supernet.weights.once_for_all import load_ofa_weights, other_classes, read_ofa_checkpoint
from hwnas.supernet.weights.other_classes import inherited_state, new_head
from hwnas.train.checkpoint import load_supernet, supernet_file, weights_version


def start_version(start: str | Sequence[str]) -> str:
    """Return the version of the weights that ``train.start_from`` names.

    Raises:
        CheckpointError: they cannot be read.
    """
    if not isinstance(start, str):
        return "+".join(map(start_version, start))
    path = Path(start).expanduser()
    if not _is_published(path):
        return weights_version(supernet_file(path))
    try:
        return sha256_of(path)[:12]
    except UnreadableError as error:
        raise CheckpointError(f"train.start_from {path} cannot be read: {error.reason}") from None


def starting_state(own: SuperNet, start: str | Sequence[str]) -> tuple[dict[str, Tensor], str]:
    """Return the state that a supernet begins with, and in words what is new in it; empty: nothing.

    Args:
        own: with fresh weights; it stays as it is.
        start: a folder or file of a supernet of hwnas, or a checkpoint of once-for-all; where supernets of several
            widths stand side by side also one for each of them, in their order.

    Raises:
        CheckpointError: it cannot be read, or is of other networks.
    """
    if not isinstance(start, str):
        return _of_each_width(own, start)
    path, where = Path(start).expanduser(), f"train.start_from {start}"
    if not _is_published(path):
        return inherited_state(own, load_supernet(path), where)
    tensors = read_ofa_checkpoint(path)
    filled = build_supernet(own.config)
    filled.load_state_dict(own.state_dict())
    load_ofa_weights(filled, tensors, where)
    classes = other_classes(own, tensors)
    return filled.state_dict(), "" if classes is None else new_head(classes, own.config.classes)


def _of_each_width(own: SuperNet, starts: Sequence[str]) -> tuple[dict[str, Tensor], str]:
    """See `starting_state`."""
    widths = separate_widths(own.config)
    if len(widths) != len(starts):
        have = f"{len(widths)} widths ({', '.join(f'{w:g}' for w in widths)})" if widths else "one width"
        raise CheckpointError(
            f"train.start_from names {len(starts)} supernets, and supernet.separate_widths has {have}; give one for "
            "each"
        )
    states, news = [], []
    for start, width in zip(starts, widths, strict=True):
        config = of_width(own.config, width)
        alone = SuperNet(config, make_layout(config))
        state, new = starting_state(alone, start)
        states.append(state)
        news += [new] * bool(new)
    return states_side_by_side(states, widths), "; ".join(dict.fromkeys(news))


def _is_published(path: Path) -> bool:
    """Whether it is a file of others: pickled tensors, such as ``.pth`` or ``.tar``."""
    if path.is_dir() or path.suffix == ".safetensors":
        return False
    if not path.exists():
        raise CheckpointError(f"train.start_from {path} does not exist; give a folder of a run or a checkpoint")
    return True
