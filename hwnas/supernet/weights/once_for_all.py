"""How do published Once-For-All weights come into a supernet? By name, tensor for tensor.

once-for-all nests its layers in wrappers, and did so differently over time, so one tensor has several published names
(``bn.bn.weight``, ``bn.weight``; ``mobile_inverted_conv``, ``conv``). Repeated parts of a name are folded first.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwnas.errors import CheckpointError
from hwnas.supernet.build import SupernetConfig, make_layout
from hwnas.supernet.network import SuperNet

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


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
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is refused: it is not a plain file of tensors ({first})") from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read, it is cut short or not a checkpoint: {error}") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no state dict; give a once-for-all supernet checkpoint")
    return {fold(name): tensor for name, tensor in content.items()}


def fold(name: str) -> str:
    """Return a published name without ``module.``, old spellings and repeated parts."""
    parts: list[str] = []
    for part in name.removeprefix("module.").replace("mobile_inverted_conv", "conv").split("."):
        if not parts or part != parts[-1] or part.isdigit():
            parts.append(part)
    return ".".join(parts)


def load_ofa_weights(supernet: SuperNet, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy a once-for-all checkpoint into a supernet of the same family and sizes.

    Args:
        supernet: of family mbv3, proxyless or resnet50d; unchanged if anything does not fit.
        tensors: of `read_ofa_checkpoint`.
        where: names the checkpoint in errors.

    Raises:
        CheckpointError: missing, extra or misshapen tensors, each kind with names.
    """
    problems = differences(supernet, tensors)
    if problems:
        raise CheckpointError(f"{where} does not fit family {supernet.config.family!r}: {'; '.join(problems)}")
    names = ofa_names(supernet)
    own = supernet.state_dict()
    for name, tensor in own.items():
        source = tensors.get(names[name])
        if source is not None:  # num_batches_tracked may be absent, it decides nothing
            tensor.copy_(source.reshape(tensor.shape))


def differences(supernet: SuperNet, tensors: Mapping[str, Tensor]) -> list[str]:
    """Say in a few phrases how a checkpoint differs from what a supernet needs; empty: it fits."""
    names = ofa_names(supernet)
    own = supernet.state_dict()
    needed = {names[n]: tuple(t.shape) for n, t in own.items() if not n.endswith("num_batches_tracked")}
    given = {n: tuple(t.shape) for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    missing, extra = sorted(set(needed) - set(given)), sorted(set(given) - set(needed))
    wrong = [f"{n} {given[n]} instead of {needed[n]}" for n in sorted(needed) if n in given and given[n] != needed[n]]
    found = (("missing", missing), ("extra", extra), ("misshapen", wrong))
    return [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in found if names]


def ofa_names(supernet: SuperNet) -> dict[str, str]:
    """Return the folded once-for-all name of every tensor of a supernet."""
    renamed: dict[str, str] = {}
    for own, theirs in _modules(supernet).items():
        renamed[own] = theirs
    out = {}
    for name in supernet.state_dict():
        module, _, leaf = name.rpartition(".")
        if module.endswith(".maps"):
            out[name] = f"{renamed[module.removesuffix('.maps')]}.{leaf}_matrix"
        else:
            out[name] = f"{renamed[module]}.{leaf}"
    return out


MBCONV = {
    "expand_conv": "inverted_bottleneck.conv", "expand_bn": "inverted_bottleneck.bn",
    "depthwise": "depth_conv.conv", "depthwise_bn": "depth_conv.bn",
    "se.reduce": "depth_conv.se.fc.reduce", "se.expand": "depth_conv.se.fc.expand",
    "project": "point_linear.conv", "project_bn": "point_linear.bn",
}  # fmt: skip

BOTTLENECK = {
    "reduce_conv": "conv1.conv", "reduce_bn": "conv1.bn", "spatial_conv": "conv2.conv", "spatial_bn": "conv2.bn",
    "expand_conv": "conv3.conv", "expand_bn": "conv3.bn", "shortcut_conv": "downsample.conv",
    "shortcut_bn": "downsample.bn",
}  # fmt: skip

CONV = {"conv": "conv", "bn": "bn"}

FIXED = {
    "stem": ("first_conv", CONV),
    "first_block": ("blocks.0.conv", MBCONV),
    "final_expand": ("final_expand_layer", CONV),
    "feature_mix": ("feature_mix_layer", CONV),
    "stem.first": ("input_stem.0", CONV),
    "stem.second": ("input_stem.1", {"conv": "conv", "bn": "conv.bn"}),
    "stem.third": ("input_stem.2", CONV),
    "head": ("", {"mix": "feature_mix_layer.conv", "classifier": "classifier.linear"}),
}
"""Slot to the published module, and names of its parts there."""


def _modules(supernet: SuperNet) -> dict[str, str]:
    """Own module name to folded published name, for every module that holds tensors."""
    out: dict[str, str] = {}
    resnet = supernet.config.family == "resnet50d"
    number = 0 if resnet else 1  # block 0 is the fixed first block
    for slot in supernet.layout.slots:
        own = f"parts.{slot.name.replace('.', '_')}"
        if slot.name in FIXED:
            prefix, table = FIXED[slot.name]
        elif slot.name.startswith("stage"):
            prefix = f"blocks.{number}" if resnet else f"blocks.{number}.conv"
            table = BOTTLENECK if resnet else MBCONV
            number += 1
        else:
            continue
        for part, theirs in table.items():
            out[f"{own}.{part}"] = fold(f"{prefix}.{theirs}".removeprefix("."))
    return out


def fitting_recipes(tensors: Mapping[str, Tensor], configs: Mapping[str, SupernetConfig]) -> list[str]:
    """Return the names of those settings whose supernet a checkpoint fits.

    Args:
        tensors: of `read_ofa_checkpoint`.
        configs: candidates by name.
    """
    found = []
    for name, config in configs.items():
        values: Any = config
        if values.family not in ("mbv3", "proxyless", "resnet50d"):
            continue
        with torch.device("meta"):
            supernet = SuperNet(config, make_layout(config))
        if not differences(supernet, tensors):
            found.append(name)
    return found
