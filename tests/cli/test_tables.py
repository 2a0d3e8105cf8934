"""`hwnas tables` from the command line: a table is built, checked, imported and fitted; mistakes are one line."""

import csv
import json
import shutil
import sys

import pytest
import yaml
from torch import nn

from hwnas.cli.runs import warn_of_other_machines
from hwnas.export.graph import trace
from hwnas.export.onnx_file import to_onnx
from hwnas.export.quantization import calibrate
from hwnas.export.quantize import to_int8_onnx
from hwnas.latency.keys import once_for_all_keys
from hwnas.latency.table import load_device
from hwnas.runs.recipe import load_recipe
from hwnas.supernet import make_layout
from hwnas.supernet.slot_sum import distinct_blocks


@pytest.fixture
def cli(hwnas_command):
    return hwnas_command


@pytest.fixture
def layout_of_file(recipe_file):
    return make_layout(load_recipe(recipe_file()).supernet)


@pytest.mark.slow
def test_a_table_is_built_and_checked(cli, recipe_file, tmp_path):
    out = tmp_path / "table"
    code, said, _ = cli("tables", "build", "--recipe", recipe_file(), "--out", out, "--json")
    assert code == 0
    found = json.loads(said)
    assert found["device"] == "table"
    assert found["error"]["n_held_out"] == 4
    assert found["conditions"]["planned_s"] > 0
    assert sorted(p.name for p in out.iterdir()) == [
        "SHA256SUMS",
        "blocks.csv",
        "networks.csv",
        "profile.yaml",
        "recipe.yaml",
    ]
    code, said, _ = cli("tables", "check", out, "--networks", 5, "--json", "--strict")
    assert code == 0
    checked = json.loads(said)
    assert checked["n_networks"] == 5
    assert {"mape_percent", "within_5_percent", "within_10_percent", "spearman", "worst"} <= set(checked)
    code, _, err = cli("tables", "build", "--recipe", recipe_file(), "--out", out)
    assert code == 2
    assert "holds a finished table; check it with `hwnas tables check" in err
    # The same table, said to be of another machine.
    profile = yaml.safe_load((out / "profile.yaml").read_text())
    profile["conditions"]["device"] = "another processor, 64 cores"
    (out / "profile.yaml").write_text(yaml.safe_dump(profile))
    code, _, err = cli("tables", "check", out, "--networks", 5, "--strict")
    assert code == 2
    assert "profile.yaml is not as it was written (SHA256SUMS differs)" in err
    (out / "SHA256SUMS").unlink()  # as who changes a profile on purpose does
    code, _, err = cli("tables", "check", out, "--networks", 5, "--strict")
    assert code == 2
    assert "device is 'another processor, 64 cores' in the table" in err
    code, said, err = cli("tables", "check", out, "--networks", 5)
    assert code == 0
    assert "\nwarning: the table of 'table' was measured under other conditions" in err
    assert "5 fresh subnets" in said


def test_a_table_of_others_is_imported(cli, recipe_file, layout_of_file, tmp_path):
    values = {names[0]: 0.005 for b in distinct_blocks(layout_of_file) for names in once_for_all_keys(b)[0]}
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(values))
    words = [
        "--recipe",
        recipe_file(),
        "--licence",
        "MIT",
        "--source",
        "their paper",
        "--out",
        tmp_path / "their-phone",
    ]
    code, said, err = cli("tables", "import", tmp_path / "theirs.yaml", "--format", "once-for-all", *words)
    assert (code, err) == (0, "")
    assert "imported from their paper (MIT)" in said
    device = load_device(tmp_path / "their-phone")
    assert device.name == "their-phone"
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump({**values, "x": -1}))
    code, _, err = cli("tables", "import", tmp_path / "theirs.yaml", "--format", "once-for-all", *words)
    assert code == 2
    assert "x has -1.0; times must be positive numbers" in err


def test_a_profile_is_fitted_to_networks_that_were_sampled(cli, recipe_file, layout_of_file, tmp_path):
    code, said, _ = cli(
        "tables", "sample", "--recipe", recipe_file(), "--out", tmp_path / "nets", "--networks", 6, "--json"
    )
    assert code == 0
    path = json.loads(said)["measurements"]
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    device = load_device("edge-tpu")
    for row in rows:
        row["latency_ms"] = 2 * device.estimate_ms(layout_of_file.space.arch(json.loads(row["arch"])))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    out = tmp_path / "my-npu"
    words = ["--recipe", recipe_file(), "--licence", "none needed", "--source", "own bench", "--out", out, "--kind"]
    code, said, _ = cli("tables", "fit", path, *words, "npu", "--json")
    assert code == 0
    assert json.loads(said)["error"]["mape_percent"] < 0.1
    assert load_device(out).profile.kind == "npu"
    code, _, err = cli("tables", "fit", path, *words, "toaster")
    assert code == 2
    assert "profile of 'my-npu': kind: " in err


def test_a_device_that_hwnas_cannot_time_has_no_table_to_build(cli, recipe_file, tmp_path):
    code, _, err = cli("tables", "build", "--recipe", recipe_file(), "--device", "hexagon-dsp", "--out", tmp_path / "t")
    assert code == 2
    assert "is not timed by ONNX Runtime" in err
    assert not (tmp_path / "t").exists()


