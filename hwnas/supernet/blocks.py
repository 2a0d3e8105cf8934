"""Which plain blocks are networks made of, and what names each of them in a latency table?

A network is a chain of *block specs*: frozen values that say shape and operator completely. `BlockSpec.build`
makes the plain module; the same spec keys the latency tables, so what is timed is what is exported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

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


@dataclass(frozen=True, slots=True)
class BlockSpec(ABC):
    """One block of a network: what it computes, on which shape."""

    kind: ClassVar[str]

    in_channels: int
    out_channels: int
    in_size_px: int
    """Height and width of the input."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the plain module with fresh weights; input ``(B, in_channels, in_size_px, in_size_px)``."""

    @property
    def columns(self) -> dict[str, int | str]:
        """The signature as column name to value, without ``kind``."""
        return {f.name: _as_cell(getattr(self, f.name)) for f in fields(self)}

    @property
    def signature(self) -> str:
        """One line that identifies the block in tables and messages: kind, then columns in alphabetical order."""
        return " ".join([self.kind, *sorted(f"{k}={v}" for k, v in self.columns.items())])


def _as_cell(value: object) -> int | str:
    return int(value) if isinstance(value, bool | int) else str(value)


@dataclass(frozen=True, slots=True)
class ConvSpec(BlockSpec):
    """Convolution, batch norm, activation, and optionally the input added to it."""

    kind: ClassVar[str] = "conv"

    kernel_size: int
    stride: int
    act: ActName
    residual: bool = False

    def build(self) -> nn.Module:
        """Return a `ConvBnAct`, in a `Residual` where its input is added."""
        conv = ConvBnAct(self.in_channels, self.out_channels, self.kernel_size, self.stride, act=self.act)
        return Residual(conv) if self.residual else conv


@dataclass(frozen=True, slots=True)
class MBConvSpec(BlockSpec):
    """Inverted bottleneck: expand 1x1, depthwise, squeeze-excite, project 1x1, residual."""

    kind: ClassVar[str] = "mbconv"

    mid_channels: int
    """Channels of the depthwise convolution; equal to ``in_channels`` and ``expand`` off: no expansion layer."""
    expand: bool
    kernel_size: int
    stride: int
    se: bool
    act: ActName
    residual: bool

    def build(self) -> nn.Module:
        """Return an `MBConv`."""
        return MBConv(self)


@dataclass(frozen=True, slots=True)
class HeadSpec(BlockSpec):
    """Global average pool, optional feature-mix 1x1 convolution, linear classifier."""

    kind: ClassVar[str] = "head"

    feature_channels: int
    """Channels of the feature mix; 0: none."""
    act: ActName
    dropout_percent: int

    def build(self) -> nn.Module:
        """Return a `Head`."""
        return Head(self)


@dataclass(frozen=True, slots=True)
class PoolSpec(BlockSpec):
    """Max pooling."""

    kind: ClassVar[str] = "max_pool"

    kernel_size: int
    stride: int

    def build(self) -> nn.Module:
        """Return the pooling layer."""
        return nn.Sequential(nn.MaxPool2d(self.kernel_size, self.stride, self.kernel_size // 2))


@dataclass(frozen=True, slots=True)
class BottleneckSpec(BlockSpec):
    """ResNet-D bottleneck: 1x1, 3x3, 1x1; a shortcut of average pool and 1x1 where channels or size change."""

    kind: ClassVar[str] = "bottleneck"

    mid_channels: int
    stride: int
    downsample: bool

    def build(self) -> nn.Module:
        """Return a `Bottleneck`."""
        return Bottleneck(self)


class Residual(nn.Module):
    """A layer whose input is added to its output."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        y: Tensor = x + self.conv(x)
        return y


class Bottleneck(nn.Module):
    """The plain block of a `BottleneckSpec`.

    Reference:
        He et al., 2019, Bag of Tricks (ResNet-D); sizes as in once-for-all's OFAResNets.
    """

    def __init__(self, spec: BottleneckSpec) -> None:
        super().__init__()
        mid = spec.mid_channels
        self.reduce = ConvBnAct(spec.in_channels, mid, 1, act="relu")
        self.spatial = ConvBnAct(mid, mid, 3, spec.stride, act="relu")
        self.expand = ConvBnAct(mid, spec.out_channels, 1)
        self.shortcut: nn.Module = nn.Identity()
        if spec.downsample:
            pool = [nn.AvgPool2d(spec.stride, spec.stride, ceil_mode=True)] if spec.stride > 1 else []
            self.shortcut = nn.Sequential(*pool, ConvBnAct(spec.in_channels, spec.out_channels, 1))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H / stride, W / stride)``."""
        y: Tensor = self.act(self.shortcut(x) + self.expand(self.spatial(self.reduce(x))))
        return y


class ConvBnAct(nn.Sequential):
    """Convolution without bias, batch norm, activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1,
        act: ActName = "none",
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels, BN_EPS, BN_MOMENTUM)
        if act != "none":
            self.act = activation(act)


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means.

    Reference:
        Hu et al., 2018, Squeeze-and-Excitation; hard sigmoid and ``make_divisible(channels // 4)`` hidden units
        as in MobileNetV3 (Howard et al., 2019) and once-for-all.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = se_hidden(channels)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(hidden, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        means = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(means))))
        return x * gate


def se_hidden(channels: int) -> int:
    """Return the hidden units of a squeeze-excite over ``channels``."""
    return make_divisible(channels // 4)


class MBConv(nn.Module):
    """The plain inverted bottleneck of an `MBConvSpec`."""

    def __init__(self, spec: MBConvSpec) -> None:
        super().__init__()
        mid = spec.mid_channels
        self.expand = ConvBnAct(spec.in_channels, mid, 1, act=spec.act) if spec.expand else nn.Identity()
        self.depthwise = ConvBnAct(mid, mid, spec.kernel_size, spec.stride, groups=mid, act=spec.act)
        self.se = SqueezeExcite(mid) if spec.se else nn.Identity()
        self.project = ConvBnAct(mid, spec.out_channels, 1)
        self.residual = spec.residual

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H / stride, W / stride)``."""
        y: Tensor = self.project(self.se(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class Head(nn.Module):
    """The plain classifier of a `HeadSpec`."""

    def __init__(self, spec: HeadSpec) -> None:
        super().__init__()
        width = spec.feature_channels or spec.in_channels
        self.mix = nn.Conv2d(spec.in_channels, width, 1, bias=False) if spec.feature_channels else nn.Identity()
        self.act = activation(spec.act if spec.feature_channels else "none")
        self.dropout = nn.Dropout(spec.dropout_percent / 100) if spec.dropout_percent else nn.Identity()
        self.classifier = nn.Linear(width, spec.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, classes)``."""
        x = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        x = self.act(self.mix(x)).flatten(1)
        logits: Tensor = self.classifier(self.dropout(x))
        return logits


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


def count_params(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
