"""Are the weight gradients that replace the slow one the gradient?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from hwnas.supernet.blocks import depthwise
from hwnas.supernet.blocks.depthwise import DepthwiseConv2d, depthwise_conv2d
from hwnas.supernet.blocks.layers import ConvBnAct

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


def test_plain_networks_are_trained_the_fast_way_and_else_compute_as_ever(monkeypatch):
    torch.manual_seed(0)
    block = ConvBnAct(6, 6, 5, 2, groups=6)
    assert isinstance(block.conv, DepthwiseConv2d)
    usual = nn.Conv2d(6, 6, 5, 2, 2, groups=6, bias=False)
    usual.load_state_dict(block.conv.state_dict())
    ours = torch.randn(4, 6, 4, 4, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    block.conv(ours).square().sum().backward()
    usual(theirs).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(block.conv.weight.grad, usual.weight.grad, rtol=1e-4, atol=1e-4)
    x = ours.detach()
    monkeypatch.setattr(depthwise, "depthwise_conv2d", None)  # would fail if it were called
    assert torch.equal(block.eval().conv(x), usual(x))
    assert not isinstance(ConvBnAct(6, 12, 3, groups=6).conv, DepthwiseConv2d)


def test_a_gradient_of_the_gradient_is_that_of_torch():
    x, weight = torch.randn(3, 4, 4, 4), torch.randn(4, 1, 5, 5)

    def twice(function):
        w = weight.clone().requires_grad_()
        (first,) = torch.autograd.grad(function(x, w).square().sum(), w, create_graph=True)
        return torch.autograd.grad(first.square().sum(), w)[0]

    ours = twice(lambda a, w: depthwise_conv2d(a, w, 1))
    torch.testing.assert_close(ours, twice(lambda a, w: F.conv2d(a, w, None, 1, 2, groups=4)), rtol=1e-4, atol=1e-2)


def test_networks_stand_under_the_transforms_of_torch():
    ours, theirs = DepthwiseConv2d(6, 5).train(), nn.Conv2d(6, 6, 5, 1, 2, groups=6, bias=False)
    weights, images = dict(ours.named_parameters()), torch.randn(4, 1, 6, 4, 4)

    def of_each(layer):
        loss = lambda w, x: functional_call(layer, w, (x,)).square().sum()  # noqa: E731
        return vmap(grad(loss), (None, 0))(weights, images)["weight"]

    torch.testing.assert_close(of_each(ours), of_each(theirs), rtol=1e-4, atol=1e-4)
