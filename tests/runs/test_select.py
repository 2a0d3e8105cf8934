"""Which models does a selection mean? By hand on small fronts, and on those of a run."""

import json
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import HwnasError, OutputError, SearchError
from hwnas.files import free_folder
from hwnas.runs.front import Front, FrontModel, copy_bundle
from hwnas.runs.select import Selection
from hwnas.runs.start import open_run
from hwnas.task import Score

TOP1 = Score("top1_percent", "max", "top-1", "%")
DIRECTIONS = {"top1_percent": "max", "latency_ms": "min", "params": "min", "introspectability": "max"}


def model(key, top1, ms, params=10.0, intro=0.1, device="my-dsp", **more):
    values = {"top1_percent": top1, "latency_ms": ms, "params": params, "introspectability": intro, **more}
    return FrontModel(device, key, values, Path("nowhere"))


FRONT = Front(
    "my-dsp",
    (
        model("aa1", 80.0, 1.0, 50.0, 0.3), model("aa2", 90.0, 1.5, 40.0, 0.2), model("bb3", 91.0, 4.0, 10.0, 0.9),
        model("cc4", 99.0, 5.0, 60.0, 0.1),
    ),
    TOP1, DIRECTIONS,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("best", ["cc4"]), ("fastest", ["aa1"]), ("knee", ["aa2"]), ("all", ["aa1", "aa2", "bb3", "cc4"]),
        ("best:latency_ms<=4", ["bb3"]), ("best:my-dsp:latency_ms<=1.5", ["aa2"]), ("best:other:latency_ms<=1", []),
        ("fastest:top1_percent>=91", ["bb3"]), ("fastest:top1_percent>=91,params>=20", ["cc4"]),
        ("all:params<=40", ["aa2", "bb3"]), ("aa2", ["aa2"]), ("aa", ["aa1", "aa2"]), ("aa:params<=45", ["aa2"]),
        ("ff", []), ("least:params", ["bb3"]), ("most:introspectability", ["bb3"]),
        ("most:params:latency_ms<=4", ["aa1"]),
        # Places between worst and best in score and latency: aa1 (0, 1), cc4 (1, 0); aa2 (.53, .88), bb3 (.58, .25).
        ("weights:top1_percent=0,latency_ms=1", ["aa1"]),
        ("weights:top1_percent=1,latency_ms=0", ["cc4"]), ("weights:top1_percent=38,latency_ms=62", ["aa2"]),
        ("weights:top1_percent=7,latency_ms=3", ["bb3"]),
        ("weights:introspectability=1,params=1:latency_ms<=4", ["bb3"]),
        ("different:1", ["cc4"]), ("different:9", ["aa1", "aa2", "bb3", "cc4"]), (" best : latency_ms <= 4 ", ["bb3"]),
    ],
)  # fmt: skip
def test_rules_by_hand(text, keys):
    assert [m.key for m in FRONT.select(text)] == keys


def test_several_selections_are_one_front_in_its_order():
    chosen = FRONT.select("best", "fastest", "cc4")
    assert [m.key for m in chosen] == ["aa1", "cc4"]
    assert (chosen.device, chosen.score) == ("my-dsp", TOP1)
    assert [m.key for m in chosen.select("most:params")] == ["cc4"]


def test_different_ones_are_far_from_each_other_in_every_objective():
    # In score and latency alone, the first two are alike; in params they are not.
    front = Front(
        "d",
        (model("a1", 80.0, 1.0, 0.0), model("a2", 80.1, 1.01, 100.0), model("a3", 82.0, 1.2, 0.0)),
        TOP1,
        DIRECTIONS,
    )
    assert {"a2"} < {m.key for m in front.select("different:2")}
    plain = Front("d", front.models, TOP1)
    assert [m.key for m in plain.select("different:2")] == ["a1", "a3"]


def test_measured_latency_counts_where_it_is_known():
    front = Front(
        "d", (model("a1", 80.0, 1.0, measured_latency_ms=3.0), model("a2", 90.0, 2.0, measured_latency_ms=2.5)), TOP1
    )
    assert [m.key for m in front.select("fastest")] == ["a2"]
    assert [m.key for m in front.select("all:latency_ms<=2.9")] == ["a2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bst", "is unknown; give best, fastest"), ("", "is unknown"), ("Best", "is unknown"),
        ("best:latency", "is not of the form VALUE<=NUMBER"), ("best:latency_ms<=1ms", "no finite number"),
        ("best:latency_ms<=1,latency_ms>=2", "contradict"), ("least", "needs its argument, such as least:params"),
        ("least:latency_ms<=1", "needs its argument"), ("weights:", "needs its argument"),
        ("weights:top1_percent", "is no weight"), ("weights:top1_percent=-1", "is no weight"),
        ("weights:top1_percent=nan", "is no weight"), ("weights:top1_percent=0,params=0", "every weight is 0"),
        ("weights:top1_percent=1", "one weight alone"),
        ("different:0", "whole number"), ("different:x", "whole number"), ("different:-1", "whole number"),
        ("different:2.5", "whole number"),
    ],
)  # fmt: skip
def test_what_is_no_selection_is_said_in_one_line(text, words):
    with pytest.raises(SearchError) as caught:
        Selection.parse(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("best:latency_ms<=0.5", "no model of my-dsp keeps latency_ms<=0.5; the nearest has 1"),
        ("least:memory", "no value 'memory'"), ("best:memory<=1", "no value 'memory'"),
        ("weights:memory=1,params=1", "no value 'memory'"),
    ],
)  # fmt: skip
def test_what_a_front_does_not_have_is_said(text, words):
    with pytest.raises(SearchError, match=words.replace("<", "<").replace(".", r"\.")):
        FRONT.select(text)


