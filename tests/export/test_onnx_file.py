"""ONNX files: parity with PyTorch, a dynamic batch, counted weights, and a gate that refuses what differs."""

import json
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from hwnas.errors import ExportError, OutputError
from hwnas.export.graph import trace
from hwnas.export.onnx_check import run_onnx, session, verify_onnx
from hwnas.export.onnx_file import to_onnx
from hwnas.export.onnx_nodes import OPSET, build_onnx
from hwnas.supernet import calibrate_bn, count_params, extract_subnet
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.layers import ConvBnAct, init_weights
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


def live(module, channels, px):
    """Random weights and calibrated statistics, in eval mode."""
    torch.manual_seed(0)
    init_weights(module)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1, 0.3)
            nn.init.normal_(m.bias)
    module.eval()
    calibrate_bn(module, [torch.randn(7, channels, px, px)])
    return module


def assert_onnx_agrees(module, channels, px):
    model = build_onnx(trace(module), channels, px)
    onnx.checker.check_model(model, full_check=True)
    x = torch.randn(3, channels, px, px)
    with torch.no_grad():
        wanted = module(x).numpy()
    (found,) = session(model.SerializeToString()).run(None, {"input": x.numpy()})
    np.testing.assert_allclose(found, wanted, atol=2e-5 * max(1.0, np.abs(wanted).max()), rtol=0)
    return model


@pytest.fixture
def subnet(make_net, images):
    net = make_net()
    arch = net.space.restrict({"resolution": [13]}).largest()
    made = extract_subnet(net, arch)
    calibrate_bn(made, [images(9, 13, 5)])
    return made


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        (ConvSpec(5, 7, 13, 3, 2, "hswish"), {"Conv": 1, "HardSwish": 1}),
        (
            MBConvSpec(5, 5, 11, 16, True, 5, 1, True, "hswish", True),
            {
                "Conv": 5, "HardSwish": 2, "GlobalAveragePool": 1, "Relu": 1, "HardSigmoid": 1, "Mul": 1, "Add": 1,
            },
        ),
        (MBConvSpec(8, 5, 11, 8, False, 3, 2, False, "relu", False), {"Conv": 2, "Relu": 1}),
        (
            HeadSpec(5, 3, 11, 17, "hswish", 20),
            {"GlobalAveragePool": 1, "Conv": 1, "HardSwish": 1, "Flatten": 1, "Gemm": 1},
        ),
        (HeadSpec(5, 3, 11, 0, "hswish", 0), {"GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}),
    ],
    ids=["conv", "mbconv-se", "separable", "head", "head-without-mix"],
)  # fmt: skip
def test_blocks_agree_with_torch_in_as_few_nodes_as_there_are_operators(spec, counts):
    module = live(spec.build(), spec.in_channels, spec.in_size_px)
    model = assert_onnx_agrees(module, spec.in_channels, spec.in_size_px)
    assert Counter(n.op_type for n in model.graph.node) == counts


JOINS = {
    "shuffle": lambda net, x: net.shuffle(net.conv(x)),
    "split": lambda net, x: net.relu(net.conv(x).chunk(2, 1)[1]) + net.conv(x).chunk(2, 1)[0],
    "concat": lambda net, x: torch.cat([net.conv(x), x, net.relu(x)], 1),
    "max_pool": lambda net, x: net.max_pool(net.conv(x)),
    "avg_pool": lambda net, x: net.avg_pool(net.conv(x)),
    "norm_alone": lambda net, x: net.conv(net.norm(x)) + net.conv(x),
    "global_pool": lambda net, x: net.pool(net.conv(x)).flatten(1),
    "sigmoid": lambda net, x: net.sigmoid(net.conv(x)) * net.conv(x),
    "shufflenet": lambda net, x: net.shuffle(
        torch.cat([net.conv(x).chunk(2, 1)[0], net.relu(net.conv(x).chunk(2, 1)[-1])], 1)
    ),
}


@pytest.mark.parametrize("name", sorted(JOINS))
def test_operators_agree_with_torch(name):
    net = Net(
        JOINS[name], conv=nn.Conv2d(5, 6, 3, 1, 1), shuffle=nn.ChannelShuffle(3), relu=nn.ReLU(),
        norm=nn.BatchNorm2d(5), max_pool=nn.MaxPool2d(3, 2, 1), avg_pool=nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        pool=nn.AdaptiveAvgPool2d(1), sigmoid=nn.Sigmoid(),
    )  # fmt: skip
    assert_onnx_agrees(live(net, 5, 11), 5, 11)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.MaxPool2d(2, 2, ceil_mode=True)])
