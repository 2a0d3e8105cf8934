"""Which plain layers do blocks share?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hwnas.supernet.blocks.depthwise import DepthwiseConv2d

ActName = Literal["relu", "relu6", "hswish", "none"]

BN_EPS = 1e-5

BN_MOMENTUM = 0.1


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to a multiple of ``divisor``, never more than 10 % below ``value``.

    Reference:
        Howard et al., 2017, MobileNets; the rounding that MobileNetV2, V3 and once-for-all share.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def activation(name: ActName) -> nn.Module:
    """Return the activation module; never in place, so that hooks on convolutions see what they computed."""
    modules: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU, "relu6": nn.ReLU6, "hswish": nn.Hardswish, "none": nn.Identity,
    }  # fmt: skip
    return modules[name]()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hswish": F.hardswish,
    "none": lambda x: x,
}


def activate(x: Tensor, name: ActName) -> Tensor:
    """Apply the activation ``name``."""
    return ACTIVATIONS[name](x)


class ConvBnAct(nn.Sequential):
    """Convolution without bias, batch norm, activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1,
        act: ActName = "none",
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv: nn.Conv2d
        if groups == in_channels == out_channels > 1:
            self.conv = DepthwiseConv2d(in_channels, kernel_size, stride)
        else:
            self.conv = nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
            )
        self.bn = nn.BatchNorm2d(out_channels, BN_EPS, BN_MOMENTUM)
        if act != "none":
            self.act = activation(act)


def conv_pixel(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve ``(B, C, 1, 1)`` by a ``(C_out, C, 1, 1)`` weight, as a product of matrices.

    A convolution would spend ten times the product's time on bringing the weight into oneDNN's layout.
    """
    return F.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]


class PixelConv2d(nn.Conv2d):
    """A 1x1 convolution of maps that are one pixel; see `conv_pixel`."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, 1, 1)`` to ``(B, C_out, 1, 1)``."""
        return conv_pixel(x, self.weight, self.bias)


def init_weights(module: nn.Module) -> None:
    """Initialise as once-for-all does: He normal (fan out) convolutions, ones and zeros in batch norm."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            fan_out = m.kernel_size[0] * m.kernel_size[1] * m.out_channels // m.groups
            nn.init.normal_(m.weight, 0.0, (2.0 / fan_out) ** 0.5)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.Linear):
            bound = 1.0 / m.in_features**0.5
            nn.init.uniform_(m.weight, -bound, bound)
            nn.init.zeros_(m.bias)


class WithoutInitialisation(TorchFunctionMode):
    """A context in which layers are made with whatever is in memory where random weights would be drawn.

    For networks that get other weights at once: drawing them takes longer than all the rest of an extraction, and moves
    the caller's random state. Constants that layers compute for themselves are made as ever.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func`` unless it is a random initialisation, which returns its tensor as it is."""
        if func in _RANDOM:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


_RANDOM = frozenset({
    nn.init.uniform_, nn.init.normal_, nn.init.trunc_normal_, nn.init.kaiming_uniform_, nn.init.kaiming_normal_,
})  # fmt: skip
