"""How good will a network be, judged before it is trained? Zero-cost proxies, as objectives.

The survey of Li et al., 2024 (Zero-Shot NAS, TPAMI) has most of them side by side; the formulas are beside this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import Tensor, nn

from hwnas.data.random_state import seeded
from hwnas.objectives.case import SubnetCase
from hwnas.objectives.plugin import EvaluatedObjective, Observer
from hwnas.objectives.proxies.activations import jacob_cov, linear_regions, naswot
from hwnas.objectives.proxies.flatness import flatness
from hwnas.objectives.proxies.gradients import grasp, saliencies, synflow, zico
from hwnas.objectives.proxies.tangent_kernel import ntk_condition
from hwnas.objectives.proxies.thin import random_crops, thin_network
from hwnas.objectives.proxies.zen import zen
from hwnas.supernet import BlockSpec
from hwnas.supernet.layout import PlainNetwork
from hwnas.task import Task


@dataclass(frozen=True)
class ProxyCase:
    """What a proxy may look at."""

    network: nn.Module
    """Freshly initialised."""
    chain: Sequence[tuple[str, BlockSpec]]
    """Its blocks."""
    images: Tensor
    """``(B, C, H, W)`` training images."""
    targets: Tensor
    """Of the same images."""
    task: Task
    trained: Callable[[], tuple[nn.Module, Tensor, Tensor, Sequence[Tensor]]] | None = None
    """Gives the trained network, validation images, their targets and calibration batches."""
    seed: int = 0
    ntk_images: Tensor | None = None
    """``(B, C, H, W)`` training images for the tangent kernel; None: ``images``."""
    ntk_initialisations: int = 3

    @classmethod
    def of(cls, case: SubnetCase) -> ProxyCase:
        """Return what proxies look at of a subnet: some training images, and the subnet without its weights."""
        images, targets = case.training_inputs.first(case.config.proxy_images).tensors()
        return cls(
            case.fresh_network, case.layout.blocks(case.arch), images, targets, case.task,
            lambda: (case.network, *case.validation, list(case.calibration_batches)), case.seed,
            case.training_inputs.first(case.config.ntk_images).tensors()[0], case.config.ntk_initialisations,
        )  # fmt: skip

    @cached_property
    def saliencies(self) -> dict[str, float]:
        """See `saliencies`."""
        return saliencies(self.network, self.images[:GRADIENT_IMAGES], self.targets[:GRADIENT_IMAGES], self.task)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(C, H, W)``."""
        return tuple(self.images.shape[1:])


@dataclass(frozen=True)
class Proxy(EvaluatedObjective):
    """One zero-cost proxy."""

    name: str
    title: str
    direction: Literal["min", "max"]
    formula: Callable[[ProxyCase], float]

    def value(self, case: ProxyCase) -> float:
        """Return its value for one network; NaN where that is not finite."""
        value = self.formula(case)
        return value if math.isfinite(value) else math.nan

    def observer(self, case: SubnetCase) -> AbstractContextManager[Observer]:
        """Compute it beside the forward pass, of which it needs nothing."""
        return nullcontext(_Beside(self, case))


@dataclass(frozen=True)
class _Beside:
    proxy: Proxy
    case: SubnetCase

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        pass  # a proxy does not look at what a trained network answers

    def values(self) -> dict[str, float]:
        return {self.proxy.name: self.proxy.value(self.case.once(ProxyCase.of))}


GRADIENT_IMAGES = 32
"""Images of one batch for gradients of weights and inputs; NASWOT takes all that there are, ZiCo in such batches."""

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


def _grasp(case: ProxyCase) -> float:
    return grasp(case.network, case.images[:GRADIENT_IMAGES], case.targets[:GRADIENT_IMAGES], case.task)


def _flatness(case: ProxyCase) -> float:
    if case.trained is None:
        return math.nan
    network, images, targets, calibration = case.trained()
    return flatness(network, images, targets, case.task, calibration, seed=case.seed)


def _zico(case: ProxyCase) -> float:
    size = min(GRADIENT_IMAGES, len(case.images) // 2)  # what varies between batches needs two
    batches = list(zip(case.images.split(size), case.targets.split(size), strict=True))
    return zico(case.network, [b for b in batches if len(b[0]) == size], case.task)


def _ntk_condition(case: ProxyCase) -> float:
    images = case.images if case.ntk_images is None else case.ntk_images
    return ntk_condition(case.network, images, case.seed, case.ntk_initialisations)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


GRAD_NORM = Proxy("grad_norm", "gradient norm", "max", lambda c: c.saliencies["grad_norm"])
SNIP = Proxy("snip", "SNIP", "max", lambda c: c.saliencies["snip"])
GRASP = Proxy("grasp", "GraSP", "max", _grasp)
SYNFLOW = Proxy("synflow", "log SynFlow", "max", lambda c: _log(synflow(c.network, c.input_shape, c.images.device)))
FISHER = Proxy("fisher", "Fisher", "max", lambda c: c.saliencies["fisher"])
JACOB_COV = Proxy("jacob_cov", "jacob-cov", "max", lambda c: jacob_cov(c.network, c.images[:GRADIENT_IMAGES]))
NASWOT = Proxy("naswot", "NASWOT", "max", lambda c: naswot(c.network, c.images))
ZEN = Proxy("zen", "Zen score", "max", lambda c: zen(c.network, c.input_shape, c.seed, device=c.images.device))
NTK_CONDITION = Proxy("ntk_condition", "NTK condition", "min", _ntk_condition)
LINEAR_REGIONS = Proxy("linear_regions", "linear regions", "max", _linear_regions)
FLATNESS = Proxy("flatness", "flatness", "max", _flatness)
ZICO = Proxy("zico", "ZiCo", "max", _zico)

PROXIES: dict[str, Proxy] = {
    proxy.name: proxy
    for proxy in (
        GRAD_NORM, SNIP, GRASP, SYNFLOW, FISHER, JACOB_COV, NASWOT, ZEN, NTK_CONDITION, LINEAR_REGIONS, FLATNESS, ZICO,
    )
}  # fmt: skip
"""All that ship, by name."""
