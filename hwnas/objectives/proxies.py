"""How good will a network be, judged before it is trained? Zero-cost proxies, by their published formulas.

Each function takes a plain network and a few images and leaves the network as it was; batch norm uses the statistics of
the batch. Weights are those of convolutions and linear layers, without biases and batch norm.

References are in the functions; the survey of Li et al., 2024 (Zero-Shot NAS, TPAMI) has most of them side by side.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.supernet import BlockSpec, calibrate_bn
from hwnas.supernet.blocks import Chain, ConvSpec, ShuffleSpec

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU)
"""Activations that switch near 0: a unit is on where its input is above 0."""

JACOBIAN_OFFSET = 1e-5
FLATNESS_SIGMAS = (0.001, 0.003, 0.006)
FLATNESS_OFFSET = 1e-5
ZEN_SHIFT = 0.01
CROP_PX = 3


# -- from gradients of the weights ------------------------------------------------------------------------


def saliencies(net: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return ``grad_norm``, ``snip`` and ``fisher``, from one pass of the cross-entropy forth and back.

    - ``grad_norm``: the sum over layers of the norm of the gradient.
    - ``snip``: the sum of ``|w dL/dw|`` over all weights.
    - ``fisher``: the sum over channels of half the mean square of ``activation * gradient`` summed over positions;
      activations are the outputs of convolutions and linear layers.

    Args:
        net: freshly initialised.
        images: ``(B, C, H, W)``.
        labels: ``(B,)``.

    Reference:
        Abdelfattah et al., 2021, Zero-Cost Proxies for Lightweight NAS; Lee et al., 2019, SNIP; Turner et al., 2020,
        BlockSwap (Fisher).
    """
    net = _copy(net)
    weights = _weights(net)
    outputs: list[Tensor] = []
    with _hooked(net, (nn.Conv2d, nn.Linear), lambda m, i, o: outputs.append(o)):
        loss = F.cross_entropy(net(images), labels)
    found = torch.autograd.grad(loss, [*weights, *outputs], allow_unused=True)
    gradients, of_outputs = found[: len(weights)], found[len(weights) :]
    pairs = [(w.detach(), g) for w, g in zip(weights, gradients, strict=True) if g is not None]
    information = 0.0
    for output, gradient in zip(outputs, of_outputs, strict=True):
        if gradient is not None:
            product = output.detach() * gradient
            per_channel = product.flatten(2).sum(2) if product.ndim == 4 else product  # (B, C)
            information += float((0.5 * per_channel.square().mean(0)).sum())
    return {
        "grad_norm": float(sum(g.norm() for _, g in pairs)),
        "snip": float(sum((w * g).abs().sum() for w, g in pairs)),
        "fisher": information,
    }


def grasp(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum of ``-(H g) w`` over all weights, with H the Hessian; arguments as of `saliencies`.

    Reference:
        Wang et al., 2020, GraSP; its sign, so that larger is better, as in Abdelfattah et al., 2021.
    """
    net = _twice_differentiable(_copy(net))
    weights = _weights(net)
    gradients = torch.autograd.grad(F.cross_entropy(net(images), labels), weights, create_graph=True, allow_unused=True)
    product = sum((g * g.detach()).sum() for g in gradients if g is not None)
    if not isinstance(product, Tensor) or not product.requires_grad:
        return 0.0
    second = torch.autograd.grad(product, weights, allow_unused=True)
    return -float(sum((w * hg).detach().sum() for w, hg in zip(weights, second, strict=True) if hg is not None))


def synflow(net: nn.Module, input_shape: Sequence[int]) -> float:
    """Return the sum of ``|w| dR/d|w|`` with R the sum of outputs for an input of ones, all weights positive.

    Batch norm is left out, and everything is computed in float64: values span tens of orders of magnitude.

    Args:
        net: freshly initialised.
        input_shape: ``(C, H, W)``.

    Reference:
        Tanaka et al., 2020, Pruning neural networks without any data by iteratively conserving synaptic flow.
    """
    net = _copy(net).double()
    with torch.no_grad():
        for p in net.parameters():
            p.abs_()
    with _hooked(net, nn.BatchNorm2d, lambda m, inputs, output: inputs[0]):
        total = net(torch.ones(1, *input_shape, dtype=torch.float64)).sum()
    weights = _weights(net)
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    return float(sum((w * g).detach().abs().sum() for w, g in zip(weights, gradients, strict=True) if g is not None))


# -- from activation patterns and Jacobians ------------------------------------------------------------


@torch.no_grad()
def naswot(net: nn.Module, images: Tensor) -> float:
    """Return the log-determinant of the kernel that counts equal activation bits of two images.

    Args:
        net: freshly initialised.
        images: ``(B, C, H, W)``; the score depends on B.

    Reference:
        Mellor et al., 2021, Neural Architecture Search without Training.
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)
    for bits in _patterns(_copy(net), images):
        on = bits.float()
        kernel += (on @ on.T + (1 - on) @ (1 - on).T).double()
    return float(torch.linalg.slogdet(kernel).logabsdet)


