"""The command line: every mistake is one line and exit code 2, JSON is JSON, help is quick to import."""

import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from torch import nn

import hwnas
from hwnas.export.onnx_file import to_onnx
from hwnas.latency.table import load_device
from hwnas.runs.start import open_run
from hwnas.train.checkpoint import save_supernet

COMMANDS = [
    "quickstart", "run", "train", "search", "export", "finetune", "profile", "tables", "devices", "report", "doctor",
    "fleet", "bench", "plugins", "import-ofa", "data",
]  # fmt: skip


@pytest.fixture
def cli(hwnas_command):
    """Call ``hwnas`` with arguments; return exit code, standard output and lines of standard error."""

    def call(*arguments):
        code, out, err = hwnas_command(*arguments)
        return code, out, err.splitlines()

    return call


@pytest.fixture
def copied(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture
def mistake(cli):
    """Call ``hwnas``, expect exit code 2 and one line on standard error, and return the line."""

    def call(*arguments):
        code, out, lines = cli(*arguments)
        assert code == 2, (out, lines)
        assert len(lines) == 1, lines
        assert out == ""
        assert lines[0].startswith("error: ")
        return lines[0]

    return call


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- mistakes before anything is computed -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train.batchsize=3"], ["unknown key 'train.batchsize'", "did you mean 'batch_size'"]),
        (["train.batch_size=few"], ["train.batch_size", "got 'few'"]),
        (["--devices", "hexagon-dps"], ["device 'hexagon-dps' is unknown", "hexagon-dsp", "profile.yaml"]),
        (
            ["objectives=[accuracy]"],
            ["objectives: objective 'accuracy' is unknown", "known are top1_percent, latency_ms"],
        ),
        (["search.algorithm=magic"], ["'magic' is unknown", "nsga2"]),
        (["constraints=[energy_mj<=3]"], ["constraints: objective 'energy_mj' is unknown", "known are top1_percent"]),
        (["train.phases.1.elastic.resolution=[99]"], ["'all'", "resolution=[99]", "[8, 10]"]),
        (["train.phases.1.elastic.kernel=all"], ["unknown fields ['kernel']", "kernel_size"]),
        (["data.source=npz"], ["data source 'npz' needs data.path"]),
        (["data.source=npz", "data.path=none.npz"], ["data.path 'none.npz' does not exist"]),
        (["supernet.classes=9"], ["labels from 0 to 9", "supernet.classes=10"]),
        (["data.max_images=0"], ["data.max_images", "got 0"]),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line_and_writes_nothing(mistake, recipe_file, tmp_path, arguments, parts):
    line = mistake("run", recipe_file(), *arguments, "--out", tmp_path / "out")
    for part in parts:
        assert part in line
    assert not (tmp_path / "out").exists()


def test_an_unknown_recipe_is_one_line(mistake, tmp_path):
    assert "shipped are" in mistake("run", "digits-mbv9", "--out", tmp_path / "out")
    assert "is neither a .yaml file" in mistake("train", tmp_path / "none", "--out", tmp_path / "out")
    (tmp_path / "nine.yaml").write_text("")
    line = mistake("train", tmp_path / "mine.yaml", "--out", tmp_path / "out")
    assert f"there is no file '{tmp_path / 'mine.yaml'}'; did you mean 'nine.yaml'?" in line


def test_a_mistake_in_an_override_is_not_blamed_on_the_file(mistake, recipe_file):
    path = recipe_file()
    line = mistake("recipe", path, "serach.x=1")
    assert line.startswith("error: override 'serach.x=1': unknown key 'serach'")
    line = mistake("recipe", path, "name=other", "search.evaluations=-1", "finish.models=1")
    assert line.startswith("error: override 'search.evaluations=-1': search.evaluations: ")
    path.write_text(path.read_text().replace("search", "serach"))
    assert mistake("recipe", path, "name=other").startswith(f"error: {path}: ")


def picture(path, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)


@pytest.mark.parametrize("kind", ["empty", "one class", "broken"])
def test_an_image_folder_that_cannot_be_used_is_one_line(mistake, recipe_file, tiny_recipe, tmp_path, rng, kind):
    root = tmp_path / "pictures"
    root.mkdir()
    expected = "has no training images"
    if kind != "empty":
        for i in range(9):
            picture(root / "ant" / f"{i}.png", rng)
        expected = "has one class only"
    if kind == "broken":
        for i in range(9):
            picture(root / "bee" / f"{i}.png", rng)
        (root / "bee" / "7.png").write_bytes(b"\x89PNG cut short")
        expected = f"cannot read image {root / 'bee' / '7.png'}"
    net = {**tiny_recipe["supernet"], "in_channels": 3, "classes": 2}
    recipe = recipe_file(data={"source": "folder", "path": str(root)}, supernet=net)
    assert expected in mistake("run", recipe, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_that_lacks_a_block_is_one_line(mistake, recipe_file, tmp_path):
    folder = tmp_path / "my-board"
    folder.mkdir()
    profile = load_device("local-cpu").profile.model_copy(update={"name": "my-board"})
    (folder / "profile.yaml").write_text(yaml.safe_dump(profile.model_dump(mode="json")))
    (folder / "blocks.csv").write_text("kind,in_channels,n,median_ms,iqr_ms,origin\nconv,5,9,0.5,0.1,measured\n")
    line = mistake("run", recipe_file(), "--devices", folder, "--out", tmp_path / "out")
    assert "device 'my-board' has no time for block [conv act=" in line
    assert "`hwnas " in line
    assert not (tmp_path / "out").exists()


def test_a_run_folder_that_cannot_be_written_is_one_line(mistake, recipe_file, tmp_path):
    (tmp_path / "file").write_text("")
    line = mistake("run", recipe_file(), "--out", tmp_path / "file" / "out")
    assert f"cannot create folder {tmp_path / 'file' / 'out'}" in line
    assert "--out" in line


def test_no_space_is_one_line_and_leaves_earlier_results(mistake, cli, recipe_file, copied, monkeypatch):
    before = files(copied)

    def replace(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", replace)
    line = mistake("run", recipe_file(), "--devices", "edge-tpu", "--json", "--out", copied)
    assert "No space left on device; free space" in line
    after = files(copied)
    kept = ("archive.db", "archive.db.sha256", "progress.jsonl")
    assert {p: c for p, c in after.items() if p.name not in kept} == {
        p: c for p, c in before.items() if p.name not in kept
    }
    monkeypatch.undo()
    opened = open_run(copied)
    with opened.archive() as archive:
        n_evaluated = len(archive.archs())
        assert len(archive.searches("edge-tpu")) == 1, "what was evaluated before the end is kept"
    assert cli("run", recipe_file(), "--devices", "edge-tpu", "--json", "--out", copied)[0] == 0
    with opened.archive() as archive:
        assert len(archive.archs()) == n_evaluated


def test_a_folder_of_another_recipe_is_one_line_and_left_alone(mistake, recipe_file, tiny_recipe, copied):
    before = files(copied)
    other = recipe_file(train={**tiny_recipe["train"], "batch_size": 31})
    assert "other settings of train; use another --out" in mistake("run", other, "--out", copied)
    assert files(copied) == before


def test_a_checkpoint_of_another_network_is_one_line(mistake, copied, make_net):
    save_supernet(make_net(), copied / "train")
    shutil.rmtree(copied / "devices")
    line = mistake("search", copied, "--json")
    assert "supernet.safetensors" in line
    assert "other settings" in line or "another network" in line


def test_a_damaged_checkpoint_is_one_line(mistake, recipe_file, copied):
    path = copied / "train" / "supernet.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    line = mistake("run", recipe_file(), "--out", copied)
    assert "supernet.safetensors cannot be read" in line
    assert "damaged" in line


def test_a_damaged_archive_is_one_line(mistake, recipe_file, copied):
    (copied / "archive.db").write_bytes(b"no database at all" * 99)
    assert "archive.db is damaged" in mistake("run", recipe_file(), "--json", "--out", copied)


def test_a_damaged_recipe_of_a_run_is_one_line(mistake, copied):
    (copied / "recipe.yaml").write_text("name: [")
    assert "recipe.yaml: cannot be read as YAML" in mistake("report", copied)


@pytest.mark.parametrize("command", [["search"], ["export"], ["report"], ["finetune"]])
def test_a_folder_that_is_no_run_is_one_line(mistake, tmp_path, command):
    more = ["abc"] if command == ["finetune"] else []
    assert "has no recipe.yaml; make one with `hwnas run RECIPE`" in mistake(*command, tmp_path, *more)


def test_a_search_before_training_is_one_line(mistake, recipe_file, tmp_path, copied):
    shutil.rmtree(copied / "train")
    assert "train first" in mistake("search", copied, "--json")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["export", "--device", "edge-tpu"], "device 'edge-tpu' is not part of"),
        (["export", "--key", "zzz"], "no single model 'zzz'"),
        (
            ["export", "--limit", "top1_percent>=101"],
            "no model of hexagon-dsp keeps top1_percent>=101; the nearest has",
        ),
        (["export", "--limit", "size_px<=3"], "models of hexagon-dsp have no value 'size_px'; they have top1_percent,"),
        (["export", "--limit", "latency_ms<5"], "'latency_ms<5' is not of the form VALUE<=NUMBER"),
        (["search", "--limit", "latency_ms<=1", "--limit", "latency_ms>=2"], "contradict each other"),
        (["search", "--limit", "edge-tpu:latency_ms<=1"], "limits name ['edge-tpu']; devices here are hexagon-dsp,"),
        (["search", "--budget", "soon"], "budget 'soon' is not a time with a unit"),
        (["search", "--executor", "nobody"], "executor 'nobody' is unknown; known are this-process"),
        (["fleet", "--models", "0"], "serves nobody; give --models 1 or more"),
        (["finetune", "zzz"], "no single model 'zzz'"),
        (["finetune", "0", "--device", "edge-tpu"], "device 'edge-tpu' is not part of"),
        (["search", "--searcher", "magic"], "'magic' is unknown; "),
        (["search", "--evaluations", "0"], "search: evaluations: Input should be greater than or equal to 1, got 0"),
        (["search", "--devices", "toaster"], "device 'toaster' is unknown"),
        (["finetune", "0", "--epochs", "-1"], "epochs"),
    ],
)
def test_a_mistake_about_a_finished_run_is_one_line(mistake, copied, arguments, part):
    command, *rest = arguments
    before = files(copied)
    assert part in mistake(command, copied, *rest, "--json")
    assert files(copied) == before


