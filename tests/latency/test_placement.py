"""Where nodes run: from ONNX Runtime's own profile, and from events of a provider that leaves some to the CPU."""

import json
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from hwnas import node_placement
from hwnas.cli.main import main
from hwnas.errors import MeasurementError
from hwnas.latency.measure import reference_model
from hwnas.latency.place_onnx import nodes_of
from hwnas.latency.placement import Placement

CPU, NPU = "CPUExecutionProvider", "QNNExecutionProvider"


def event(name, provider, op, ts, index, cat="Node"):
    return {
        "cat": cat,
        "name": f"{name}_kernel_time",
        "ts": ts,
        "args": {"provider": provider, "op_name": op, "node_index": str(index)},
    }


EVENTS = [
    event("d", CPU, "Softmax", 40, 3), event("a", NPU, "QNN_1", 10, 0), event("b", CPU, "HardSwish", 20, 1),
    event("c", NPU, "QNN_2", 30, 2), event("a", NPU, "QNN_1", 110, 0),  # a second run
    {"cat": "Node", "name": "a_fence_before", "ts": 9, "args": {"provider": NPU}},
    {"cat": "Session", "name": "model_run", "ts": 1, "args": {}},
]  # fmt: skip


def test_events_become_nodes_in_the_order_of_one_run():
    assert nodes_of(EVENTS) == [(NPU, "QNN_1"), (CPU, "HardSwish"), (NPU, "QNN_2"), (CPU, "Softmax")]


def test_partitions_and_fallbacks_are_counted():
    placed = Placement(NPU, tuple(nodes_of(EVENTS)))
    assert placed.by_provider == {CPU: 2, NPU: 2}
    assert placed.partitions == 4
    assert placed.fallbacks == {"HardSwish": 1, "Softmax": 1}
    assert "not on QNNExecutionProvider: 1 HardSwish, 1 Softmax" in str(placed)
    assert Placement(CPU, ((CPU, "Conv"),) * 3).partitions == 1
    assert Placement(CPU, ((CPU, "Conv"),) * 3).as_dict() == {"nodes": {CPU: 3}, "partitions": 1, "fallbacks": {}}


@pytest.fixture
def model(tmp_path):
    onnx.save(reference_model(1), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_the_runtime_says_where_the_nodes_of_a_model_ran(model):
    placed = node_placement(model)
    assert set(placed.by_provider) == {CPU}
    operators = [op for _, op in placed.nodes]
    assert sum("Conv" in op for op in operators) == sum(n.op_type == "Conv" for n in reference_model(1).graph.node)
    assert (placed.partitions, placed.fallbacks) == (1, {})
    assert not list(model.parent.glob("*profile*"))


def test_what_cannot_run_is_one_line(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "open.onnx"
    )
    for path, options, message in (
        (tmp_path / "none.onnx", {}, "none.onnx does not exist"),
        (tmp_path / "open.onnx", {}, "open.onnx has input shape .*open axes"),
        (
            tmp_path / "open.onnx",
            {"provider": NPU, "input_shape": (3, 4, 4)},
            "provider 'QNNExecutionProvider' is not in",
        ),
        (tmp_path / "open.onnx", {"input_shape": (3, 4, 4), "time_limit_s": 0.001}, "took longer than 0.001 s"),
    ):
        with pytest.raises(MeasurementError, match=message) as caught:
            node_placement(path, **options)
        assert "\n" not in str(caught.value)


def test_profile_prints_it_and_gives_it_as_json(model, monkeypatch, capsys):
    quick = ["--sessions", "1", "--session-time", "0.01", "--time-limit", "0"]

    def call(*more):
        monkeypatch.setattr(sys, "argv", ["hwnas", "profile", str(model), *quick, *more])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 0
        return capsys.readouterr().out

    assert f"on {CPU}; 1 partition" in call()
    found = json.loads(call("--json"))["placement"]
    assert (found["partitions"], found["fallbacks"]) == (1, {})
