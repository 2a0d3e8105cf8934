"""How good will a network be, judged before it is trained? Zero-cost proxies, by their published formulas.

Each function takes a plain network and a few images and leaves the network as it was; batch norm uses the statistics of
the batch. Weights are those of convolutions and linear layers, without biases and batch norm.

References are in the functions; the survey of Li et al., 2024 (Zero-Shot NAS, TPAMI) has most of them side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import Tensor, nn

from hwnas.objectives.proxies.activations import jacob_cov, linear_regions, naswot
from hwnas.objectives.proxies.flatness import flatness
from hwnas.objectives.proxies.gradients import grasp, saliencies, synflow
from hwnas.objectives.proxies.networks import seeded
from hwnas.objectives.proxies.tangent_kernel import ntk_condition
from hwnas.objectives.proxies.thin import random_crops, thin_network
from hwnas.objectives.proxies.zen import zen
from hwnas.supernet import BlockSpec
from hwnas.supernet.layout import PlainNetwork


# -- by name -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ProxyCase:
    """What a proxy may look at."""

    network: nn.Module
    """Freshly initialised."""
    chain: Sequence[tuple[str, BlockSpec]]
    """Its blocks."""
    images: Tensor
    """``(B, C, H, W)`` training images."""
    labels: Tensor
    """``(B,)``."""
    trained: Callable[[], tuple[nn.Module, Tensor, Tensor, Sequence[Tensor]]] | None = None
    """Gives the trained network, validation images, labels and calibration batches."""
    seed: int = 0

    @cached_property
    def saliencies(self) -> dict[str, float]:
        """See `saliencies`."""
        return saliencies(self.network, self.images[:GRADIENT_IMAGES], self.labels[:GRADIENT_IMAGES])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(C, H, W)``."""
        return tuple(self.images.shape[1:])


@dataclass(frozen=True)
class Proxy:
    """One zero-cost proxy."""

    direction: Literal["min", "max"]
    score: Callable[[ProxyCase], float]
    needs_weights: bool = False
    """Whether it is a property of trained weights."""


GRADIENT_IMAGES = 32
"""Images for gradients of weights and inputs; NASWOT takes all that there are."""

NTK_IMAGES = 16
"""Images of the tangent kernel; each costs a backward pass of all."""

REGION_CROPS = 3000


def _linear_regions(case: ProxyCase) -> float:
    with seeded(case.seed):
        starts = case.network.stage_starts if isinstance(case.network, PlainNetwork) else ()
        net = thin_network(case.chain, starts)
    with seeded(case.seed):
        for m in net.modules():
            if isinstance(m, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(m.weight, mode="fan_in", nonlinearity="relu")
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d))
    channels = first.in_channels if isinstance(first, nn.Conv2d) else first.num_features
    return float(linear_regions(net, random_crops(case.images, REGION_CROPS, channels, case.seed)))


def _flatness(case: ProxyCase) -> float:
    return math.nan if case.trained is None else flatness(*case.trained(), seed=case.seed)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


PROXIES: dict[str, Proxy] = {
    "grad_norm": Proxy("max", lambda c: c.saliencies["grad_norm"]),
    "snip": Proxy("max", lambda c: c.saliencies["snip"]),
    "grasp": Proxy("max", lambda c: grasp(c.network, c.images[:GRADIENT_IMAGES], c.labels[:GRADIENT_IMAGES])),
    "synflow": Proxy("max", lambda c: _log(synflow(c.network, c.input_shape))),
    "fisher": Proxy("max", lambda c: c.saliencies["fisher"]),
    "jacob_cov": Proxy("max", lambda c: jacob_cov(c.network, c.images[:GRADIENT_IMAGES])),
    "naswot": Proxy("max", lambda c: naswot(c.network, c.images)),
    "zen": Proxy("max", lambda c: zen(c.network, c.input_shape, c.seed)),
    "ntk_condition": Proxy("min", lambda c: ntk_condition(c.network, c.images[:NTK_IMAGES], c.seed)),
    "linear_regions": Proxy("max", _linear_regions),
    "flatness": Proxy("max", _flatness, needs_weights=True),
}
"""Proxies that a recipe may name as objectives; params and MACs are there anyway. ``synflow`` is the logarithm of
its sum."""


def proxy_scores(names: Sequence[str], case: ProxyCase) -> dict[str, float]:
    """Return the named proxies of one network; NaN where a network gives no finite value."""
    found = {name: PROXIES[name].score(case) for name in names}
    return {name: value if math.isfinite(value) else math.nan for name, value in found.items()}
