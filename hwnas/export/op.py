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
    """One operator; every count is for one image. Feature maps and kernels are square unless widths say otherwise."""

    type: OpType
    """``conv`` includes grouped and 1x1 convolutions; ``depthwise_conv`` has one input channel a group."""
    in_channels: int
    """Channels of the first input."""
    out_channels: int
    in_size_px: int
    """Height of the first input, and its width unless ``in_width_px`` says otherwise."""
    out_size_px: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    n_inputs: int = 1
    """Feature maps read: 2 for an addition."""

    in_width_px: int = 0
    """Width of the first input; 0: as its height. hwnas' own networks are square, those of others need not be."""
    out_width_px: int = 0
    """Width of the output; 0: as its height."""
    kernel_width: int = 0
    """Width of the kernel; 0: as its height."""

    @property
    def kernel_area(self) -> int:
        """Elements of the kernel in the plane."""
        return self.kernel_size * (self.kernel_width or self.kernel_size)

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and linear layers, each counted once; 0 for anything else."""
        if self.type in ("conv", "depthwise_conv"):
            return self.weights * self.out_size_px * (self.out_width_px or self.out_size_px)
        return self.weights

    @property
    def weights(self) -> int:
        """Elements of the weight tensor, without bias."""
        if self.type in ("conv", "depthwise_conv"):
            return self.kernel_area * (self.in_channels // self.groups) * self.out_channels
        return self.in_channels * self.out_channels if self.type == "linear" else 0

    @property
    def in_elements(self) -> int:
        """Elements read from feature maps; the second factor of a channel-wise ``mul`` is not counted."""
        maps = self.n_inputs if self.type == "add" else 1
        return self.in_channels * self.in_size_px * (self.in_width_px or self.in_size_px) * maps

    @property
    def out_elements(self) -> int:
        """Elements written."""
        return self.out_channels * self.out_size_px * (self.out_width_px or self.out_size_px)
