"""Measurements: statistics of recorded values, conditions that must agree, and models that cannot be timed."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from pydantic import ValidationError
from torch import nn

import hwnas.latency.measure as measure_module
from hwnas.errors import MeasurementError, TableMismatchError
from hwnas.export.graph import trace
from hwnas.export.onnx_nodes import build_onnx
from hwnas.latency import time_onnx
from hwnas.latency.conditions import Conditions
from hwnas.latency.measure import MeasureConfig, measure, measure_onnx, time_models
from hwnas.latency.measurement import between_sessions_ci_percent, median_ci_percent, summarise
from hwnas.latency.profile import profile, profile_all
from hwnas.latency.time_onnx import CPU, REFERENCE, Burst, BurstConfig, Clock, Runner

QUICK = MeasureConfig(sessions=1, burst_s=0.001, min_runs=3, warmup_runs=3)


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
    (m,) = summarise([Burst(0, 0, tuple(values.tolist()), 1.0, (3, 8, 8))], conditions(), ["fp32"])
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
    assert c.warmup_runs == 3
    assert c.date.endswith("+00:00")
    assert m.p10_ms <= m.median_ms <= m.p90_ms <= m.p99_ms
    assert m.n >= 6


class FakeClock:
    """Time that passes only while a model runs; others may use the core meanwhile."""

    def __init__(self):
        self.ns = self.cpu = 0

    def pass_ms(self, ms, own_share=1.0):
        self.ns += round(ms * 1e6)
        self.cpu += round(ms * 1e6 * own_share)

    @property
    def clock(self):
        return Clock(lambda: self.ns, lambda: self.cpu)


CONFIG = BurstConfig(CPU, (0.05,))


def timed_by(monkeypatch, model_ms, bursts=1, sessions=3, own_share=1.0):
    """Measure one model whose runs take ``model_ms(seconds since its session began)``; the reference takes 0.1 ms."""
    fake = FakeClock()

    def opened(source, name, config):
        began = fake.ns
        if source == b"reference":
            return Runner(lambda: fake.pass_ms(0.1, own_share), (3, 8, 8))
        return Runner(lambda: fake.pass_ms(model_ms((fake.ns - began) / 1e9), own_share), (3, 8, 8))

    monkeypatch.setattr(time_onnx, "open_session", opened)
    schedule = [(0, s) for s in range(sessions)]
    taken = time_onnx.bursts([b"model"], ["model"], b"reference", replace(CONFIG, bursts=bursts), schedule, fake.clock)
    return summarise(list(taken), conditions(), ["fp32"], 2.0)[0]


def test_warm_up_runs_are_not_counted_and_a_burst_ends_in_time():
    fake, calls = FakeClock(), []

    def run():
        calls.append(1)
        fake.pass_ms(1.0)

    made = time_onnx._burst(Runner(run, ()), 0, 0, 0.02, 5, 10, fake.clock)
    assert made.values_ms == (1.0,) * 20
    assert len(calls) == 10 + 20
    slow = time_onnx._burst(Runner(lambda: fake.pass_ms(30.0), ()), 0, 0, 0.02, 5, 10, fake.clock)
    assert slow.values_ms == (30.0,) * 5  # at least min_runs


def test_a_steady_model_is_stable(monkeypatch):
    m = timed_by(monkeypatch, lambda s: 2.0, bursts=12)
    assert m.median_ms == pytest.approx(2.0)
    assert m.stable
    assert (m.sessions, m.drift_percent, m.cpu_share_percent, m.ci_percent) == (3, 0.0, 100.0, 0.0)
    assert m.conditions.reference_ms == pytest.approx(0.1)


def test_a_model_that_throttles_after_two_seconds_is_caught(monkeypatch):
    m = timed_by(monkeypatch, lambda s: 2.0 if s < 2 else 2.4, bursts=80)
    assert m.drift_percent == pytest.approx(20.0, abs=0.5)
    assert not m.stable
    assert any("20 % slower while it was timed" in w for w in m.warnings)


def test_a_shared_core_is_caught(monkeypatch):
    m = timed_by(monkeypatch, lambda s: 2.0, own_share=0.5)
    assert m.cpu_share_percent == 50.0
    assert any("another process used its core: only 50 %" in w for w in m.warnings)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin processes to cores")
def test_two_processes_on_one_core_are_really_caught():
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    code = f"import os; os.sched_setaffinity(0, [{core}])\nprint(1, flush=True)\nwhile True: pass"
    busy = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        busy.stdout.readline()
        m = measure_onnx(model(), MeasureConfig(sessions=1, burst_s=0.3, cores=(core,)))
    finally:
        busy.kill()
        busy.wait()
        busy.stdout.close()
    assert m.cpu_share_percent < 90
    assert any("another process used its core" in w for w in m.warnings)
    assert m.conditions.cores == str(core)
    assert os.sched_getaffinity(0) == before


def test_runs_that_are_disturbed_are_counted(monkeypatch):
    count = iter(range(10_000))
    m = timed_by(monkeypatch, lambda s: 6.0 if next(count) % 10 == 0 else 2.0)
    assert m.median_ms == pytest.approx(2.0)
    assert 5 < m.outliers_percent < 15
    assert any("of the runs took over 1.5 times" in w for w in m.warnings)


def test_sessions_that_differ_make_the_interval_wide():
    # 3 sessions: Student's t of 2 degrees of freedom is 4.303.
    log_medians = np.log([1.0, 1.02, 1.04])
    sd = np.std(log_medians, ddof=1)
    assert between_sessions_ci_percent(log_medians) == pytest.approx(100 * 2 * 4.30265 * sd / 3**0.5, rel=1e-5)
    assert between_sessions_ci_percent([0.3]) == 0.0


def test_the_interval_covers_the_true_median_in_19_of_20_measurements(made_up):
    hits = 0
    for seed in range(200):
        target = made_up(lambda name: 5.0, noise=0.02, session_noise=0.01, seed=seed)
        (m,) = measure([b""], MeasureConfig(sessions=6), target=target)
        hits += abs(np.log(m.median_ms / 5.0)) <= m.ci_percent / 200
    assert 0.9 <= hits / 200 <= 1.0


def test_sessions_are_added_until_the_interval_is_narrow_or_the_time_is_up(made_up, monkeypatch):
    monkeypatch.setattr(measure_module, "precision_of", lambda model: "fp32")
    noisy = {"noise": 0.01, "session_noise": 0.02}
    few = measure([b""], MeasureConfig(sessions=3, ci_percent=3), target=made_up(lambda name: 5.0, **noisy))[0]
    assert few.sessions == 3
    assert any("asked was 3 %" in w for w in few.warnings)
    config = MeasureConfig(sessions=3, ci_percent=3, time_limit_s=60)
    more = measure([b""], config, target=made_up(lambda name: 5.0, **noisy))[0]
    assert more.sessions > 3
    assert more.ci_percent <= 3


def test_a_machine_that_changes_its_speed_is_said_to(made_up):
    target = made_up(lambda name: {"a": 1.0, "b": 7.0}[name], speed=lambda k: 0.6 if k % 40 < 12 else 1.0, noise=0.002)
    taken = list(time_models([b"a", b"b"], MeasureConfig(), CPU, [(m, s) for s in range(40) for m in (0, 1)], target))
    first, second = summarise(taken, conditions(), ["fp32", "fp32"], 5.0)
    assert (first.median_ms, second.median_ms) == pytest.approx((1.0, 7.0), rel=0.01)
    assert first.speed_change_percent == pytest.approx(100 * (1 / 0.6 - 1), abs=3)
    assert any("the machine's speed changed by 6" in w for w in first.warnings)


def test_a_model_that_was_not_timed_is_an_error(made_up):
    taken = list(time_models([b""], MeasureConfig(), CPU, [(0, 0)], made_up(lambda name: 1.0)))
    with pytest.raises(MeasurementError, match="1 of 2 models were not timed"):
        summarise(taken, conditions(), ["fp32", "fp32"])


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process takes at most")
def test_the_memory_of_a_model_is_the_same_beside_others(tmp_path):
    """A model that is timed after a larger one takes the memory that it gave back, and seemed to need none."""
    files = {}
    for name, channels in (("small", 64), ("large", 256)):
        net = nn.Sequential(nn.Conv2d(3, channels, 3, 1, 1), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1))
        files[name] = tmp_path / f"{name}.onnx"
        onnx.save(build_onnx(trace(net), 3, 96), files[name])
    quick = {"sessions": 2, "session_s": 0.05, "time_limit_s": 0.0}
    alone = profile(files["small"], **quick).peak_memory_mb
    large, beside = (m.peak_memory_mb for m in profile_all([files["large"], files["small"]], **quick))
    assert alone > 4
    assert beside == pytest.approx(alone, rel=0.3)
    assert large > 3 * alone


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
        (identity(["batch", 5, "height", 13]), r"open axes besides the batch; say how large"),
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
    with pytest.raises(MeasurementError, match=r"broken\.onnx does not load as ONNX"):
        measure_onnx(path, QUICK)
    with pytest.raises(MeasurementError, match=r"none\.onnx does not exist; give an \.onnx file or a model folder"):
        profile(tmp_path / "none.onnx")


def test_a_model_folder_is_timed_by_its_file(tmp_path):
    onnx.save(model(), tmp_path / "model.onnx")
    a = profile(tmp_path, sessions=1, session_s=0.001, time_limit_s=0)
    b = profile(tmp_path / "model.onnx", sessions=1, session_s=0.001, time_limit_s=0)
    a.conditions.require_same(b.conditions, "the same file")


@pytest.mark.parametrize("change", [{"threads": 0}, {"batch_size": 0}, {"min_runs": 2}, {"sesions": 1}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        MeasureConfig(**change)


# -- what counts how far --------------------------------------------------------------------------------


def disturbed(own_share):
    """Bursts of 3 models in 7 rounds; in rounds 1 to 4 model 0 has a part of its core only, and waits for the rest."""
    out = []
    for session in range(7):
        for model, ms in enumerate((2.0, 5.0, 0.5)):
            share = own_share if model == 0 and 1 <= session <= 4 else 1.0
            out.append(Burst(model, session, (ms / share,) * 5, share, (3, 8, 8)))
    return out


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_timing_counts_by_its_share_of_the_processor(share):
    """Four of seven timings waited for the core: their time is not the model's."""
    found = summarise(disturbed(share), conditions(), ["fp32"] * 3)
    assert [m.median_ms for m in found] == pytest.approx([2.0, 5.0, 0.5], rel=1e-6)
    assert found[0].cpu_share_percent == 100 * share
    alike = summarise([replace(b, cpu_share=1.0) for b in disturbed(share)], conditions(), ["fp32"] * 3)
    assert alike[0].median_ms == pytest.approx(2.0 / share)  # nothing else tells them apart


