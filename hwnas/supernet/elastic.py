"""Which layers can shrink? Each holds the weights of its largest form; smaller forms are slices of it.

No layer remembers an active form: the caller passes the `BlockSpec` (or the sizes) with the input. `fill` copies
the very same slice into a plain module, so an extracted subnet computes what the supernet computed, bit for bit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.supernet.blocks import (
    BN_EPS,
    BN_MOMENTUM,
    ActName,
    BlockSpec,
    ConvBnAct,
    ConvSpec,
    Head,
    HeadSpec,
    MBConv,
    MBConvSpec,
    SqueezeExcite,
    activate,
    se_hidden,
)


class ElasticConv2d(nn.Conv2d):
    """A convolution whose narrower forms are its first output and input channels."""

    def kernel(self, in_channels: int, out_channels: int) -> Tensor:
        """``(out_channels, in_channels, k, k)`` view of the first channels."""
        return self.weight[:out_channels, :in_channels]

    def forward(self, x: Tensor, out_channels: int) -> Tensor:  # type: ignore[override]
        """``(B, C, H, W)`` to ``(B, out_channels, H', W')``."""
        bias = None if self.bias is None else self.bias[:out_channels]
        return F.conv2d(x, self.kernel(x.shape[1], out_channels), bias, self.stride, self.padding)

    def fill(self, plain: nn.Conv2d) -> None:
        """Copy the slice of ``plain``'s shape into it."""
        with torch.no_grad():
            plain.weight.copy_(self.kernel(plain.in_channels, plain.out_channels))
            if plain.bias is not None and self.bias is not None:
                plain.bias.copy_(self.bias[: plain.out_channels])


class ElasticDepthwiseConv2d(nn.Module):
    """A depthwise convolution with one largest kernel; smaller ones are its centre, linearly mapped.

    The maps form a chain (7 to 5, 5 to 3), start as the identity and are shared by all channels.

    Reference:
        Cai et al., 2020, Once-for-All, section 3.3 (elastic kernel size).
    """

    def __init__(self, channels: int, kernel_sizes: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.kernel_sizes = tuple(sorted(kernel_sizes))
        self.stride = stride
        largest = self.kernel_sizes[-1]
        self.weight = nn.Parameter(torch.empty(channels, 1, largest, largest))
        nn.init.normal_(self.weight, 0.0, (2.0 / largest**2) ** 0.5)
        self.maps = nn.ParameterDict(
            {
                f"{big}to{small}": nn.Parameter(torch.eye(small * small))
                for small, big in zip(self.kernel_sizes[:-1], self.kernel_sizes[1:], strict=True)
            }
        )

    def kernel(self, channels: int, kernel_size: int) -> Tensor:
        """``(channels, 1, kernel_size, kernel_size)`` kernel of the first channels."""
        weight = self.weight[:channels]
        sizes = self.kernel_sizes
        for small, big in zip(sizes[-2::-1], sizes[:0:-1], strict=True):
            if big <= kernel_size:
                break
            edge = (big - small) // 2
            centre = weight[:, :, edge : edge + small, edge : edge + small].reshape(channels, 1, -1)
            weight = F.linear(centre, self.maps[f"{big}to{small}"]).view(channels, 1, small, small)
        return weight

    def forward(self, x: Tensor, kernel_size: int) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, H / stride, W / stride)``."""
        channels = x.shape[1]
        return F.conv2d(x, self.kernel(channels, kernel_size), None, self.stride, kernel_size // 2, groups=channels)

    def fill(self, plain: nn.Conv2d) -> None:
        """Copy the kernel of ``plain``'s shape into it."""
        with torch.no_grad():
            plain.weight.copy_(self.kernel(plain.out_channels, plain.kernel_size[0]))


class ElasticBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose narrower forms use, and update, the first channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, BN_EPS, BN_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` with any C up to the layer's channels."""
        c = x.shape[1]
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        return F.batch_norm(
            x, self.running_mean[:c], self.running_var[:c], self.weight[:c], self.bias[:c],
            self.training, self.momentum, self.eps,
        )  # fmt: skip

    def fill(self, plain: nn.BatchNorm2d) -> None:
        """Copy weight, bias and running statistics of the first channels."""
        c = plain.num_features
        with torch.no_grad():
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(plain, name).copy_(getattr(self, name)[:c])


class ElasticBlock(nn.Module):
    """A block of a supernet: computes any spec of its kind that fits inside it."""

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """``(B, C, H, W)`` through the block that ``spec`` describes."""
        raise NotImplementedError

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """Copy this block's weights for ``spec`` into ``plain``, which ``spec.build()`` made."""
        raise NotImplementedError

    def sort_channels(self) -> None:
        """Order what can be left out by importance, most important first; the block computes the same."""


class ElasticConvBnAct(ElasticBlock):
    """The elastic form of `ConvBnAct`, for a `ConvSpec`."""

    def __init__(self, largest: ConvSpec) -> None:
        super().__init__()
        k = largest.kernel_size
        self.conv = ElasticConv2d(largest.in_channels, largest.out_channels, k, largest.stride, k // 2, bias=False)
        self.bn = ElasticBatchNorm2d(largest.out_channels)
        self.act: ActName = largest.act

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        return activate(self.bn(self.conv(x, spec.out_channels)), self.act)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, ConvBnAct)
        self.conv.fill(plain.conv)
        self.bn.fill(plain.bn)


class ElasticSqueezeExcite(nn.Module):
    """Squeeze-excite over the first channels of a block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = se_hidden(channels)
        self.reduce = ElasticConv2d(channels, hidden, 1)
        self.expand = ElasticConv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        c = x.shape[1]
        gate = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        gate = self.expand(F.relu(self.reduce(gate, se_hidden(c))), c)
        return x * F.hardsigmoid(gate)

    def fill(self, plain: SqueezeExcite) -> None:
        """Copy the slices of ``plain``'s shape into it."""
        self.reduce.fill(plain.reduce)
        self.expand.fill(plain.expand)


class ElasticMBConv(ElasticBlock):
    """The elastic form of `MBConv`: kernel size and middle channels vary, for an `MBConvSpec`."""

    def __init__(self, largest: MBConvSpec, kernel_sizes: tuple[int, ...]) -> None:
        super().__init__()
        mid = largest.mid_channels
        if largest.expand:
            self.expand_conv = ElasticConv2d(largest.in_channels, mid, 1, bias=False)
            self.expand_bn = ElasticBatchNorm2d(mid)
        self.depthwise = ElasticDepthwiseConv2d(mid, kernel_sizes, largest.stride)
        self.depthwise_bn = ElasticBatchNorm2d(mid)
        self.se = ElasticSqueezeExcite(mid) if largest.se else None
        self.project = ElasticConv2d(mid, largest.out_channels, 1, bias=False)
        self.project_bn = ElasticBatchNorm2d(largest.out_channels)
        self.act: ActName = largest.act
        self.expands = largest.expand

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """See `ElasticBlock`."""
        assert isinstance(spec, MBConvSpec)
        y: Tensor = x
        if self.expands:
            y = activate(self.expand_bn(self.expand_conv(y, spec.mid_channels)), self.act)
        y = activate(self.depthwise_bn(self.depthwise(y, spec.kernel_size)), self.act)
        if self.se is not None:
            y = self.se(y)
        y = self.project_bn(self.project(y, spec.out_channels))
        return x + y if spec.residual else y

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, MBConv)
        if self.expands:
            assert isinstance(plain.expand, ConvBnAct)
            self.expand_conv.fill(plain.expand.conv)
            self.expand_bn.fill(plain.expand.bn)
        self.depthwise.fill(plain.depthwise.conv)
        self.depthwise_bn.fill(plain.depthwise.bn)
        if self.se is not None:
            assert isinstance(plain.se, SqueezeExcite)
            self.se.fill(plain.se)
        self.project.fill(plain.project.conv)
        self.project_bn.fill(plain.project.bn)

    @torch.no_grad()
    def sort_channels(self) -> None:
        """Order the middle channels by the L1 norm of the projection that reads them, largest first.

        Squeeze-excite's hidden units are ordered by the L1 norm of its expansion.

        Reference:
            Cai et al., 2020, Once-for-All, section 3.3 (elastic width).
        """
        if not self.expands:
            return
        order = self.project.weight.abs().sum((0, 2, 3)).argsort(descending=True, stable=True)
        _reorder(self.project.weight, order, dim=1)
        _reorder(self.depthwise.weight, order, dim=0)
        _reorder(self.expand_conv.weight, order, dim=0)
        for bn in (self.expand_bn, self.depthwise_bn):
            for name in ("weight", "bias", "running_mean", "running_var"):
                _reorder(getattr(bn, name), order, dim=0)
        if self.se is not None:
            _reorder(self.se.reduce.weight, order, dim=1)
            _reorder(self.se.expand.weight, order, dim=0)
            assert self.se.expand.bias is not None
            assert self.se.reduce.bias is not None
            _reorder(self.se.expand.bias, order, dim=0)
            hidden = self.se.expand.weight.abs().sum((0, 2, 3)).argsort(descending=True, stable=True)
            _reorder(self.se.reduce.weight, hidden, dim=0)
            _reorder(self.se.reduce.bias, hidden, dim=0)
            _reorder(self.se.expand.weight, hidden, dim=1)


def _reorder(tensor: Tensor, order: Tensor, dim: int) -> None:
    tensor.copy_(tensor.index_select(dim, order))


class ElasticHead(ElasticBlock):
    """The classifier of every subnet; its input may be narrower than its largest, for a `HeadSpec`."""

    def __init__(self, largest: HeadSpec) -> None:
        super().__init__()
        width = largest.feature_channels or largest.in_channels
        self.mix = ElasticConv2d(largest.in_channels, width, 1, bias=False) if largest.feature_channels else None
        self.classifier = nn.Linear(width, largest.out_channels)
        self.act: ActName = largest.act

    def forward(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, classes)``."""
        assert isinstance(spec, HeadSpec)
        x = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        if self.mix is not None:
            x = activate(self.mix(x, spec.feature_channels), self.act)
        x = F.dropout(x.flatten(1), spec.dropout_percent / 100, self.training)
        return F.linear(x, self.classifier.weight[:, : x.shape[1]], self.classifier.bias)

    def fill(self, plain: nn.Module, spec: BlockSpec) -> None:
        """See `ElasticBlock`."""
        assert isinstance(plain, Head)
        if self.mix is not None:
            assert isinstance(plain.mix, nn.Conv2d)
            self.mix.fill(plain.mix)
        with torch.no_grad():
            plain.classifier.weight.copy_(self.classifier.weight[:, : plain.classifier.in_features])
            plain.classifier.bias.copy_(self.classifier.bias)
