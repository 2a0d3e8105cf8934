"""What does once-for-all call the tensors of its networks?

once-for-all nests its layers in wrappers, and did so differently over time, so one tensor has several published names
(``bn.bn.weight``, ``bn.weight``; ``mobile_inverted_conv``, ``conv``). Repeated parts of a name are folded first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hwnas.supernet.layout import Slot

OfaNames = dict[str, dict[str, str]]
"""Slot to its modules to their folded published names; see `hwnas.supernet.layout.Layout.ofa_names`."""


def fold(name: str) -> str:
    """Return a published name without ``module.``, old spellings and repeated parts."""
    parts: list[str] = []
    for part in name.removeprefix("module.").replace("mobile_inverted_conv", "conv").split("."):
        if not parts or part != parts[-1] or part.isdigit():
            parts.append(part)
    return ".".join(parts)


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

HEAD = {"mix": "feature_mix_layer.conv", "classifier": "classifier.linear"}


def mobile_names(slots: Sequence[Slot]) -> OfaNames:
    """Return the names of a MobileNetV3 or ProxylessNAS; block 0 is the fixed first block."""
    fixed = {
        "stem": ("first_conv", CONV),
        "first_block": ("blocks.0.conv", MBCONV),
        "final_expand": ("final_expand_layer", CONV),
        "feature_mix": ("feature_mix_layer", CONV),
        "head": ("", HEAD),
    }
    blocks = [slot.name for slot in slots if slot.stage]
    return _folded(slots, {**fixed, **{name: (f"blocks.{i}.conv", MBCONV) for i, name in enumerate(blocks, 1)}})


def resnet_names(slots: Sequence[Slot]) -> OfaNames:
    """Return the names of a ResNet50-D."""
    fixed = {
        "stem.first": ("input_stem.0", CONV),
        "stem.second": ("input_stem.1", {"conv": "conv", "bn": "conv.bn"}),
        "stem.third": ("input_stem.2", CONV),
        "head": ("", HEAD),
    }
    blocks = [slot.name for slot in slots if slot.stage]
    return _folded(slots, {**fixed, **{name: (f"blocks.{i}", BOTTLENECK) for i, name in enumerate(blocks)}})


def _folded(slots: Sequence[Slot], published: Mapping[str, tuple[str, Mapping[str, str]]]) -> OfaNames:
    """Join the published name of each slot with those of its modules; slots without tensors have none."""
    out: OfaNames = {}
    for slot in slots:
        if slot.name in published:
            prefix, modules = published[slot.name]
            out[slot.name] = {own: fold(f"{prefix}.{theirs}".removeprefix(".")) for own, theirs in modules.items()}
    return out
