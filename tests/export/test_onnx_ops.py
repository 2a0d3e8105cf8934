"""Operators of ONNX files: those of hwnas' own networks are found exactly; what no cost model knows is named."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hwnas.errors import MeasurementError
from hwnas.export.graph import trace
from hwnas.export.onnx_file import to_onnx
from hwnas.export.onnx_ops import onnx_ops
from hwnas.export.quantization import calibrate
from hwnas.export.quantize import to_int8_onnx
from hwnas.latency.cost_terms import kind_sums
from hwnas.latency.device import load_profile


def saved(path, nodes, shape, constants=(), out=None):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)], list(constants),
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def weights(name, *shape):
    return numpy_helper.from_array(np.zeros(shape, dtype=np.float32), name)


def costed(ops):
    """Everything that a cost model sees; a product's second map is a factor for each channel."""
    return kind_sums([ops])


@pytest.mark.parametrize("seed", range(4))
def test_operators_of_an_exported_network_are_those_of_its_trace(seed, layout, tmp_path):
    arch = layout.space.sample(np.random.default_rng(seed), 1)[0]
    channels, size, _ = layout.input_shape(arch)
    net = layout.build_subnet(arch).eval()
    to_onnx(net, channels, size, tmp_path / "m.onnx")
    found, expected = onnx_ops(tmp_path / "m.onnx"), trace(net).ops(channels, size)
    assert [op.type for op in found] == [op.type for op in expected]
    np.testing.assert_array_equal(costed(found), costed(expected))
    model = load_profile("qcs8550-int8").cost_model
    assert model.latency_ms(found) == model.latency_ms(expected)


def test_operators_of_a_quantised_file_are_those_of_its_float_form(layout, tmp_path):
    arch = layout.space.smallest()
    channels, size, _ = layout.input_shape(arch)
    net = layout.build_subnet(arch).eval()
    to_onnx(net, channels, size, tmp_path / "m.onnx")
    quantized = calibrate(trace(net), torch.zeros(8, channels, size, size).uniform_())
    to_int8_onnx(quantized, channels, size, tmp_path / "q.onnx")
    found, expected = (
        [op for op in onnx_ops(tmp_path / name) if op.type != "relu"] for name in ("q.onnx", "m.onnx")
    )  # a relu becomes the lower end of what the quantised values stand for
    np.testing.assert_array_equal(costed(found), costed(expected))


def test_batch_norm_behind_a_convolution_is_part_of_it_and_alone_it_is_an_operator(tmp_path):
    norm = [weights(n, 4) for n in ("a", "b", "c", "d")]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("BatchNormalization", ["h", "a", "b", "c", "d"], ["i"]),
        helper.make_node("Relu", ["i"], ["j"]),
        helper.make_node("BatchNormalization", ["j", "a", "b", "c", "d"], ["y"]),
    ]
    ops = onnx_ops(saved(tmp_path / "m.onnx", nodes, [1, 3, 6, 6], [weights("w", 4, 3, 3, 3), *norm]))
    assert [op.type for op in ops] == ["conv", "relu", "batch_norm"]


@pytest.mark.parametrize("gate", ["Sigmoid", "HardSigmoid"])
@pytest.mark.parametrize("order", [["x", "s"], ["s", "x"]])
def test_swish_written_as_a_gate_is_one_operator_and_another_gate_is_not(gate, order, tmp_path):
    nodes = [helper.make_node(gate, ["x"], ["s"]), helper.make_node("Mul", order, ["y"])]
    assert [op.type for op in onnx_ops(saved(tmp_path / "m.onnx", nodes, [1, 3, 4, 4]))] == ["hswish"]
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node(gate, ["r"], ["s"]), nodes[1]]
    assert len(onnx_ops(saved(tmp_path / "m.onnx", nodes, [1, 3, 4, 4]))) == 3


def test_rectangles_and_long_kernels_keep_both_sides(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[0, 3, 0, 3])]
    (op,) = onnx_ops(saved(tmp_path / "m.onnx", nodes, ["n", 3, 10, 6], [weights("w", 4, 3, 1, 7)]))
    assert (op.kernel_area, op.macs, op.in_elements) == (7, 7 * 3 * 4 * 60, 180)
    assert onnx_ops(tmp_path / "m.onnx") == [op]


@pytest.mark.parametrize(
    ("nodes", "shape", "message"),
    [
        ([helper.make_node("Softmax", ["x"], ["y"])], [1, 3, 4, 4], "operator Softmax is known to no cost model"),
        ([helper.make_node("MatMul", ["x", "x"], ["y"])], [1, 3, 4, 4], "MatMul '' is no linear layer of one image"),
        ([helper.make_node("Sigmoid", ["x"], ["y"])], [1, 3, "h", "w"], "shape of 'x' is open; .*fixed axes"),
        ([helper.make_node("Identity", ["x"], ["y"])], [1, 3, 4, 4], "no operators that take time"),
    ],
)
def test_what_cannot_be_costed_is_refused_in_one_line(nodes, shape, message, tmp_path):
    with pytest.raises(MeasurementError, match=message) as caught:
        onnx_ops(saved(tmp_path / "m.onnx", nodes, shape))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\x00not a model\xff")
    with pytest.raises(MeasurementError, match="does not load as ONNX"):
        onnx_ops(tmp_path / "m.onnx")


def test_open_axes_may_be_given(tmp_path):
    path = saved(tmp_path / "m.onnx", [helper.make_node("Sigmoid", ["x"], ["y"])], ["n", 3, "h", "w"])
    assert onnx_ops(path, (3, 8, 8))[0].out_elements == 192
