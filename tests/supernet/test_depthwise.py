"""Is the strip-wise weight gradient the gradient?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hwnas.supernet import depthwise
from hwnas.supernet.depthwise import depthwise_conv2d


@pytest.mark.parametrize(
    ("channels", "kernel_size", "height", "width"), [(7, 5, 11, 13), (5, 7, 13, 7), (3, 9, 11, 17), (16, 5, 5, 5)]
)
def test_gradients_equal_those_of_torch(monkeypatch, channels, kernel_size, height, width):
    monkeypatch.setattr(depthwise, "WORTHWHILE_ELEMENTS", 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, height, width, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, kernel_size, kernel_size, generator=generator)
    results = []
    for function in (
        lambda a, w: depthwise_conv2d(a, w, 1),
        lambda a, w: F.conv2d(a, w, None, 1, kernel_size // 2, groups=channels),
    ):
        a, w = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = function(a, w)
        results.append((y.detach(), *torch.autograd.grad(y.square().sum(), (a, w))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("stride", "size", "kernel_size"), [(2, 11, 5), (1, 4, 7), (1, 11, 3)])
def test_cases_without_a_fast_kernel_take_the_usual_way(monkeypatch, stride, size, kernel_size):
    monkeypatch.setattr(depthwise, "WORTHWHILE_ELEMENTS", 0)
    monkeypatch.setattr(depthwise, "weight_gradient", None)  # would fail if it were called
    x = torch.randn(2, 3, size, size)
    weight = torch.randn(3, 1, kernel_size, kernel_size, requires_grad=True)
    y = depthwise_conv2d(x, weight, stride)
    y.sum().backward()
    assert torch.equal(y, F.conv2d(x, weight, None, stride, kernel_size // 2, groups=3))
