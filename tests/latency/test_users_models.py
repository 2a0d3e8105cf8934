"""ONNX files of anybody's: shapes, precision, weights in other files, models that do not run or never end."""

import os
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto as Type
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from hwnas.errors import MeasurementError
from hwnas.export.onnx_facts import external_files, precision_of
from hwnas.latency.profile import profile
from hwnas.latency.remote import RemoteHost

QUICK = {"sessions": 1, "session_s": 0.002, "time_limit_s": 20, "ci_percent": 1e6}
RNG = np.random.default_rng(0)


def weights(name, *shape, dtype=np.float32):
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(dtype), name)


def saved(path, nodes, shape, constants=(), elem=Type.FLOAT, out=None, opset=21):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", elem, shape)],
        [helper.make_tensor_value_info("y", out or elem, None)], list(constants),
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def conv(path, shape, dtype=np.float32):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    return saved(
        path, nodes, shape, [weights("w", 4, 3, 3, 3, dtype=dtype)], helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    )


def channels_last(path, shape):
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["y"]),
    ]
    return saved(path, nodes, shape, [weights("w", 4, 3, 3, 3)])


def one_image(path, shape):
    nodes = [helper.make_node("Unsqueeze", ["x", "a"], ["u"]), helper.make_node("Conv", ["u", "w"], ["y"])]
    return saved(path, nodes, shape, [weights("w", 4, 3, 3, 3), numpy_helper.from_array(np.array([0]), "a")])


def endless(path):
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["w"])], "body",
        [helper.make_tensor_value_info("i", Type.INT64, []), helper.make_tensor_value_info("go", Type.BOOL, []),
         helper.make_tensor_value_info("v", Type.FLOAT, None)],
        [helper.make_tensor_value_info("on", Type.BOOL, []), helper.make_tensor_value_info("w", Type.FLOAT, None)],
    )  # fmt: skip
    constants = [numpy_helper.from_array(np.int64(2**62), "n"), numpy_helper.from_array(np.array(True), "c")]
    return saved(path, [helper.make_node("Loop", ["n", "c", "x"], ["y"], body=body)], [1, 3, 4, 4], constants)


@pytest.mark.parametrize(
    ("make", "shape", "asked", "timed"),
    [
        (conv, ["N", 3, 8, 9], None, (3, 8, 9)),
        (conv, [0, 3, 8, 9], None, (3, 8, 9)),
        (conv, [-1, 3, 8, 9], None, (3, 8, 9)),
        (conv, [None, 3, 0, -1], (3, 8, 9), (3, 8, 9)),
        (conv, ["N", 3, "H", "W"], (1, 3, 8, 9), (3, 8, 9)),
        (conv, None, (1, 3, 8, 9), (3, 8, 9)),
        (channels_last, ["N", "H", "W", 3], (8, 9, 3), (8, 9, 3)),
        (one_image, [3, 8, 9], None, (3, 8, 9)),
        (one_image, [3, "H", "W"], (3, 8, 9), (3, 8, 9)),
        (one_image, [3, 0, -1], (3, 8, 9), (3, 8, 9)),
    ],
)
def test_every_way_to_declare_a_shape_is_understood(make, shape, asked, timed, tmp_path):
    measured = profile(make(tmp_path / "m.onnx", shape), **QUICK, input_shape=asked)
    assert measured.conditions.input_shape == timed


@pytest.mark.parametrize(
    ("make", "shape", "asked", "batch", "said"),
    [
        (conv, None, None, 1, "does not say how many axes its input has; give it whole: --shape 1x3x224x224"),
        (conv, ["N", 3, None, 0], None, 1, "open axes besides the batch; say how .*, such as --shape 3x224x224"),
        (channels_last, ["N", "H", "W", 3], None, 1, "such as --shape 224x224x3"),
        (channels_last, ["N", "H", "W", 3], (3, 8, 9), 1, "has 3 in axis 3 of its input NxHxWx3.*give .* 224x224x3"),
        (conv, ["N", 3, 8, 9], (3, 8), 1, "an input of 4 axes, Nx3x8x9; --shape 3x8 has 2; give --shape 1x3x8x9"),
        (conv, ["N", 3, "H", "W"], (2, 3, 8, 9), 1, "has a batch of 2, asked was a batch of 1; give --batch-size 2"),
        (conv, ["N", 3, "H", "W"], (3, 0, 9), 1, "an axis has at least 1 entry"),
        (conv, ["N", 3, "H", "W"], (3, 10**7, 10**7), 1, "does not fit into memory"),
        (one_image, [3, 8, 9], None, 2, "takes 3x8x9, one image a call: it has no batch axis; leave --batch-size out"),
        (conv, [1, 3, 8, 9], None, 2, "has a fixed batch of 1, asked was 2; give --batch-size 1"),
    ],
)  # fmt: skip
def test_a_shape_that_does_not_fit_says_what_to_give(make, shape, asked, batch, said, tmp_path):
    path = make(tmp_path / "m.onnx", shape)
    with pytest.raises(MeasurementError, match=said):
        profile(path, batch, batch_size=batch, **{**QUICK, "input_shape": asked})


