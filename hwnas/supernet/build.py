"""Which supernet families exist, and how is one built from its settings?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field

from hwnas.supernet.families import hurricane, mbv3, nasbench201, ofav2, proxyless, resnet50d
from hwnas.supernet.families.hurricane import HurricaneConfig
from hwnas.supernet.families.mbv3 import MBV3Config
from hwnas.supernet.families.nasbench201 import NASBench201Config
from hwnas.supernet.families.ofav2 import OFAv2Config
from hwnas.supernet.families.proxyless import ProxylessConfig
from hwnas.supernet.families.resnet50d import ResNet50DConfig
from hwnas.supernet.layout import Layout
from hwnas.supernet.network import SuperNet

SupernetConfig = Annotated[
    MBV3Config | ProxylessConfig | ResNet50DConfig | OFAv2Config | HurricaneConfig | NASBench201Config,
    Field(discriminator="family"),
]

LAYOUTS: dict[str, Callable[[Any], Layout]] = {
    "mbv3": mbv3.layout,
    "proxyless": proxyless.layout,
    "resnet50d": resnet50d.layout,
    "ofav2": ofav2.layout,
    "hurricane": hurricane.layout,
    "nasbench201": nasbench201.layout,
}
"""Family name to what makes its space and chain of blocks."""


def make_layout(config: SupernetConfig) -> Layout:
    """Return the space and the chain of blocks of a supernet, without any weight."""
    return LAYOUTS[config.family](config)


def build_supernet(config: SupernetConfig, seed: int = 0) -> SuperNet:
    """Return a supernet with fresh weights, channels-last; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SuperNet(config, make_layout(config))
    channels_last: SuperNet = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return channels_last
