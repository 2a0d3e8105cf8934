"""The whole chain on real digits: every file, nothing twice, and the same fronts after any kill."""

import hashlib
import html
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import yaml
from run_files import Stop, rows_of

import hwnas
from hwnas.errors import DeviceError, RecipeError, ResumeError
from hwnas.export.onnx_check import run_onnx
from hwnas.export.onnx_facts import precision_of
from hwnas.latency.table import load_device
from hwnas.pareto import non_dominated
from hwnas.runs.analysis.summary import summarise
from hwnas.runs.folder import DeviceFolder
from hwnas.runs.history import read_history, write_history
from hwnas.runs.start import open_run
from hwnas.supernet import count_params

DEVICES = ("hexagon-dsp", "myriad-vpu")


def digests(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def fronts(folder):
    return {p.parent.name: p.read_bytes() for p in folder.glob("devices/*/front.csv")}


def asked_for(archive, device):
    return archive.requested(archive.searches(device))


# -- what a run leaves ----------------------------------------------------------------------------------


def test_every_file_is_there(finished_run):
    top = {p.name for p in finished_run.iterdir()}
    assert top >= {"recipe.yaml", "manifest.json", "train", "archive.db", "devices", "report.html", "fronts.png"}
    assert {p.name for p in (finished_run / "train").iterdir()} == {"supernet.safetensors", "metrics.jsonl"}
    assert {p.name for p in (finished_run / "devices").iterdir()} == set(DEVICES)
    assert not list(finished_run.rglob("*.partial"))


def test_no_pickle_is_anywhere(finished_run):
    for path in finished_run.rglob("*"):
        if path.is_file():
            assert path.suffix not in (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".tar"), path
            content = path.read_bytes()
            # Other files may begin with the same byte: those of safetensors with the length of their header.
            assert not (content.startswith(b"\x80") and content.endswith(b".")), path
            assert not content.startswith(b"PK"), path


@pytest.mark.parametrize("device", DEVICES)
def test_a_front_has_the_promised_columns_and_is_a_front(finished_run, device):
    rows = rows_of(finished_run, device)
    assert list(rows[0])[:6] == ["key", "top1_percent", "latency_ms", "params", "macs", "introspectability"]
    assert 1 <= len(rows) <= 4
    assert len({r["key"] for r in rows}) == len(rows)
    names = {"top1_percent": -1, "latency_ms": 1, "params": 1, "introspectability": -1}
    losses = np.array([[sign * float(r[name]) for name, sign in names.items()] for r in rows])
    assert non_dominated(losses).all()
    latencies = [float(r["latency_ms"]) for r in rows]
    assert latencies == sorted(latencies)


@pytest.mark.parametrize("device", DEVICES)
def test_every_number_of_a_front_is_what_the_model_says(finished_run, device):
    opened = open_run(finished_run)
    for row in rows_of(finished_run, device):
        folder = finished_run / "devices" / device / "models" / row["key"]
        net = hwnas.load_model(folder)
        with opened.archive() as archive:
            arch = archive.find(row["key"])
        metrics = json.loads((folder / "metrics.json").read_text())
        assert int(row["params"]) == count_params(net) == metrics["params"]
        assert int(row["macs"]) == metrics["macs"]
        assert float(row["latency_ms"]) == pytest.approx(
            load_device(device).estimate_ms(opened.layout.space.arch(arch.as_dict())), rel=1e-5
        )
        assert metrics["latency_origin"] == "modelled"
        in_8_bits = device == "hexagon-dsp"
        assert precision_of(folder / "model.onnx") == ("int8" if in_8_bits else "fp32")
        for split, name in (("validation", "top1"), ("test", "test_top1")):
            images = getattr(opened.splits, split)
            x = opened.context.trained_evaluator.inputs(images, arch)
            with torch.no_grad():
                top1 = 100 * float((net(x).argmax(1) == images.labels).double().mean())
            stored = run_onnx(folder / "model.onnx", x)
            in_file = 100 * float((stored.argmax(1) == images.labels).double().mean())
            assert metrics[f"{name}_percent"] == pytest.approx(in_file)
            assert metrics[f"{name}_fp32_percent" if in_8_bits else f"{name}_percent"] == pytest.approx(top1)
        assert ("top1_fp32_percent" in row) == in_8_bits
        if in_8_bits:
            assert float(row["top1_fp32_percent"]) == pytest.approx(metrics["top1_fp32_percent"], rel=1e-5)
            assert "hswish" in metrics["int8_computed_in_float"]
        assert float(row["top1_percent"]) == pytest.approx(metrics["top1_percent"], rel=1e-5)
        onnx.checker.check_model(onnx.load(folder / "model.onnx"), full_check=True)


def test_the_search_spent_its_budget_on_each_device_and_shared_its_evaluations(finished_run):
    opened = open_run(finished_run)
    with opened.archive() as archive:
        asked = {d: asked_for(archive, d) for d in DEVICES}
        assert all(len(archs) == 8 for archs in asked.values())
        assert {d: len(archive.searches(d)) for d in DEVICES} == dict.fromkeys(DEVICES, 1)
        known = [archive.values(a, opened.weights.trained, "validation") for archs in asked.values() for a in archs]
        n_evaluated = len(archive.archs())
    assert all(k.keys() == {"top1_percent", "top1_stderr_percent", "introspectability"} for k in known)
    first, second = (opened.history(d).last for d in DEVICES)
    assert (first.evaluations, first.known) == (8, 0)
    assert (second.evaluations, second.known) == (8, 8), "what one device has learnt the next one begins with"
    assert n_evaluated == len({a.key for archs in asked.values() for a in archs})


def test_the_test_split_is_used_for_exported_models_only(finished_run):
    opened = open_run(finished_run)
    exported = {r["key"] for d in DEVICES for r in rows_of(finished_run, d)}
    with opened.archive() as archive:
        tested = {a.key for a in archive.archs() if archive.values(a, opened.weights.trained, "test")}
    assert tested == exported


@pytest.mark.parametrize("device", DEVICES)
def test_the_predictor_is_judged_at_the_end_of_a_search(finished_run, device):
    opened = open_run(finished_run)
    last = opened.history(device).last
    found, known = last.predictor, last.known + last.evaluations
    assert set(found) == {"top1_percent", "introspectability"}
    summary = summarise(opened.context.folder, [opened.searched_device(d) for d in DEVICES])
    (listed,) = [d for d in summary["devices"] if d["device"] == device]
    page = html.unescape((finished_run / "report.html").read_text())
    for name, quality in found.items():
        assert (quality.archs, quality.folds) == (known, min(5, known // 2))
        assert -1 <= quality.metrics.kendall_tau <= 1
        assert math.isfinite(quality.metrics.rmse)
        assert listed["predictor"][name]["archs"] == known
        assert f"{name}: {quality}" in page


def test_the_manifest_says_where_numbers_come_from(finished_run):
    manifest = json.loads((finished_run / "manifest.json").read_text())
    assert manifest["seeds"] == {"train": 0, "search": 0, "data": 0}
    assert manifest["data"]["train"] == 150
    assert manifest["data"]["sha256"] == open_run(finished_run).splits.sha256
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0] or "+" in manifest["versions"]["torch"]
    assert manifest["values_hash"] == open_run(finished_run).recipe.values_hash()


def test_a_front_is_read_in_python(finished_run, tmp_path):
    front = open_run(finished_run).front("hexagon-dsp")
    assert [m.key for m in front] == [r["key"] for r in rows_of(finished_run, "hexagon-dsp")]
    bundle = front.knee().export(tmp_path / "out")
    assert (bundle.folder / "model.onnx").is_file()
    assert bundle.folder == tmp_path / "out" / "hexagon-dsp" / front.knee().key
    with pytest.raises(DeviceError, match=r"'edge-tpu' is not part of .*; it has hexagon-dsp, myriad-vpu; add it with"):
        open_run(finished_run).front("edge-tpu")


def test_a_device_that_was_not_searched_has_no_front(copied):
    (copied / "devices" / "myriad-vpu" / "front.csv").unlink()
    with pytest.raises(
        ResumeError, match=r"has no front of 'myriad-vpu'; it has \['hexagon-dsp'\]; search it with `hw"
    ):
        open_run(copied).front("myriad-vpu")


# -- going on -------------------------------------------------------------------------------------------


def test_a_second_start_computes_and_changes_nothing(copied, again):
    before, times = digests(copied), {p: p.stat().st_mtime_ns for p in copied.rglob("*") if p.is_file()}
    told = []
    again(copied, lambda task, *_: told.append(task))
    assert digests(copied) == before
    touched = {p.name for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert touched <= {"fronts.png"}  # drawn again, with the same content
    assert set(told) <= {f"export for {d}" for d in DEVICES}


def test_the_same_recipe_gives_the_same_fronts_and_weights(finished_run, again, tmp_path):
    again(tmp_path / "other")
    assert fronts(tmp_path / "other") == fronts(finished_run)
    weights = "train/supernet.safetensors"
    assert (tmp_path / "other" / weights).read_bytes() == (finished_run / weights).read_bytes()


def test_a_run_stopped_at_every_step_ends_with_the_same_fronts(finished_run, again, tmp_path):
    out = tmp_path / "stopped"
    for task, at in (
        ("train", 1), ("train", 13), ("train", 18), ("search for hexagon-dsp", 3), ("search for hexagon-dsp", 8),
        ("search for myriad-vpu", 5), ("export for hexagon-dsp", 2), ("export for myriad-vpu", 1),
    ):  # fmt: skip

        def progress(name, done, total, note="", task=task, at=at):
            if name == task and done == at:
                raise Stop

        with pytest.raises(Stop):
            again(out, progress)
    again(out)
    assert fronts(out) == fronts(finished_run)
    found, wanted = digests(out), digests(finished_run)
    assert found.keys() == wanted.keys()
    same = ("front.csv", ".safetensors", ".onnx", "/arch.json", "metrics.json", "metrics.jsonl", "recipe.yaml")
    for name, digest in wanted.items():
        assert found[name] == digest or not name.endswith(same), name


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_fronts(finished_run, again, recipe_file, killed_run, tmp_path):
    out = tmp_path / "killed"
    for at in ("train: 13", "search for myriad-vpu: 5"):
        killed_run(recipe_file(), out, at)
    again(out)
    assert fronts(out) == fronts(finished_run)


@pytest.mark.slow
def test_a_measured_device_joins_an_existing_run(copied, finished_run, again):
    told = []
    done = again(copied, lambda task, *_: told.append(task), devices=[*DEVICES, "local-cpu"])
    assert "train" not in told
    assert "search for hexagon-dsp" not in told
    timings = {"time blocks and networks for local-cpu", "time networks for local-cpu"}
    assert {*timings, "search for local-cpu"} <= set(told)
    for name in DEVICES:
        assert fronts(copied)[name] == fronts(finished_run)[name]
    assert (copied / "train" / "supernet.safetensors").read_bytes() == (
        finished_run / "train" / "supernet.safetensors"
    ).read_bytes()
    folder = copied / "devices" / "local-cpu"
    assert {"table", "refitted", "front.csv", "search.json", "search.yaml", "latency_check.json", "models"} == {
        p.name for p in folder.iterdir()
    }
    check = json.loads((folder / "latency_check.json").read_text())
    front = done.front("local-cpu")
    assert check["keys"] == [m.key for m in front]
    assert len(check["measured_ms"]) == len(front)
    for scale, name in ((check["machine_slowdown"], "mape_percent"), (1.0, "mape_percent_as_timed")):
        error = [abs(p * scale / m - 1) for p, m in zip(check["predicted_ms"], check["measured_ms"], strict=True)]
        assert check[name] == pytest.approx(100 * sum(error) / len(error), abs=0.05)
    # The loop is closed: the front is ranked by what was measured, the archive has both, the correction is refitted.
    at_table_speed = [m / check["machine_slowdown"] for m in check["measured_ms"]]
    assert [m.latency_ms for m in front] == pytest.approx(at_table_speed, rel=1e-3)
    assert at_table_speed == sorted(at_table_speed)
    assert {m.values["on_measured_front"] for m in front} <= {0.0, 1.0}
    with done.evaluations() as evaluations:
        arch = done.find(front[0].key, evaluations)
        kept = evaluations.archive.values(arch, done.weights.trained, "latency local-cpu")
    assert kept["measured_latency_ms"] == pytest.approx(front[0].latency_ms, rel=1e-5)
    assert kept["predicted_latency_ms"] == front[0].values["latency_ms"]
    assert check["mape_percent_refitted"] >= 0
    before_fit = load_device(folder / "table").profile.correction.n_networks
    assert load_device(folder / "refitted").profile.correction.n_networks == before_fit + len(front)
    metrics = json.loads((front[0].folder / "metrics.json").read_text())
    assert metrics["latency_origin"] == "measured"
    assert metrics["measured_latency"]["conditions"]["provider"] == "CPUExecutionProvider"
    before = digests(copied)
    again(copied, devices=[*DEVICES, "local-cpu"])
    assert digests(copied) == before


def test_a_modelled_device_joins_an_existing_run(copied, again):
    told = []
    again(copied, lambda task, *_: told.append(task), devices=[*DEVICES, "edge-tpu"])
    assert {"train", "search for hexagon-dsp", "search for myriad-vpu"}.isdisjoint(told)
    assert "search for edge-tpu" in told
    assert rows_of(copied, "edge-tpu")


def test_another_search_keeps_the_training_and_its_evaluations(copied, again):
    opened = open_run(copied)
    with opened.archive() as archive:
        before = {a.key for a in archive.archs()}
    told = []
    again(copied, lambda task, *_: told.append(task), search={"algorithm": "random", "evaluations": 5})
    assert "train" not in told
    with opened.archive() as archive:
        assert before < {a.key for a in archive.archs()}
        first, second = archive.searches("hexagon-dsp")
        assert [len(archive.requested([name])) for name in (first, second)] == [8, 5]
    records = open_run(copied).history("hexagon-dsp").searches
    # Evaluations of the other device are in another precision.
    assert [(r.search, r.evaluations, r.known) for r in records] == [(first, 8, 0), (second, 5, 8)]
    (_, second) = open_run(copied).history("myriad-vpu").searches
    assert second.known >= len(before)
    assert all(len(rows_of(copied, d)) <= 4 for d in DEVICES)


@pytest.mark.parametrize(("field", "searches"), [("notes", 0), ("source", 0), ("network_overhead_ms", 1)])
def test_what_a_profile_says_in_words_makes_no_other_search(field, searches, copied, again):
    """An older run, whose profile had other notes, is not searched again; one with other constants is."""
    folder = DeviceFolder(copied / "devices" / "hexagon-dsp")
    history = read_history(folder)
    (record,) = history.searches
    device = json.loads(json.dumps(record.settings["device"]))
    if field == "notes":
        device["notes"] = ["as an older version said it"]
    elif field == "source":
        device["cost_model"]["ops"]["conv"]["source"] = "as an older version said it"
    else:
        device["cost_model"][field] += 0.5
    name = "hexagon-dsp/0" if searches else record.search  # other settings had another name
    older = replace(record, search=name, settings={**record.settings, "device": device})
    write_history(folder, replace(history, searches=(older,)))
    before, told = digests(copied), []
    again(copied, lambda task, *_: told.append(task))
    assert len(open_run(copied).history("hexagon-dsp").searches) == 1 + searches
    assert ("search for hexagon-dsp" in told) == bool(searches)
    assert (digests(copied) == before) == (not searches)


def test_a_run_only_gains(copied, again):
    """The recipe stays what it was; limits and searches belong to a device; a front is chosen from everything known."""
    recipe, before = (copied / "recipe.yaml").read_bytes(), open_run(copied)
    again(copied, export={"front_size": 99})
    fronts_before = {d: open_run(copied).front(d) for d in DEVICES}
    opened = open_run(copied)
    limit = sorted(m.latency_ms for m in fronts_before["myriad-vpu"])[-2] * (1 + 1e-5)  # files have six digits
    opened.search(["myriad-vpu"], evaluations=5, limits=[f"myriad-vpu:latency_ms<={limit}"], searcher="random")
    opened = open_run(copied)
    assert (copied / "recipe.yaml").read_bytes() == recipe
    assert opened.recipe == before.recipe
    assert opened.settings("hexagon-dsp").constraints == ()
    own = opened.settings("myriad-vpu")
    assert own.constraints == (f"latency_ms<={limit:.12g}",)
    assert (own.search.algorithm, own.search.evaluations, own.front_size) == ("random", 5, 99)
    assert [m.key for m in opened.front("hexagon-dsp")] == [m.key for m in fronts_before["hexagon-dsp"]]
    front = opened.front("myriad-vpu")
    assert max(m.latency_ms for m in front) <= limit

    def losses(model):
        v = model.values
        return np.array([-v["top1_percent"], v["latency_ms"], v["params"], -v["introspectability"]])

    for old in fronts_before["myriad-vpu"].within(f"latency_ms<={limit}"):
        assert any((losses(new) <= losses(old)).all() for new in front), "nothing that was found is lost"
    # A later search without limits keeps those in force, and an empty list lifts them.
    opened.search(["myriad-vpu"])
    assert open_run(copied).settings("myriad-vpu") == own
    opened.search(["myriad-vpu"], limits=[])
    assert open_run(copied).settings("myriad-vpu").constraints == ()
    without = open_run(copied).front("myriad-vpu")
    for old in fronts_before["myriad-vpu"]:
        assert any((losses(new) <= losses(old) + 1e-5).all() for new in without), "what was found is back"


def test_other_sizes_of_a_front_need_no_search(copied, again):
    told = []
    again(copied, lambda task, *_: told.append(task), export={"front_size": 2})
    assert not any(task.startswith(("search", "train")) for task in told)
    for device in DEVICES:
        keys = {r["key"] for r in rows_of(copied, device)}
        assert len(keys) == 2
        assert {p.name for p in (copied / "devices" / device / "models").iterdir()} == keys, "others left the front"


def test_a_device_is_added_to_a_run_and_stays_when_its_folder_is_gone(copied, tmp_path):
    profile = load_device("edge-tpu").profile.model_copy(update={"name": "my-board"})
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "profile.yaml").write_text(yaml.safe_dump(profile.model_dump(mode="json")))
    before = fronts(copied)
    open_run(copied).search([str(tmp_path / "board")], evaluations=4)
    shutil.rmtree(tmp_path / "board")
    opened = open_run(copied)
    assert list(opened.devices) == [*DEVICES, "my-board"] == opened.searched()
    assert opened.devices["my-board"].profile == profile
    assert opened.history("my-board").last.known == 8, "of the other device in int8"
    opened.export()
    assert opened.report() == copied / "report.html"
    assert "my-board" in (copied / "report.html").read_text()
    opened.search(["my-board"])  # nothing is left to do, and the profile is found
    assert {d: fronts(copied)[d] for d in DEVICES} == before


def test_limits_on_devices_that_are_not_meant_are_named(copied):
    with pytest.raises(RecipeError, match=r"limits name \['edge-tpu'\]; devices here are hexagon-dsp, myriad-vpu"):
        open_run(copied).search(limits=["edge-tpu:latency_ms<=3"])


def test_models_are_chosen_and_copied(copied, tmp_path):
    opened = open_run(copied)
    fast = opened.export("hexagon-dsp", fastest=True, out=tmp_path / "chosen")
    assert [b.folder for b in fast] == [tmp_path / "chosen" / "hexagon-dsp" / opened.front("hexagon-dsp")[0].key]
    assert {p.name for p in (tmp_path / "chosen").iterdir()} == {"hexagon-dsp"}
    best = opened.export(best=True)
    assert [b.folder.parent.parent.name for b in best] == list(DEVICES)
    for bundle, device in zip(best, DEVICES, strict=True):
        top1 = max(float(r["top1_percent"]) for r in rows_of(copied, device))
        assert bundle.metrics["top1_percent"] == pytest.approx(top1, rel=1e-5)
    params = min(float(r["params"]) for r in rows_of(copied, "hexagon-dsp"))
    (small,) = opened.export("hexagon-dsp", limits=[f"params<={params}"], int8=True)
    assert small.metrics["params"] == params
    assert not (small.folder / "model.int8.onnx").exists(), "its model.onnx is that file"
    bundle = opened.export("myriad-vpu", fastest=True, int8=True)[0]
    assert precision_of(bundle.folder / "model.int8.onnx") == "int8"
    assert precision_of(bundle.folder / "model.onnx") == "fp32"
    assert bundle.metrics["onnx_parity_int8"] < 0.01


def test_a_model_off_the_front_is_exported_by_its_key(copied):
    opened = open_run(copied)
    fronts_have = {m.key for d in DEVICES for m in opened.front(d)}
    with opened.archive() as archive:
        arch = next(a for a in archive.archs() if a.key not in fronts_have)
    before = fronts(copied)
    (bundle,) = opened.export("myriad-vpu", key=arch.key[:10])
    assert bundle.folder == copied / "models" / "myriad-vpu" / arch.key
    assert bundle.metrics["key"] == arch.key
    assert fronts(copied) == before
