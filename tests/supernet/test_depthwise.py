"""Are the weight gradients that replace the slow one the gradient?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hwnas.supernet.blocks import depthwise
from hwnas.supernet.blocks.depthwise import depthwise_conv2d

STRIPS = [(7, 5, 1, 11, 13), (5, 7, 1, 13, 7), (3, 9, 1, 11, 17), (16, 5, 1, 5, 5)]
PAIRS = [(6, 5, 1, 4, 4), (6, 7, 2, 4, 4), (5, 3, 1, 2, 2), (4, 7, 1, 1, 1), (4, 5, 2, 3, 5)]
CONVOLUTION = [(6, 5, 2, 11, 12), (3, 7, 2, 8, 7), (4, 7, 1, 9, 6), (2, 7, 2, 14, 14)]


def gradients(function, x, weight):
    a, w = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = function(a, w)
    return y.detach(), *torch.autograd.grad(y.square().sum(), (a, w))


@pytest.mark.parametrize("way", ["_by_strips", "_by_pairs", "_by_convolution"])
def test_gradients_equal_those_of_torch(monkeypatch, way):
    others = {"_by_strips", "_by_pairs", "_by_convolution"} - {way}
    for name in others:
        monkeypatch.setattr(depthwise, name, None)  # would fail if it were called
    cases = {"_by_strips": STRIPS, "_by_pairs": PAIRS, "_by_convolution": CONVOLUTION}[way]
    monkeypatch.setattr(depthwise, "GROUP_ELEMENTS", 1500)  # several groups, and an incomplete last one
    for channels, kernel_size, stride, height, width in cases:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(5, channels, height, width, generator=generator).to(memory_format=torch.channels_last)
        weight = torch.randn(channels, 1, kernel_size, kernel_size, generator=generator)
        ours = gradients(lambda a, w, s=stride: depthwise_conv2d(a, w, s), x, weight)
        theirs = gradients(
            lambda a, w, s=stride: F.conv2d(a, w, None, s, w.shape[-1] // 2, groups=w.shape[0]), x, weight
        )
        for found, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_a_fast_kernel_is_used_as_it_is(monkeypatch):
    monkeypatch.setattr(depthwise, "weight_gradient", None)  # would fail if it were called
    x = torch.randn(2, 3, 11, 11)
    weight = torch.randn(3, 1, 3, 3, requires_grad=True)
    y = depthwise_conv2d(x, weight, 1)
    y.sum().backward()
    assert torch.equal(y, F.conv2d(x, weight, None, 1, 1, groups=3))