def test_a_target_without_providers_says_itself_which_share_it_had():
    found = summarise(disturbed(0.5), conditions(provider=""), ["fp32"] * 3)
    assert found[0].median_ms == pytest.approx(2.0, rel=1e-6)
    assert any("another process used its core: only 50 %" in w for w in found[0].warnings)


def test_an_accelerator_leaves_the_core_idle():
    """Most of its timings have little of the processor, and are as good as the others."""
    bursts = [Burst(0, s, (3.0 if s < 5 else 9.0,) * 5, 0.2 if s < 5 else 1.0, (3, 8, 8)) for s in range(7)]
    (m,) = summarise(bursts, conditions(provider="CUDAExecutionProvider"), ["fp32"])
    assert m.median_ms == pytest.approx(3.0)
    assert not any("its core" in w for w in m.warnings)


def recorded(monkeypatch, run_ms, config, schedule, share=lambda second: 1.0):
    """Bursts of models whose runs take ``run_ms`` on a clock that only runs move."""
    fake = FakeClock()

    def opened(source, name, config):
        return Runner(lambda: fake.pass_ms(run_ms, share(fake.ns / 1e9)), (3, 8, 8))

    monkeypatch.setattr(time_onnx, "open_session", opened)
    return list(time_onnx.bursts([b"model"] * 8, ["model"] * 8, b"reference", config, schedule, fake.clock))


