"""Model bundles: whole or not at all, rebuilt exactly, without a pickle anywhere."""

import copy
import json
import math
import re

import numpy as np
import onnx
import pytest
import torch

from hwnas.errors import CheckpointError, ExportError, OutputError
from hwnas.export import bundle as bundle_module
from hwnas.export.bundle import Bundle, load_model, write_bundle
from hwnas.export.onnx_file import to_onnx
from hwnas.supernet import calibrate_bn, count_params, extract_subnet

FILES = ["MODEL_CARD.md", "arch.json", "metrics.json", "model.onnx", "run_model.py", "weights.safetensors"]
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".tar")


@pytest.fixture
def model(make_net, images):
    """What `write_bundle` needs besides a folder."""
    net = make_net()
    arch = net.space.restrict({"resolution": [11]}).sample(np.random.default_rng(4), 1)[0]
    subnet = extract_subnet(net, arch)
    calibrate_bn(subnet, [images(9, 11, 5)])
    mean_std = ((0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.6, 0.7, 0.8, 0.9))
    names = [f"class {i}" for i in range(7)]
    return [subnet, arch, net.config, names, mean_std, {"top1_percent": 91.25, "params": 7}, images(8, 11)]


def test_a_bundle_has_every_file_and_nothing_else(model, tmp_path):
    made = write_bundle(tmp_path / "models" / "a", *model)
    assert made == Bundle(tmp_path / "models" / "a")
    assert sorted(p.name for p in made.folder.iterdir()) == FILES
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["a"]


def test_the_network_comes_back_bit_for_bit(model, images, tmp_path):
    subnet = model[0]
    found = load_model(write_bundle(tmp_path / "a", *model).folder)
    x = images(5, 11, 77)
    with torch.no_grad():
        assert torch.equal(found(x), subnet(x))
    assert not any(m.training for m in found.modules())
    assert count_params(found) == count_params(subnet)


def test_what_is_written_about_it(model, tmp_path):
    _, arch, config, names, (mean, std), _, _ = model
    made = write_bundle(tmp_path / "a", *model)
    described = made.arch_json
    assert described["key"] == arch.key
    assert described["choices"] == arch.as_dict()
    assert described["supernet"] == config.model_dump(mode="json")
    assert described["classes"] == names
    assert described["input"] == {
        "shape": [5, 11, 11],
        "mean": list(mean),
        "std": list(std),
        "range": [0.0, 1.0],
        "decoded_px": 11,
    }
    assert described["blocks"][0]["slot"] == "stem"
    metrics = made.metrics
    assert {k: metrics[k] for k in ("top1_percent", "params")} == {"top1_percent": 91.25, "params": 7}
    assert 0 <= metrics["onnx_parity"] <= 1e-4
    metadata = {p.key: p.value for p in onnx.load(made.folder / "model.onnx").metadata_props}
    assert json.loads(metadata["arch"]) == arch.as_dict()
    assert json.loads(metadata["mean"]) == list(mean)
    card = (made.folder / "MODEL_CARD.md").read_text()
    assert arch.key in card
    assert "| top1_percent | 91.25 |" in card
    assert "5 x 11 x 11" in card


def test_no_pickle_is_anywhere(model, tmp_path):
    made = write_bundle(tmp_path / "a", *model)
    for path in made.folder.rglob("*"):
        assert path.suffix not in PICKLES
        start = path.read_bytes()[:2]
        assert start[:1] != b"\x80", path  # the first byte of a pickle
        assert start != b"PK", path  # torch.save writes a zip


def test_an_existing_bundle_is_replaced(model, tmp_path):
    write_bundle(tmp_path / "a", *model)
    (tmp_path / "a" / "stale.txt").write_text("")
    model[5] = {"top1_percent": 50.0}
    assert write_bundle(tmp_path / "a", *model).metrics["top1_percent"] == 50.0
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == FILES


