"""Devices that compute in float and in 8 bits: the search chooses the precision of every arch."""

import json
import shutil

import numpy as np
import pytest
import yaml
from run_files import made_files, rows_of

import hwnas
from hwnas.errors import DeviceError, RecipeError
from hwnas.export.onnx_facts import precision_of
from hwnas.latency.device import write_profile
from hwnas.latency.table import load_device
from hwnas.objectives.memory import MODEL_SIZE, PEAK_MEMORY
from hwnas.runs.evaluations import Candidate
from hwnas.runs.start import open_run, run

BOTH, EIGHT, FLOAT = "snapdragon-8-elite-fp16", "hexagon-dsp", "myriad-vpu"
DEVICES = [BOTH, EIGHT, FLOAT]
OBJECTIVES = ["top1_percent", "latency_ms", "peak_memory_kib"]


@pytest.fixture(scope="module")
def chosen_run(tiny_recipe, tmp_path_factory):
    """A run whose search chooses the precision on the first of three devices; copy it before changing it."""
    folder = tmp_path_factory.mktemp("precisions")
    net = tiny_recipe["supernet"] | {"precisions": ["fp32", "int8"]}
    changed = tiny_recipe | {"supernet": net, "devices": DEVICES, "objectives": OBJECTIVES}
    changed |= {"search": {"strategy": "supernet", "evaluations": 12}, "finish": {"models": 3, "epochs": 1}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(changed))
    run(folder / "tiny.yaml", out=folder / "run")
    return folder / "run"


def test_every_arch_is_computed_and_scored_in_the_precision_that_it_names(chosen_run):
    opened = open_run(chosen_run)
    both = opened.devices[BOTH]
    assert both.in_8_bits.name == "snapdragon-8-elite-int8"
    with opened.evaluations() as evaluations:
        view = evaluations.of_device(BOTH)
        archs = view.evaluated(opened.weights.trained, ["top1_percent"])
        named = {a["precision"] for a in archs}
        assert named == {"fp32", "int8"}, "twelve archs of the tiny space have both"
        for arch in archs:
            model = Candidate(arch, opened.weights.trained)
            own = evaluations.archive.values(arch, opened.weights.trained, "validation", str(arch["precision"]))
            assert view.known(model)["top1_percent"] == own["top1_percent"]
    alone = {"fp32": load_device(BOTH), "int8": load_device("snapdragon-8-elite-int8")}
    archs = opened.layout.space.sample(np.random.default_rng(0), 200)
    latency = both.compile(opened.layout).of_archs(archs)
    peak, size = (o.compile(opened.layout, both).of_archs(archs) for o in (PEAK_MEMORY, MODEL_SIZE))
    low, high = both.compile(opened.layout).bounds()
    for arch, ms, kib, weights_kib in zip(archs, latency, peak, size, strict=True):
        own = alone[arch["precision"]]
        assert ms == pytest.approx(own.estimate_ms(arch), rel=1e-12) == both.estimate_ms(arch)
        assert low <= ms <= high
        assert kib == PEAK_MEMORY.compile(opened.layout, own).of_archs([arch])[0]
        assert weights_kib == MODEL_SIZE.compile(opened.layout, own).of_archs([arch])[0]


def test_bundles_are_of_the_precision_that_was_chosen(chosen_run):
    rows = rows_of(chosen_run, BOTH)
    assert {float(row["precision_bits"]) for row in rows} <= {8.0, 32.0}
    for row in rows:
        folder = chosen_run / "devices" / BOTH / "models" / row["key"]
        expected = {"8": "int8", "32": "fp32"}[f"{float(row['precision_bits']):g}"]
        assert precision_of(folder / "model.onnx") == expected
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics.get("precision", "fp32") == expected
        assert metrics["latency_ms"] == pytest.approx(float(row["latency_ms"]), rel=1e-5)
        assert hwnas.load_model(folder) is not None


def test_devices_of_one_precision_have_archs_of_that_one(chosen_run):
    opened = open_run(chosen_run)
    with opened.evaluations() as evaluations:
        for device, precision in ((EIGHT, "int8"), (FLOAT, "fp32")):
            asked = evaluations.archive.requested(evaluations.archive.searches(device))
            assert {a["precision"] for a in asked} == {precision}
            found = evaluations.archive.archs_of([row["key"] for row in rows_of(chosen_run, device)])
            assert {a["precision"] for a in found} == {precision}
            assert "precision_bits" not in rows_of(chosen_run, device)[0]


def test_the_report_says_which_precision_and_divides_its_latency(chosen_run):
    page = (chosen_run / "report.html").read_text()
    assert "precision_bits" in page
    assert "times_in_8_bits" in page


def test_started_again_everything_stays(chosen_run, tmp_path):
    copied = shutil.copytree(chosen_run, tmp_path / "run")
    before = made_files(copied)
    run(chosen_run.parent / "tiny.yaml", out=copied)
    assert made_files(copied) == before


def test_a_fleet_trials_and_fine_tuning_follow(chosen_run, tmp_path):
    copied = shutil.copytree(chosen_run, tmp_path / "run")
    opened = open_run(copied)
    assert {d.device for d in opened.fleet(models=3).devices} == set(DEVICES)
    for device in DEVICES:
        key = rows_of(copied, device)[0]["key"]
        opened.finetune(key, tmp_path / "tuned", device=device, epochs=1)
        metrics = json.loads((tmp_path / "tuned" / device / key / "metrics.json").read_text())
        with opened.evaluations() as evaluations:
            arch = opened.find(key, evaluations)
        assert metrics.get("precision", "fp32") == arch["precision"]


