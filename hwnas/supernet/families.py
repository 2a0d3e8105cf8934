"""Which supernet families exist, and how is one built from its settings?"""

from __future__ import annotations

import torch

from hwnas.supernet import mbv3
from hwnas.supernet.blocks import init_weights
from hwnas.supernet.mbv3 import MBV3Config
from hwnas.supernet.network import Layout, SuperNet

SupernetConfig = MBV3Config

FAMILIES = {"mbv3": mbv3}
"""Family name to the module that has its ``layout`` and ``supernet``."""


def make_layout(config: SupernetConfig) -> Layout:
    """Return the space and the chain of blocks of a supernet, without any weight."""
    made: Layout = FAMILIES[config.family].layout(config)
    return made


def build_supernet(config: SupernetConfig, seed: int = 0) -> SuperNet:
    """Return a supernet with fresh weights, channels-last; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = FAMILIES[config.family].supernet(config)
        init_weights(net)
    channels_last: SuperNet = net.to(memory_format=torch.channels_last)
    return channels_last
