"""How is a supernet built from its settings? Its family makes the layout, and the layout a supernet."""

from __future__ import annotations

from dataclasses import replace

import torch

from hwnas.data.random_state import seeded
from hwnas.space import Arch
from hwnas.space.choice import Choice
from hwnas.supernet.families.family import FAMILIES, FamilyConfig
from hwnas.supernet.layout import PRECISION, Layout, PlainNetwork
from hwnas.supernet.network import SuperNet
from hwnas.supernet.side_by_side import side_by_side


def make_layout(config: FamilyConfig) -> Layout:
    """Return the space and the slots of a supernet, without any weight."""
    widths = separate_widths(config)
    layout = side_by_side({w: _layout(of_width(config, w)) for w in widths}) if widths else _layout(config)
    if not config.precisions:
        return layout
    choices = (*layout.space.choices, Choice(PRECISION, config.precisions))
    return replace(layout, space=replace(layout.space, choices=choices))


def _layout(config: FamilyConfig) -> Layout:
    made: Layout = FAMILIES.get(config.family).layout(config)
    return made


def separate_widths(config: FamilyConfig) -> tuple[float, ...]:
    """Return the widths whose supernets stand side by side; empty where there is one supernet.

    Any family can have several whose settings have the fields ``width_multiplier`` and ``separate_widths``.
    """
    widths: tuple[float, ...] = getattr(config, "separate_widths", ())
    return widths


def of_width(config: FamilyConfig, width: float) -> FamilyConfig:
    """Return the settings of the supernet of one width, alone."""
    return config.model_copy(update={"width_multiplier": width, "separate_widths": ()})


def build_supernet(config: FamilyConfig, seed: int = 0) -> SuperNet:
    """Return a supernet with fresh weights, channels-last; the same seed gives the same weights."""
    with seeded(seed):
        net = SuperNet(config, make_layout(config))
    channels_last: SuperNet = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return channels_last


def fresh_subnet(layout: Layout, arch: Arch, seed: int = 0) -> PlainNetwork:
    """Return the plain network of ``arch`` with fresh weights, channels-last; the same seed gives the same weights."""
    with seeded(seed):
        net = layout.build_subnet(arch)
    channels_last: PlainNetwork = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return channels_last
