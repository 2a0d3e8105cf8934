"""Memory and flash of archs, exactly: by hand, against a count over exported ONNX files, and for whole populations."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from hwnas.export.graph import trace
from hwnas.export.liveness import peak_elements
from hwnas.export.onnx_nodes import build_onnx
from hwnas.latency.device import load_profile
from hwnas.latency.number_format import number_format
from hwnas.latency.table import load_device
from hwnas.objectives.memory import MODEL_SIZE, PEAK_MEMORY, SlotMax, WholeNetworks, adds_up
from hwnas.objectives.resolve import objective_of
from hwnas.runs.recipe import load_recipe
from hwnas.supernet import make_layout
from hwnas.supernet.slot_sum import SlotSum
from hwnas.task.classification import CLASSIFICATION

RECIPES = ("digits-mbv3", "mnist-ofav2", "mnist-hurricane", "nasbench201", "ofa-proxyless")


def device_of(precision):
    device = load_device("edge-tpu")
    return replace(device, profile=device.profile.model_copy(update={"precision": precision}))


def elements(shape):
    return int(np.prod(shape))


def counted_in_onnx(model):
    """Peak elements and numbers of weights and biases of an ONNX model: first and last use of every buffer, by file.

    Written from the file alone: another order of thought than the trace, with sizes from ONNX's shape inference.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    shape = {
        v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.value_info, *graph.output)
    }
    constants = {t.name for t in graph.initializer}
    reads = [[n for n in node.input if n not in constants] for node in graph.node]
    n_readers = {}
    for names in reads:
        for name in names:
            n_readers[name] = n_readers.get(name, 0) + 1
    home, size, born = {"input": "input"}, {"input": elements(shape["input"])}, {"input": -1}
    for step, (node, names) in enumerate(zip(graph.node, reads, strict=True)):
        inside = node.op_type in ("Relu", "Clip") or (node.op_type == "Add" and names[0].endswith(".scaled"))
        moves = node.op_type in ("Reshape", "Flatten")
        if moves or (inside and n_readers[names[0]] == 1):
            home[node.output[0]] = home[names[0]]
            continue
        for output in node.output:
            home[output] = node.output[0]
        size[node.output[0]] = sum(elements(shape[o]) for o in node.output)
        born[node.output[0]] = step
    dies = dict(born)
    for step, names in enumerate(reads):
        for name in names:
            dies[home[name]] = step
    dies[home[graph.output[0].name]] = len(graph.node)
    peak = max(
        sum(size[b] for b in size if born[b] <= step <= dies[b]) for step in range(len(graph.node))
    )  # fmt: skip
    weights = sum(elements(t.dims) for t in graph.initializer if t.name.endswith(".weight"))
    others = sum(elements(t.dims) for t in graph.initializer if t.name.endswith((".bias", ".scale", ".shift")))
    channels = sum(t.dims[0] for t in graph.initializer if t.name.endswith(".weight"))
    return peak, weights, others, channels


@pytest.mark.parametrize("recipe", RECIPES)
def test_memory_and_size_are_those_of_the_exported_networks(recipe):
    """10 archs of each of five families, to the byte, in three precisions."""
    layout = make_layout(load_recipe(recipe).supernet)
    space = layout.space
    archs = [space.smallest(), space.largest(), *space.sample(np.random.default_rng(7), 8)]
    counts = []
    for arch in archs:
        channels, size_px, _ = layout.input_shape(arch)
        network = layout.build_subnet(arch, fresh_weights=False)
        counts.append(counted_in_onnx(build_onnx(trace(network), channels, size_px, 1)))
    for precision, activation, weight, bias, scale in (
        ("fp32", 4, 4, 4, 0),
        ("fp16", 2, 2, 2, 0),
        ("int8", 1, 1, 4, 4),
    ):
        device = device_of(precision)
        peaks = PEAK_MEMORY.compile(layout, device).of_archs(archs) * 1024
        sizes = MODEL_SIZE.compile(layout, device).of_archs(archs) * 1024
        assert peaks.tolist() == [peak * activation for peak, *_ in counts]
        assert sizes.tolist() == [weight * w + bias * b + scale * c for _, w, b, c in counts]


