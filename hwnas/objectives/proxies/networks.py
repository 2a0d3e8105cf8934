"""What do zero-cost proxies share: copies, hooks and seeds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.data.inputs import CPU

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU)
"""Activations that switch near 0: a unit is on where its input is above 0."""


def training_copy(net: nn.Module, device: torch.device = CPU) -> nn.Module:
    """A copy on a device, in train mode without dropout: batch norm uses the batch, and nothing else is random."""
    made = copy.deepcopy(net).train().to(device)
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


def twice_differentiable(net: nn.Module) -> nn.Module:
    """Replace hard sigmoids and hard swishes, in place, by forms that torch can differentiate twice; return ``net``."""
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Hardsigmoid | nn.Hardswish):
                setattr(module, name, _HardGate(isinstance(child, nn.Hardswish)))
    return net


def without_residual_links(net: nn.Module) -> nn.Module:
    """Switch off, in place, what adds a block's input to its output; return ``net``.

    Blocks say in their attribute ``residual`` whether they have such a link (see `BlockSpec.build`).
    """
    for module in net.modules():
        if isinstance(getattr(module, "residual", None), bool):
            module.residual = False  # type: ignore[assignment]
    return net


def weights_of(net: nn.Module) -> list[Tensor]:
    """Return the weights of convolutions and linear layers."""
    return [m.weight for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def activation_patterns(net: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """``(B, units)`` bits of every activation layer in one pass: whether a unit's input is above 0."""
    bits: list[Tensor] = []
    with hooked(net, RECTIFIERS, lambda m, inputs, output: bits.append(inputs[0].flatten(1) > 0)):
        net(images)
    yield from bits


def last_feature_map(net: nn.Module, x: Tensor) -> Tensor:
    """The last feature map of more than one pixel: what goes into global pooling."""
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and (output.shape[2] * output.shape[3] > 1 or not maps):
            maps[:] = [output]

    with hooked(net, nn.Module, keep):
        net(x)
    return maps[0]


@contextmanager
def hooked(net: nn.Module, kinds: Any, hook: Callable[[Any, Any, Any], Any]) -> Iterator[None]:
    """Call ``hook`` after every forward pass of modules of certain classes, for a while."""
    handles = [m.register_forward_hook(hook) for m in net.modules() if isinstance(m, kinds)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
