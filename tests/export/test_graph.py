"""The trace: operators and multiply-adds by hand and by fvcore, folded batch norms, what it refuses."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hwnas.errors import ExportError
from hwnas.export import Op
from hwnas.export.graph import count_macs, trace
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.layers import ConvBnAct
from hwnas.supernet.blocks.mbconv import MBConvSpec


class Net(nn.Module):
    """Layers by name, joined by any function of them."""

    def __init__(self, join, **layers):
        super().__init__()
        self.join = join
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.join(self, x)


def fvcore_macs(net, shape):
    """Multiply-adds of convolutions and linear layers as fvcore counts them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(net, torch.zeros(1, *shape))
        found = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return found["conv"] + found["linear"]


def test_macs_of_a_convolution_by_hand():
    conv = nn.Sequential(nn.Conv2d(5, 7, 3, 2, 1))
    assert count_macs(conv, 5, 13) == 5 * 7 * 3 * 3 * 7 * 7
    assert count_macs(nn.Sequential(nn.Conv2d(6, 9, 5, groups=3)), 6, 11) == (6 // 3) * 9 * 25 * 7 * 7


def test_macs_of_a_block_by_hand():
    spec = MBConvSpec(5, 7, 11, 16, True, 5, 2, True, "hswish", False)
    expand, depthwise, project = 5 * 16 * 11 * 11, 16 * 25 * 6 * 6, 16 * 7 * 6 * 6
    squeeze_excite = 16 * 8 + 8 * 16
    assert count_macs(spec.build(), 5, 11) == expand + depthwise + squeeze_excite + project


def test_macs_of_random_subnets_are_those_of_fvcore(layout, rng):
    for arch in [layout.space.smallest(), layout.space.largest(), *layout.space.sample(rng, 8)]:
        net = layout.build_subnet(arch).eval()
        channels, size, _ = layout.input_shape(arch)
        assert count_macs(net, channels, size) == fvcore_macs(net, (channels, size, size))


def test_operators_of_an_inverted_bottleneck():
    ops = trace(MBConvSpec(5, 5, 11, 16, True, 3, 1, True, "relu", True).build()).ops(5, 11)
    assert ops == [
        Op("conv", 5, 16, 11, 11, 1),
        Op("relu", 16, 16, 11, 11),
        Op("depthwise_conv", 16, 16, 11, 11, 3, 1, 16),
        Op("relu", 16, 16, 11, 11),
        Op("global_avg_pool", 16, 16, 11, 1),
        Op("conv", 16, 8, 1, 1, 1),
        Op("relu", 8, 8, 1, 1),
        Op("conv", 8, 16, 1, 1, 1),
        Op("hsigmoid", 16, 16, 1, 1),
        Op("mul", 16, 16, 11, 11, n_inputs=2),
        Op("conv", 16, 5, 11, 11, 1),
        Op("add", 5, 5, 11, 11, n_inputs=2),
    ]


def test_operators_of_stem_and_head():
    assert trace(ConvSpec(5, 7, 13, 3, 2, "hswish").build()).ops(5, 13) == [
        Op("conv", 5, 7, 13, 7, 3, 2),
        Op("hswish", 7, 7, 7, 7),
    ]
    assert trace(HeadSpec(5, 3, 11, 17, "relu", 20).build()).ops(5, 11) == [
        Op("global_avg_pool", 5, 5, 11, 1),
        Op("conv", 5, 17, 1, 1),
        Op("relu", 17, 17, 1, 1),
        Op("linear", 17, 3, 1, 1),
    ]


def test_the_operators_of_a_network_are_those_of_its_blocks(layout, rng):
    for arch in layout.space.sample(rng, 5):
        channels, size, _ = layout.input_shape(arch)
        whole = trace(layout.build_subnet(arch)).ops(channels, size)
        parts = [
            op for _, spec in layout.blocks(arch) for op in trace(spec.build()).ops(spec.in_channels, spec.in_size_px)
        ]
        assert whole == parts


def test_a_batch_norm_is_folded_into_its_convolution_by_hand():
    torch.manual_seed(0)
    block = ConvBnAct(5, 3, 3)
    nn.init.normal_(block.bn.weight)
    nn.init.normal_(block.bn.bias)
    nn.init.normal_(block.bn.running_mean)
    nn.init.uniform_(block.bn.running_var, 0.5, 2)
    (node,) = trace(block).nodes
    scale = (block.bn.weight / (block.bn.running_var + 1e-5).sqrt()).detach()
    torch.testing.assert_close(node.tensors["weight"], block.conv.weight.detach() * scale.view(-1, 1, 1, 1))
    torch.testing.assert_close(node.tensors["bias"], block.bn.bias.detach() - block.bn.running_mean * scale)


def test_a_bias_is_folded_too():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(5, 3, 1), nn.BatchNorm2d(3)).eval()
    nn.init.uniform_(net[1].running_var, 0.5, 2)
    (node,) = trace(net).nodes
    x = torch.randn(2, 5, 7, 7)
    with torch.no_grad():
        torch.testing.assert_close(F.conv2d(x, node.tensors["weight"], node.tensors["bias"]), net(x))


