"""How does a supernet begin with the weights of one that tells other classes apart? All but the head is inherited."""

from __future__ import annotations

import torch
from torch import Tensor

from hwnas.errors import CheckpointError
from hwnas.supernet.build import make_layout
from hwnas.supernet.families.family import FamilyConfig
from hwnas.supernet.network import SuperNet

FREE = ("classes", "resolutions", "dropout_percent", "precisions")
"""Settings in which two supernets may differ whose weights fit each other, but for the head."""


def head_tensors(config: FamilyConfig) -> frozenset[str]:
    """Return the names of the tensors whose shape depends on the number of classes."""

    def shapes(classes: int) -> dict[str, torch.Size]:
        other = config.model_copy(update={"classes": classes})
        with torch.device("meta"):
            net = SuperNet(other, make_layout(other))
        return {name: tensor.shape for name, tensor in net.state_dict().items()}

    own, other = shapes(config.classes), shapes(config.classes + 1)
    return frozenset(name for name, shape in own.items() if other[name] != shape)


def inherited_state(own: SuperNet, given: SuperNet, where: str) -> tuple[dict[str, Tensor], str]:
    """Return the state that a supernet begins with, and in words what is new in it; empty: nothing.

    Args:
        own: with fresh weights.
        given: the trained one.
        where: names it in errors.

    Raises:
        CheckpointError: they differ in more than classes, resolutions, dropout and precisions.
    """
    mine, theirs = own.config.model_dump(), given.config.model_dump()
    if other := sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k) and k not in FREE):
        raise CheckpointError(
            f"{where} is a supernet of other settings: it differs in {', '.join(other)}; give one of the same settings "
            f"(only {', '.join(FREE)} may differ)"
        )
    state = given.state_dict()
    if own.config.classes == given.config.classes:
        return state, ""
    new = head_tensors(own.config)
    fresh = own.state_dict()
    return {k: fresh[k] if k in new else v for k, v in state.items()}, new_head(
        given.config.classes, own.config.classes
    )


def new_head(of: int, to: int) -> str:
    """Say that the head is new."""
    return f"the head is new, for {to} instead of {of} classes; all other weights are inherited"