def test_a_supernet_trained_without_can_be_searched_with(tiny_recipe, finished_run, tmp_path):
    net = tiny_recipe["supernet"] | {"precisions": ["fp32", "int8"]}
    train = tiny_recipe["train"] | {"phases": [], "start_from": str(finished_run / "train")}
    path = tmp_path / "chosen.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe | {"supernet": net, "train": train, "devices": [BOTH]}))
    opened = run(path, out=tmp_path / "run")
    assert len(opened.front(BOTH)) > 0


def test_models_trained_alone_have_the_precision_of_their_device(tiny_recipe, tmp_path):
    net = tiny_recipe["supernet"] | {"precisions": ["fp32", "int8"]}
    changed = tiny_recipe | {"supernet": net, "devices": DEVICES, "finish": {"models": 2, "epochs": 1}}
    path = tmp_path / "direct.yaml"
    path.write_text(yaml.safe_dump(changed | {"search": {"strategy": "direct", "evaluations": 4}}))
    opened = run(path, out=tmp_path / "run")
    with opened.evaluations() as evaluations:
        for device, precision in ((EIGHT, "int8"), (FLOAT, "fp32")):
            found = evaluations.archive.archs_of([m.key for m in opened.front(device)])
            assert {a["precision"] for a in found} == {precision}


def test_a_measured_device_gets_both_tables(tiny_recipe, tmp_path):
    net = tiny_recipe["supernet"] | {"precisions": ["fp32", "int8"]}
    changed = tiny_recipe | {"supernet": net, "devices": ["local-cpu"], "search": {"evaluations": 4}}
    path = tmp_path / "here.yaml"
    path.write_text(yaml.safe_dump(changed))
    opened = run(path, out=tmp_path / "run")
    device = opened.devices["local-cpu"]
    assert device.rows
    assert set(device.rows) == set(device.in_8_bits.rows)
    again = open_run(tmp_path / "run").devices["local-cpu"]
    assert again == device
    # A table is of networks: it serves a run without the choice, too, and the other way round.
    path.write_text(yaml.safe_dump(changed | {"supernet": tiny_recipe["supernet"]}))
    shutil.copytree(tmp_path / "run" / "devices" / "local-cpu" / "table", tmp_path / "plain/devices/local-cpu/table")
    assert len(run(path, out=tmp_path / "plain").front("local-cpu")) > 0
    assert all(m.latency_ms > 0 for m in opened.front("local-cpu"))


def test_ones_own_pair_of_profiles_is_kept_with_the_run(tiny_recipe, tmp_path):
    for own, shipped, pair in (("npu", BOTH, "npu-int8"), ("npu-int8", "snapdragon-8-elite-int8", None)):
        folder = tmp_path / "devices" / own
        folder.mkdir(parents=True)
        write_profile(load_device(shipped).profile.model_copy(update={"name": own, "in_8_bits": pair}), folder)
    net = tiny_recipe["supernet"] | {"precisions": ["fp32", "int8"]}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe | {"supernet": net, "devices": [str(tmp_path / "devices" / "npu")]}))
    opened = run(path, out=tmp_path / "run")
    assert opened.devices["npu"].in_8_bits.name == "npu-int8"
    shutil.rmtree(tmp_path / "devices" / "npu-int8")
    assert open_run(tmp_path / "run").devices["npu"].in_8_bits.name == "npu-int8"


@pytest.mark.parametrize(
    ("precisions", "devices", "message"),
    [
        (["fp32", "int8"], [EIGHT, FLOAT], "of no device here is it known how it computes in both: hexagon-dsp"),
        (["int8"], [BOTH], r"precisions are \[fp32, int8\], or left out; got \['int8'\]"),
        (["int8", "fp32"], [BOTH], r"precisions are \[fp32, int8\]"),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_made_is_refused(tiny_recipe, tmp_path, precisions, devices, message):
    path = tmp_path / "wrong.yaml"
    net = tiny_recipe["supernet"] | {"precisions": precisions}
    path.write_text(yaml.safe_dump(tiny_recipe | {"supernet": net, "devices": devices}))
    with pytest.raises(RecipeError, match=message):
        run(path, out=tmp_path / "run")
    assert not (tmp_path / "run" / "train").exists()


def test_a_pair_that_is_missing_or_computes_in_float_is_said(tiny_recipe, tmp_path):
    net = tiny_recipe["supernet"] | {"precisions": ["fp32", "int8"]}
    for pair, error, message in (
        ("nowhere", DeviceError, "nowhere"), (FLOAT, RecipeError, "stands for npu in 8 bits .*, but computes in"),
    ):  # fmt: skip
        folder = tmp_path / "npu"
        folder.mkdir(exist_ok=True)
        write_profile(load_device(BOTH).profile.model_copy(update={"name": "npu", "in_8_bits": pair}), folder)
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(tiny_recipe | {"supernet": net, "devices": [str(folder)]}))
        with pytest.raises(error, match=message):
            run(path, out=tmp_path / "run")


def test_a_staged_training_does_not_take_the_choice(tiny_recipe, tmp_path):
    path = tmp_path / "staged.yaml"
    net = tiny_recipe["supernet"] | {"precisions": ["fp32", "int8"]}
    staged = {"supernet": net, "devices": [BOTH], "search": {"strategy": "staged"}}
    path.write_text(yaml.safe_dump(tiny_recipe | staged))
    with pytest.raises(RecipeError, match=r"staged times every operator in one precision; leave out supernet\.prec"):
        run(path, out=tmp_path / "run")