def test_an_empty_front_has_nothing_to_choose():
    with pytest.raises(SearchError, match="is empty"):
        Front("d", (), TOP1).select("best")


@given(st.text(max_size=60))
def test_no_text_is_more_than_a_mistake(text):
    said = ""
    try:
        FRONT.select(text)
    except HwnasError as error:
        said = str(error)
    assert "\n" not in said


@given(st.data())
def test_a_choice_keeps_its_limits_and_is_the_best_that_does(data):
    values = data.draw(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=12))
    bound = data.draw(st.integers(1, 9))
    front = Front("d", tuple(model(f"{i:x}", float(a), float(ms)) for i, (a, ms) in enumerate(values)), TOP1)
    allowed = [m for m in front if m.latency_ms <= bound]
    if not allowed:
        with pytest.raises(SearchError):
            front.select(f"best:latency_ms<={bound}")
        return
    (chosen,) = front.select(f"best:latency_ms<={bound}")
    assert chosen in allowed
    assert chosen.values["top1_percent"] == max(m.values["top1_percent"] for m in allowed)


# -- in a run ----------------------------------------------------------------------------------------


@pytest.fixture
def copied(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def test_a_run_selects_on_its_devices(copied):
    run = open_run(copied)
    assert [m.device for m in run.select("knee")] == ["hexagon-dsp", "myriad-vpu"]
    (chosen,) = run.select("best:myriad-vpu:latency_ms<=1e9")
    assert chosen.device == "myriad-vpu"
    assert chosen == run.front("myriad-vpu").best()
    assert run.select("all", device="hexagon-dsp") == list(run.front("hexagon-dsp"))
    with pytest.raises(SearchError, match=r"chooses on edge-tpu; meant are hexagon-dsp, myriad-vpu"):
        run.select("best:edge-tpu:latency_ms<=1")


def test_why_a_model_is_not_on_a_front(copied):
    run = open_run(copied)
    front = run.front("hexagon-dsp")
    assert run.why_not(front[0].key, "hexagon-dsp").on_front
    with run.archive() as archive:
        others = [a.key for a in archive.archs() if a.key not in {m.key for m in front}]
    seen = set()
    for key in others:
        found = run.why_not(key, "hexagon-dsp")
        seen.add(bool(found.dominated_by))
        assert not found.on_front
        assert found.n_dominating >= len(found.dominated_by)
        for better in found.dominated_by:
            signs = {"top1_percent": 1, "introspectability": 1}
            gains = [signs.get(name, -1) * change for name, change in better.differences.items()]
            assert min(gains) >= 0
            assert max(gains) > 0
            assert better.on_front == (better.key in {m.key for m in front})
        if not found.dominated_by and found.values:
            assert "front_size" in found.reason
    assert True in seen
    fastest = front.fastest()
    run.search(devices=["hexagon-dsp"], limits=[f"latency_ms<={fastest.latency_ms * 1.001}"])
    slow = run.why_not(front[-1].key, "hexagon-dsp")
    assert slow.broken == (f"latency_ms<={fastest.latency_ms * 1.001:.12g}",)
    assert "does not keep" in slow.reason


def test_pareto_prints_fronts_choices_and_a_command_that_works(hwnas_command, copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = hwnas_command("pareto", "run")
    assert code == 0
    front = open_run(copied).front("hexagon-dsp")
    (line,) = [one for one in out.splitlines() if front.knee().key in one][:1]
    assert "knee" in line
    assert out.splitlines()[-1] == "next: hwnas export run --select knee --out chosen"
    code, out, _ = hwnas_command(*out.splitlines()[-1].split()[2:])
    assert code == 0
    assert (tmp_path / "chosen" / "hexagon-dsp" / front.knee().key / "model.onnx").is_file()
    code, out, _ = hwnas_command("pareto", "run", "--select", "different:2", "--device", "hexagon-dsp", "--json")
    found = json.loads(out)
    assert [c["key"] for c in found["choices"]["different:2"]] == [m.key for m in front.select("different:2")]
    assert [m["key"] for m in found["fronts"]["hexagon-dsp"]] == [m.key for m in front]


def test_pareto_says_why_not(hwnas_command, copied):
    key = open_run(copied).front("hexagon-dsp")[0].key
    code, out, _ = hwnas_command("pareto", copied, "--why-not", key, "--device", "hexagon-dsp")
    assert (code, out) == (0, f"{key} on hexagon-dsp: it is on the front of hexagon-dsp\n")
    code, _, err = hwnas_command("pareto", copied, "--why-not", "zzz")
    assert code == 2
    assert "no single model 'zzz'" in err


def test_several_are_exported_and_an_evaluated_one_by_its_key(copied, tmp_path):
    run = open_run(copied)
    front = run.front("hexagon-dsp")
    bundles = run.export(
        select=["best:hexagon-dsp:latency_ms<=1e9", "fastest:hexagon-dsp:latency_ms<=1e9"], out=tmp_path / "o"
    )
    assert {b.folder.name for b in bundles} == {front.best().key, front.fastest().key}
    assert {b.folder.parent for b in bundles} == {tmp_path / "o" / "hexagon-dsp"}
    with run.archive() as archive:
        other = next(
            a.key for a in archive.archs() if a.key not in {m.key for d in run.searched() for m in run.front(d)}
        )
    (bundle,) = run.export(select=[other[:10]], device="hexagon-dsp", out=tmp_path / "o")
    assert bundle.folder == tmp_path / "o" / "hexagon-dsp" / other
    with pytest.raises(SearchError, match="select and knee each choose"):
        run.export(select=["best"], knee=True)


def test_nothing_is_overwritten(copied, tmp_path):
    run = open_run(copied)
    (bundle,) = run.export(select=["fastest"], device="myriad-vpu", out=tmp_path)
    (again,) = run.export(select=["fastest"], device="myriad-vpu", out=tmp_path)
    assert again.folder == bundle.folder
    (better,) = run.export(select=["fastest"], device="myriad-vpu", out=tmp_path, int8=True)
    assert (better.folder / "model.int8.onnx").is_file()  # the same model with more files takes its place
    source = run.front("myriad-vpu").fastest().folder
    (source / "model.int8.onnx").unlink()
    copy_bundle(source, better.folder)
    assert (better.folder / "model.int8.onnx").is_file()  # with fewer it does not
    (better.folder / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(OutputError, match="other weights, which is not overwritten"):
        copy_bundle(source, better.folder)
    assert (better.folder / "weights.safetensors").read_bytes() == b"other"


def test_a_free_folder_is_beside_what_is_there(tmp_path):
    path = tmp_path / "a"
    assert free_folder(path) == path
    path.mkdir()
    assert free_folder(path) == path  # nothing is in it
    (path / "x").touch()
    assert free_folder(path) == tmp_path / "a-2"
    (tmp_path / "a-2").touch()
    assert free_folder(path) == tmp_path / "a-3"


@pytest.mark.slow
def test_fine_tuned_models_lie_beside_each_other(copied, tmp_path):
    run = open_run(copied)
    key = run.front("hexagon-dsp")[0].key
    _, first = run.finetune(key, epochs=0.1)
    _, second = run.finetune(key, epochs=0.2)
    assert first.folder == copied / "finetuned" / "hexagon-dsp" / key
    assert second.folder == copied / "finetuned" / "hexagon-dsp" / f"{key}-2"
    _, third = run.finetune(key, epochs=0.1, out=tmp_path / "tuned")
    assert third.folder == tmp_path / "tuned" / "hexagon-dsp" / key


def test_files_have_ordinary_modes(copied, tmp_path):
    run = open_run(copied)
    for folder in (copied / "devices", copied / "train"):
        for path in folder.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path
    for path in run.front("hexagon-dsp")[0].folder.iterdir():
        path.chmod(0o600)  # as older versions left them
    (bundle,) = run.export(select=["fastest"], device="hexagon-dsp", out=tmp_path / "o")
    assert {stat.S_IMODE(p.stat().st_mode) for p in bundle.folder.iterdir()} == {0o644}


def test_bundles_that_left_a_front_are_named(hwnas_command, copied, tmp_path):
    old = shutil.copytree(
        open_run(copied).front("hexagon-dsp")[0].folder, tmp_path / "o" / "hexagon-dsp" / "0123456789ab"
    )
    code, _, err = hwnas_command("export", copied, "--select", "knee", "--out", tmp_path / "o")
    assert code == 0
    assert f"warning: {old} is from before, and no longer on the front of hexagon-dsp" in err
    assert old.is_dir()


def test_pseudo_weights_by_hand():
    from hwnas.pareto import most_different, pseudo_weights

    losses = np.array([[0.0, 10.0], [1.0, 5.0], [2.0, 0.0]])
    np.testing.assert_allclose(pseudo_weights(losses), [[1, 0], [0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(pseudo_weights(np.array([[1.0, 1.0], [0.0, 0.0]])), [[0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_array_equal(
        most_different(np.array([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.5, 0.5]]), 3), [0, 2, 3]
    )
    np.testing.assert_array_equal(most_different(np.zeros((3, 2)), 3), [0, 1, 2])
