"""Devices in int8: scores are those of the quantised network, kept beside those in float; the file is what counts."""

import json
from dataclasses import replace

import numpy as np
import pytest
from run_files import rows_of

from hwnas.errors import ExportError
from hwnas.export.onnx_check import run_onnx
from hwnas.export.quantization import QuantizationConfig
from hwnas.latency.number_format import evaluated_precision
from hwnas.objectives.config import EvaluationConfig
from hwnas.runs.evaluations import Candidate, beside
from hwnas.runs.recipe import load_recipe
from hwnas.runs.start import open_run


@pytest.mark.parametrize(
    ("stated", "evaluated"),
    [
        ("int8", "int8"), ("INT8", "int8"), ("w8a8", "int8"), ("int8+fp32", "int8"), ("fp32", "fp32"), ("fp16", "fp32"),
        ("fp32 (int8 weights)", "fp32"), ("not stated by the source", "fp32"), ("int16", "fp32"),
    ],
)  # fmt: skip
def test_in_what_a_device_is_evaluated(stated, evaluated):
    assert evaluated_precision(stated) == evaluated


def test_the_archive_keeps_both_precisions_and_each_device_sees_its_own(finished_run):
    opened = open_run(finished_run)
    with opened.evaluations() as evaluations:
        hexagon, myriad = (evaluations.of_device(d) for d in ("hexagon-dsp", "myriad-vpu"))
        assert (hexagon.precision, myriad.precision) == ("int8", "fp32")
        for row in rows_of(finished_run, "hexagon-dsp"):
            (arch,) = evaluations.archive.archs_of([row["key"]])
            model = Candidate(arch, row.get("weights_version") or opened.weights.trained)
            eight = evaluations.archive.values(arch, model.weights_version, "validation", "int8")
            full = evaluations.archive.values(arch, model.weights_version, "validation")
            assert set(eight) == {"top1_percent", "top1_stderr_percent"}
            seen = hexagon.known(model, ["top1_percent"])
            assert seen["top1_percent"] == eight["top1_percent"]
            assert seen["top1_stderr_percent"] == eight["top1_stderr_percent"]
            assert seen["top1_fp32_percent"] == full["top1_percent"] == myriad.known(model)["top1_percent"]
            assert seen["introspectability"] == full["introspectability"]
            # The evaluation is what ONNX Runtime makes of the file.
            images = opened.splits.validation
            x = opened.context.networks.inputs(images, arch).tensors()[0]
            said = run_onnx(finished_run / "devices" / "hexagon-dsp" / "models" / row["key"] / "model.onnx", x)
            in_file = 100 * float((said.argmax(1) == images.labels).double().mean())
            assert eight["top1_percent"] == pytest.approx(in_file, abs=1.01 * 100 / len(images))
        asked = evaluations.archive.requested(evaluations.archive.searches("myriad-vpu"))
        only_float = [
            a for a in asked if not evaluations.archive.values(a, opened.weights.trained, "validation", "int8")
        ]
        for arch in only_float:
            assert "top1_percent" not in hexagon.known(Candidate(arch, opened.weights.trained))


def test_nothing_is_evaluated_twice(copied):
    opened = open_run(copied)
    rows = rows_of(copied, "hexagon-dsp")
    with opened.evaluations() as evaluations:
        archs = evaluations.archive.archs_of([r["key"] for r in rows])
        models = [
            Candidate(a, r.get("weights_version") or opened.weights.trained) for a, r in zip(archs, rows, strict=True)
        ]
        last = evaluations.archive.last_row
        wanted = {"top1_percent": "top1_percent", "introspectability": "introspectability"}
        evaluations.of_device("hexagon-dsp").evaluate(models, wanted)
        evaluations.evaluate(models, wanted)
        assert evaluations.archive.last_row == last


