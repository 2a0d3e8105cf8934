"""A run only gains: another device, more evaluations or another limit add to what is there, and change nothing else."""

import hashlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from run_files import Stop

from hwnas.archive import Archive
from hwnas.errors import OutputError, RecipeError, ResumeError, SearchError
from hwnas.export.bundle import Bundle
from hwnas.export.onnx_facts import precision_of
from hwnas.latency.table import load_device
from hwnas.pareto import non_dominated
from hwnas.runs.start import open_run, run

DEVICES = ("hexagon-dsp", "myriad-vpu")
NEW = "edge-tpu"


def digests(folder, without=()):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not any(str(p.relative_to(folder)).startswith(w) for w in without)
    }


def changing(folder):
    """Files of a run that a further device may change: those about all devices."""
    return digests(
        folder, without=("archive.db", "report.html", "fronts.png", "progress.jsonl", ".lock", f"devices/{NEW}")
    )


@pytest.fixture
def params_limit(finished_run):
    """A limit that about half of the archs of the front keep."""
    front = open_run(finished_run).front(DEVICES[0])
    return f"{NEW}:params<={sorted(m.values['params'] for m in front)[len(front) // 2]:.0f}"


# -- another device ---------------------------------------------------------------------------------------


def test_a_device_that_is_added_leaves_the_others_as_they_are(copied, params_limit):
    before = changing(copied)
    opened = open_run(copied)
    with opened.evaluations() as evaluations:  # of its own precision
        known = len(evaluations.in_precision("int8").evaluated(opened.weights.trained, ["top1_percent"]))
    open_run(copied).search(devices=[NEW], limits=[params_limit])
    assert changing(copied) == before, "recipe.yaml and the other devices' files stay"
    opened = open_run(copied)
    assert list(opened.devices) == [*DEVICES, NEW]
    assert opened.searched() == [*DEVICES, NEW]
    (record,) = opened.history(NEW).searches
    assert record.known == known > 0, "it begins with everything that was evaluated"
    assert opened.settings(NEW).constraints == (params_limit.removeprefix(f"{NEW}:"),)
    assert all(opened.settings(d).constraints == () for d in DEVICES)
    bound = float(params_limit.rpartition("=")[2])
    assert all(m.values["params"] <= bound for m in opened.front(NEW))

    opened.export()
    assert all((m.folder / "model.onnx").exists() for m in opened.front(NEW))
    page = opened.report().read_text()
    assert all(f'id="{d}"' in page for d in (*DEVICES, NEW))
    assert [d.device for d in opened.fleet(2).devices] == [*DEVICES, NEW]


def test_its_settings_stay_in_force_until_others_are_given(copied, params_limit):
    open_run(copied).search(devices=[NEW], limits=[params_limit], evaluations=5)
    before = digests(copied)
    open_run(copied).search(devices=[NEW])
    assert digests(copied) == before, "nothing new was asked"
    open_run(copied).search(devices=[NEW], limits=[])
    assert open_run(copied).settings(NEW).constraints == ()
    assert open_run(copied).settings(NEW).search.evaluations == 5
    assert len(open_run(copied).history(NEW).searches) == 2


def stopping(at):
    def progress(task, done, total, note=""):
        if (task, done) == at:
            raise Stop

    return progress


@pytest.mark.parametrize("at", [(f"search for {NEW}", 1), (f"search for {NEW}", 6), (f"export for {NEW}", 1)])
def test_an_addition_that_is_stopped_ends_with_the_same_files(copied, params_limit, tmp_path, at):
    other = shutil.copytree(copied, tmp_path / "stopped")

    def add(folder, progress=None):
        opened = open_run(folder) if progress is None else open_run(folder, progress)
        opened.search(devices=[NEW], limits=[params_limit])
        opened.export()

    add(copied)
    with pytest.raises(Stop):
        add(other, stopping(at))
    add(other)
    same = ("front.csv", ".onnx", ".safetensors", "/arch.json", "metrics.json", "search.yaml", "recipe.yaml")
    found, wanted = digests(other), digests(copied)
    assert found.keys() == wanted.keys()
    assert [n for n in wanted if n.endswith(same) and found[n] != wanted[n]] == []


