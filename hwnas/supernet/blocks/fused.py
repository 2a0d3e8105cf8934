"""How is an inverted bottleneck trained quickly on a CPU? In sweeps over the batch, in pieces that stay in the cache.

Layer by layer, a training step of a MobileNet spends most of its time moving feature maps between memory and cache:
batch norm alone reads or writes each map four times forwards and five times backwards. Two facts avoid most of it:

- The batch norm after the 1x1 expansion needs no look at the expanded maps. The expansion is linear, so the mean and
  variance of its outputs follow from the mean and covariance of its few inputs; so do their gradients. The expanded
  maps are therefore never stored: each piece of them is made, used by the depthwise convolution and forgotten, once
  forwards and once backwards.
- The batch norm after the depthwise convolution splits the rest into one sweep before and one after its statistics
  are known. Within a sweep everything happens to a piece of the batch while it is in the cache.

What is kept for the backward pass is the input of the block and the output of the depthwise convolution, nothing else
of that size. That is the main gain: steps of ofa-mbv3-w1.0 (batch 64, 112 pixels, 2 threads) take 1.42 instead of
2.32 GB at their peak, and 6 % less time; at 64 pixels, where few blocks are that large, the time is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hwnas.supernet.blocks.depthwise import input_gradient, weight_gradient
from hwnas.supernet.blocks.layers import ActName

PIECE_ELEMENTS = 400_000
"""Elements of the largest map of a piece of the batch: what the cores' own caches hold."""

WORTHWHILE_ELEMENTS = 3_000_000
"""Blocks with smaller maps are computed layer by layer: they stay in the shared cache, and calls cost time, too."""