def test_values_in_float_stand_beside_under_names_of_their_own(finished_run):
    task = open_run(finished_run).context.task
    full = {"top1_percent": 90.0, "top1_stderr_percent": 1.0, "introspectability": 0.5}
    assert beside(full, {"top1_percent": 80.0, "top1_stderr_percent": 2.0}, task) == {
        "top1_fp32_percent": 90.0, "introspectability": 0.5, "top1_percent": 80.0, "top1_stderr_percent": 2.0,
    }  # fmt: skip
    assert beside(full, {}, task) == {"top1_fp32_percent": 90.0, "introspectability": 0.5}


def test_the_report_says_what_quantisation_costs(finished_run):
    assert "top-1 in float" in (finished_run / "report.html").read_text()


def test_a_fleet_looks_at_models_in_the_precision_of_each_device(copied):
    planned = open_run(copied).fleet(models=1)
    assert {d.device for d in planned.devices} == {"hexagon-dsp", "myriad-vpu"}


def test_a_finetuned_model_of_an_int8_device_is_scored_in_8_bits(finished_run, copied, tmp_path):
    key = rows_of(copied, "hexagon-dsp")[0]["key"]
    made = open_run(copied).finetune(key, tmp_path / "tuned", device="hexagon-dsp", epochs=1)
    (path,) = (tmp_path / "tuned" / "hexagon-dsp").glob("*/metrics.json")
    metrics = json.loads(path.read_text())
    assert metrics["precision"] == "int8"
    assert {"top1_percent", "top1_fp32_percent", "test_top1_percent", "test_top1_fp32_percent"} <= set(metrics)
    result, _ = made
    row = next(r for r in rows_of(finished_run, "hexagon-dsp") if r["key"] == key)
    assert metrics["top1_before_percent"] == pytest.approx(float(row["top1_percent"]), rel=1e-5)
    assert metrics["top1_before_fp32_percent"] == result.score_before
    assert metrics["top1_fp32_percent"] == pytest.approx(result.score)


def test_one_that_learnt_the_validation_images_states_what_its_first_step_scored_in_float(copied, monkeypatch):
    from hwnas.runs import finetuning

    def also_validation(*args, **kwargs):
        return replace(finetune(*args, **kwargs), saw_validation=True, score=12.5)

    finetune = finetuning.finetune
    monkeypatch.setattr(finetuning, "finetune", also_validation)
    key = rows_of(copied, "hexagon-dsp")[0]["key"]
    _, bundle = open_run(copied).finetune(key, device="hexagon-dsp", epochs=1)
    assert (bundle.metrics["top1_fp32_percent"], "top1_percent" in bundle.metrics) == (12.5, False)


def test_calibration_follows_the_recipe(finished_run):
    opened = open_run(finished_run)
    networks = opened.context.networks
    arch = opened.layout.space.largest()
    subnet = opened.context.trained_evaluator.subnet(arch)
    assert networks.in_8_bits(subnet, arch).quantization.float_nodes == frozenset()

    def settings(**values):
        networks.config = EvaluationConfig(**{
            **networks.config.model_dump(), "quantization": QuantizationConfig(**values)
        })  # fmt: skip
        return networks.in_8_bits(subnet, arch).quantization

    assert settings(float_layers=("stem",)).float_nodes
    with pytest.raises(ExportError, match="float_layers names 'trunk'; the blocks are stem"):
        settings(float_layers=("trunk",))
    scales = [np.array([s.scale for s in settings(images=n).scales.values()]) for n in (16, 64)]
    assert (scales[0] <= scales[1] * (1 + 1e-6)).mean() > 0.9, "more images show wider ranges"


def test_recipes_without_a_word_on_quantisation_keep_their_archive():
    plain = load_recipe("digits-mbv3")
    assert load_recipe("digits-mbv3", ["evaluation.quantization.images=128"]).values_hash() == plain.values_hash()
    assert load_recipe("digits-mbv3", ["evaluation.quantization.images=64"]).values_hash() != plain.values_hash()