def jacob_cov(net: nn.Module, images: Tensor) -> float:
    """Return ``-sum(log(v + k) + 1 / (v + k))`` over eigenvalues v of the correlations of input Jacobians.

    Reference:
        Mellor et al., 2020, Neural Architecture Search without Training, version 1; k is 1e-5.
    """
    net = _copy(net)
    x = images.clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(net(x).sum(), x)
    correlations = torch.corrcoef(jacobian.flatten(1).double())
    if not bool(torch.isfinite(correlations).all()):
        return math.nan
    v = torch.linalg.eigvalsh(correlations) + JACOBIAN_OFFSET
    return float(-(v.log() + 1 / v).sum())


def ntk_condition(net: nn.Module, images: Tensor, seed: int = 0, repeats: int = 1) -> float:
    """Return the condition number of the neural tangent kernel, mean over initialisations; smaller is better.

    The kernel is ``J J^T`` with J ``(B, n_weights)`` the gradients of each image's summed logits, inside one batch.

    Args:
        net: its weights are drawn anew (He normal, fan out) on a copy.
        images: ``(B, C, H, W)``; TE-NAS uses 72 for NAS-Bench-201, and every image costs a backward pass of the batch.
        seed: of the initialisations.
        repeats: how many; TE-NAS uses 3.

    Reference:
        Chen et al., 2021, TE-NAS.
    """
    found = []
    for repeat in range(repeats):
        fresh = _copy(net)
        with _seeded(seed + repeat):
            for m in fresh.modules():
                if isinstance(m, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
        weights = _weights(fresh)
        logits = fresh(images).sum(1)
        rows = []
        for i in range(len(images)):
            gradients = torch.autograd.grad(logits[i], weights, retain_graph=True, allow_unused=True)
            rows.append(torch.cat([g.flatten() for g in gradients if g is not None]))
        jacobian = torch.stack(rows).double()
        eigenvalues = torch.linalg.eigvalsh(jacobian @ jacobian.T)
        smallest = float(eigenvalues[0])
        found.append(float(eigenvalues[-1]) / smallest if smallest > 0 else math.inf)
    return sum(found) / len(found)


@torch.no_grad()
def linear_regions(net: nn.Module, images: Tensor) -> int:
    """Return the number of distinct activation patterns that images cause; at most their number.

    A network of usual width gives every image a pattern of its own; `thin_network` makes one that does not.

    Reference:
        Chen et al., 2021, TE-NAS; Xiong et al., 2020, On the Number of Linear Regions of CNNs.
    """
    bits = torch.cat(list(_patterns(_copy(net), images)), dim=1)
    return len(torch.unique(bits, dim=0))


@torch.no_grad()
def zen(net: nn.Module, input_shape: Sequence[int], seed: int = 0, repeats: int = 4, batch_size: int = 16) -> float:
    """Return the Zen score: how far features move when Gaussian images are shifted, undoing batch norm's scaling.

    ``log E|f(x) - f(x + 0.01 e)| + sum over batch norms of log sqrt(mean variance)`` with f the feature map before
    global pooling, weights and images standard normal. Variances are those of the first of the two batches.

    Args:
        net: its weights are drawn anew on a copy.
        input_shape: ``(C, H, W)``.
        seed: of weights and images.
        repeats: weights and images are drawn this often, and the scores averaged; the original uses 32.
        batch_size: images of one draw.

    Reference:
        Lin et al., 2021, Zen-NAS.
    """
    net = _copy(net)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    scores = []
    with _seeded(seed):
        for _ in range(repeats):
            for m in net.modules():
                if isinstance(m, nn.Conv2d | nn.Linear):
                    nn.init.normal_(m.weight)
                    if m.bias is not None:
                        nn.init.zeros_(m.bias)
            x = torch.randn(batch_size, *input_shape)
            for norm in norms:
                norm.momentum = 1.0  # running_var becomes the variance of this batch
            features = _features(net, x)
            variances = [float(v.mean()) for n in norms if (v := n.running_var) is not None]
            scaling = sum(0.5 * math.log(v + 1e-12) for v in variances)
            moved = (features - _features(net, x + ZEN_SHIFT * torch.randn(x.shape))).abs().flatten(1).sum(1).mean()
            scores.append(math.log(float(moved) + 1e-12) + scaling)
    return sum(scores) / len(scores)


# -- from trained weights ------------------------------------------------------------------------------


@torch.no_grad()
def flatness(
    net: nn.Module, images: Tensor, labels: Tensor, calibration: Sequence[Tensor], seed: int = 0
) -> float:  # fmt: skip
    """Return how little the loss changes when noise is added to all parameters, step by step; larger is flatter.

    ``1 / (|L(s1) / s1| + sum |L(s_t+1) - L(s_t)| / (s_t+1 - s_t) + 1e-5)`` with L the loss under the noise added up to
    there, and s = 0.001, 0.003, 0.006 its standard deviations.

    Args:
        net: trained, such as a subnet of a trained supernet.
        images: ``(B, C, H, W)`` validation images; GeNAS uses 25,000.
        labels: ``(B,)``.
        calibration: batches of training images, from which batch norm is recalibrated after every step.
        seed: of the noise.

    Reference:
        Jeong et al., 2023, GeNAS.
    """
    net = copy.deepcopy(net).eval()
    losses = []
    with _seeded(seed):
        for sigma in FLATNESS_SIGMAS:
            for p in net.parameters():
                p.add_(torch.randn(p.shape) * sigma)
            calibrate_bn(net, calibration)
            losses.append(float(F.cross_entropy(net(images), labels)))
    slopes = [abs(losses[0] / FLATNESS_SIGMAS[0])]
    slopes += [
        abs((losses[i + 1] - losses[i]) / (FLATNESS_SIGMAS[i + 1] - FLATNESS_SIGMAS[i])) for i in range(len(losses) - 1)
    ]
    return 1.0 / (sum(slopes) + FLATNESS_OFFSET)


# -- thin twins ----------------------------------------------------------------------------------------


def thin_network(chain: Sequence[tuple[str, BlockSpec]]) -> Chain:
    """Return the network of a chain without its stem and with all widths divided by the stem's.

    TE-NAS counts linear regions in such a network: cells of 1, 2 and 4 channels. Shuffle units need two channels, so
    there widths are divided by half of the stem's.

    Args:
        chain: names and blocks, of `hwnas.supernet.Layout.chain`.
    """
    divisor = chain[0][1].out_channels
    least = 1
    if any(isinstance(spec, ShuffleSpec) for _, spec in chain):
        divisor, least = max(1, divisor // 2), 2
    has_stem = isinstance(chain[0][1], ConvSpec)
    classes = chain[-1][1].out_channels
    net = Chain()
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
    return images[which, channel, top, left]


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
    with _seeded(case.seed):
        net = thin_network(case.chain)
    with _seeded(case.seed):
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


# -- shared --------------------------------------------------------------------------------------------


def _copy(net: nn.Module) -> nn.Module:
    """A copy in train mode without dropout: batch norm uses the batch, and nothing else is random."""
    made = copy.deepcopy(net).train()
    for m in made.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    return made


class _HardGate(nn.Module):
    """Hard sigmoid or hard swish made of ReLU6, which torch can differentiate twice."""

    def __init__(self, swish: bool) -> None:
        super().__init__()
        self.swish = swish

    def forward(self, x: Tensor) -> Tensor:
        gate = F.relu6(x + 3.0) / 6.0
        return x * gate if self.swish else gate


def _twice_differentiable(net: nn.Module) -> nn.Module:
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Hardsigmoid | nn.Hardswish):
                setattr(module, name, _HardGate(isinstance(child, nn.Hardswish)))
    return net


def _weights(net: nn.Module) -> list[Tensor]:
    return [m.weight for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def _patterns(net: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """``(B, units)`` bits of every activation layer in one pass: whether a unit's input is above 0."""
    bits: list[Tensor] = []
    with _hooked(net, RECTIFIERS, lambda m, inputs, output: bits.append(inputs[0].flatten(1) > 0)):
        net(images)
    yield from bits


def _features(net: nn.Module, x: Tensor) -> Tensor:
    """The last feature map of more than one pixel: what goes into global pooling."""
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and (output.shape[2] * output.shape[3] > 1 or not maps):
            maps[:] = [output]

    with _hooked(net, nn.Module, keep):
        net(x)
    return maps[0]


@contextmanager
def _hooked(net: nn.Module, kinds: Any, hook: Callable[[Any, Any, Any], Any]) -> Iterator[None]:
    handles = [m.register_forward_hook(hook) for m in net.modules() if isinstance(m, kinds)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from a generator of one's own; the caller's is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
