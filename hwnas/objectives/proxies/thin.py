"""Thin twins of networks and small crops of images, in which linear regions can be counted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from hwnas.supernet import BlockSpec
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.shuffle import ShuffleSpec
from hwnas.supernet.layout import PlainNetwork

CROP_PX = 3


def thin_network(chain: Sequence[tuple[str, BlockSpec]], stage_starts: Collection[str] = ()) -> PlainNetwork:
    """Return the network of a chain without its stem and with all widths divided by the stem's.

    TE-NAS counts linear regions in such a network: cells of 1, 2 and 4 channels. Shuffle units need two channels, so
    there widths are divided by half of the stem's.

    Args:
        chain: names and blocks, of `hwnas.supernet.Layout.blocks`.
        stage_starts: of the network of usual width; only networks with skips over several blocks need it.
    """
    divisor = chain[0][1].out_channels
    least = 1
    if any(isinstance(spec, ShuffleSpec) for _, spec in chain):
        divisor, least = max(1, divisor // 2), 2
    has_stem = isinstance(chain[0][1], ConvSpec)
    classes = chain[-1][1].out_channels
    net = PlainNetwork()
    net.stage_starts = frozenset(stage_starts)
    for name, spec in chain[1:] if has_stem else chain:
        made: dict[str, Any] = {}
        for f in fields(spec):
            value = getattr(spec, f.name)
            if f.name.endswith("_channels") and value and value != classes:
                made[f.name] = max(least, value // divisor)
        if spec is chain[-1][1]:
            made["out_channels"] = classes
        net.add_module(name.replace(".", "_"), replace(spec, **made).build())
    return net


def random_crops(images: Tensor, n: int, channels: int, seed: int) -> Tensor:
    """Return ``(n, channels, 3, 3)`` crops of random images at random places, each channel drawn by itself.

    Args:
        images: ``(N, C, H, W)``, at least 3x3.
        n: how many.
        channels: of a crop.
        seed: of the draws.
    """
    g = torch.Generator().manual_seed(seed)
    _, c, h, w = images.shape
    reach = torch.arange(CROP_PX)
    which = torch.randint(len(images), (n, 1, 1, 1), generator=g)
    channel = torch.randint(c, (n, channels, 1, 1), generator=g)
    top = torch.randint(h - CROP_PX + 1, (n, 1, 1, 1), generator=g) + reach[:, None]
    left = torch.randint(w - CROP_PX + 1, (n, 1, 1, 1), generator=g) + reach
    return images[tuple(index.to(images.device) for index in (which, channel, top, left))]