@pytest.mark.parametrize("px", [11, 12, 13])
def test_pools_that_round_up_agree_with_torch(pool, px):
    assert_onnx_agrees(nn.Sequential(pool), 5, px)


def test_a_file_computes_what_the_network_does(subnet, images, tmp_path):
    path = tmp_path / "model.onnx"
    to_onnx(subnet, 5, 13, path, {"arch": {"resolution": 13}, "classes": ["a", "b"], "note": "text"})
    assert verify_onnx(path, subnet, images(6, 13)) <= 1e-5
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (given,), (out,) = model.graph.input, model.graph.output
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (given, out)]
    assert (given.name, out.name) == ("input", "logits")
    assert shapes == [["batch", 5, 13, 13], ["batch", 7]]
    assert model.opset_import[0].version == OPSET
    metadata = {p.key: p.value for p in model.metadata_props}
    assert json.loads(metadata["arch"]) == {"resolution": 13}
    assert json.loads(metadata["classes"]) == ["a", "b"]
    assert metadata["note"] == "text"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_batch_axis_is_dynamic(subnet, images, tmp_path, n):
    to_onnx(subnet, 5, 13, tmp_path / "model.onnx")
    x = images(n, 13)
    with torch.no_grad():
        torch.testing.assert_close(run_onnx(tmp_path / "model.onnx", x, 3), subnet(x), rtol=1e-4, atol=1e-4)


def test_the_file_holds_as_many_weights_as_the_arch_predicts(make_net, rng, tmp_path):
    """Folding turns the four tensors of a batch norm into one bias of its convolution."""
    net = make_net()
    for arch in net.space.sample(rng, 6):
        subnet = extract_subnet(net, arch)
        to_onnx(subnet, 5, arch["resolution"], tmp_path / "model.onnx")
        stored = sum(int(np.prod(t.dims)) for t in onnx.load(tmp_path / "model.onnx").graph.initializer)
        normed = sum(m.num_features for m in subnet.modules() if isinstance(m, nn.BatchNorm2d))
        assert stored == count_params(subnet) - normed


def test_different_archs_are_different_files(make_net, tmp_path):
    net = make_net()
    sizes = []
    for arch in (net.space.smallest(), net.space.largest()):
        to_onnx(extract_subnet(net, arch), 5, arch["resolution"], tmp_path / "m.onnx")
        sizes.append((tmp_path / "m.onnx").stat().st_size)
    assert sizes[1] > 2 * sizes[0]


def tampered(path, factor):
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
    values = numpy_helper.to_array(tensor) * factor
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    onnx.save(model, path)


def test_other_weights_break_parity(subnet, images, tmp_path):
    path = tmp_path / "model.onnx"
    to_onnx(subnet, 5, 13, path)
    tampered(path, 1.05)
    with pytest.raises(ExportError, match=r"differs from PyTorch by \d\.\de-\d+ of the output scale, allowed is 1e-04"):
        verify_onnx(path, subnet, images(6, 13))


@pytest.mark.parametrize("both", [True, False])
def test_outputs_that_are_not_finite_break_parity(subnet, images, tmp_path, both):
    path = tmp_path / "model.onnx"
    to_onnx(subnet, 5, 13, path)
    tampered(path, np.nan)
    if both:
        next(m for m in subnet.modules() if isinstance(m, nn.Conv2d)).weight.data.fill_(float("nan"))
    with pytest.raises(ExportError, match="differs from PyTorch"):
        verify_onnx(path, subnet, images(6, 13))


def test_a_fixed_batch_axis_breaks_parity(subnet, images, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(build_onnx(trace(subnet), 5, 13, 6), path)
    with pytest.raises(ExportError, match="does not run in ONNX Runtime at batch 1"):
        verify_onnx(path, subnet, images(6, 13))


def test_a_place_that_cannot_be_written_is_named(subnet, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot create folder"):
        to_onnx(subnet, 5, 13, tmp_path / "file" / "model.onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(ConvBnAct(5, 7, 3, 2), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 3)),
        Net(lambda net, x: net.fc(net.conv(x).mean((2, 3)) * 2.0), conv=nn.Conv2d(5, 7, 3), fc=nn.Linear(7, 3)),
    ],
    ids=["other-layer", "other-functions"],
)
def test_networks_of_others_go_through_the_exporter_of_torch(net, images, tmp_path):
    path = tmp_path / "model.onnx"
    net.eval()
    to_onnx(net, 5, 13, path, {"note": "x"})
    assert verify_onnx(path, net, images(6, 13)) <= 1e-4
    assert list(tmp_path.iterdir()) == [path]
    model = onnx.load(path)
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("input", "logits")
    assert {p.key: p.value for p in model.metadata_props}["note"] == "x"
