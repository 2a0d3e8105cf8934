"""How is a depthwise convolution trained quickly on a CPU? By computing the gradient of its weight in other ways.

oneDNN, which PyTorch uses on CPUs, has a fast kernel for that gradient only up to kernels three columns wide (any
height) on maps at least as wide; others fall to a general kernel, which took most of a training step at 5x5 and 7x7.
What replaces it depends on the shape (1 thread, batch 64, milliseconds before and after):

- small maps: products of all pairs of pixels, as matrix products (672 channels, 7x7 on 4x4: 40 to 6);
- stride 1: strips of three columns, each with the input shifted (180 channels, 7x7 on 14x14: 51 to 23);
- else: each image convolved by its output gradient, fast as any convolution (96 channels, 7x7, stride 2 on 56x56: 148
  to 63; 480 channels, 7x7, stride 2 on 7x7: 34 to 9).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIP = 3
"""Columns that the fast kernel takes."""

PAIRS = 300
"""Up to so many pairs of an output and an input pixel, all products are computed."""

GROUP_ELEMENTS = 50_000
"""Of the images that are convolved by their own gradients together."""


def depthwise_conv2d(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the depthwise convolution with padding ``kernel_size // 2``.

    Args:
        x: ``(B, C, H, W)``.
        weight: ``(C, 1, k, k)``, k odd.
        stride: along both axes.
    """
    kernel_size = weight.shape[-1]
    usual = x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled()
    if usual or _is_fast(kernel_size, x.shape[3]):
        return F.conv2d(x, weight, None, stride, kernel_size // 2, groups=x.shape[1])
    y: Tensor = _DepthwiseConv2d.apply(x, weight, stride)  # type: ignore[no-untyped-call]
    return y


def _is_fast(kernel_size: int, width: int) -> bool:
    """Whether oneDNN has a fast kernel for the weight gradient."""
    return kernel_size <= STRIP and width >= kernel_size


class _DepthwiseConv2d(torch.autograd.Function):
    """The usual convolution forward and towards the input; the weight gradient another way.

    Also under the transforms of `torch.func`, which ask for a gradient that has one itself.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int) -> Tensor:
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=x.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        x, weight, ctx.stride = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted: PyTorch's own has one
            pad = (weight.shape[-1] // 2,) * 2
            towards_x = _backward(grad, x, weight, ctx.stride, pad, towards_input=True)
            return towards_x, _backward(grad, x, weight, ctx.stride, pad, towards_input=False), None
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = input_gradient(grad, x, weight, ctx.stride) if ctx.needs_input_grad[0] else None
        grad_weight = weight_gradient(grad, x, weight, ctx.stride) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, None


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution without bias that is trained quickly on a CPU; see `depthwise_conv2d`."""

    def __init__(self, channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, H / stride, W / stride)``."""
        if self.training:
            return depthwise_conv2d(x, self.weight, self.stride[0])
        return super().forward(x)


def input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the gradient of a depthwise convolution's input, like ``x``."""
    pad = weight.shape[-1] // 2
    return _backward(grad, x, weight, stride, (pad, pad), towards_input=True)


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the ``(C, 1, k, k)`` gradient of a depthwise kernel.

    Args:
        grad: ``(B, C, H / stride, W / stride)`` gradient of the output.
        x: ``(B, C, H, W)`` input.
        weight: ``(C, 1, k, k)``, of which only the shape is used.
        stride: of the convolution.
    """
    k, pad = weight.shape[-1], weight.shape[-1] // 2
    (height, width), (out_height, out_width) = x.shape[2:], grad.shape[2:]
    if _is_fast(k, width):
        return _backward(grad, x, weight, stride, (pad, pad), towards_input=False)
    if height * width * out_height * out_width <= PAIRS:
        return _by_pairs(grad, x, k, stride)
    if stride == 1 and width >= k:
        return _by_strips(grad, x, weight)
    return _by_convolution(grad, x, k, stride)


def _by_strips(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Stride 1, three columns of the kernel at a time; the last strip may overlap its neighbour."""
    k, pad = weight.shape[-1], weight.shape[-1] // 2
    out = torch.empty_like(weight)
    n_strips = -(-k // STRIP)
    for number in range(n_strips):
        first = number * (k - STRIP) // (n_strips - 1)
        # The strip around the centre reads the input where it is.
        shifted, columns = (x, 1) if first == pad - 1 else (_window(x, pad - first), 0)
        strip = weight[..., first : first + STRIP]
        out[..., first : first + STRIP] = _backward(grad, shifted, strip, 1, (pad, columns), towards_input=False)
    return out


def _by_pairs(grad: Tensor, x: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Small maps: the products of all pairs of output and input pixels, then the sums of those that a tap joins."""
    batch, channels = x.shape[:2]
    outputs, inputs = (t.permute(0, 2, 3, 1).reshape(-1, channels).t().contiguous() for t in (grad, x))
    pairs = torch.bmm(outputs.view(channels, batch, -1).transpose(1, 2), inputs.view(channels, batch, -1))
    joined = _joined(tuple(grad.shape[2:]), tuple(x.shape[2:]), kernel_size, stride)
    return (pairs.view(channels, -1) @ joined.to(x.dtype)).view(channels, 1, kernel_size, kernel_size)


@lru_cache(maxsize=64)
def _joined(outputs: tuple[int, int], inputs: tuple[int, int], kernel_size: int, stride: int) -> Tensor:
    """1 where a tap joins an output pixel and an input pixel: ``(H_out W_out H W, k k)``."""
    axes = []
    for n_out, n_in in zip(outputs, inputs, strict=True):
        tap = torch.arange(n_in) - stride * torch.arange(n_out).unsqueeze(1) + kernel_size // 2
        axes.append((tap.unsqueeze(2) == torch.arange(kernel_size)).float())  # (n_out, n_in, k)
    return torch.einsum("yui,xvj->yxuvij", *axes).reshape(-1, kernel_size**2)


def _by_convolution(grad: Tensor, x: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Any shape: each image convolved by its own output gradient, dilated by the stride, and summed over images.

    Images and channels together are the groups of one depthwise convolution, which is fast towards its output.
    """
    batch, channels = x.shape[:2]
    together = max(1, GROUP_ELEMENTS // x[0].numel())
    out = grad.new_zeros((kernel_size, kernel_size, channels))
    for first in range(0, batch, together):
        image, kernel = (_side_by_side(t[first : first + together]) for t in (x, grad))
        y = F.conv2d(image, kernel.transpose(0, 1), None, 1, kernel_size // 2, stride, image.shape[1])
        taps = y[0, :, :kernel_size, :kernel_size].permute(1, 2, 0)
        out += taps.reshape(kernel_size, kernel_size, -1, channels).sum(2)
    return out.permute(2, 0, 1).unsqueeze(1)


def _side_by_side(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` to ``(1, B C, H, W)``, channels-last."""
    b, c, h, w = x.shape
    return x.permute(2, 3, 0, 1).reshape(1, h, w, b * c).permute(0, 3, 1, 2)


def _window(x: Tensor, shift: int) -> Tensor:
    """Columns ``-shift`` to ``W - shift + 1`` of ``x``, zeros where it has none: what one strip reads."""
    b, c, h, w = x.shape
    out = torch.empty((b, c, h, w + STRIP - 1), dtype=x.dtype, memory_format=torch.channels_last)
    first, last = max(0, -shift), min(w, w - shift + STRIP - 1)
    if first >= last:
        return out.zero_()
    start = first + shift
    out[..., :start] = 0
    out[..., start : start + last - first] = x[..., first:last]
    out[..., start + last - first :] = 0
    return out


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], towards_input: bool
) -> Tensor:
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, (stride, stride), padding, (1, 1), False, (0, 0), x.shape[1],
        (towards_input, not towards_input, False),
    )  # fmt: skip
    chosen: Tensor = grad_x if towards_input else grad_weight
    return chosen
