"""Qualcomm AI Hub without a network: a client that answers as the real one does, and every way in which it can fail."""

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from hwnas.cli.main import main
from hwnas.errors import HostError, MeasurementError, PluginError
from hwnas.latency.ai_hub import AIHub
from hwnas.latency.device import load_profile
from hwnas.latency.measure import MeasureConfig, measure, reference_model
from hwnas.latency.target import make_target
from hwnas.latency.time_onnx import BurstConfig
from hwnas.testing.target import TargetTests

DEVICE = "Samsung Galaxy S25 (Family)"
QUICK = MeasureConfig(sessions=2, bursts=2, burst_s=0.001, min_runs=3, warmup_runs=3)


class Recorded:
    """Answers in the form of the client ``qai_hub``; times follow from the model, in microseconds."""

    def __init__(self, **answers):
        self.answers, self.calls = answers, []

    def Device(self, name):
        return SimpleNamespace(name=name)

    def submit_compile_job(self, *, model, device, input_specs, options):
        self.calls.append(("compile", device.name, input_specs, options))
        data = Path(model).read_bytes() if isinstance(model, str) else model.SerializeToString()
        if isinstance(self.answers.get("compile"), Exception):
            raise self.answers["compile"]
        failed = self.answers.get("compile") == "failed"
        status = SimpleNamespace(success=not failed, message="op Foo is\nnot supported" if failed else "")
        return SimpleNamespace(
            get_target_model=lambda: None if failed else data, get_status=lambda: status, url="https://hub/jobs/j1"
        )

    def submit_profile_job(self, *, model, device, options):
        self.calls.append(("profile", device.name, options))
        failed = self.answers.get("profile") == "failed"
        status = SimpleNamespace(success=not failed, message="out of memory" if failed else "")
        runs = int(options.split()[-1])
        base = 200 + len(onnx.load_model_from_string(model).graph.node) * 20 + len(model) / 1000
        wobble = 1 + 0.001 * np.sin(np.arange(runs) + int(hashlib.sha256(model).hexdigest()[:4], 16))
        answer = {
            "execution_summary": {
                "estimated_inference_time": int(base), "all_inference_times": (base * wobble).tolist(),
                "estimated_inference_peak_memory": 3 * 1024**2, "first_load_time": 900_000,
            },
            "execution_detail": [
                {"name": "conv", "type": "Conv2D", "compute_unit": "NPU"},
                {"name": "act", "type": "HardSwish", "compute_unit": "NPU"},
                {"name": "out", "type": "Softmax", "compute_unit": "CPU"},
            ],
        }  # fmt: skip
        answer = self.answers.get("answer", answer)
        return SimpleNamespace(
            wait=lambda: status, get_status=lambda: status, download_profile=lambda: answer, url="https://hub/jobs/j2"
        )


class TestAIHub(TargetTests):
    """The protocol of targets, through the recorded client."""

    def make(self):
        return AIHub(DEVICE, client=Recorded())


def model():
    return bytes(reference_model(1).SerializeToString())


def test_a_model_is_compiled_once_and_profiled_for_every_session():
    client = Recorded()
    target = AIHub(DEVICE, "tflite", client)
    (found,) = measure([model()], QUICK, target=target)
    assert [c[0] for c in client.calls] == ["compile", "profile", "profile"]
    assert client.calls[0][1:] == (DEVICE, {"input": (1, 24, 14, 14)}, "--target_runtime tflite")
    nodes = len(reference_model(1).graph.node)
    assert found.median_ms == pytest.approx((200 + 20 * nodes + len(model()) / 1000) / 1000, rel=0.01)
    assert found.peak_memory_mb == 3.0
    assert found.n == 200
    assert (found.conditions.device, found.conditions.runtime) == (DEVICE, "qai-hub-tflite")
    assert target.units == {"model 0": {"NPU": 2, "CPU": 1}}