def test_a_burst_that_was_disturbed_is_taken_again(monkeypatch):
    """Another process has half of the core for 90 ms; a burst of 50 ms is taken again when that is over."""
    config = replace(CONFIG, warmup_runs=3)
    found = recorded(monkeypatch, 1.0, config, [(0, 0)], lambda second: 0.5 if second < 0.09 else 1.0)
    assert [b.cpu_share for b in found if b.model == 0] == [1.0]
    always = recorded(monkeypatch, 1.0, config, [(0, 0)], lambda second: 0.5)
    assert [b.cpu_share for b in always if b.model == 0] == [0.5]  # it is given up after a few tries


def test_the_reference_model_is_timed_between_the_others(monkeypatch):
    """8 models of more than 50 ms each: about every 100 ms the reference says how fast the machine is."""
    found = recorded(monkeypatch, 1.0, replace(CONFIG, burst_s=(0.05,) * 8), [(m, 0) for m in range(8)])
    order = [b.model for b in found]
    assert order[0] == order[-1] == REFERENCE
    assert order[1:-1].count(REFERENCE) >= 3
    gaps = np.diff([i for i, m in enumerate(order) if m == REFERENCE])
    assert gaps.max() <= 3


def test_models_take_turns_in_another_order_each_round(made_up, monkeypatch):
    monkeypatch.setattr(measure_module, "precision_of", lambda model: "fp32")
    target = made_up(lambda name: 1.0)
    measure([bytes([65 + i]) for i in range(6)], MeasureConfig(sessions=4), target=target)
    rounds = [tuple(target.asked[i : i + 6]) for i in range(0, 24, 6)]
    assert all(sorted(r) == sorted(rounds[0]) for r in rounds)
    assert len(set(rounds)) > 1