class Norm(NamedTuple):
    """A batch norm: what it learns, and its running statistics, of the channels that are used."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    momentum: float
    eps: float


class Gate(NamedTuple):
    """A squeeze-excite: weights ``(hidden, C)`` and ``(C, hidden)`` of its two layers, with their biases."""

    reduce_weight: Tensor
    reduce_bias: Tensor
    expand_weight: Tensor
    expand_bias: Tensor


class _Act(NamedTuple):
    apply_: Callable[[Tensor], Tensor]
    """In place."""
    gradient: Callable[[Tensor, Tensor], Tensor]
    """Of the output and what ``apply_`` was given, to that of the input; in place of the first."""
    from_output: bool
    """The gradient can be had from the output instead of the input."""


_ops = torch.ops.aten

ACTS: dict[ActName, _Act] = {
    "relu": _Act(
        lambda x: x.clamp_min_(0),
        lambda g, y: _ops.threshold_backward.grad_input(g, y, 0, grad_input=g),
        True,
    ),
    "relu6": _Act(
        lambda x: x.clamp_(0, 6), lambda g, y: _ops.hardtanh_backward.grad_input(g, y, 0, 6, grad_input=g), True
    ),
    "hswish": _Act(
        lambda x: F.hardswish(x, inplace=True), lambda g, x: _ops.hardswish_backward.out(g, x, out=g), False
    ),
}


def suits(x: Tensor, mid_channels: int) -> bool:
    """Whether a block is computed here in training: on a CPU, without autocast, where its maps exceed the caches."""
    elements = x.shape[0] * x.shape[2] * x.shape[3] * mid_channels
    usual = x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled()
    return not usual and elements >= WORTHWHILE_ELEMENTS


def inverted_bottleneck(
    x: Tensor,
    expand: tuple[Tensor, Norm] | None,
    kernel: Tensor,
    norm: Norm,
    stride: int,
    act: ActName,
    gate: Gate | None,
    project: Tensor,
) -> Tensor:
    """Return the projection of an inverted bottleneck in training, before its batch norm; batch norms are tracked.

    Args:
        x: ``(B, C, H, W)``.
        expand: weight ``(M, C, 1, 1)`` of the expansion and the batch norm after it; None: M is C.
        kernel: ``(M, 1, k, k)`` of the depthwise convolution, padded by ``k // 2``.
        norm: after the depthwise convolution.
        stride: of the depthwise convolution.
        act: after both batch norms.
        gate: squeeze-excite before the projection.
        project: ``(N, M, 1, 1)``.

    Returns:
        ``(B, N, H / stride, W / stride)``.
    """
    weight, first = expand if expand is not None else (None, None)
    learnt = [first.weight, first.bias] if first is not None else [None, None]
    gating: tuple[Tensor | None, ...] = gate if gate is not None else (None,) * 4
    y: Tensor = _InvertedBottleneck.apply(  # type: ignore[no-untyped-call]
        x, weight, *learnt, kernel, norm.weight, norm.bias, *gating, project, first, norm, stride, act
    )
    return y


class _InvertedBottleneck(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Any, gain1: Any, bias1: Any, kernel: Tensor, gain2: Tensor, bias2: Tensor,
        reduce_weight: Any, reduce_bias: Any, expand_weight: Any, expand_bias: Any, project: Tensor,
        norm1: Norm | None, norm2: Norm, stride: int, act: ActName,
    ) -> Tensor:  # fmt: skip
        batch, _, height, width = x.shape
        mid, k = kernel.shape[0], kernel.shape[-1]
        out_height, out_width = ((size - 1) // stride + 1 for size in (height, width))
        piece = _piece(batch, mid * height * width)
        rows = _rows(x)  # (B H W, C)
        act_ = ACTS[act].apply_
        saved: dict[str, Tensor] = {}
        if norm1 is not None:
            mean = rows.mean(0)
            rows = rows - mean
            covariance = (rows.t() @ rows).div_(len(rows))
            flat = weight.flatten(1)
            mixed = flat @ covariance
            var = (mixed * flat).sum(1).clamp_min_(0)
            invstd = (var + norm1.eps).rsqrt_()
            _track(norm1, flat @ mean, var, len(rows))
            scaled = flat * (gain1 * invstd).unsqueeze(1)
            saved |= {"mean": mean, "mixed": mixed, "invstd": invstd, "scaled": scaled}
        maps, means, variances, counts = [], [], [], []
        n_rows = height * width
        for start in range(0, batch, piece):
            part = rows[start * n_rows : (start + piece) * n_rows]
            if weight is not None:
                part = act_(torch.addmm(bias1, part, scaled.t()))
            y = F.conv2d(_images(part, height, width), kernel, None, stride, k // 2, groups=mid)
            m, v = torch.batch_norm_update_stats(y, None, None, 0.0)
            maps.append(y)
            means.append(m)
            variances.append(v)
            counts.append(len(y))
        mean2, var2 = _merge(means, variances, counts)
        _track(norm2, mean2, var2, batch * out_height * out_width)
        invstd2 = (var2 + norm2.eps).rsqrt()
        scale = gain2 * invstd2
        shift = bias2 - mean2 * scale
        out = x.new_empty((batch * out_height * out_width, project.shape[0]))
        n_rows = out_height * out_width
        projection = project.flatten(1).t()
        squeezed, hidden, logits = [], [], []
        start = 0
        for y in maps:
            part = act_(torch.addcmul(shift, _rows(y), scale))
            if reduce_weight is not None:
                boxes = part.view(len(y), n_rows, mid)
                squeezed.append(boxes.mean(1))
                hidden.append(torch.addmm(reduce_bias, squeezed[-1], reduce_weight.flatten(1).t()).clamp_min_(0))
                logits.append(torch.addmm(expand_bias, hidden[-1], expand_weight.flatten(1).t()))
                boxes *= F.hardsigmoid(logits[-1]).unsqueeze(1)
            torch.mm(part, projection, out=out[start : start + len(part)])
            start += len(part)
        if reduce_weight is not None:
            saved |= {"squeezed": torch.cat(squeezed), "hidden": torch.cat(hidden), "logits": torch.cat(logits)}
        saved |= {"mean2": mean2, "invstd2": invstd2}
        ctx.save_for_backward(
            x, weight, gain1, bias1, kernel, gain2, bias2, reduce_weight, expand_weight, project, *maps,
            *saved.values(),
        )  # fmt: skip
        ctx.names, ctx.n_maps, ctx.stride, ctx.act = list(saved), len(maps), stride, act
        return _images(out, out_height, out_width)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gain1, bias1, kernel, gain2, bias2, reduce_weight, expand_weight, project, *rest = ctx.saved_tensors
        maps, saved = rest[: ctx.n_maps], dict(zip(ctx.names, rest[ctx.n_maps :], strict=True))
        act, stride = ACTS[ctx.act], ctx.stride
        batch, _, height, width = x.shape
        mid = kernel.shape[0]
        out_height, out_width = grad.shape[2:]
        n_rows = out_height * out_width
        grads = _rows(grad)
        scale = gain2 * saved["invstd2"]
        shift = bias2 - saved["mean2"] * scale
        flat_project = project.flatten(1)
        grad_project = torch.zeros_like(flat_project)
        grad_reduce_weight = grad_reduce_bias = grad_expand_weight = grad_expand_bias = None
        total, products = torch.zeros_like(shift), torch.zeros_like(shift)
        gates = F.hardsigmoid(saved["logits"]) if reduce_weight is not None else None
        grad_logits, grad_hidden = [], []
        grad_maps = []
        first = 0
        for y in maps:
            last = first + len(y)
            part = grads[first * n_rows : last * n_rows]
            before = torch.addcmul(shift, _rows(y), scale)
            after = act.apply_(before if act.from_output else before.clone())
            g = part @ flat_project
            if gates is not None:
                gate = gates[first:last].unsqueeze(1)  # (n, 1, M)
                boxes, g_boxes = after.view(len(y), n_rows, mid), g.view(len(y), n_rows, mid)
                gated = boxes * gate
                grad_project.addmm_(part.t(), gated.view(-1, mid))
                grad_gate = torch.mul(g_boxes, boxes, out=gated).sum(1)
                g_logits = _ops.hardsigmoid_backward(grad_gate, saved["logits"][first:last])
                g_hidden = _ops.threshold_backward(g_logits @ expand_weight.flatten(1), saved["hidden"][first:last], 0)
                grad_logits.append(g_logits)
                grad_hidden.append(g_hidden)
                pooled = (g_hidden @ reduce_weight.flatten(1)).div_(n_rows).unsqueeze(1)
                torch.addcmul(pooled, g_boxes, gate, out=g_boxes)
            else:
                grad_project.addmm_(part.t(), after)
            g = act.gradient(g, before)
            total += g.sum(0)
            products += torch.mul(g, _rows(y), out=after).sum(0)
            grad_maps.append(g)
            first = last
        if gates is not None:
            g_logits, g_hidden = torch.cat(grad_logits), torch.cat(grad_hidden)
            grad_expand_weight = (g_logits.t() @ saved["hidden"]).view_as(expand_weight)
            grad_expand_bias = g_logits.sum(0)
            grad_reduce_weight = (g_hidden.t() @ saved["squeezed"]).view_as(reduce_weight)
            grad_reduce_bias = g_hidden.sum(0)
        n = batch * n_rows
        grad_gain2 = (products - saved["mean2"] * total) * saved["invstd2"]
        # gradient of the depthwise output y: scale * (g - mean of g - normalised y * mean of (g * normalised y))
        slope = -scale * grad_gain2 * saved["invstd2"] / n
        constant = -scale * total / n - slope * saved["mean2"]
        rows, n_rows = _rows(x), height * width
        grad_x = torch.empty_like(rows)
        grad_kernel = torch.zeros_like(kernel)
        grad_weight: Any = None
        grad_gain1: Any = None
        grad_bias1: Any = None
        if weight is not None:
            rows = rows - saved["mean"]
            scaled = saved["scaled"]
            grad_bias1 = torch.zeros_like(bias1)
            outer = torch.zeros_like(scaled)
        first = 0
        for i, y in enumerate(maps):
            last = first + len(y)
            here = slice(first * n_rows, last * n_rows)
            g = grad_maps[i]
            grad_maps[i] = y  # each piece is freed once it is used
            g_y = torch.addcmul(constant, _rows(y), slope).addcmul_(g, scale)
            g_y = _images(g_y, out_height, out_width)
            part = rows[here]
            if weight is not None:
                before = torch.addmm(bias1, part, scaled.t())
                after = act.apply_(before if act.from_output else before.clone())
            else:
                after = part
            a = _images(after, height, width)
            grad_kernel += weight_gradient(g_y, a, kernel, stride)
            g = _rows(input_gradient(g_y, a, kernel, stride))
            if weight is not None:
                g = act.gradient(g, before)
                grad_bias1 += g.sum(0)
                outer.addmm_(g.t(), part)
                torch.mm(g, scaled, out=grad_x[here])
            else:
                grad_x[here] = g
            first = last
        if weight is not None:
            flat, invstd, mixed = weight.flatten(1), saved["invstd"], saved["mixed"]
            grad_gain1 = (outer * flat).sum(1) * invstd
            factor = gain1 * invstd
            grad_weight = factor.unsqueeze(1) * (outer - (grad_gain1 * invstd).unsqueeze(1) * mixed)
            grad_weight = grad_weight.view_as(weight)
            n = len(rows)
            quadratic = flat.t() @ (flat * (factor * grad_gain1 * invstd / n).unsqueeze(1))
            grad_x -= (factor * grad_bias1 / n) @ flat
            grad_x.addmm_(rows, quadratic, alpha=-1)
        return (
            _images(grad_x, height, width), grad_weight, grad_gain1, grad_bias1, grad_kernel, grad_gain2, total,
            grad_reduce_weight, grad_reduce_bias, grad_expand_weight, grad_expand_bias,
            grad_project.view_as(project), None, None, None, None,
        )  # fmt: skip


def _piece(batch: int, elements: int) -> int:
    """Images of a piece, given the elements that one of them has."""
    return max(1, min(batch, PIECE_ELEMENTS // elements))


def _rows(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` as ``(B H W, C)``: without a copy, for what is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _images(rows: Tensor, height: int, width: int) -> Tensor:
    """``(B H W, C)`` as ``(B, C, H, W)``, channels-last."""
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def _merge(means: list[Tensor], variances: list[Tensor], counts: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of the whole from those of its pieces (Chan et al., 1979)."""
    if len(counts) == 1:
        return means[0], variances[0]
    share = torch.tensor(counts, dtype=means[0].dtype).div_(sum(counts))
    of_pieces, mean = torch.stack(means), share @ torch.stack(means)
    return mean, share @ ((of_pieces - mean).square_().add_(torch.stack(variances)))


def _track(norm: Norm, mean: Tensor, var: Tensor, n: int) -> None:
    """Update the running statistics with the biased variance of ``n`` values a channel."""
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(var * (n / max(1, n - 1)), norm.momentum)
