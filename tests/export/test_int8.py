"""8 bits: what is evaluated is what ONNX Runtime computes with the exported file; which scales; and what is refused."""

from collections import Counter
from importlib import resources

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import hwnas
from hwnas.errors import ExportError
from hwnas.export.graph import trace
from hwnas.export.int8_network import Int8Network, int8_network
from hwnas.export.onnx_check import EXACT_8_BITS, INT8_TOLERANCE, run_onnx, session, verify_int8
from hwnas.export.onnx_facts import precision_of
from hwnas.export.quantization import LEVELS, QuantizationConfig, Scale, calibrate, check_layers, scale_of
from hwnas.export.quantize import to_int8_onnx
from hwnas.export.run_graph import run_graph
from hwnas.latency import time_onnx
from hwnas.supernet import make_layout


def pictures(n, channels, px, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, px, px, generator=g) + torch.randn(n, channels, 1, 1, generator=g)


class Everything(nn.Module):
    """Every operator of the exporter: joined, parted and shuffled maps, all activations, pools, batch norm alone."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.alone = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 16, 3, 1, 1, groups=4)
        self.shuffle = nn.ChannelShuffle(4)
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 5, 1, 2, groups=8, bias=False), nn.Hardswish())
        self.pools = nn.ModuleList([nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False)])
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 24, 1), nn.Hardsigmoid())
        self.last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))

    def forward(self, x):
        x = self.first(x)
        x = torch.relu(self.alone(x)) + self.shuffle(self.grouped(x))
        a, b = x.chunk(2, 1)
        joined = torch.cat([torch.sigmoid(a), self.depthwise(b), self.pools[0](self.pools[1](a))], 1)
        return self.last(torch.relu(joined * self.gate(joined)))


def trained(net, channels, px):
    """A network whose batch norms have seen images, and whose outputs are apart."""
    torch.manual_seed(0)
    net.train()
    for seed in range(3):
        net(pictures(32, channels, px, seed))
    for m in net.modules():
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight)
    return net.eval()


def subnet(recipe, seed=0, **restricted):
    layout = make_layout(hwnas.load_recipe(recipe).supernet)
    arch = layout.space.sample(np.random.default_rng(seed), 1)[0]
    channels, px, _ = layout.input_shape(arch)
    return trained(layout.build_subnet(arch), channels, px), channels, px


NETWORKS = {
    "everything": lambda: (trained(Everything(), 3, 20), 3, 20),
    "mbv3": lambda: subnet("digits-mbv3"),
    "mnist-ofav2": lambda: subnet("mnist-ofav2"),
    "mnist-hurricane": lambda: subnet("mnist-hurricane"),
}


@pytest.mark.parametrize("calibration", ["min_max", "percentile", "entropy"])
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_computes_what_is_evaluated(name, calibration, tmp_path):
    net, channels, px = NETWORKS[name]()
    if calibration != "min_max" and name != "everything":
        pytest.skip("one network is enough to see that scales are shared")
    made = int8_network(trace(net), pictures(64, channels, px, 5), QuantizationConfig(calibration=calibration))
    path = tmp_path / "m.onnx"
    to_int8_onnx(made.quantization, channels, px, path, {"note": "x"})
    x = pictures(100, channels, px, 6)
    with torch.inference_mode():
        expected, full = made(x), net(x)
    got = run_onnx(path, x)
    scale = float(expected.abs().max())
    same = ((got - expected).abs() < 1e-5 * scale).double().mean()
    assert float(same) > 0.9, "but for single levels they are equal"
    assert float((got - expected).abs().max()) < 0.1 * scale
    assert float((got.argmax(1) == expected.argmax(1)).double().mean()) >= 0.99
    if calibration == "min_max":
        assert float((expected - full).abs().mean()) < 0.25 * float(full.std()), "and near the network in float"
    assert verify_int8(path, made, x) <= INT8_TOLERANCE
    assert precision_of(path) == "int8"
    assert {p.key: p.value for p in onnx.load(path).metadata_props}["note"] == "x"


def test_the_graph_in_float_is_the_network():
    net, channels, px = NETWORKS["everything"]()
    seen = []
    out = run_graph(trace(net), pictures(5, channels, px), lambda number, value: seen.append(number))
    torch.testing.assert_close(out, net(pictures(5, channels, px)), rtol=1e-4, atol=1e-4)
    assert seen == list(range(-1, len(trace(net).nodes)))


def test_weights_have_a_scale_for_each_channel_and_biases_are_whole():
    conv = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        conv.weight[0], conv.weight[1] = 1.27, torch.tensor([0.0254, -0.0127, 0.0]).view(3, 1, 1)
        conv.bias[:] = torch.tensor([0.5, -0.25])
    graph = trace(nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)))
    images = torch.zeros(16, 3, 4, 4)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = -1.0, 1.55
    found = calibrate(graph, images)
    assert found.scales[-1] == Scale(pytest.approx(0.01, rel=1e-6), 100)
    w = found.weights[0]
    torch.testing.assert_close(w.scale, torch.tensor([0.01, 0.0002]))
    assert w.weight.flatten().tolist() == [127, 127, 127, 127, -64, 0]  # -63.5 to even
    assert w.bias.tolist() == [5000, -125000]
    assert {w.weight.dtype, w.bias.dtype} == {torch.int8, torch.int32}
    assert len(graph.nodes) - 1 not in found.scales, "outputs stay float"


def test_a_channel_of_tiny_weights_keeps_its_bias():
    conv = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        conv.weight[:] = torch.tensor([1e-12, 1.0]).view(2, 1, 1, 1)
        conv.bias[:] = 3.0
    graph = trace(nn.Sequential(conv, nn.Flatten(), nn.Linear(2, 2)))
    w = calibrate(graph, torch.rand(16, 1, 1, 1)).weights[0]
    assert int(w.bias[0]) > 2**29
    assert float(w.bias[0] * w.scale[0]) * calibrate(graph, torch.rand(16, 1, 1, 1)).scales[-1].scale > 0


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.5, 3.0), (-4.0, -1.0), (0.0, 0.0), (-1e-20, 1e-20), (0, 6)])
def test_zero_is_always_a_level_and_the_range_is_covered(low, high):
    made = scale_of(low, high)
    assert 0 <= made.zero_point <= LEVELS
    assert made.lowest * made.scale <= min(low, 0) + made.scale / 2
    assert made.highest * made.scale >= max(high, 0) - made.scale / 2


def test_outliers_widen_the_range_of_all_values_only():
    graph = trace(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(400, 2)))
    images = torch.randn(32, 1, 20, 20, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    images[0, 0, 0, 0] = 100.0

    def step(**how):
        return calibrate(graph, images, QuantizationConfig(**how)).scales[-1].scale

    everything = step()
    assert everything == pytest.approx(103 / LEVELS, rel=0.01)
    assert step(calibration="percentile", percentile=99.9) == pytest.approx(6 / LEVELS, rel=0.1)
    assert step(calibration="percentile", percentile=100) == everything
    assert step(calibration="entropy") < everything / 5


def test_layers_that_are_named_stay_float(tmp_path):
    net, channels, px = NETWORKS["mbv3"]()
    images = pictures(64, channels, px)
    whole = int8_network(trace(net), images)
    mixed = int8_network(trace(net), images, QuantizationConfig(float_layers=("stem", "head", "stage1.block1")))
    kept = [mixed.quantization.graph.nodes[i] for i in sorted(mixed.quantization.float_nodes)]
    assert {node.name.split(".")[0] for node in kept} == {"stem", "head", "stage1_block1"}
    x = pictures(100, channels, px, 7)
    path = tmp_path / "m.onnx"
    to_int8_onnx(mixed.quantization, channels, px, path)
    with torch.inference_mode():
        full, off, less_off = net(x), whole(x), mixed(x)
    assert float((run_onnx(path, x) - less_off).abs().mean()) < 0.01 * float(less_off.abs().max())
    assert float((less_off - full).abs().mean()) < float((off - full).abs().mean())
    kinds = Counter(t.data_type for t in onnx.load(path).graph.initializer if len(t.dims) == 4)
    assert kinds[onnx.TensorProto.FLOAT] == sum(node.type == "conv" for node in kept)
    assert kinds[onnx.TensorProto.INT8] > 0
    every = QuantizationConfig(float_layers=tuple(n for n, _ in net.named_children()))
    with torch.inference_mode():
        in_float = int8_network(trace(net), images, every)(x)
    torch.testing.assert_close(in_float, full, rtol=1e-4, atol=1e-4)


def test_what_has_no_integer_form_is_said():
    net, channels, px = NETWORKS["everything"]()
    found = calibrate(trace(net), pictures(16, channels, px))
    assert found.float_operators == {"batch_norm": 1, "hswish": 1, "hsigmoid": 1}
    config = QuantizationConfig(float_layers=("first",))
    assert calibrate(trace(net), pictures(16, channels, px), config).float_operators["conv"] == 1


def test_calibration_images_that_say_too_little_are_refused():
    graph = trace(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(16, 2)))
    with pytest.raises(ExportError, match=r"3 calibration images are too few .*give 16 or more"):
        calibrate(graph, torch.rand(3, 1, 4, 4))
    with pytest.raises(ExportError, match="all 20 calibration images are of class 7; give images of every class"):
        calibrate(graph, torch.rand(20, 1, 4, 4), labels=torch.full((20,), 7))
    with pytest.raises(ExportError, match="not finite on the calibration images"):
        calibrate(graph, torch.full((20, 1, 4, 4), float("inf")))
    calibrate(graph, torch.rand(20, 1, 4, 4), labels=torch.full((20,), 0.5))  # values of a regression


def test_unknown_layers_are_refused():
    check_layers(["stage1.block1", "stage1_block1.depthwise"], ["stem", "stage1.block1"])
    with pytest.raises(ExportError, match=r"float_layers names 'stage1.block10'; the blocks are stem, stage1.block1"):
        check_layers(["stage1.block10"], ["stem", "stage1.block1"])


def test_a_file_of_another_quantisation_is_refused(tmp_path):
    net, channels, px = NETWORKS["mbv3"]()
    made = int8_network(trace(net), pictures(64, channels, px))
    other = int8_network(trace(net), 0.05 * pictures(64, channels, px))
    to_int8_onnx(other.quantization, channels, px, tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="differs from its evaluation by"):
        verify_int8(tmp_path / "m.onnx", made, pictures(32, channels, px, 3))
    assert isinstance(made, Int8Network)


def test_a_file_says_the_zero_points_of_its_weights_and_is_run_where_sums_are_exact(tmp_path):
    """Else x86 processors without VNNI add in 16 bits, or ONNX Runtime cannot run the file there."""
    net, channels, px = NETWORKS["everything"]()
    made = int8_network(trace(net), pictures(32, channels, px, 5), QuantizationConfig())
    path = tmp_path / "m.onnx"
    to_int8_onnx(made.quantization, channels, px, path)
    graph = onnx.load(path).graph
    tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    weights = [
        n for n in graph.node if n.op_type == "DequantizeLinear" and tensors.get(n.input[0], np.zeros(0)).ndim > 1
    ]
    assert weights
    for node in weights:
        levels, scale, zero_point = (tensors[name] for name in node.input)
        assert zero_point.dtype == levels.dtype == np.int8
        assert zero_point.shape == scale.shape
        assert not zero_point.any()
    assert session(path).get_session_options().get_session_config_entry(EXACT_8_BITS[0]) == EXACT_8_BITS[1]
    assert time_onnx.EXACT_8_BITS == EXACT_8_BITS
    script = resources.files("hwnas.export").joinpath("run_model.py.txt").read_text(encoding="utf-8")
    assert f'add_session_config_entry("{EXACT_8_BITS[0]}", "{EXACT_8_BITS[1]}")' in script


def test_users_models_without_zero_points_are_timed(tmp_path):
    net, channels, px = NETWORKS["everything"]()
    made = int8_network(trace(net), pictures(32, channels, px, 5), QuantizationConfig())
    path = tmp_path / "m.onnx"
    to_int8_onnx(made.quantization, channels, px, path)
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0].endswith(".weight"):
            del node.input[2:]
    onnx.save(model, path)
    runner = time_onnx.open_session(str(path), "m", time_onnx.BurstConfig(time_onnx.CPU, (0.01,)))
    assert runner.run() is not None