def test_a_device_of_ones_own_is_kept_in_the_run(copied, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere" / "my-board"
    folder.mkdir(parents=True)
    profile = load_device("edge-tpu").profile.model_copy(update={"name": "my-board"})
    (folder / "profile.yaml").write_text(profile.model_dump_json())
    monkeypatch.chdir(folder.parent)
    open_run(copied).search(devices=["my-board"], evaluations=4)
    before = open_run(copied).front("my-board")
    shutil.rmtree(folder)
    again = open_run(copied)
    assert list(again.devices) == [*DEVICES, "my-board"]
    assert again.front("my-board") == before
    assert again.export(device="my-board")


# -- more evaluations -------------------------------------------------------------------------------------


def losses(front, names):
    sign = {"top1_percent": -1.0, "introspectability": -1.0}
    return np.array([[sign.get(n, 1.0) * m.values[n] for n in names] for m in front])


def assert_no_model_was_lost(before, after, names):
    """Every model of the earlier front is on the later one, or beaten by one of it."""
    together = np.concatenate([losses(after, names), losses(before, names)])
    later = losses(after, names)
    for row in losses(before, names):
        assert (later <= row + 1e-9 * np.abs(row)).all(axis=1).any(), "a model was lost for none that is as good"
    assert non_dominated(together[: len(later)]).all()


def of_score_and_latency(front):
    return [m for m in front if m.values["on_accuracy_latency_front"]]


@pytest.mark.parametrize("front_size", [4, 99])
def test_more_and_fewer_evaluations_never_lose_a_model(copied, recipe_file, front_size):
    names = ("top1_percent", "latency_ms")
    run(recipe_file(export={"front_size": front_size}), out=copied)
    fronts = {d: open_run(copied).front(d) for d in DEVICES}
    for changes in (
        {"evaluations": 12},
        {"evaluations": 8},
        {"limits": ["params<=1000000000"]},
        {"searcher": "random"},
    ):
        open_run(copied).search(**changes)
        for device in DEVICES:
            before, front = fronts[device], open_run(copied).front(device)
            assert front.best().values["top1_percent"] >= before.best().values["top1_percent"]
            assert front.fastest().latency_ms <= before.fastest().latency_ms
            if front_size == 99:  # a smaller front is thinned, but for the best of every objective
                assert_no_model_was_lost(of_score_and_latency(before), of_score_and_latency(front), names)
            fronts[device] = front


def test_a_search_that_was_done_is_not_done_again(copied):
    told = []
    open_run(copied).search(evaluations=12)
    opened = open_run(copied, lambda task, *_: told.append(task))
    opened.search(evaluations=8)
    assert not [task for task in told if task.startswith("search")]
    assert all(len(open_run(copied).history(d).searches) == 2 for d in DEVICES)


def test_a_front_is_chosen_from_what_other_devices_evaluated_too(copied):
    """A better arch that another device's search found comes onto a front when its device is searched again."""
    opened = open_run(copied)
    device = DEVICES[0]
    front = opened.front(device)
    space = opened.layout.space
    with opened.archive() as archive:
        known = {a.key for a in archive.archs()}
    fast = next(a for a in [space.smallest(), *space.sample(np.random.default_rng(1), 200)] if a.key not in known)
    with opened.evaluations() as evaluations:
        from hwnas.archive import Evaluation

        values = {"top1_percent": 100.0, "top1_stderr_percent": 0.1, "introspectability": 1.5}
        for precision in ("fp32", "int8"):
            evaluations.archive.add(
                Evaluation(fast, values, opened.weights.trained, "validation", 0, 0.0, {"images": 0}, precision)
            )
    assert fast.key not in {m.key for m in opened.front(device)}
    opened.search(devices=[device], evaluations=9)
    assert fast.key in {m.key for m in open_run(copied).front(device)}
    assert open_run(copied).front(DEVICES[1]) != front


def test_values_of_another_precision_do_not_mix(copied):
    opened = open_run(copied)
    from hwnas.archive import Evaluation

    with opened.archive() as archive:
        known = {a.key for a in archive.archs()}
    archs = opened.layout.space.sample(np.random.default_rng(0), 200)
    arch = next(a for a in archs if a.key not in known)
    values = {"top1_percent": 100.0, "top1_stderr_percent": 0.1, "introspectability": 1.5}
    with opened.archive() as archive:
        archive.add(Evaluation(arch, values, opened.weights.trained, "validation", 0, 0.0, {}, precision="int8"))
        assert archive.values(arch, opened.weights.trained, "validation", "int8") == values
        assert archive.values(arch, opened.weights.trained, "validation").get("top1_percent") != 100.0
    opened.search(evaluations=9)
    in_float = next(d for d in DEVICES if d != "hexagon-dsp")
    assert all(m.values["top1_percent"] < 100.0 or m.key != arch.key for m in open_run(copied).front(in_float))
    assert arch.key in {m.key for m in open_run(copied).front("hexagon-dsp")}, "where it counts"


# -- nothing outside the lock -----------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from hwnas.files import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_process_that_is_refused_has_changed_nothing(copied, recipe_file, tiny_recipe):
    before = digests(copied, without=("archive.db",))
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(copied)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline().strip() == "held"
            with pytest.raises(OutputError, match="is being written by another process"):
                run(recipe_file(search={**tiny_recipe["search"], "evaluations": 5}), out=copied)
            with pytest.raises(OutputError, match="is being written by another process"):
                open_run(copied).search(devices=[NEW], evaluations=5)
        finally:
            holder.kill()
    assert digests(copied, without=("archive.db",)) == before


def test_the_recipe_of_a_run_is_never_rewritten(copied, recipe_file):
    before = (copied / "recipe.yaml").read_bytes()
    run(recipe_file(devices=[DEVICES[0]], search={"algorithm": "random", "evaluations": 4}), out=copied)
    assert (copied / "recipe.yaml").read_bytes() == before
    settings = yaml.safe_load((copied / "devices" / DEVICES[0] / "search.yaml").read_text())
    assert settings["search"]["algorithm"] == "random"
    assert (
        yaml.safe_load((copied / "devices" / DEVICES[1] / "search.yaml").read_text())["search"]["algorithm"]
        == "hurricane"
    )


# -- bundles ----------------------------------------------------------------------------------------------


def test_int8_versions_are_written_for_a_finished_run(copied, recipe_file):
    assert not list(copied.rglob("model.int8.onnx"))
    run(recipe_file(export={"front_size": 4, "int8": True}), out=copied)
    for device in DEVICES:
        for model in open_run(copied).front(device):
            assert (model.folder / "model.int8.onnx").is_file() == (device != "hexagon-dsp")
            whole = model.folder / ("model.onnx" if device == "hexagon-dsp" else "model.int8.onnx")
            assert precision_of(whole) == "int8"


def test_bundles_of_models_that_left_the_front_are_removed(copied, recipe_file):
    run(recipe_file(export={"front_size": 2}), out=copied)
    for device in DEVICES:
        front = open_run(copied).front(device)
        assert len(front) <= 2
        assert {p.name for p in (copied / "devices" / device / "models").iterdir()} == {m.key for m in front}


def test_what_a_killed_export_left_is_removed(copied):
    opened = open_run(copied)
    model = opened.front(DEVICES[0])[0]
    left = model.folder.parent / f".{model.key}.abcd1234.partial"
    left.mkdir()
    (left / "model.onnx").write_text("half")
    opened.export()
    assert not left.exists()
    assert model.folder.is_dir()


def test_one_key_of_two_devices_is_two_bundles(copied, tmp_path):
    opened = open_run(copied)
    shared = {m.key for m in opened.front(DEVICES[0])} & {m.key for m in opened.front(DEVICES[1])}
    assert shared, "the two devices have a model in common"
    key = sorted(shared)[0]
    bundles = opened.export(key=key, out=tmp_path / "out")
    assert [b.folder for b in bundles] == [tmp_path / "out" / d / key for d in DEVICES]
    assert [Bundle(b.folder).metrics["device"] for b in bundles] == list(DEVICES)


# -- names of devices -------------------------------------------------------------------------------------


def test_runs_that_name_a_device_differently_have_it_in_common(copied, finished_run, recipe_file, tmp_path):
    """One run names a shipped device, the other the folder of the same profile."""
    folder = tmp_path / "somewhere" / "hexagon"
    folder.mkdir(parents=True)
    (folder / "profile.yaml").write_text(load_device(DEVICES[0]).profile.model_dump_json())
    other = tmp_path / "other"
    other.mkdir()
    shutil.copytree(finished_run / "train", other / "train")
    run(recipe_file(devices=[str(folder)], search={"evaluations": 5}), out=other)
    page = open_run(copied).report([open_run(other)]).read_text()
    assert "Over 2 runs" in page


def test_runs_without_a_common_device_say_which_they_have(copied, finished_run, recipe_file, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copytree(finished_run / "train", other / "train")
    run(recipe_file(devices=[NEW], search={"evaluations": 4}), out=other)
    with pytest.raises(RecipeError, match=f"was searched for {NEW}, none of which is a device of"):
        open_run(copied).report([open_run(other)])


# -- limits -----------------------------------------------------------------------------------------------


def test_a_limit_that_nothing_keeps_leaves_the_front_and_its_settings(copied):
    before = digests(copied / "devices", without=tuple(f"{d}/search.json" for d in DEVICES))
    with pytest.raises(SearchError, match=r"has no model within the limits: .*loosen the limits"):
        open_run(copied).search(limits=["introspectability>=1.99"])
    assert digests(copied / "devices", without=tuple(f"{d}/search.json" for d in DEVICES)) == before


def test_a_limit_may_be_on_a_value_that_is_no_objective(copied):
    opened = open_run(copied)
    macs = sorted(m.values["macs"] for m in opened.front(DEVICES[0]))
    opened.search(devices=[DEVICES[0]], limits=[f"macs<={macs[len(macs) // 2]:.0f}", "naswot>=0"])
    front = open_run(copied).front(DEVICES[0])
    assert all(m.values["macs"] <= macs[len(macs) // 2] for m in front)
    assert all(m.values["naswot"] >= 0 for m in front), "an evaluated value is computed for its limit"


def test_a_limit_on_a_device_that_is_not_searched_is_an_error(copied):
    with pytest.raises(RecipeError, match=r"limits name \['pixel'\]; devices here are"):
        open_run(copied).search(limits=["pixel:latency_ms<=3"])


def test_an_archive_of_another_format_says_what_to_do(copied):
    from hwnas.errors import ResumeError

    opened = open_run(copied)
    import sqlite3

    with sqlite3.connect(copied / "archive.db") as db:
        db.execute("UPDATE meta SET value = '1' WHERE name = 'format'")
    with pytest.raises(ResumeError, match="was written by another version of hwnas"):
        Archive(copied / "archive.db", opened.layout.space, opened.recipe.values_hash())


# -- what nobody asked for --------------------------------------------------------------------------------


def another_profile(folder, name="my-board", overhead_ms=99.0):
    """A folder with the profile of hexagon-dsp under a name of its own, and with another overhead."""
    profile = load_device("hexagon-dsp").profile.model_dump(mode="json")
    profile["name"] = name
    profile["cost_model"]["network_overhead_ms"] = overhead_ms
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profile.yaml").write_text(yaml.safe_dump(profile))
    return str(folder)


def test_bundles_and_fronts_follow_a_profile_that_changed_and_changed_back(copied, tmp_path):
    board = tmp_path / "my-board"
    found = []
    for overhead_ms in (1.0, 99.0, 1.0):
        opened = open_run(copied)
        opened.search(devices=[another_profile(board, overhead_ms=overhead_ms)], evaluations=4)
        opened.export(device="my-board")
        front = open_run(copied).front("my-board")
        for model in front:
            assert Bundle(model.folder).metrics["latency_ms"] == pytest.approx(model.values["latency_ms"], rel=1e-5)
        found.append(front.fastest().latency_ms)
    assert found[1] - found[0] == pytest.approx(98, rel=1e-3)
    assert found[2] == found[0]


def test_a_folder_does_not_take_the_name_of_a_shipped_device(copied, tmp_path):
    before = digests(copied)
    folder = another_profile(tmp_path / "hexagon-dsp", name="hexagon-dsp")
    with pytest.raises(RecipeError, match="has the name of the shipped device 'hexagon-dsp' and other numbers"):
        open_run(copied).search(devices=[folder], evaluations=4)
    assert digests(copied) == before


def test_a_limit_on_a_value_that_was_not_evaluated_yet_loses_no_model(copied):
    device = DEVICES[0]
    before = open_run(copied).front(device)
    open_run(copied).search(devices=[device], evaluations=4, limits=["snip>=-1e30"])
    front = open_run(copied).front(device)
    assert front.best().values["top1_percent"] >= before.best().values["top1_percent"]
    assert front.fastest().latency_ms <= before.fastest().latency_ms
    assert all(np.isfinite(m.values["snip"]) for m in front)


def test_an_archive_that_lost_its_models_is_named_and_no_front_shrinks(copied):
    (copied / "archive.db").write_bytes(b"")
    with pytest.raises(ResumeError, match=r"archive\.db is damaged: it is not as it was written"):
        open_run(copied).report()
    (copied / "archive.db.sha256").unlink()  # as of an older version
    before = changing(copied)
    for verb in (lambda r: r.search(devices=[DEVICES[0]], evaluations=4), lambda r: r.export(), lambda r: r.report()):
        with pytest.raises(
            ResumeError, match=r"archive\.db does not know .* on a front, .*remove it and the folder devices/"
        ):
            verb(open_run(copied))
    assert {n: v for n, v in changing(copied).items() if n.endswith("front.csv")} == {
        n: v for n, v in before.items() if n.endswith("front.csv")
    }
    (copied / "archive.db").unlink()
    shutil.rmtree(copied / "devices")
    open_run(copied).search()
    assert open_run(copied).searched() == list(DEVICES)


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "arch.json", "metrics.json"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_broken_bundle_is_written_again(copied, name, cut):
    model = open_run(copied).front(DEVICES[0])[0]
    whole = digests(model.folder)
    path = model.folder / name
    path.write_bytes(path.read_bytes()[:50]) if cut else path.unlink()
    open_run(copied).export()
    assert digests(model.folder) == whole


def test_a_bundle_takes_the_place_of_bundles_only(copied, tmp_path):
    opened = open_run(copied)
    key = opened.front(DEVICES[0])[0].key
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    before = digests(copied)
    told = []
    with pytest.raises(OutputError, match="cannot create folder"):
        open_run(copied, lambda task, *_: told.append(task)).finetune(key, out=tmp_path / "precious" / "thesis.txt")
    assert not [task for task in told if "finetune" in task], "it is found before anything is trained"
    assert digests(copied) == before
    _, tuned = opened.finetune(key, out=tmp_path / "precious", epochs=0.1)
    assert tuned.folder == tmp_path / "precious" / DEVICES[0] / key
    assert (tmp_path / "precious" / "thesis.txt").exists()
    (tmp_path / "chosen" / DEVICES[0] / key).mkdir(parents=True)
    (tmp_path / "chosen" / DEVICES[0] / key / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds notes\.txt"):
        opened.front(DEVICES[0])[0].export(tmp_path / "chosen")
    opened.front(DEVICES[0])[0].export(copied / "devices" / ".." / "out")
    again = opened.front(DEVICES[0])[0].export(copied / "out")
    assert again.is_whole


def test_one_rule_chooses_and_limits_are_on_the_device_that_is_meant(copied, tmp_path):
    opened = open_run(copied)
    key = opened.front(DEVICES[0])[0].key
    with pytest.raises(
        SearchError, match="key and knee each choose a model; give one of select, key, knee, fastest, best"
    ):
        opened.export(key=key, knee=True)
    with pytest.raises(RecipeError, match=rf"limits name \['{DEVICES[1]}'\]"):
        opened.export(device=DEVICES[0], limits=[f"{DEVICES[1]}:params<=1"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
