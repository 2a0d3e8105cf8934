"""Which layers can shrink? Each holds the weights of its largest form; smaller forms are slices of it.

`fill` copies the very same slice into a plain module, so an extracted subnet computes what the supernet computed, bit
for bit.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.supernet.blocks import fused
from hwnas.supernet.blocks.depthwise import depthwise_conv2d
from hwnas.supernet.blocks.layers import BN_EPS, BN_MOMENTUM, conv_pixel


class ElasticConv2d(nn.Conv2d):
    """A convolution whose narrower forms are its first output and input channels."""

    def kernel(self, in_channels: int, out_channels: int) -> Tensor:
        """``(out_channels, in_channels, k, k)`` view of the first channels."""
        return self.weight[:out_channels, :in_channels]

    def forward(self, x: Tensor, out_channels: int) -> Tensor:  # type: ignore[override]
        """``(B, C, H, W)`` to ``(B, out_channels, H', W')``."""
        kernel = self.kernel(x.shape[1], out_channels)
        bias = None if self.bias is None else self.bias[:out_channels]
        if self.training and self.kernel_size == self.stride == x.shape[2:] == (1, 1):
            return conv_pixel(x, kernel, bias)
        return F.conv2d(x, kernel, bias, self.stride, self.padding)

    def fill(self, plain: nn.Conv2d) -> None:
        """Copy the slice of ``plain``'s shape into it."""
        with torch.no_grad():
            plain.weight.copy_(self.kernel(plain.in_channels, plain.out_channels))
            if plain.bias is not None and self.bias is not None:
                plain.bias.copy_(self.bias[: plain.out_channels])


class ElasticPixelConv2d(ElasticConv2d):
    """The elastic form of `PixelConv2d`."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor, out_channels: int) -> Tensor:  # type: ignore[override]
        """``(B, C, 1, 1)`` to ``(B, out_channels, 1, 1)``."""
        return conv_pixel(
            x, self.kernel(x.shape[1], out_channels), None if self.bias is None else self.bias[:out_channels]
        )


class ElasticDepthwiseConv2d(nn.Module):
    """A depthwise convolution with one largest kernel; smaller ones are its centre, linearly mapped.

    The maps follow one another (7 to 5, 5 to 3), start as the identity and are shared by all channels.

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
        return depthwise_conv2d(x, self.kernel(x.shape[1], kernel_size), self.stride)

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

    def slices(self, channels: int) -> fused.Norm:
        """Return what belongs to the first channels, for a fused block."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        c = channels
        return fused.Norm(
            self.weight[:c], self.bias[:c], self.running_mean[:c], self.running_var[:c], self.momentum, self.eps
        )

    def fill(self, plain: nn.BatchNorm2d) -> None:
        """Copy weight, bias and running statistics of the first channels."""
        c = plain.num_features
        with torch.no_grad():
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(plain, name).copy_(getattr(self, name)[:c])


def by_importance(reader: Tensor, widths: Iterable[int] = ()) -> Tensor:
    """Return ``(C,)``: the order of input channels by the L1 norm of the weights that read them, largest first.

    Args:
        reader: ``(C_out, C, k, k)`` weights of the convolution that reads the channels.
        widths: numbers of first channels that narrower forms already use. Channels stay within their group, so that
            each of these forms keeps the very channels that it was trained with.

    Reference:
        Cai et al., 2020, Once-for-All, section 3.3 (elastic width), and its code: later phases of width order only
        the channels between the widths that are trained already.
    """
    importance = reader.abs().sum((0, 2, 3))
    n = len(importance)
    ends = sorted({n, *(w for w in widths if 0 < w < n)})
    groups, start = [], 0
    for end in ends:
        groups.append(start + importance[start:end].argsort(descending=True, stable=True))
        start = end
    return torch.cat(groups)


def reorder(tensor: Tensor, order: Tensor, dim: int) -> None:
    """Bring one axis of a tensor into another order, in place."""
    tensor.copy_(tensor.index_select(dim, order))
