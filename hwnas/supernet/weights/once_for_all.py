"""How do published Once-For-All weights come into a supernet? By name, tensor for tensor."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hwnas.errors import CheckpointError
from hwnas.reading import ROUGHLY
from hwnas.supernet.build import make_layout
from hwnas.supernet.families.family import SupernetConfig
from hwnas.supernet.network import SuperNet
from hwnas.supernet.weights.ofa_names import fold
from hwnas.supernet.weights.other_classes import head_tensors


def read_ofa_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a once-for-all checkpoint, ``{"state_dict": ...}`` or bare, under folded names.

    Raises:
        CheckpointError: missing, cut short, or a pickle that holds anything but tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except pickle.UnpicklingError as error:
        first = (str(error).splitlines() or [""])[0]
        raise CheckpointError(f"{path} is refused: it is not a plain file of tensors ({first})") from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, *ROUGHLY) as error:
        raise CheckpointError(f"{path} cannot be read, it is cut short or not a checkpoint: {error}") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no state dict; give a once-for-all supernet checkpoint")
    return {fold(name): tensor for name, tensor in content.items()}


def load_ofa_weights(supernet: SuperNet, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy a once-for-all checkpoint into a supernet of the same family and sizes.

    The head keeps its weights where the checkpoint tells another number of classes apart.

    Args:
        supernet: of a family that once-for-all has (`Layout.ofa_names`); unchanged if anything does not fit.
        tensors: of `read_ofa_checkpoint`.
        where: names the checkpoint in errors.

    Raises:
        CheckpointError: missing, extra or misshapen tensors, each kind with names.
    """
    problems = differences(supernet, tensors)
    if problems:
        raise CheckpointError(f"{where} does not fit family {supernet.config.family!r}: {'; '.join(problems)}")
    names = ofa_names(supernet)
    own, new = supernet.state_dict(), _of_other_classes(supernet, tensors)
    for name, tensor in own.items():
        source = None if names[name] in new else tensors.get(names[name])
        if source is not None:  # num_batches_tracked may be absent, it decides nothing
            tensor.copy_(source.reshape(tensor.shape))


def differences(supernet: SuperNet, tensors: Mapping[str, Tensor]) -> list[str]:
    """Say in a few phrases how a checkpoint differs from what a supernet needs; empty: it fits.

    A head for another number of classes does not count; see `other_classes`.

    Raises:
        CheckpointError: once-for-all has no such networks.
    """
    names = ofa_names(supernet)
    own = supernet.state_dict()
    needed = {names[n]: tuple(t.shape) for n, t in own.items() if not n.endswith("num_batches_tracked")}
    given = {n: tuple(t.shape) for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    missing, extra = sorted(set(needed) - set(given)), sorted(set(given) - set(needed))
    free = _of_other_classes(supernet, tensors)
    wrong = [
        f"{n} {given[n]} instead of {needed[n]}"
        for n in sorted(needed)
        if n in given and given[n] != needed[n] and n not in free
    ]
    found = (("missing", missing), ("extra", extra), ("misshapen", wrong))
    return [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in found if names]


def other_classes(supernet: SuperNet, tensors: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes that a checkpoint tells apart, where it is not that of a supernet; else None."""
    found = {int(tensors[name].shape[0]) for name in _of_other_classes(supernet, tensors)}
    return found.pop() if len(found) == 1 else None


def _of_other_classes(supernet: SuperNet, tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """Folded names of tensors of the head that fit but for the number of classes, their first axis."""
    names, own = ofa_names(supernet), supernet.state_dict()
    head = {names[n]: own[n].shape for n in head_tensors(supernet.config)}
    return frozenset(
        n for n, shape in head.items()
        if n in tensors and tensors[n].shape != shape and tensors[n].ndim and tensors[n].shape[1:] == shape[1:]
    )  # fmt: skip


def ofa_names(supernet: SuperNet) -> dict[str, str]:
    """Return the folded once-for-all name of every tensor of a supernet.

    Raises:
        CheckpointError: once-for-all has no such networks.
    """
    published = supernet.layout.ofa_names
    if published is None:
        raise CheckpointError(
            f"once-for-all has no networks of family {supernet.config.family!r}; use a recipe of a family that it has"
        )
    renamed = {
        f"parts.{slot.module_name}.{module}": theirs
        for slot in supernet.layout.slots
        for module, theirs in published.get(slot.name, {}).items()
    }
    out = {}
    for name in supernet.state_dict():
        module, _, leaf = name.rpartition(".")
        if module.endswith(".maps"):
            out[name] = f"{renamed[module.removesuffix('.maps')]}.{leaf}_matrix"
        else:
            out[name] = f"{renamed[module]}.{leaf}"
    return out


def fitting_recipes(tensors: Mapping[str, Tensor], configs: Mapping[str, SupernetConfig]) -> list[str]:
    """Return the names of those settings whose supernet a checkpoint fits.

    Args:
        tensors: of `read_ofa_checkpoint`.
        configs: candidates by name.
    """
    found = []
    for name, config in configs.items():
        layout = make_layout(config)
        if layout.ofa_names is None:
            continue
        with torch.device("meta"):
            supernet = SuperNet(config, layout)
        if not differences(supernet, tensors):
            found.append(name)
    return found