@pytest.mark.parametrize("recipe", ["digits-mbv3", "mnist-hurricane"])
def test_look_ups_for_populations_are_the_peaks_of_whole_networks(recipe):
    layout = make_layout(load_recipe(recipe).supernet)
    assert adds_up(layout)
    genomes = layout.space.sample_genomes(np.random.default_rng(1), 25)
    device = device_of("int8")
    for objective in (PEAK_MEMORY, MODEL_SIZE):
        fast = objective.compile(layout, device)
        assert isinstance(fast, SlotSum)
        assert isinstance(fast, SlotMax) == (objective is PEAK_MEMORY)
        numbers = number_format("int8")
        slow = WholeNetworks(layout, lambda arch, g, c, px, o=objective, n=numbers: o.of_graph(g, c, px, n) / 1024)
        values = fast.of_genomes(genomes)
        np.testing.assert_array_equal(values, slow.of_genomes(genomes))
        low, high = fast.bounds()
        assert low <= values.min() <= values.max() <= high
        smallest, largest = fast.of_archs([layout.space.smallest(), layout.space.largest()])
        assert (low, high) == pytest.approx((smallest, largest), rel=0.25), "bounds are close"


def test_networks_with_dense_skips_or_cells_are_counted_as_a_whole():
    for recipe in ("mnist-ofav2", "nasbench201"):
        layout = make_layout(load_recipe(recipe).supernet)
        assert not adds_up(layout)
        values = PEAK_MEMORY.compile(layout, device_of("int8"))
        archs = layout.space.sample(np.random.default_rng(0), 3)
        genomes = layout.space.encode_many(archs)
        np.testing.assert_array_equal(values.of_genomes(genomes), values.of_archs(archs))


def test_a_residual_stays_over_its_block_and_a_relu_needs_nothing():
    class Block(nn.Module):
        def __init__(self, residual, act):
            super().__init__()
            self.a, self.act, self.b, self.residual = nn.Conv2d(4, 24, 1), act, nn.Conv2d(24, 4, 1), residual

        def forward(self, x):
            y = self.b(self.act(self.a(x)))
            return x + y if self.residual else y

    pixels = 6 * 6
    with torch.device("meta"):
        peaks = {
            (residual, name): peak_elements(trace(Block(residual, act)), 4, 6)
            for residual in (False, True) for name, act in (("relu", nn.ReLU()), ("hswish", nn.Hardswish()))
        }  # fmt: skip
    assert peaks[False, "relu"] == (4 + 24) * pixels
    assert peaks[True, "relu"] == (4 + 24 + 4) * pixels
    assert peaks[False, "hswish"] == (24 + 24) * pixels
    assert peaks[True, "hswish"] == (4 + 24 + 24) * pixels


def test_a_relu_whose_input_others_read_is_a_map_of_its_own():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 5, 1)

        def forward(self, x):
            y = self.a(x)
            return y + torch.relu(y)

    with torch.device("meta"):
        assert peak_elements(trace(Shared()), 3, 2) == (5 + 5 + 5) * 4


@pytest.mark.parametrize(
    ("precision", "numbers"),
    [
        ("fp32", (4, 4, 4, 0)), ("fp16", (2, 2, 2, 0)), ("bf16", (2, 2, 2, 0)), ("int8", (1, 1, 4, 4)),
        ("INT8", (1, 1, 4, 4)), ("w8a8", (1, 1, 4, 4)), ("fp32 (int8 weights)", (4, 1, 4, 4)),
        ("int8+fp32", (1, 1, 4, 4)), ("not stated by the source", (4, 4, 4, 0)),
    ],
)  # fmt: skip
def test_bytes_follow_from_the_precision_of_the_device(precision, numbers):
    found = number_format(precision)
    assert (found.activation, found.weight, found.bias, found.channel) == numbers


@pytest.mark.parametrize("name", ["peak_memory_kib", "model_size_kib", "fallback_layers"])
def test_they_are_objectives_by_name(name):
    plugin = objective_of(name, CLASSIFICATION)
    assert (plugin.name, plugin.cost, plugin.direction) == (name, "exact", "min")


def test_a_profile_keeps_its_limits_and_files_without_them_stay_as_they_were():
    profile = load_profile("edge-tpu")
    assert not {"memory_kib", "flash_kib", "falls_back", "unsupported"} & set(profile.model_dump())
    small = profile.model_copy(update={"memory_kib": 512.0, "flash_kib": 1024.0})
    assert small.limits == {"peak_memory_kib": 512.0, "model_size_kib": 1024.0}
    assert profile.limits == {}
    with pytest.raises(ValueError, match="memory_kib"):
        type(profile).model_validate(profile.model_dump() | {"memory_kib": 0.0})
