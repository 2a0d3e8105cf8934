"""Files that were made to do harm: one line each, in little time and memory, and nothing is read or written outside."""

import json
import multiprocessing
import os
import re
import resource
import shutil
import struct
import time

import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper
from safetensors.torch import save_file

from hwnas.errors import (
    CheckpointError,
    DeviceError,
    HwnasError,
    MeasurementError,
    RecipeError,
    ResumeError,
    TableError,
)
from hwnas.export.bundle import Bundle, load_model
from hwnas.latency.device import load_profile
from hwnas.latency.importers import read_values
from hwnas.latency.measure import precision_of
from hwnas.latency.table import load_device
from hwnas.runs.recipe import load_recipe
from hwnas.runs.start import open_run
from hwnas.train.checkpoint import load_supernet, load_tensors

LONGEST_S, MOST_MB = 2.0, 500


@pytest.fixture
def line():
    """Call a function in a process of its own; return its message, after looking at its processor time and memory."""

    def call(error, function, *arguments):
        reader, writer = multiprocessing.Pipe(duplex=False)
        child = os.fork()
        if child == 0:
            began = time.process_time()
            before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                function(*arguments)
                said = None, "nothing was raised"
            except BaseException as raised:
                said = type(raised).__name__, str(raised)
            more_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
            writer.send((*said, time.process_time() - began, more_mb))
            os._exit(0)
        writer.close()
        kind, message, took_s, more_mb = reader.recv()
        os.waitpid(child, 0)
        assert kind == error.__name__, message
        assert took_s < LONGEST_S
        assert more_mb < MOST_MB
        assert message.isprintable()
        assert len(message) < 1300
        return message

    return call