def test_a_quantised_model_is_timed_beside_the_float_one(cli, tmp_path):
    import torch

    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    to_onnx(net, 3, 8, tmp_path / "model.onnx")
    to_int8_onnx(calibrate(trace(net), torch.randn(32, 3, 8, 8)), 3, 8, tmp_path / "model.int8.onnx")
    quick = ["--session-time", "0.01", "--time-limit", "0"]
    code, said, _ = cli("profile", tmp_path, *quick, "--json")
    assert code == 0
    found = json.loads(said)
    assert (found["conditions"]["precision"], found["int8"]["conditions"]["precision"]) == ("fp32", "int8")
    code, said, _ = cli("profile", tmp_path, *quick)
    assert code == 0
    assert "the float model here" in said
    shutil.copy(tmp_path / "model.onnx", tmp_path / "alone.onnx")
    code, _, err = cli("profile", tmp_path / "alone.onnx", "--shape", "3xbig")
    assert code == 2
    assert "--shape '3xbig': give numbers with 'x' between them" in err


def test_a_table_of_another_machine_is_refused_with_strict(cli, recipe_file, tmp_path):
    profile = load_device("local-cpu").profile.model_dump(mode="json")
    profile["conditions"] = {"device": "another processor, 64 cores", "runtime": "onnxruntime-0.1"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "profile.yaml").write_text(yaml.safe_dump(profile))
    words = ["run", recipe_file(), "--devices", tmp_path / "mine", "--out", tmp_path / "run", "--strict"]
    code, _, err = cli(*words)
    assert code == 2
    assert "device is 'another processor, 64 cores' in the table" in err
    assert not (tmp_path / "run").exists()
    profile["conditions"]["host"] = "user@board"  # measured there on purpose
    (tmp_path / "mine" / "profile.yaml").write_text(yaml.safe_dump(profile))
    warn_of_other_machines([str(tmp_path / "mine")], strict=True)
    warn_of_other_machines(["hexagon-dsp", "local-cpu"], strict=True)


TARGET = """
from pathlib import Path
import onnx
from hwnas.latency.time_onnx import Burst, Facts

class Bytes:
    \"\"\"A model takes as many microseconds as it has bytes.\"\"\"
    host = None

    def __init__(self, slowdown=1.0):
        self.slowdown = slowdown

    def facts(self):
        return Facts("bytes", "counter-1")

    def bursts(self, models, names, reference, config, schedule):
        for model, session in schedule:
            content = models[model] if isinstance(models[model], bytes) else Path(models[model]).read_bytes()
            shape = onnx.load_from_string(content).graph.input[0].type.tensor_type.shape.dim
            shape = tuple(d.dim_value for d in shape[1:])
            yield Burst(model, session, (self.slowdown * len(content) / 1000,) * 3, 1.0, shape)
"""


@pytest.fixture
def own_target(tmp_path, monkeypatch):
    (tmp_path / "their_package.py").write_text(TARGET)
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_package:Bytes"
    sys.modules.pop("their_package", None)


def test_a_target_of_ones_own_times_models_tables_and_checks(cli, recipe_file, tmp_path, own_target):
    path = tmp_path / "model.onnx"
    to_onnx(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)).eval(), 3, 8, path)
    words = ["--target", own_target, "--target-option", "slowdown=2"]
    code, said, _ = cli("profile", path, *words, "--sessions", 2, "--time-limit", 0, "--json")
    assert code == 0
    assert json.loads(said)["median_ms"] == pytest.approx(2 * path.stat().st_size / 1000)
    out = tmp_path / "my-counter"
    code, said, _ = cli("tables", "build", "--recipe", recipe_file(), "--out", out, *words)
    assert code == 0
    assert "hwnas tables check" in said
    profile = load_device(out).profile
    assert (profile.name, profile.target, profile.target_options) == ("my-counter", own_target, {"slowdown": 2})
    code, said, _ = cli("tables", "check", out, "--networks", 4, "--strict", "--json")
    assert code == 0
    assert json.loads(said)["machine_slowdown"] == 1.0  # its own target is asked, with its options
    code, said, _ = cli("tables", "check", out, "--networks", 4, *words[:3], "slowdown=6", "--json")
    assert code == 0
    assert json.loads(said)["machine_slowdown"] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "ssh"], "target 'ssh' cannot be made with {}"),
        (["--target", "phone"], "target 'phone' is unknown; known are onnxruntime, process, qai-hub, ssh"),
        (["--target-option", "host"], "give it as key=value, such as host=user@board"),
        (["--target-option", "host=board"], "are of no target; name it, such as --target ssh"),
        (["--target", "onnxruntime", "--host", "board"], "leave it out, or leave out --target onnxruntime"),
        (["--host", "a board"], "'a board' is no host"),
    ],
)
def test_mistakes_about_targets_are_one_line(cli, recipe_file, tmp_path, words, message):
    code, _, err = cli("tables", "build", "--recipe", recipe_file(), "--out", tmp_path / "t", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "t").exists()