def test_every_run_counts_once():
    config = BurstConfig("", (0.1,), bursts=3, min_runs=3)
    bursts = list(AIHub(DEVICE, client=Recorded()).bursts([model()], ["m"], b"", config, [(0, 0)]))
    values = [v for b in bursts for v in b.values_ms]
    assert len(bursts) == 3
    assert len(values) == 100
    assert [b.peak_memory_mb for b in bursts] == [3.0, None, None]


@pytest.mark.parametrize(
    ("answers", "error", "message"),
    [
        ({"compile": "failed"}, MeasurementError, r"m is not compiled for Samsung.*op Foo is not supported, see https"),
        ({"profile": "failed"}, MeasurementError, "m does not run on Samsung.*out of memory"),
        ({"compile": ConnectionError("no\nroute")}, HostError, "could not compile m: no route; is `qai-hub configure`"),
        ({"answer": {}}, MeasurementError, "m: AI Hub gave no times"),
        ({"answer": {"execution_summary": {"all_inference_times": []}}}, MeasurementError, "gave 0 times, 1 positive"),
        ({"answer": {"execution_summary": {"all_inference_times": [0.0]}}}, MeasurementError, "gave 1 times, 1 pos"),
    ],
)
def test_every_failure_is_one_line(answers, error, message):
    target = AIHub(DEVICE, client=Recorded(**answers))
    with pytest.raises(error, match=message) as caught:
        list(target.bursts([model()], ["m"], b"", BurstConfig("", (0.1,)), [(0, 0)]))
    assert "\n" not in str(caught.value)


def test_what_a_hosted_device_cannot_do_is_refused():
    target = AIHub(DEVICE, client=Recorded())
    with pytest.raises(MeasurementError, match="cannot be pinned to cores"):
        list(target.bursts([model()], ["m"], b"", BurstConfig("", (0.1,), cores=(0,)), [(0, 0)]))
    with pytest.raises(MeasurementError, match="no execution providers"):
        measure([model()], QUICK, "CPUExecutionProvider", target)


def test_open_axes_are_asked_for():
    proto = reference_model(1)
    opened = onnx.ModelProto()
    opened.CopyFrom(proto)
    opened.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "h"
    client = Recorded()
    target, data = AIHub(DEVICE, client=client), opened.SerializeToString()
    with pytest.raises(MeasurementError, match="m has open axes; say how large they are"):
        list(target.bursts([data], ["m"], b"", BurstConfig("", (0.1,)), [(0, 0)]))
    config = BurstConfig("", (0.1,), batch_size=2, input_shape=(24, 14, 14))
    assert next(target.bursts([data], ["m"], b"", config, [(0, 0)])).input_shape == (24, 14, 14)
    assert client.calls[-2][2] == {"input": (2, 24, 14, 14)}


def test_it_is_a_target_by_name_and_says_what_it_needs(monkeypatch, tmp_path, capsys):
    target = make_target("qai-hub", {"device": DEVICE, "runtime": "onnx"})
    assert target.facts().runtime == "qai-hub-onnx"
    assert target.host
    for options, message in (
        ({"device": DEVICE, "runtime": "snpe"}, "runtime 'snpe' is unknown"),
        ({"device": " "}, "device is empty"),
    ):
        with pytest.raises(PluginError, match=message):
            make_target("qai-hub", options)
    monkeypatch.setitem(sys.modules, "qai_hub", None)
    (tmp_path / "m.onnx").write_bytes(model())
    words = ["hwnas", "profile", tmp_path / "m.onnx", "--target", "qai-hub", "--target-option", f"device={DEVICE}"]
    monkeypatch.setattr(sys, "argv", [str(w) for w in words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "install hwnas[qai-hub]" in capsys.readouterr().err


def test_a_profile_may_name_it():
    profile = load_profile("snapdragon-8-elite-fp16")
    named = profile.model_copy(update={"target": "qai-hub", "target_options": {"device": DEVICE}})
    assert named.model_dump()["target_options"] == {"device": DEVICE}