@pytest.mark.parametrize("failing", ["to_onnx", "verify_onnx", "save_tensors", "write_json", "_put_in_place"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_leaves_what_was_there(model, tmp_path, monkeypatch, failing, existing):
    if existing:
        write_bundle(tmp_path / "a", *model)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def fail(*args, **kwargs):
        raise OutputError("no space left on device")

    monkeypatch.setattr(bundle_module, failing, fail)
    with pytest.raises(OutputError, match="no space"):
        write_bundle(tmp_path / "a", *model)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == (["a"] if existing else [])


def test_a_network_of_another_arch_breaks_the_gate(model, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "to_onnx", lambda net, *rest: to_onnx(scaled(net), *rest))
    with pytest.raises(ExportError, match="differs from PyTorch"):
        write_bundle(tmp_path / "a", *model)
    assert list(tmp_path.iterdir()) == []


def scaled(net):
    net = copy.deepcopy(net)
    with torch.no_grad():
        net[-1].classifier.weight.mul_(1.01)
    return net


def test_a_metric_that_is_no_number_is_written_as_null(model, tmp_path):
    model[5] = {"top1_percent": 97.5, "introspectability": math.nan}
    metrics = write_bundle(tmp_path / "a", *model).metrics
    assert metrics["introspectability"] is None
    assert metrics["top1_percent"] == 97.5


def test_a_folder_that_cannot_be_written_is_named(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_bundle(tmp_path / "file" / "a", *model)


def test_a_folder_that_is_no_bundle_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"arch\.json does not exist; give a model folder"):
        load_model(tmp_path)


def spoil_json(folder):
    (folder / "arch.json").write_text("{")


def drop_choices(folder):
    values = json.loads((folder / "arch.json").read_text())
    del values["choices"]
    (folder / "arch.json").write_text(json.dumps(values))


def change_family(folder):
    values = json.loads((folder / "arch.json").read_text())
    values["supernet"]["family"] = "later"
    (folder / "arch.json").write_text(json.dumps(values))


def change_choice(folder):
    values = json.loads((folder / "arch.json").read_text())
    values["choices"]["resolution"] = 999
    (folder / "arch.json").write_text(json.dumps(values))


def cut_weights(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def drop_weights(folder):
    (folder / "weights.safetensors").unlink()


def not_an_object(folder):
    (folder / "arch.json").write_text("[1]")


@pytest.mark.parametrize(
    "spoil", [spoil_json, drop_choices, change_family, change_choice, cut_weights, drop_weights, not_an_object]
)
def test_a_damaged_bundle_names_its_file(model, tmp_path, spoil):
    write_bundle(tmp_path / "a", *model)
    spoil(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"arch\.json|weights\.safetensors"):
        load_model(tmp_path / "a")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_named_and_the_bundle_is_not_whole(model, name, how, tmp_path):
    made = write_bundle(tmp_path / "a", *model)
    made.check()
    path = made.folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(bytes(data) if how == "flipped" else bytes(data[:-9]))
    assert not made.is_whole
    with pytest.raises(CheckpointError, match=re.escape(name)):
        made.check()
    if name != "arch.json" or how == "flipped":
        write_bundle(made.folder, *model)
        assert made.is_whole


def test_a_damaged_bundle_is_neither_timed_nor_handed_over(model, tmp_path):
    from hwnas.latency.profile import profile
    from hwnas.runs.front import FrontModel

    made = write_bundle(tmp_path / "a", *model)
    data = bytearray((made.folder / "model.onnx").read_bytes())
    data[-100] ^= 1
    (made.folder / "model.onnx").write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"model\.onnx is not as it was written"):
        profile(made.folder)
    with pytest.raises(CheckpointError, match=r"model\.onnx is not as it was written"):
        FrontModel("cpu", made.arch_json["key"], {}, made.folder).export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundle_of_an_older_version_is_judged_by_the_sizes_of_its_files(model, tmp_path):
    made = write_bundle(tmp_path / "a", *model)
    values = made.arch_json
    del values["files"]
    (made.folder / "arch.json").write_text(json.dumps(values))
    assert made.is_whole
    with (made.folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert not made.is_whole