def test_a_convolution_that_others_read_keeps_its_batch_norm_apart():
    def join(net, x):
        y = net.conv(x)
        return net.bn(y) + y

    graph = trace(Net(join, conv=nn.Conv2d(5, 3, 1), bn=nn.BatchNorm2d(3)))
    assert [n.type for n in graph.nodes] == ["conv", "batch_norm", "add"]


def test_tracing_leaves_the_network_as_it_was():
    block = MBConvSpec(5, 5, 11, 16, True, 3, 1, True, "relu", True).build().train()
    before = {k: v.clone() for k, v in block.state_dict().items()}
    trace(block)
    assert all(m.training for m in block.modules())
    assert all(torch.equal(v, before[k]) for k, v in block.state_dict().items())


def test_layers_that_do_nothing_leave_no_trace():
    net = nn.Sequential(nn.Identity(), nn.Conv2d(5, 3, 1), nn.Dropout(0.5), nn.ReLU())
    assert [n.type for n in trace(net).nodes] == ["conv", "relu"]


def test_shapes_of_pools_splits_and_concatenations():
    def join(net, x):
        a, b = net.conv(x).chunk(2, 1)
        return torch.cat([net.max_pool(b), net.avg_pool(a), net.max_pool(a)], 1)

    net = Net(
        join, conv=nn.Conv2d(5, 6, 3, 1, 1), max_pool=nn.MaxPool2d(3, 2, 1),
        avg_pool=nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    )  # fmt: skip
    ops = trace(net).ops(5, 11)
    assert [(op.type, op.in_channels, op.out_channels, op.in_size_px, op.out_size_px) for op in ops] == [
        ("conv", 5, 6, 11, 11),
        ("split", 6, 6, 11, 11),
        ("max_pool", 3, 3, 11, 6),
        ("avg_pool", 3, 3, 11, 6),
        ("max_pool", 3, 3, 11, 6),
        ("concat", 3, 9, 6, 6),
    ]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Conv2d(5, 3, 3, padding="same")), "give padding in pixels, of zeros"),
        (nn.Sequential(nn.Conv2d(5, 3, 3, dilation=2)), "no dilation"),
        (nn.Sequential(nn.Conv2d(5, 3, (3, 5))), "only square kernels"),
        (nn.Sequential(nn.Conv2d(5, 3, 3, padding=1, padding_mode="circular")), "of zeros"),
        (nn.Conv2d(5, 3, 3), "weight: a tensor outside a layer"),
        (nn.Sequential(nn.AvgPool2d(3, 2, 1)), "count_include_pad=False"),
        (nn.Sequential(nn.MaxPool2d(3, 2, 1, dilation=2)), "dilation"),
        (nn.Sequential(nn.PReLU()), "layer PReLU is not known"),
        (Net(lambda net, x: torch.tanh(x)), "tanh"),
        (Net(lambda net, x: x + 1), "with a constant"),
        (Net(lambda net, x: x * net.scale, scale=None), "scale|constant"),
        (Net(lambda net, x: x.mean((2, 3))), "keepdim"),
        (Net(lambda net, x: x.mean(1, keepdim=True)), "mean"),
        (Net(lambda net, x: torch.cat([x, x], 2)), "cat"),
        (Net(lambda net, x: x.chunk(2, 2)[0]), "chunk"),
        (Net(lambda net, x: x.flatten(2)), "flatten"),
        (nn.Sequential(nn.Flatten(2)), "Flatten"),
        (Net(lambda net, x: x[0]), "only the parts of a chunk"),
        (Net(lambda net, x: torch.add(x, x, alpha=2)), "constant"),
        (Net(lambda net, x: x if x.sum() > 0 else -x), "cannot be traced"),
    ],
)
def test_what_it_does_not_know_is_an_error(module, message):
    with pytest.raises(ExportError, match=message):
        trace(module)


def test_a_parameter_of_its_own_is_an_error():
    net = Net(lambda net, x: x * net.scale)
    net.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ExportError, match="scale"):
        trace(net)


@pytest.mark.parametrize(
    "join",
    [
        lambda net, x: x.mean(dim=(2, 3), keepdim=True),
        lambda net, x: torch.cat([x, x], dim=1),
        lambda net, x: x.chunk(2, dim=1)[1],
        lambda net, x: x.chunk(chunks=2, dim=1)[-1],
        lambda net, x: torch.flatten(x, start_dim=1),
    ],
)
def test_keywords_are_read_as_positions_are(join):
    graph = trace(Net(join))
    assert {n.type for n in graph.nodes} <= {"global_avg_pool", "concat", "split", "item", "flatten"}


def test_macs_are_whole_numbers(layout):
    net = layout.build_subnet(layout.space.largest())
    assert isinstance(count_macs(net, 5, 13), int)
    assert np.sum([op.weights for op in trace(net).ops(5, 13)]) == sum(
        p.numel() for p in net.parameters() if p.ndim > 1
    )