def test_threads_are_those_of_the_session(monkeypatch):
    import onnxruntime

    given = []
    real = onnxruntime.InferenceSession

    def opened(source, options, providers):
        given.append((options.intra_op_num_threads, options.inter_op_num_threads))
        return real(source, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    measure_onnx(model(), QUICK.model_copy(update={"threads": 2}))
    assert set(given) == {(2, 1)}


def test_sessions_are_added_until_every_model_is_certain(made_up, monkeypatch):
    """One model is steady, one differs from session to session: the steady one does not end it."""
    monkeypatch.setattr(measure_module, "precision_of", lambda model: "fp32")
    noise = np.random.default_rng(3)
    target = made_up(lambda name: 5.0 * (np.exp(noise.normal(0, 0.03)) if name == "b" else 1.0))
    config = MeasureConfig(sessions=3, ci_percent=5, time_limit_s=60)
    steady, changing = measure([b"a", b"b"], config, target=target)
    assert changing.sessions > 3 == steady.sessions
    assert max(steady.ci_percent, changing.ci_percent) <= 5


def test_one_session_that_throttles_is_enough_for_a_warning():
    bursts = [
        Burst(0, session, ((2.0 if part < 6 or session != 1 else 2.6),) * 5, 1.0, (3, 8, 8))
        for session in range(3) for part in range(12)
    ]  # fmt: skip
    (m,) = summarise(bursts, conditions(), ["fp32"], 100.0)
    assert m.drift_percent == pytest.approx(30.0)
    assert any("30 % slower while it was timed" in w for w in m.warnings)


def test_the_interval_is_of_the_sessions_that_ran_at_the_reported_speed():
    """In two sessions all others take twice as long, and this model 1.3 times: taken out, 35 % too little is left."""
    slow = {3, 6}
    bursts = [
        Burst(model, session, (ms * ((1.3 if model == 0 else 2.0) if session in slow else 1.0),) * 5, 1.0, (3, 8, 8))
        for session in range(8) for model, ms in enumerate((2.0, 5.0, 0.5, 1.0, 3.0))
    ]  # fmt: skip
    found = summarise(bursts, conditions(), ["fp32"] * 5)
    assert found[0].median_ms == pytest.approx(2.0)
    assert found[0].ci_percent < 1, "sessions at another speed do not make the median less certain"
    only_once = [b for b in bursts if b.session in (3, 4)]  # one session at each speed: what they differ by counts
    assert max(m.ci_percent for m in summarise(only_once, conditions(), ["fp32"] * 5)) > 100
