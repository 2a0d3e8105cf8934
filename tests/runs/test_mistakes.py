"""What is wrong with a run is found before anything is written, and said in one line."""

import hashlib
import shutil

import numpy as np
import pytest
from run_files import rows_of

from hwnas.archive import Archive
from hwnas.errors import CheckpointError, DeviceError, MissingBlockError, RecipeError, ResumeError, SearchError
from hwnas.latency.table import load_device
from hwnas.runs.history import read_settings
from hwnas.runs.start import open_run, start_run

DEVICES = ("hexagon-dsp", "myriad-vpu")


def digests(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def fronts(folder):
    return {p.parent.name: p.read_bytes() for p in folder.glob("devices/*/front.csv")}


@pytest.mark.parametrize("section", ["train", "data", "supernet", "evaluation"])
def test_a_run_of_another_recipe_is_refused_and_left_alone(copied, again, tiny_recipe, section):
    changes = {
        "train": {**tiny_recipe["train"], "batch_size": 30},
        "data": {**tiny_recipe["data"], "max_images": 140},
        "supernet": {**tiny_recipe["supernet"], "expand_width": 32},
        "evaluation": {"calibration_images": 100},
    }
    before = digests(copied)
    with pytest.raises(ResumeError, match=f"holds a run with other settings of {section}; use another --out"):
        again(copied, **{section: changes[section]})
    assert digests(copied) == before


def test_limits_that_nothing_meets_are_named(again, copied):
    before = fronts(copied)
    settings = {d: open_run(copied).settings(d) for d in DEVICES}
    with open_run(copied).archive() as archive:
        evaluated = len(archive.evaluations())
    with pytest.raises(SearchError, match=r"no arch of this space keeps latency_ms<=0\.001 on hexagon-dsp: .*loosen"):
        again(copied, constraints=["latency_ms<=0.001"])
    assert fronts(copied) == before
    with open_run(copied).archive() as archive:
        assert len(archive.evaluations()) == evaluated, "it is said before anything is evaluated"
    assert {d: open_run(copied).settings(d) for d in DEVICES} == settings, "what finds nothing does not come into force"


def test_limits_hold_on_every_front(again, copied):
    limit = float(np.median([float(r["params"]) for r in rows_of(copied, "hexagon-dsp")]))
    least = float(np.median([float(r["introspectability"]) for r in rows_of(copied, "myriad-vpu")]))
    again(copied, constraints=[f"params<={limit}", f"myriad-vpu:introspectability>={least}"])
    rows = {d: rows_of(copied, d) for d in DEVICES}
    assert all(float(r["params"]) <= limit for d in DEVICES for r in rows[d])
    assert all(float(r["introspectability"]) >= least for r in rows["myriad-vpu"])
    assert not all(float(r["introspectability"]) >= least for r in rows["hexagon-dsp"])


def test_contradicting_limits_are_named_before_anything_is_written(again, tmp_path):
    with pytest.raises(RecipeError, match="contradict each other"):
        again(tmp_path / "new", constraints=["latency_ms<=1", "latency_ms>=2"])
    assert not (tmp_path / "new").exists()


def test_contradicting_limits_of_a_search_leave_the_run_alone(copied):
    before = digests(copied)
    with pytest.raises(SearchError, match="contradict each other"):
        open_run(copied).search(limits=["latency_ms<=1", "hexagon-dsp:latency_ms>=2"])
    assert digests(copied) == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"devices": ["toaster"]}, DeviceError, "device 'toaster' is unknown; shipped devices are"),
        ({"devices": ["edge-tpu", "edge-tpu"]}, RecipeError, "devices name 'edge-tpu' twice"),
    ],
)
def test_a_mistake_is_found_before_anything_is_written(again, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        again(tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()


def test_a_table_that_lacks_a_block_is_found_before_anything_is_written(again, tmp_path):
    device = load_device("local-cpu")
    folder = tmp_path / "my-board"
    folder.mkdir()
    source = device.profile.model_copy(update={"name": "my-board"})
    (folder / "profile.yaml").write_text(source.model_dump_json())
    (folder / "blocks.csv").write_text("kind,in_channels,n,median_ms,iqr_ms,origin\nconv,5,9,0.5,0.1,measured\n")
    with pytest.raises(MissingBlockError, match=r"device 'my-board' has no time for block \[conv act="):
        again(tmp_path / "new", devices=[str(folder)])
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"is no run folder: it has no recipe\.yaml; make one with `hwnas run"):
        open_run(tmp_path)


def test_an_archive_of_another_recipe_is_refused(copied, again):
    with Archive(copied / "other.db", open_run(copied).layout.space, "other"):
        pass
    (copied / "other.db").replace(copied / "archive.db")
    shutil.rmtree(copied / "devices")
    with pytest.raises(ResumeError, match=r"archive\.db belongs to another recipe"):
        again(copied)


def test_a_process_that_comes_before_the_first_one_waits_for_no_file(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    run = start_run(recipe_file(), tmp_path / "run")
    assert run.recipe.supernet.classes == 10
    assert not (tmp_path / "run").exists()


def test_only_training_is_shared_by_several_processes(copied, monkeypatch):
    before = digests(copied)
    monkeypatch.setenv("WORLD_SIZE", "2")
    opened = open_run(copied)
    for verb in (opened.search, opened.tables, opened.export, opened.check_latency, opened.report):
        with pytest.raises(RecipeError, match="2 processes were started by torchrun, but only `hwnas train` shares"):
            verb()
    assert digests(copied) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("search.yaml", "device: ["),
        ("search.yaml", "objectives: [top1_percent]\n"),
        ("search.json", "{"),
        ("search.json", '{"searches": [{}], "front": null}'),
    ],
)
def test_a_damaged_file_of_a_device_is_named(copied, name, content):
    (copied / "devices" / "myriad-vpu" / name).write_text(content)
    with pytest.raises(ResumeError, match=rf"myriad-vpu/{name} is damaged: .*; remove it and search the device again"):
        open_run(copied).search()