def bomb(levels=9, in_keys=False):
    """Aliases of aliases: 9 lines that stand for a thousand million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join([*lines, f"? *a{levels - 1}\n: 1" if in_keys else f"b: *a{levels - 1}"]) + "\n"


def merged(levels=30):
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


YAML = {
    "values": (bomb(), "more than 200,000 values"),
    "keys": (bomb(in_keys=True), "more than 200,000 values"),
    "short keys": (bomb(3, in_keys=True), "the key in line 3 is a sequence"),
    "merges": (merged(), "more than 200,000 values"),
    "deep": ("[" * 100_000, "nesting depth"),
    "deep mappings": ("{a: " * 100_000, "more than 32 levels"),
    "deep by indentation": ("\n".join(" " * i + "a:" for i in range(900)), "more than 32 levels"),
    "itself": ("a: &a [*a]", "stands before or inside what it stands for"),
    "large": ("a: 1\n" * 300_000, "more than 1,048,576"),
    "many": ("[" + "1," * 250_000 + "]", "more than 200,000 values"),
    "twice": ("name: a\ndata: {source: digits}\nname: b\n", "key 'name' stands twice, again in line 3"),
    "equal keys": ("name: a\n1: x\ntrue: y\n", "key 'true' stands twice"),
    "a huge number": ("name: " + "9" * 5000, "such"),
    "a hexagonal number": ("name: 0x" + "f" * 100_000, "name"),
    "another language": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "a date": ("name: 2026-13-45", "no YAML of this kind"),
}


@pytest.mark.parametrize("case", YAML)
def test_settings_in_yaml(case, line, tmp_path):
    text, part = YAML[case]
    path = tmp_path / "r.yaml"
    path.write_text(text)
    said = line(RecipeError, load_recipe, path)
    if case != "a huge number":
        assert part in said
    (tmp_path / "profile.yaml").write_text(text)
    line(DeviceError, load_profile, tmp_path)


@pytest.mark.parametrize("case", ["values", "keys", "merges", "deep", "deep mappings", "itself"])
def test_tables_of_others_in_yaml(case, line, tmp_path):
    (tmp_path / "t.yaml").write_text(YAML[case][0])
    assert YAML[case][1] in line(TableError, read_values, tmp_path / "t.yaml")


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 200_000, "[" * 40 + "]" * 40, '{"a": 1e999}', "[" + "9" * 5000 + "]"]
)
def test_tables_of_others_in_json(text, line, tmp_path):
    (tmp_path / "t.json").write_text(text)
    line(TableError, read_values, tmp_path / "t.json")


def test_a_value_is_shown_on_a_line_at_most(line, tmp_path, recipe_file, tiny_recipe):
    path = recipe_file(train={**tiny_recipe["train"], "batch_size": "x" * 100_000})
    said = line(RecipeError, load_recipe, path)
    assert "train.batch_size" in said
    assert len(said) < 600
    said = line(RecipeError, load_recipe, path, [f"train.batch_size={list(range(50_000))}"])
    assert len(said) < 600


# -- bundles and weights ----------------------------------------------------------------------------------


@pytest.fixture
def bundle(finished_run, tmp_path):
    source = next((finished_run / "devices" / "hexagon-dsp" / "models").iterdir())
    return shutil.copytree(source, tmp_path / source.name)


def changed(bundle, change):
    """Change ``arch.json``, without the seal that would tell."""
    values = json.loads((bundle / "arch.json").read_text())
    values.pop("sha256", None)
    change(values)
    (bundle / "arch.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"expand_width": 100_000_000}, "less than or equal to 65536"),
        ({"expand_width": 65_536, "feature_width": 65_536}, "of another network"),
        ({"classes": 10**6, "expand_width": 65_536}, "of another network"),
        ({"resolutions": [2**62]}, "less than or equal to 8192"),
        ({"stages": []}, "at least 1 item"),
        ({"width_multiplier": 1e300}, "less than or equal to 100"),
    ],
)
def test_a_bundle_that_asks_for_a_huge_network(bundle, line, settings, part):
    changed(bundle, lambda values: values["supernet"].update(settings))
    assert part in line(CheckpointError, load_model, bundle)


def test_a_bundle_of_bottomless_stages(bundle, line):
    changed(bundle, lambda values: values["supernet"]["stages"][0].update(depths=[1, 10**6]))
    assert "less than or equal to 128" in line(CheckpointError, load_model, bundle)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/../../x", "", "..", "a\0b", "..\\x"])
def test_names_in_a_bundle_are_no_ways_out(bundle, name):
    (bundle.parent / "x").write_text("outside")
    changed(bundle, lambda values: values.update(files={name: "0" * 64}))
    assert not Bundle(bundle).is_whole
    with pytest.raises(CheckpointError, match="is no name of a file in it"):
        Bundle(bundle).check()
    changed(bundle, lambda values: values.update(files=None, bytes={name: 7}))
    assert not Bundle(bundle).is_whole


def header(path, entries, data=b""):
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_a_header_of_100_000_tensors(line, tmp_path):
    path = tmp_path / "supernet.safetensors"
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header(path, {"__metadata__": {"hwnas": '{"format": "1"}'}, **{f"t{i}": entry for i in range(100_000)}})
    assert "it has 100,000 tensors, more than 50,000" in line(CheckpointError, load_supernet, path)


@pytest.mark.parametrize(
    "shape", [[2**62], [2**62, 4], [2**31, 2**31, 2**31], [2**64], [-1], [1e30], "x", [[[]]], [0, 2**62]]
)
def test_shapes_that_no_memory_holds(shape, line, tmp_path):
    path = tmp_path / "supernet.safetensors"
    header(path, {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}, b"\0" * 4)
    line(CheckpointError, load_tensors, path)


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 2**40, 10**8])
def test_a_header_that_is_longer_than_the_file(size, line, tmp_path):
    path = tmp_path / "supernet.safetensors"
    path.write_bytes(struct.pack("<Q", size) + b"{" * 100)
    assert "its header has" in line(CheckpointError, load_tensors, path)


def test_settings_of_a_supernet_that_its_tensors_do_not_fit(line, finished_run, tmp_path):
    with open(finished_run / "recipe.yaml") as file:
        supernet = {**yaml.safe_load(file)["supernet"], "expand_width": 65_536, "feature_width": 65_536}
    about = json.dumps({"format": "1", "supernet": supernet})
    save_file({"a": torch.zeros(3)}, tmp_path / "supernet.safetensors", {"hwnas": about})
    assert "is of another network" in line(CheckpointError, load_supernet, tmp_path)


# -- names are not paths ----------------------------------------------------------------------------------


@pytest.fixture
def copied(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "deep" / "er" / "run")


def unsealed(path, change):
    values = json.loads(path.read_text())
    values.pop("sha256", None)
    change(values)
    path.write_text(json.dumps(values))


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_a_key_in_a_front_names_no_other_folder(copied, tmp_path):
    device = copied / "devices" / "hexagon-dsp"
    unsealed(device / "search.json", lambda values: values.update(front_sha256=""))
    front = device / "front.csv"
    rows = front.read_text().splitlines()
    front.write_text("\n".join([rows[0], re.sub("^[0-9a-f]+", "../../../../x", rows[1]), *rows[2:]]) + "\n")
    before = everything(tmp_path)
    for verb in ("export", "report"):
        with pytest.raises(ResumeError, match=r"front\.csv is damaged: '\.\./\.\./\.\./\.\./x' is no key of a model"):
            getattr(open_run(copied), verb)()
    assert everything(tmp_path) == before


def test_files_of_finished_models_lie_in_the_run(copied):
    key = next((copied / "devices" / "hexagon-dsp" / "models").iterdir()).name
    model = {
        "key": key, "weights_version": "0" * 12, "file": "../../../x.safetensors", "parent": "", "settings": "s",
        "epochs": 1, "best_epoch": 1, "score_before": 1, "score": 2,
    }  # fmt: skip
    path = copied / "finished" / "a" / "models.json"
    path.parent.mkdir(parents=True)
    for change, part in (({}, "x.safetensors' is no name of a file"), ({"key": "../x", "file": "a/b"}, "no key of a")):
        path.write_text(json.dumps({"format": 1, "models": [model | change]}))
        with pytest.raises(ResumeError, match=part):
            open_run(copied).report()


def test_adapted_weights_lie_in_the_folder_of_their_device(copied):
    def adapt(values):
        one = {
            "folder": "../../../elsewhere", "weights_version": "0" * 12, "evaluations": 1, "frozen_stages": [],
            "score_before": None, "score_after": None,
        }  # fmt: skip
        values["searches"][0]["adapted"] = [one]

    unsealed(copied / "devices" / "hexagon-dsp" / "search.json", adapt)
    with pytest.raises(ResumeError, match=r"'\.\./\.\./\.\./elsewhere' is no name of a file"):
        open_run(copied).history("hexagon-dsp")


def test_digests_of_a_table_are_of_its_own_files(tmp_path):
    shutil.copytree(load_folder(), tmp_path / "mine")
    (tmp_path / "x").write_text("outside")
    (tmp_path / "mine" / "SHA256SUMS").write_text(f"{'0' * 64}  ../x\n")
    with pytest.raises(TableError, match=r"'\.\./x' is no name of a file in it"):
        load_device(tmp_path / "mine")


def load_folder():
    from hwnas.files import shipped_folder

    return shipped_folder("latency_tables") / "local-cpu"


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "", "a/../../b"])
def test_external_data_lies_beside_the_model(location, tmp_path):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [x], [tensor])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(MeasurementError, match="outside its folder; put them beside the model"):
        precision_of(tmp_path / "m.onnx")
    assert onnx.load(str(tmp_path / "m.onnx"), load_external_data=False).graph.name == "g"


# -- texts ------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(hwnas_command):
    return hwnas_command


def test_control_characters_of_a_title_do_not_reach_the_terminal(cli, tmp_path):
    values = yaml.safe_load((load_folder() / "profile.yaml").read_text())
    values |= {"name": "mine", "title": "nice\x1b]0;pwned\x07\x1b[31mred\u202e", "notes": ["\x1b[2Jgone"]}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "profile.yaml").write_text(yaml.safe_dump(values))
    code, out, _ = cli("devices", "show", tmp_path / "mine")
    assert code == 0
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\u202e" not in out
    assert r"nice\x1b]0;pwned\x07\x1b[31mred\u202e" in out


def test_control_characters_of_a_value_do_not_reach_the_terminal(cli, tmp_path):
    code, _, err = cli("run", "digits-mbv3", "train.batch_size='\x1b[31mred'", "--out", tmp_path / "\x1b[31mout")
    assert code == 2
    assert "\x1b" not in err


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "", " ", "-x", "user@-oProxyCommand=x", "a b", "a\nb", "a" * 300])
def test_a_host_is_no_option_of_ssh(host, cli, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"")
    code, _, err = cli("profile", tmp_path / "m.onnx", f"--host={host}")
    assert code == 2
    assert "is no host; give it as ssh takes it" in err
    assert len(err.splitlines()) == 1


def test_a_name_of_a_class_is_text_wherever_it_is_shown(bundle, tmp_path, make_net):
    from hwnas.export.card import model_card

    description = json.loads((bundle / "arch.json").read_text())
    description["classes"] = [
        "<script>alert(1)</script>",
        "a|b",
        "[x](javascript:y)",
        "line\nbreak\x1b[31m",
        "n_01",
        "`c`",
    ]
    card = model_card(description, {"device": "<img src=x>|"})
    assert "<script>" not in card.replace("\\<", "")
    assert r"\<script\>alert(1)\</script\>, a\|b, \[x\](javascript:y), line break\\x1b\[31m, n_01, \`c\`." in card
    assert r"| device | \<img src=x\>\| |" in card


def test_every_error_is_one_printable_line():
    error = HwnasError("a\n\nb\x1b[31m\t" + "c" * 10_000)
    assert str(error).startswith("a b\\x1b[31m ccc")
    assert len(str(error)) <= 1200
