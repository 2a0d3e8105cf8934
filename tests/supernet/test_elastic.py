"""Elastic layers: slices, centre crops and learned maps by hand; sorting that changes nothing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hwnas.supernet.blocks.conv import ConvSpec, ElasticConvBnAct
from hwnas.supernet.blocks.elastic import elastic_block
from hwnas.supernet.blocks.elastic_layers import ElasticBatchNorm2d, ElasticConv2d, ElasticDepthwiseConv2d
from hwnas.supernet.blocks.head import ElasticHead, HeadSpec
from hwnas.supernet.blocks.mbconv import ElasticMBConv, MBConvSpec
from hwnas.supernet.blocks.single_path import ChoiceBlock


def randomise(module, seed=0):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=g)
                tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else noise)
    return module.eval()


def mbconv(mid=24, kernel_size=7, se=True, residual=False, in_channels=8, out_channels=16, stride=2):
    return MBConvSpec(in_channels, out_channels, 13, mid, True, kernel_size, stride, se, "hswish", residual)


def test_a_narrow_convolution_is_the_first_channels():
    conv = randomise(ElasticConv2d(7, 11, 3, 2, 1))
    x = torch.randn(2, 5, 13, 11)
    wanted = F.conv2d(x, conv.weight[:3, :5], conv.bias[:3], 2, 1)
    assert torch.equal(conv(x, 3), wanted)


def test_smaller_kernels_start_as_centre_crops():
    layer = ElasticDepthwiseConv2d(5, (3, 5, 7), 1)
    assert torch.equal(layer.kernel(5, 7), layer.weight)
    assert torch.equal(layer.kernel(3, 5), layer.weight[:3, :, 1:6, 1:6])
    assert torch.equal(layer.kernel(5, 3), layer.weight[:, :, 2:5, 2:5])


def test_smaller_kernels_are_the_chain_of_learned_maps_by_hand():
    layer = randomise(ElasticDepthwiseConv2d(5, (7, 3, 5), 1))
    weight = layer.weight.detach().numpy().astype(np.float64)
    to5, to3 = (layer.maps[k].detach().numpy().astype(np.float64) for k in ("7to5", "5to3"))
    for channel in range(4):
        five = (to5 @ weight[channel, 0, 1:6, 1:6].ravel()).reshape(5, 5)
        three = (to3 @ five[1:4, 1:4].ravel()).reshape(3, 3)
        with torch.no_grad():
            np.testing.assert_allclose(layer.kernel(4, 5)[channel, 0].numpy(), five, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(layer.kernel(4, 3)[channel, 0].numpy(), three, rtol=1e-4, atol=1e-4)


def test_kernel_sizes_that_leave_one_out_have_their_own_map():
    layer = ElasticDepthwiseConv2d(2, (3, 7), 1)
    assert list(layer.maps) == ["7to3"]
    assert torch.equal(layer.kernel(2, 3), layer.weight[:, :, 2:5, 2:5])


@pytest.mark.parametrize(("kernel_size", "learning"), [(7, set()), (5, {"7to5"}), (3, {"7to5", "5to3"})])
def test_only_the_maps_on_the_way_learn(kernel_size, learning):
    layer = randomise(ElasticDepthwiseConv2d(5, (3, 5, 7), 1))
    layer(torch.randn(2, 5, 11, 13), kernel_size).sum().backward()
    assert {k for k, p in layer.maps.items() if p.grad is not None} == learning


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("channels", [2, 5])
def test_a_filled_depthwise_convolution_is_the_elastic_one(channels, kernel_size, stride):
    layer = randomise(ElasticDepthwiseConv2d(5, (3, 5, 7), stride))
    plain = torch.nn.Conv2d(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=False)
    layer.fill(plain)
    x = torch.randn(2, channels, 11, 13)
    assert torch.equal(plain(x), layer(x, kernel_size))


def test_a_narrow_batch_norm_updates_its_first_channels_only():
    bn = randomise(ElasticBatchNorm2d(7)).train()
    mean, var = bn.running_mean.clone(), bn.running_var.clone()
    x = torch.randn(3, 5, 11, 13)
    y = bn(x)
    a = x.numpy().astype(np.float64)
    batch_mean, batch_var = a.mean((0, 2, 3)), a.var((0, 2, 3))
    shape = (1, 5, 1, 1)
    wanted = (a - batch_mean.reshape(shape)) / np.sqrt(batch_var.reshape(shape) + 1e-5)
    wanted = wanted * bn.weight.detach().numpy()[:5].reshape(shape) + bn.bias.detach().numpy()[:5].reshape(shape)
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bn.running_mean[:5].numpy(), 0.9 * mean[:5].numpy() + 0.1 * batch_mean, rtol=1e-5)
    unbiased = a.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(bn.running_var[:5].numpy(), 0.9 * var[:5].numpy() + 0.1 * unbiased, rtol=1e-5)
    assert torch.equal(bn.running_mean[5:], mean[5:])
    assert torch.equal(bn.running_var[5:], var[5:])


@pytest.mark.parametrize(
    ("block", "specs"),
    [
        (ElasticConvBnAct(ConvSpec(5, 16, 13, 3, 2, "hswish")), [ConvSpec(5, 16, 13, 3, 2, "hswish")]),
        (
            ElasticMBConv(mbconv(), (3, 5, 7)),
            [mbconv(mid, kernel_size) for mid in (8, 16, 24) for kernel_size in (3, 5, 7)],
        ),
        (
            ElasticMBConv(mbconv(24, 5, False, True, 8, 8, 1), (5,)),
            [mbconv(mid, 5, False, True, 8, 8, 1) for mid in (8, 24)],
        ),
        (
            ElasticMBConv(MBConvSpec(8, 8, 13, 8, False, 3, 1, False, "relu", True), (3,)),
            [MBConvSpec(8, 8, 13, 8, False, 3, 1, False, "relu", True)],
        ),
        (ElasticHead(HeadSpec(5, 7, 13, 24, "relu", 0)), [HeadSpec(5, 7, 13, 24, "relu", 0)]),
        (
            ElasticHead(HeadSpec(5, 7, 13, 0, "relu", 0)),
            [HeadSpec(5, 7, 13, 0, "relu", 0), HeadSpec(3, 7, 13, 0, "relu", 0)],
        ),
    ],
    ids=["conv", "mbconv-se", "mbconv-residual", "separable", "head", "head-without-mix"],
)
def test_a_filled_block_computes_what_the_elastic_block_computes(block, specs):
    randomise(block)
    for spec in specs:
        plain = spec.build().eval()
        block.fill(plain, spec)
        x = torch.randn(2, spec.in_channels, spec.in_size_px, spec.in_size_px)
        with torch.no_grad():
            assert torch.equal(plain(x), block(x, spec)), spec


def test_sorting_orders_channels_by_the_norm_of_the_projection():
    block = randomise(ElasticMBConv(mbconv(), (3, 5, 7)))
    before = block.project.weight.detach().clone()
    block.sort_channels()
    norms = block.project.weight.detach().abs().sum((0, 2, 3))
    assert torch.equal(norms, norms.sort(descending=True).values)
    assert torch.equal(norms.sort().values, before.abs().sum((0, 2, 3)).sort().values)
    hidden = block.se.expand.weight.detach().abs().sum((0, 2, 3))
    assert torch.equal(hidden, hidden.sort(descending=True).values)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_sorting_leaves_the_widest_block_as_it_was(kernel_size):
    block = randomise(ElasticMBConv(mbconv(), (3, 5, 7))).double()  # sums in another order differ in float32
    spec = mbconv(24, kernel_size)
    x = torch.randn(2, 8, 13, 13, dtype=torch.float64)
    with torch.no_grad():
        before = block(x, spec)
        narrow_before = block(x, mbconv(8, kernel_size))
        block.sort_channels()
        torch.testing.assert_close(block(x, spec), before, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(block(x, mbconv(8, kernel_size)), narrow_before, rtol=1e-2)


def test_sorting_keeps_the_most_important_channels_for_narrow_forms():
    block = randomise(ElasticMBConv(mbconv(se=False), (3, 5, 7)))
    norms = block.project.weight.detach().abs().sum((0, 2, 3))
    depthwise = block.depthwise.weight.detach().clone()
    best = norms.argsort(descending=True)[:8]
    block.sort_channels()
    assert torch.equal(block.depthwise.weight.detach()[:8], depthwise[best])


def test_dropout_acts_in_training_only():
    head = randomise(ElasticHead(HeadSpec(5, 7, 13, 64, "relu", 50)))
    spec = HeadSpec(5, 7, 13, 64, "relu", 50)
    x = torch.randn(2, 5, 13, 13)
    with torch.no_grad():
        assert torch.equal(head(x, spec), head(x, spec))
        head.train()
        torch.manual_seed(0)
        assert not torch.equal(head(x, spec), head(x, spec))


def test_a_slot_shares_weights_where_its_specs_are_of_one_class_and_may_share():
    narrow, wide, conv = mbconv(8), mbconv(24), ConvSpec(8, 16, 13, 3, 2, "relu")
    assert type(elastic_block([narrow, wide])) is ElasticMBConv
    assert type(elastic_block([narrow], share_weights=False)) is ElasticMBConv  # nothing to choose
    for block in (elastic_block([narrow, wide], share_weights=False), elastic_block([narrow, conv])):
        assert type(block) is ChoiceBlock
        assert len(block.candidates) == 2