@pytest.fixture
def refused(hwnas_command):
    """What a command says that is refused in one line."""

    def run(*arguments):
        code, _, said = hwnas_command(*arguments)
        assert (code, said.count("\n")) == (2, 1)
        return said

    return run


def test_a_model_that_does_not_run_at_a_batch_says_why(tmp_path, refused):
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    path = saved(tmp_path / "m.onnx", nodes, ["N", 3, 4, 4], [numpy_helper.from_array(np.array([1, 48]), "s")])
    profile(path, **QUICK)
    said = refused("profile", path, "--batch-size", 2)
    assert "does not run with input 2x3x4x4: " in said
    assert "requested shape:{1,48}; was it exported for another batch? Try --batch-size 1" in said
    assert ".h:" not in said


@pytest.mark.slow
def test_a_model_that_never_ends_is_given_up_at_the_time_limit(tmp_path):
    started = time.monotonic()
    with pytest.raises(MeasurementError, match=r"m\.onnx took longer than 1 s to load, or for one run"):
        profile(endless(tmp_path / "m.onnx"), time_limit_s=1)
    assert time.monotonic() - started < 30


def test_a_runtime_that_breaks_down_is_an_error(tmp_path, monkeypatch):
    broken = tmp_path / "time_onnx.py"
    broken.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    path = conv(tmp_path / "m.onnx", [1, 3, 8, 9])
    monkeypatch.setattr("hwnas.latency.own_process.SCRIPT_FILE", broken)
    with pytest.raises(MeasurementError, match=r"m\.onnx: the runtime broke down with SIGSEGV"):
        profile(path, **QUICK)
    broken.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(MeasurementError, match="is there enough memory for the model"):
        profile(path, **QUICK)


# -- weights in other files ------------------------------------------------------------------------------


def with_data(folder, location="m.data"):
    folder.mkdir(parents=True, exist_ok=True)
    path = conv(folder / "m.onnx", [0, 3, 8, 9])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=0)
    if location != "m.data":
        model = onnx.load(path, load_external_data=False)
        next(e for e in model.graph.initializer[0].external_data if e.key == "location").value = location
        onnx.save(model, path)
    return path


def test_weights_beside_the_model_are_found(tmp_path):
    path = with_data(tmp_path)
    assert external_files(path) == {"m.data": tmp_path / "m.data"}
    assert profile(path, **QUICK).median_ms > 0


def test_weights_behind_links_are_found(tmp_path):
    with_data(tmp_path / "blobs")
    for name in ("m.onnx", "m.data"):
        (tmp_path / name).symlink_to(f"blobs/{name}")
    assert profile(tmp_path / "m.onnx", **QUICK).median_ms > 0


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("lost.data", "keeps weights in 'lost.data', and .*lost.data does not exist; put it there"),
        ("../m.data", "'../m.data', which is outside its folder"),
        ("/etc/passwd", "'/etc/passwd', which is outside its folder"),
        ("sub\\..\\..\\m.data", "which is outside its folder"),
        ("", "'', which is outside its folder"),
    ],
)
def test_weights_that_are_lost_or_elsewhere_are_named(location, said, tmp_path):
    with pytest.raises(MeasurementError, match=said):
        profile(with_data(tmp_path, location), **QUICK)


def test_weights_are_sent_along_to_another_machine(tmp_path, monkeypatch):
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')  # a board that is this machine
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}{os.pathsep}{os.environ['PATH']}")
    path = with_data(tmp_path / "here")
    assert profile(path, **QUICK, target=RemoteHost("user@board", sys.executable)).median_ms > 0
    (tmp_path / "here" / "m.data").unlink()
    with pytest.raises(MeasurementError, match=r"keeps weights in 'm\.data'"):
        profile(path, **QUICK, target=RemoteHost("user@board", sys.executable))


# -- precision -------------------------------------------------------------------------------------------


class Images(CalibrationDataReader):
    def __init__(self):
        self.left = [{"x": RNG.standard_normal((1, 3, 8, 9)).astype(np.float32)} for _ in range(2)]

    def get_next(self):
        return self.left.pop() if self.left else None


def two_layers(path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first"), helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], name="second"),
    ]  # fmt: skip
    return saved(path, nodes, [1, 3, 8, 9], [weights("w", 4, 3, 3, 3), weights("v", 2, 4, 3, 3)], opset=17)


def static(quant_format, **settings):
    def make(folder):
        path = two_layers(folder / "float.onnx")
        quantize_static(path, folder / "m.onnx", Images(), quant_format=quant_format, **settings)
        return folder / "m.onnx"

    return make


