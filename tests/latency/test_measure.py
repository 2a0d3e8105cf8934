"""Measurements: statistics of recorded values, conditions that must agree, and models that cannot be timed."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from pydantic import ValidationError
from torch import nn

from hwnas.errors import MeasurementError, TableMismatchError
from hwnas.export.graph import trace
from hwnas.export.onnx_file import build_onnx
from hwnas.latency import measure
from hwnas.latency.measure import (
    WARMUP_RUNS,
    Conditions,
    MeasureConfig,
    measure_interleaved,
    measure_onnx,
    median_ci_percent,
    profile,
    summarise,
)

QUICK = MeasureConfig(time_limit_s=0.001, min_runs=3)


def conditions(**changes):
    values = {
        "device": "a processor, 2 cores", "runtime": "onnxruntime-1.31.1", "provider": "CPUExecutionProvider",
        "precision": "fp32", "threads": 1, "batch_size": 1, "input_shape": (5, 11, 13), "warmup_runs": 10,
        "date": "2026-11-01T00:00:00+00:00",
    }  # fmt: skip
    return Conditions(**{**values, **changes})


def model(batch="batch", px=11):
    return build_onnx(trace(nn.Sequential(nn.Conv2d(5, 3, 3, 1, 1))), 5, px, batch)


def identity(*shapes):
    """A model that passes its first input through."""
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, s) for i, s in enumerate(shapes)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes[0])
    graph = helper.make_graph([helper.make_node("Relu", ["x0"], ["y"])], "relu", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


# -- statistics -----------------------------------------------------------------------------------------


def test_statistics_of_recorded_values_by_hand(rng):
    values = rng.permutation(np.arange(1.0, 102.0))
    m = summarise(values, conditions())
    assert (m.p10_ms, m.median_ms, m.p90_ms, m.p99_ms) == pytest.approx((11, 51, 91, 100))
    assert m.iqr_ms == pytest.approx(76 - 26)
    assert m.n == 101
    assert m.as_dict()["conditions"]["device"] == "a processor, 2 cores"


def test_the_interval_of_the_median_by_hand():
    # n = 100: 50 -+ 1.96 * 10 / 2 = 40.2 and 59.8, so the 41st to the 60th value.
    assert median_ci_percent(np.arange(1.0, 101.0)) == pytest.approx(100 * (60 - 41) / 50.5)
    assert median_ci_percent(np.full(50, 3.0)) == 0.0


def test_the_interval_narrows_with_more_values(rng):
    few, many = rng.normal(100, 5, 100), rng.normal(100, 5, 10_000)
    assert median_ci_percent(many) < median_ci_percent(few) / 5


def test_the_interval_holds_the_median_in_19_of_20_samples(rng):
    hits = 0
    for _ in range(400):
        values = np.sort(rng.exponential(1.0, 101))
        reach = 1.96 * 101**0.5 / 2
        hits += values[int(50.5 - reach)] <= np.log(2) <= values[int(50.5 + reach)]
    assert 0.92 < hits / 400 < 0.99


# -- conditions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [("device", "another"), ("runtime", "onnxruntime-1.20.0"), ("provider", "CUDAExecutionProvider"),
     ("precision", "int8"), ("threads", 2), ("batch_size", 8)],
)  # fmt: skip
def test_other_conditions_are_refused_by_field(field, value):
    with pytest.raises(TableMismatchError) as caught:
        conditions().require_same(conditions(**{field: value}), "block table")
    message = str(caught.value)
    assert message.startswith(f"block table: {field} is {getattr(conditions(), field)!r} here and {value!r} there")
    assert "same conditions" in message


def test_date_and_shape_may_differ():
    conditions().require_same(conditions(date="2027", input_shape=(), warmup_runs=3), "block table")


# -- timing ---------------------------------------------------------------------------------------------


def test_a_measurement_says_its_conditions():
    m = measure_onnx(model(), QUICK.model_copy(update={"batch_size": 3, "sessions": 2}))
    c = m.conditions
    assert (c.provider, c.precision, c.threads, c.batch_size) == ("CPUExecutionProvider", "fp32", 1, 3)
    assert c.input_shape == (5, 11, 11)
    assert c.runtime.startswith("onnxruntime-")
    assert c.device.endswith("cores")
    assert c.warmup_runs == WARMUP_RUNS
    assert c.date.endswith("+00:00")
    assert m.p10_ms <= m.median_ms <= m.p90_ms <= m.p99_ms
    assert m.n >= 6


def test_warm_up_runs_are_not_counted_and_a_steady_value_stops_early():
    calls = []
    config = MeasureConfig(ci_percent=1e9, min_runs=20, time_limit_s=60)
    values = measure._sample(lambda: calls.append(1), config)
    assert len(values) == 20
    assert len(calls) == WARMUP_RUNS + 20
    assert (values >= 0).all()


def test_a_quantised_model_is_int8():
    scale = helper.make_tensor("s", TensorProto.FLOAT, [], [0.1])
    zero = helper.make_tensor("z", TensorProto.UINT8, [], [0])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "q", [value("x", TensorProto.FLOAT, [1, 5, 3, 3])], [value("y", TensorProto.FLOAT, [1, 5, 3, 3])],
        [scale, zero],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert measure_onnx(made, QUICK).conditions.precision == "int8"


def test_a_provider_that_is_not_installed_is_an_error():
    with pytest.raises(MeasurementError, match=r"provider 'TensorrtExecutionProvider' is not in .*\['.*CPUExecution"):
        measure_onnx(model(), QUICK, "TensorrtExecutionProvider")


def test_a_provider_that_falls_back_is_an_error(monkeypatch):
    import onnxruntime

    real = onnxruntime.InferenceSession

    def falling_back(source, options, providers):
        return real(source, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", falling_back)
    with pytest.raises(MeasurementError, match="'CUDAExecutionProvider' was asked for, but 'CPUExecutionProvider'"):
        measure_onnx(model(), QUICK, "CUDAExecutionProvider")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (identity(["batch", 5, "height", 13]), r"open axes besides the batch; fix them"),
        (identity([2, 5, 11, 13]), "fixed batch of 2, asked was 1"),
        (identity([1, 5], [1, 5]), "has 2 inputs; models with one are timed"),
    ],
)
def test_models_that_cannot_be_timed_say_why(made, message):
    with pytest.raises(MeasurementError, match=message):
        measure_onnx(made, QUICK)


def test_a_file_that_is_no_model_is_named(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(MeasurementError, match=r"broken\.onnx does not load in ONNX Runtime"):
        measure_onnx(path, QUICK)
    with pytest.raises(MeasurementError, match=r"none\.onnx does not exist; give an \.onnx file or a model folder"):
        profile(tmp_path / "none.onnx")


def test_a_model_folder_is_timed_by_its_file(tmp_path):
    onnx.save(model(), tmp_path / "model.onnx")
    a = profile(tmp_path, sessions=1, time_limit_s=0.001)
    b = profile(tmp_path / "model.onnx", sessions=1, time_limit_s=0.001)
    a.conditions.require_same(b.conditions, "the same file")


def test_the_quietest_pass_of_each_model_counts(monkeypatch):
    passes = iter([[5.0, 5.0, 5.0], [1.0, 1.0, 9.0], [2.0, 3.0, 4.0], [7.0, 7.0, 7.0]])
    monkeypatch.setattr(measure, "_sample", lambda run, config: np.array(next(passes)))
    monkeypatch.setattr(measure, "_reference_ms", lambda run: 0.5)  # the machine keeps its speed
    told = []
    first, second = measure_interleaved(
        [model(), model(1, 13)], QUICK, 2, task="time", progress=lambda *a, **k: told.append(a[:3])
    )
    assert (first.median_ms, second.median_ms) == (3.0, 1.0)
    assert first.n == second.n == 3
    assert (first.conditions.input_shape, second.conditions.input_shape) == ((5, 11, 11), (5, 13, 13))
    assert told == [("time", i, 4) for i in range(1, 5)]


def test_a_slow_machine_is_seen_by_the_reference_and_taken_out(monkeypatch):
    # Two passes begin or end at half speed; only the third has a fast reference on both sides.
    passes = iter([[4.0, 4.0, 4.0], [3.0, 3.0, 3.0], [2.2, 2.2, 2.2]])
    references = iter([1.0, 1.0, 0.5, 0.55])
    monkeypatch.setattr(measure, "_sample", lambda run, config: np.array(next(passes)))
    monkeypatch.setattr(measure, "_reference_ms", lambda run: next(references))
    (found,) = measure_interleaved([model()], QUICK, 3)
    assert found.median_ms == pytest.approx(2.2)
    assert found.conditions.reference_ms == 0.55


@pytest.mark.parametrize("change", [{"threads": 0}, {"batch_size": 0}, {"min_runs": 2}, {"sesions": 1}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        MeasureConfig(**change)