def test_a_lost_history_is_replayed_from_the_archive(copied, finished_run):
    """Every network that was evaluated is known, so nothing is evaluated again and the front is the same."""
    with open_run(copied).archive() as archive:
        last_row = archive.last_row
    (copied / "devices" / "myriad-vpu" / "search.json").unlink()
    opened = open_run(copied)

    class Idle:
        def map(self, function, items):
            assert not items, "networks are run again"
            return iter(())

    opened.context.executor = Idle()
    opened.search(["myriad-vpu"])
    with opened.archive() as archive:
        assert archive.last_row == last_row
    assert fronts(copied) == fronts(finished_run)
    assert opened.history("myriad-vpu").last.search == open_run(finished_run).history("myriad-vpu").last.search


def test_settings_of_a_device_that_are_cut_short_anywhere_are_damaged(copied):
    folder = open_run(copied).context.folder.device("myriad-vpu")
    whole, lines = read_settings(folder), folder.settings.read_text().splitlines(keepends=True)
    assert lines[0].startswith("sha256: ")
    for n in range(1, len(lines)):
        folder.settings.write_text("".join(lines[:n]))
        with pytest.raises(ResumeError, match=r"search\.yaml is damaged"):
            read_settings(folder)
    folder.settings.write_text("".join(lines[1:]))  # as older versions wrote it
    assert read_settings(folder) == whole


def test_a_device_or_key_that_is_misspelt_leads_to_the_one_that_is_meant(copied):
    opened = open_run(copied)
    with pytest.raises(DeviceError, match=r"hexagondsp.? is unknown; .*; did you mean 'hexagon-dsp'\?"):
        opened.search(devices=["hexagondsp"])
    with pytest.raises(DeviceError, match=r"'hexagondsp' is not part of .*, myriad-vpu; did you mean 'hexagon-dsp'\?"):
        opened.export(device="hexagondsp")
    with pytest.raises(DeviceError, match=r"'edge-tpu' is not part of .*; add it with `hwnas search .*edge-tpu`"):
        opened.export(device="edge-tpu")
    keys = list(dict.fromkeys(m.key for d in DEVICES for m in opened.front(d)))
    with pytest.raises(
        ResumeError, match=f"no key begins so, or several do; keys of its fronts are '{keys[0]}'"
    ) as said:
        opened.export(key="zzz")
    assert all(str(said.value).count(key) <= 1 for key in keys)
