"""How is a depthwise convolution trained quickly on a CPU? By asking for its weight gradient three columns at a time.

oneDNN, which PyTorch uses on CPUs, has a fast kernel for the weight gradient of a depthwise convolution only up to
kernels three columns wide (any height); wider ones fall to a general kernel that takes most of a training step at 5x5
and 7x7. The gradient of a wide kernel is the gradients of strips of three columns, each with the input shifted.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP = 3
"""Columns that the fast kernel takes."""
WORTHWHILE_ELEMENTS = 100_000
"""Inputs smaller than this are done before the strips are cut."""


def depthwise_conv2d(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the depthwise convolution with padding ``kernel_size // 2``.

    Args:
        x: ``(B, C, H, W)``.
        weight: ``(C, 1, k, k)``, k odd.
        stride: along both axes.
    """
    kernel_size = weight.shape[-1]
    # With stride 2 the general kernel has a quarter of the work and wins; maps narrower than the kernel have no
    # fast one.
    wide = kernel_size > STRIP and stride == 1 and x.shape[3] >= kernel_size and x.numel() >= WORTHWHILE_ELEMENTS
    if wide and x.device.type == "cpu" and torch.is_grad_enabled() and weight.requires_grad:
        y: Tensor = _StripGradient.apply(x, weight)  # type: ignore[no-untyped-call]
        return y
    return F.conv2d(x, weight, None, stride, kernel_size // 2, groups=x.shape[1])


class _StripGradient(torch.autograd.Function):
    """Stride 1: the usual convolution forward and towards the input; the weight gradient in strips."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, None, 1, weight.shape[-1] // 2, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        pad = weight.shape[-1] // 2
        grad_x = _backward(grad, x, weight, (pad, pad), towards_input=True) if ctx.needs_input_grad[0] else None
        grad_weight = weight_gradient(grad, x, weight) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return the ``(C, 1, k, k)`` gradient of a stride-1 depthwise kernel; the last strip may overlap its neighbour.

    Args:
        grad: ``(B, C, H, W)`` gradient of the output.
        x: ``(B, C, H, W)`` input.
        weight: ``(C, 1, k, k)``, of which only the shape is used.
    """
    k, pad = weight.shape[-1], weight.shape[-1] // 2
    out = torch.empty_like(weight)
    n_strips = -(-k // STRIP)
    for number in range(n_strips):
        first = number * (k - STRIP) // (n_strips - 1)
        # The strip around the centre reads the input where it is.
        shifted, columns = (x, 1) if first == pad - 1 else (_window(x, pad - first), 0)
        strip = weight[..., first : first + STRIP]
        out[..., first : first + STRIP] = _backward(grad, shifted, strip, (pad, columns), towards_input=False)
    return out


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


def _backward(grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], towards_input: bool) -> Tensor:
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, (1, 1), padding, (1, 1), False, (0, 0), x.shape[1],
        (towards_input, not towards_input, False),
    )  # fmt: skip
    chosen: Tensor = grad_x if towards_input else grad_weight
    return chosen
