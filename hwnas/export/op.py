"""What does a runtime execute? One operator of a network after batch norm is folded into its convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OpType = Literal[
    "conv", "depthwise_conv", "linear", "max_pool", "avg_pool", "global_avg_pool",
    "add", "mul", "relu", "hswish", "hsigmoid", "sigmoid", "concat", "split", "shuffle", "batch_norm",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Op:
    """One operator with square feature maps; every count is for one image."""

    type: OpType
    """``conv`` includes grouped and 1x1 convolutions; ``depthwise_conv`` has one input channel a group."""
    in_channels: int
    """Channels of the first input."""
    out_channels: int
    in_size_px: int
    """Height and width of the first input."""
    out_size_px: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    n_inputs: int = 1
    """Feature maps read: 2 for an addition."""

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and linear layers, each counted once; 0 for anything else."""
        if self.type in ("conv", "depthwise_conv"):
            per_pixel = self.kernel_size**2 * (self.in_channels // self.groups) * self.out_channels
            return per_pixel * self.out_size_px**2
        return self.in_channels * self.out_channels if self.type == "linear" else 0

    @property
    def weights(self) -> int:
        """Elements of the weight tensor, without bias."""
        if self.type in ("conv", "depthwise_conv"):
            return self.kernel_size**2 * (self.in_channels // self.groups) * self.out_channels
        return self.in_channels * self.out_channels if self.type == "linear" else 0

    @property
    def in_elements(self) -> int:
        """Elements read from feature maps; the second factor of a channel-wise ``mul`` is not counted."""
        maps = self.n_inputs if self.type == "add" else 1
        return self.in_channels * self.in_size_px**2 * maps

    @property
    def out_elements(self) -> int:
        """Elements written."""
        return self.out_channels * self.out_size_px**2