def test_mistakes_about_devices_and_models_are_one_line(mistake, tmp_path):
    assert "device 'toaster' is unknown; shipped devices are" in mistake("devices", "show", "toaster")
    assert "does not exist; give an .onnx file" in mistake("profile", tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    assert "does not load as ONNX" in mistake("profile", tmp_path / "broken.onnx")
    to_onnx(nn.Sequential(nn.Conv2d(3, 2, 1)), 3, 5, tmp_path / "a.onnx")
    line = mistake("profile", tmp_path / "a.onnx", "--provider", "QNNExecutionProvider")
    assert "provider 'QNNExecutionProvider' is not in this onnxruntime" in line


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["run"], ["fly"], ["profile", "x.onnx", "--threads", "0"]])
def test_wrong_usage_has_exit_code_2_and_no_traceback(cli, arguments):
    code, out, lines = cli(*arguments)
    assert code == 2
    assert "Traceback" not in out + "".join(lines)


def test_an_interruption_says_how_to_go_on(cli, recipe_file, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("hwnas.runs.run.train_supernet", stop)
    code, _, lines = cli("run", recipe_file(), "--out", tmp_path / "out")
    assert code == 130
    assert lines[-1] == "stopped; the same command continues where it stopped"


# -- what works -----------------------------------------------------------------------------------------


def test_a_run_as_json(cli, recipe_file, copied):
    code, out, lines = cli("run", recipe_file(), "--json", "--out", copied)
    assert (code, lines) == (0, [])
    found = json.loads(out)
    assert [d["device"] for d in found["devices"]] == ["hexagon-dsp", "myriad-vpu"]
    assert found["report"] == str(copied / "report.html")
    assert all(1 <= d["models"] <= 4 for d in found["devices"])


def test_a_run_as_text(cli, recipe_file, copied):
    code, out, lines = cli("run", recipe_file(), "--out", copied)
    assert code == 0
    assert "hexagon-dsp" in out
    assert re.search(r"tau -?[01]\.\d\d ± [01]\.\d\d on 8$", out, re.MULTILINE)
    assert f"report: {copied / 'report.html'}" in out.splitlines()
    assert out.splitlines()[-1] == f"next: hwnas pareto {copied}"
    assert not any("\x1b" in line for line in lines), "no colours where there is no terminal"


def test_train_then_search_then_export(cli, recipe_file, tmp_path):
    out = tmp_path / "steps"
    code, text, lines = cli("train", recipe_file(), "--out", out)
    assert code == 0
    assert f"next: hwnas search {out}" in text
    assert any(line.startswith("train: ") for line in lines)
    code, text, _ = cli("search", out, "--devices", "edge-tpu", "--evaluations", "5", "--searcher", "random", "--json")
    assert code == 0
    assert list(json.loads(text)["fronts"]) == ["edge-tpu"]
    before = json.loads(text)
    code, text, _ = cli("search", out, "--devices", "edge-tpu", "--json")
    assert (code, json.loads(text)) == (0, before), "what is not given is as it was, and nothing is left to do"
    code, text, _ = cli("export", out, "--knee", "--out", tmp_path / "best", "--json")
    assert code == 0
    (bundle,) = json.loads(text)["bundles"]
    assert (tmp_path / "best" / "edge-tpu").samefile(os.path.dirname(bundle))
    assert os.path.isfile(os.path.join(bundle, "model.onnx"))
    code, _, lines = cli("search", out, "--devices", "snapdragon-8-elite-fp16", "--evaluations", "5")
    assert code == 0
    assert any("snapdragon" in line and "judged by" in line for line in lines), "it was never judged by so small ones"


def test_a_model_by_the_beginning_of_its_key(cli, copied, tmp_path):
    key = sorted(p.name for p in (copied / "devices" / "hexagon-dsp" / "models").iterdir())[0]
    code, out, _ = cli("export", copied, "--key", key[:9], "--device", "hexagon-dsp", "--json")
    assert code == 0
    assert json.loads(out)["bundles"] == [str(copied / "devices" / "hexagon-dsp" / "models" / key)]


def test_fine_tuning_as_json(cli, copied):
    key = next((copied / "devices" / "hexagon-dsp" / "models").iterdir()).name
    code, out, _ = cli("finetune", copied, key[:9], "--epochs", "1", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["precision"] == "int8"
    assert found["top1_fp32_percent"] >= found["top1_before_fp32_percent"], "it was chosen in float"
    assert os.path.isfile(os.path.join(found["bundle"], "weights.safetensors"))
    metrics = json.loads(Path(found["bundle"], "metrics.json").read_text())
    assert {k: v for k, v in found.items() if k != "bundle"}.items() <= metrics.items()


def test_fine_tuning_says_in_which_number_format_a_score_is(cli, copied):
    key = next((copied / "devices" / "hexagon-dsp" / "models").iterdir()).name
    code, out, _ = cli("finetune", copied, key, "--epochs", "1", "--device", "hexagon-dsp")
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()[:2]] == [
        "validation top-1 in int8", "validation top-1 in fp32",
    ]  # fmt: skip
    key = next((copied / "devices" / "myriad-vpu" / "models").iterdir()).name
    code, out, _ = cli("finetune", copied, key, "--epochs", "1", "--device", "myriad-vpu")
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()[:1]] == ["validation top-1 in fp32"]
    assert "int8" not in out