def dynamic(folder):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = saved(folder / "float.onnx", nodes, [2, 8], [weights("w", 8, 4)], opset=17)
    quantize_dynamic(path, folder / "m.onnx", weight_type=QuantType.QInt8)
    return folder / "m.onnx"


def small_weights(folder):
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    constants = [numpy_helper.from_array(np.ones((8, 4), np.int8), "q"), numpy_helper.from_array(np.float16(0.1), "s")]
    return saved(folder / "m.onnx", nodes, [2, 8], constants, Type.FLOAT16)


def four_bits(folder):
    node = helper.make_node(
        "MatMulNBits", ["x", "q", "s"], ["y"], domain="com.microsoft", K=32, N=4, bits=4, block_size=32
    )
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", Type.FLOAT, [2, 32])],
        [helper.make_tensor_value_info("y", Type.FLOAT, None)],
        [numpy_helper.from_array(np.zeros((4, 1, 16), np.uint8), "q"), weights("s", 4)],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("com.microsoft", 1)]), folder / "m.onnx")
    return folder / "m.onnx"


def unpacked(folder):
    """Weights are kept in 16 bits and computed with in 32."""
    nodes = [helper.make_node("Cast", ["w"], ["v"], to=Type.FLOAT), helper.make_node("MatMul", ["x", "v"], ["y"])]
    return saved(folder / "m.onnx", nodes, [2, 8], [weights("w", 8, 4, dtype=np.float16)])


def half_inside(folder):
    """32 bits outside, 16 bits inside."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=Type.FLOAT16), helper.make_node("Conv", ["h", "w"], ["c"]),
        helper.make_node("Cast", ["c"], ["y"], to=Type.FLOAT),
    ]  # fmt: skip
    return saved(folder / "m.onnx", nodes, [1, 3, 8, 9], [weights("w", 4, 3, 3, 3, dtype=np.float16)])


def in_a_branch(folder):
    """The only convolution stands in both branches of a condition."""
    branches = [
        helper.make_graph(
            [helper.make_node("Conv", ["x", f"w{i}"], [f"y{i}"])], f"branch{i}", [],
            [helper.make_tensor_value_info(f"y{i}", Type.FLOAT16, None)],
            [weights(f"w{i}", 4, 3, 3, 3, dtype=np.float16)],
        ) for i in range(2)
    ]  # fmt: skip
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    constants = [numpy_helper.from_array(np.array(True), "c")]
    return saved(folder / "m.onnx", [node], [1, 3, 8, 9], constants, Type.FLOAT16)


@pytest.mark.parametrize(
    ("make", "precision"),
    [
        (lambda folder: two_layers(folder / "m.onnx"), "fp32"),
        (lambda folder: conv(folder / "m.onnx", [1, 3, 8, 9], np.float16), "fp16"),
        (lambda folder: conv(folder / "m.onnx", [1, 3, 8, 9], np.float64), "fp64"),
        (half_inside, "fp16"),
        (in_a_branch, "fp16"),
        (unpacked, "fp32"),
        (static(QuantFormat.QDQ), "int8"),
        (static(QuantFormat.QDQ, activation_type=QuantType.QInt8, per_channel=True), "int8"),
        (static(QuantFormat.QDQ, activation_type=QuantType.QUInt16), "int16 (int8 weights)"),
        (static(QuantFormat.QOperator), "int8"),
        (dynamic, "int8"),
        (static(QuantFormat.QDQ, nodes_to_exclude=["first"]), "fp32+int8"),
        (static(QuantFormat.QOperator, nodes_to_exclude=["second"]), "int8+fp32"),
        (small_weights, "fp16 (int8 weights)"),
        (four_bits, "fp32 (int4 weights)"),
    ],
)
def test_precision_follows_from_what_is_computed(make, precision, tmp_path):
    assert precision_of(make(tmp_path)) == precision


def test_a_model_without_products_has_the_precision_of_its_input(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    assert precision_of(saved(tmp_path / "a.onnx", nodes, [1, 4], elem=Type.FLOAT16)) == "fp16"
    assert precision_of(saved(tmp_path / "b.onnx", nodes, [1, 4])) == "fp32"


def test_operators_in_a_circle_end(tmp_path):
    nodes = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Relu", ["b"], ["a"]),
             helper.make_node("MatMul", ["b", "a"], ["y"])]  # fmt: skip
    assert precision_of(saved(tmp_path / "m.onnx", nodes, [1, 4])) == "fp32"


@pytest.mark.parametrize("options", [["--host", ""], ["--host=-oProxyCommand=x"], ["--host", "a b"]])
def test_what_is_no_host_is_an_error(options, tmp_path, refused):
    said = refused("profile", conv(tmp_path / "m.onnx", [1, 3, 8, 9]), *options)
    assert "is no host; give it as ssh takes it, such as user@board" in said
