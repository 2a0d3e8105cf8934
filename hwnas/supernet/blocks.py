"""Which plain blocks are networks made of, and what names each of them in a latency table?

A network is a chain of *block specs*: frozen values that say shape and operator completely. `BlockSpec.build`
makes the plain module; the same spec keys the latency tables, so what is timed is what is exported.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch
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


@dataclass(frozen=True, slots=True)
class SkipAddSpec(BlockSpec):
    """Outputs of earlier blocks of the stage, added to the last one (OFAv2's dense skips)."""

    kind: ClassVar[str] = "skip_add"

    n_added: int
    """How many of the stage's first outputs are added."""

    def build(self) -> nn.Module:
        """Return a `SkipAdd`."""
        return SkipAdd(self.n_added)


@dataclass(frozen=True, slots=True)
class ParallelSpec(BlockSpec):
    """Any of three branches, summed: inverted bottleneck, 1x1 convolution, transformation (OFAv2)."""

    kind: ClassVar[str] = "parallel"

    level: int
    """Three bits: 4 inverted bottleneck, 2 convolution, 1 transformation."""
    mid_channels: int
    kernel_size: int
    stride: int
    se: bool
    act: ActName
    residual: bool

    @property
    def bottleneck(self) -> MBConvSpec:
        """The inverted bottleneck's spec."""
        return MBConvSpec(
            self.in_channels, self.out_channels, self.in_size_px, self.mid_channels, True, self.kernel_size,
            self.stride, self.se, self.act, self.residual,
        )  # fmt: skip

    def build(self) -> nn.Module:
        """Return a `Parallel`."""
        return Parallel(self)


@dataclass(frozen=True, slots=True)
class SeparableSpec(BlockSpec):
    """Depthwise and 1x1 convolution, both activated (MobileNetV1), with optional squeeze-excite between them."""

    kind: ClassVar[str] = "separable"

    kernel_size: int
    stride: int
    se: bool
    act: ActName

    def build(self) -> nn.Module:
        """Return the two convolutions."""
        c = self.in_channels
        return nn.Sequential(
            ConvBnAct(c, c, self.kernel_size, self.stride, groups=c, act=self.act),
            *([SqueezeExcite(c)] if self.se else []),
            ConvBnAct(c, self.out_channels, 1, act=self.act),
        )


@dataclass(frozen=True, slots=True)
class ShuffleSpec(BlockSpec):
    """ShuffleNetV2 unit, or its Xception form with three depthwise convolutions."""

    kind: ClassVar[str] = "shuffle"

    kernel_size: int
    stride: int
    se: bool
    xception: bool
    act: ActName

    def build(self) -> nn.Module:
        """Return a `ShuffleUnit`."""
        return ShuffleUnit(self)


class Join(nn.Module):
    """A block that reads more than the last output; `Chain` calls `join` in place of `forward`."""

    def join(self, x: Tensor, earlier: list[Tensor]) -> Tensor:
        """Return the chain's next output.

        Args:
            x: the last output.
            earlier: outputs of the stage or cell so far; the block may change the list.
        """
        raise NotImplementedError


class SkipAdd(Join):
    """Adds earlier outputs of the stage."""

    def __init__(self, n_added: int) -> None:
        super().__init__()
        self.n_added = n_added

    def join(self, x: Tensor, earlier: list[Tensor]) -> Tensor:
        """Return ``x`` plus the first ``n_added`` of ``earlier``."""
        for y in earlier[: self.n_added]:
            x = x + y
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` added to itself ``n_added`` times: what the block costs where it stands alone."""
        return self.join(x, [x] * self.n_added)


class Parallel(nn.Module):
    """The plain block of a `ParallelSpec`.

    Reference:
        Sarti et al., 2023, OFAv2, section 3 (parallel blocks).
    """

    def __init__(self, spec: ParallelSpec) -> None:
        super().__init__()
        self.bottleneck = MBConv(spec.bottleneck) if spec.level & 4 else None
        self.conv = (
            ConvBnAct(spec.in_channels, spec.out_channels, 1, spec.stride, act=spec.act) if spec.level & 2 else None
        )
        self.transformation = transformation(spec) if spec.level & 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H / stride, W / stride)``."""
        branches = [b(x) for b in (self.bottleneck, self.conv, self.transformation) if b is not None]
        y: Tensor = branches[0]
        for other in branches[1:]:
            y = y + other
        return y


def transformation(spec: ParallelSpec) -> nn.Sequential:
    """Return the cheapest branch: max pool where it strides, 1x1 convolution where channels change, batch norm, act."""
    layers: list[nn.Module] = []
    if spec.stride > 1:
        layers.append(nn.MaxPool2d(3, spec.stride, 1))
    if spec.in_channels != spec.out_channels:
        layers.append(nn.Conv2d(spec.in_channels, spec.out_channels, 1, bias=False))
    return nn.Sequential(*layers, nn.BatchNorm2d(spec.out_channels, BN_EPS, BN_MOMENTUM), activation(spec.act))


class ShuffleUnit(nn.Module):
    """The plain block of a `ShuffleSpec`.

    With stride 1 and equal channels half of the channels pass untouched; else a second branch changes them.

    Reference:
        Ma et al., 2018, ShuffleNetV2; Guo et al., 2020, Single Path One-Shot (Xception form).
    """

    def __init__(self, spec: ShuffleSpec) -> None:
        super().__init__()
        k, s, act = spec.kernel_size, spec.stride, spec.act
        self.splits = s == 1 and spec.in_channels == spec.out_channels
        inside = spec.in_channels // 2 if self.splits else spec.in_channels
        mid, out = spec.out_channels // 2, spec.out_channels - (inside if self.splits else spec.out_channels // 2)
        layers: list[nn.Module] = []
        if spec.xception:
            widths = [inside, mid, mid, out]
            for i, (a, b) in enumerate(itertools.pairwise(widths)):
                layers += [ConvBnAct(a, a, k, s if i == 0 else 1, groups=a), ConvBnAct(a, b, 1, act=act)]
        else:
            layers += [ConvBnAct(inside, mid, 1, act=act), ConvBnAct(mid, mid, k, s, groups=mid)]
            layers.append(ConvBnAct(mid, out, 1, act=act))
        if spec.se:
            layers.append(SqueezeExcite(out))
        self.main = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if not self.splits:
            c = spec.in_channels
            self.shortcut = nn.Sequential(
                ConvBnAct(c, c, k, s, groups=c), ConvBnAct(c, spec.out_channels - out, 1, act=act)
            )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` to ``(B, C_out, H / stride, W / stride)``."""
        if self.splits:
            kept, inside = x.chunk(2, dim=1)
            joined = torch.cat([kept, self.main(inside)], dim=1)
        else:
            joined = torch.cat([self.shortcut(x), self.main(x)], dim=1)
        y: Tensor = self.shuffle(joined)
        return y


class Chain(nn.Sequential):
    """A plain network: blocks one after the other, named by slot; a `Join` sees the stage's earlier outputs."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, classes)``."""
        earlier: list[Tensor] = []
        for name, block in self._modules.items():
            assert block is not None
            if isinstance(block, Join):
                x = block.join(x, earlier)
            else:
                x = block(x)
                earlier = [x] if name.endswith("_block1") else [*earlier, x]
        return x


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


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means.

    Reference:
        Hu et al., 2018, Squeeze-and-Excitation; hard sigmoid and ``make_divisible(channels // 4)`` hidden units
        as in MobileNetV3 (Howard et al., 2019) and once-for-all.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = se_hidden(channels)
        self.reduce = PixelConv2d(channels, hidden)
        self.act = nn.ReLU()
        self.expand = PixelConv2d(hidden, channels)
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
        self.mix = PixelConv2d(spec.in_channels, width, bias=False) if spec.feature_channels else nn.Identity()
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