def test_devices_as_json_and_as_text(cli):
    code, out, _ = cli("devices", "--json")
    assert code == 0
    found = {d["name"]: d for d in json.loads(out)}
    assert found["hexagon-dsp"]["origin"] == "modelled"
    code, out, _ = cli("devices")
    assert code == 0
    assert len(out.splitlines()) == len(found) + 3
    code, out, _ = cli("devices", "show", "myriad-vpu", "--json")
    assert code == 0
    assert json.loads(out)["cost_model"]["ops"]
    code, out, _ = cli("devices", "show", "myriad-vpu")
    assert code == 0
    assert out.startswith("myriad-vpu: ")


def test_a_profile_as_json(cli, tmp_path):
    to_onnx(nn.Sequential(nn.Conv2d(3, 2, 1)), 3, 5, tmp_path / "a.onnx")
    code, out, _ = cli(
        "profile", tmp_path / "a.onnx", "--batch-size", "3", "--session-time", "0.01", "--time-limit", "0", "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert found["conditions"]["batch_size"] == 3
    assert found["median_ms"] > 0


def test_a_report_is_written_again(cli, copied):
    (copied / "report.html").unlink()
    code, out, _ = cli("report", copied, "--json")
    assert code == 0
    assert json.loads(out) == {"report": str(copied / "report.html")}
    assert (copied / "report.html").is_file()


def test_one_model_a_device_is_chosen_quantised_and_copied(cli, copied, tmp_path):
    for rule, column, better in (("--fastest", "latency_ms", min), ("--best", "top1_percent", max)):
        code, out, _ = cli("export", copied, rule, "--int8", "--out", tmp_path / rule, "--json")
        assert code == 0
        folders = [Path(f) for f in json.loads(out)["bundles"]]
        assert [f.parent.name for f in folders] == ["hexagon-dsp", "myriad-vpu"]
        for folder in folders:
            assert folder.parent.parent == tmp_path / rule
            # The file of an int8 device is the quantised one.
            assert (folder / "model.int8.onnx").is_file() == (folder.parent.name == "myriad-vpu")
            with (copied / "devices" / folder.parent.name / "front.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            wanted = better(rows, key=lambda r, column=column: float(r[column]))
            assert folder.name == wanted["key"]


def test_the_version_is_said(cli):
    assert cli("--version") == (0, f"hwnas {hwnas.__version__}\n", [])


def test_plugins_of_every_kind_are_listed(cli):
    code, out, _ = cli("plugins", "--json")
    assert code == 0
    found = json.loads(out)
    assert found == hwnas.plugins()
    for kind, name in (
        ("objective", "latency_ms"), ("target", "onnxruntime"), ("source", "digits"), ("task", "classification"),
        ("family", "mbv3"), ("searcher", "hurricane"), ("predictor", "gp_groups"), ("executor", "this-process"),
    ):  # fmt: skip
        assert name in found[kind], kind
    code, out, _ = cli("plugins")
    assert code == 0
    for kind, names in found.items():
        assert re.search(rf"^{kind} +{', '.join(names)}$", out, re.MULTILINE), kind


def test_help_names_every_command_and_imports_no_torch():
    code = """
import sys
sys.argv = ["hwnas", "--help"]
from hwnas.cli import main
try:
    main()
finally:
    slow = sorted({"torch", "onnx", "onnxruntime", "sklearn", "pymoo", "plotly", "matplotlib"} & set(sys.modules))
    assert not slow, slow
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


def test_the_module_is_a_program(tmp_path):
    command = [sys.executable, "-m", "hwnas", "run", "nothing", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: recipe 'nothing' is neither")


@pytest.mark.parametrize("command", ["run", "plan"])
def test_without_a_device_nothing_begins(command, hwnas_command, recipe_file, tmp_path):
    for recipe, given in ((recipe_file(), ["--devices", " , "]), (recipe_file(devices=[]), [])):
        out = ["--out", tmp_path / "run"] if command == "run" else []
        code, _, err = hwnas_command(command, recipe, *given, *out)
        assert code == 2
        assert "no device is given; name at least one" in err
        assert not (tmp_path / "run").exists()


def test_a_search_of_no_device_is_refused(hwnas_command, finished_run):
    code, _, err = hwnas_command("search", finished_run, "--devices", "")
    assert code == 2
    assert "no device is given; name at least one" in err
