"""Plain blocks: parameters by hand, squeeze-excite by hand, signatures."""

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.supernet.blocks.block import count_params
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.layers import ConvBnAct, activate, activation, init_weights, make_divisible
from hwnas.supernet.blocks.mbconv import MBConvSpec
from hwnas.supernet.blocks.squeeze_excite import SqueezeExcite, se_hidden

CONV = ConvSpec(5, 7, 13, 3, 2, "relu")
MB = MBConvSpec(5, 7, 11, 16, True, 5, 1, True, "hswish", False)
HEAD = HeadSpec(5, 3, 11, 17, "relu", 20)


@pytest.mark.parametrize(
    ("value", "rounded"), [(1, 8), (8, 8), (11, 16), (12, 16), (18, 24), (19, 24), (20, 24), (36, 40), (40.1, 40)]
)
def test_channels_are_rounded_to_8_and_never_lose_more_than_a_tenth(value, rounded):
    assert make_divisible(value) == rounded


def test_parameters_of_a_convolution_by_hand():
    assert count_params(CONV.build()) == 7 * 5 * 3 * 3 + 2 * 7


def test_parameters_of_an_inverted_bottleneck_by_hand():
    expand, depthwise, project = 5 * 16 + 2 * 16, 16 * 5 * 5 + 2 * 16, 16 * 7 + 2 * 7
    hidden = 8  # of 16 // 4 = 4, rounded
    squeeze_excite = (16 * hidden + hidden) + (hidden * 16 + 16)
    assert count_params(MB.build()) == expand + depthwise + project + squeeze_excite


def test_parameters_of_a_block_without_expansion_by_hand():
    spec = MBConvSpec(8, 8, 11, 8, False, 3, 1, False, "relu", True)
    assert count_params(spec.build()) == (8 * 9 + 16) + (64 + 16)


def test_parameters_of_a_head_by_hand():
    assert count_params(HEAD.build()) == 5 * 17 + (17 * 3 + 3)
    assert count_params(HeadSpec(5, 3, 11, 0, "relu", 0).build()) == 5 * 3 + 3


@pytest.mark.parametrize(
    ("spec", "shape"), [(CONV, (2, 7, 7, 7)), (MB, (2, 7, 11, 11)), (HEAD, (2, 3))], ids=["conv", "mbconv", "head"]
)
def test_shapes_of_built_blocks(spec, shape):
    x = torch.randn(2, spec.in_channels, spec.in_size_px, spec.in_size_px)
    assert spec.build()(x).shape == shape


def test_squeeze_excite_by_hand():
    torch.manual_seed(0)
    block = SqueezeExcite(16)
    x = torch.randn(2, 16, 11, 13)
    means = x.numpy().mean(axis=(2, 3))  # (B, C)
    reduce, expand = (m.weight.detach().numpy()[:, :, 0, 0] for m in (block.reduce, block.expand))
    hidden = np.maximum(means @ reduce.T + block.reduce.bias.detach().numpy(), 0)
    gate = np.clip((hidden @ expand.T + block.expand.bias.detach().numpy()) / 6 + 0.5, 0, 1)
    with torch.no_grad():
        np.testing.assert_allclose(block(x).numpy(), x.numpy() * gate[:, :, None, None], rtol=1e-5, atol=1e-6)


def test_hidden_units_of_squeeze_excite():
    assert [se_hidden(c) for c in (16, 40, 72, 100)] == [8, 16, 24, 24]


def test_a_residual_block_adds_its_input():
    torch.manual_seed(0)
    spec = MBConvSpec(8, 8, 11, 24, True, 3, 1, False, "relu", True)
    block = spec.build().eval()
    x = torch.randn(2, 8, 11, 11)
    with torch.no_grad():
        inner = block.project(block.depthwise(block.expand(x)))
        assert torch.equal(block(x), x + inner)


@pytest.mark.parametrize("name", ["relu", "hswish", "none"])
def test_activations_keep_their_input_and_agree_as_module_and_function(name):
    x = torch.linspace(-4, 4, 33)
    kept = x.clone()
    wanted = {"relu": x.clamp(min=0), "hswish": x * (x + 3).clamp(0, 6) / 6, "none": x}[name]
    torch.testing.assert_close(activation(name)(x), wanted)
    torch.testing.assert_close(activate(x, name), wanted)
    assert torch.equal(x, kept)


def test_a_signature_names_kind_and_columns_in_alphabetical_order():
    assert (
        CONV.signature == "conv act=relu in_channels=5 in_size_px=13 kernel_size=3 out_channels=7 residual=0 stride=2"
    )
    assert MB.signature == (
        "mbconv act=hswish expand=1 in_channels=5 in_size_px=11 kernel_size=5 mid_channels=16 out_channels=7 "
        "residual=0 se=1 stride=1"
    )


def test_blocks_that_differ_have_signatures_that_differ():
    specs = [MB, CONV, HEAD, MBConvSpec(5, 7, 11, 16, True, 5, 1, False, "hswish", False)]
    assert len({s.signature for s in specs}) == len(specs)


def test_initial_weights_follow_he_by_fan_out():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(64, 96, 3), nn.Conv2d(96, 96, 5, groups=96), ConvBnAct(96, 32, 1), nn.Flatten(), nn.Linear(400, 300)
    )
    init_weights(net)
    for conv, fan_out in ((net[0], 9 * 96), (net[1], 25), (net[2].conv, 32)):
        assert float(conv.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    assert not net[0].bias.any()
    assert net[2].bn.weight.eq(1).all()
    assert float(net[4].weight.detach().abs().max()) == pytest.approx(1 / 20, rel=0.01)
    assert not net[4].bias.any()
