"""The fast part of `damaged_files.py`: one cut and two overwritten places of each file, by one verb."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import damaged_files

VERB = {
    "recipe.yaml": "report", "manifest.json": "report", "plan.json": "search", "archive.db": "report",
    "supernet.safetensors": "load_supernet", "metrics.jsonl": "report", "search.yaml": "report",
    "search.json": "front", "front.csv": "export", "model.onnx": "export", "weights.safetensors": "load_model",
    "arch.json": "load_model", "metrics.json": "export", "MODEL_CARD.md": "export", "profile.yaml": "report",
    "blocks.csv": "report", "networks.csv": "report", "latency_check.json": "report", "models.json": "report",
    "alone": "bench supernet", "baseline.json": "report", "checkpoint.safetensors": "train on",
    "log of a training": "train on", "budget.json": "search --budget", "timings.jsonl": "tables build",
}  # fmt: skip
DAMAGES = ("cut at 50 %", "overwritten at 25 %", "overwritten at 75 %")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage") / "work"
    folder.mkdir()
    damaged_files.make(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("file", VERB)
def test_damage_is_named_or_mended(file, work):
    found = damaged_files.trial(work, file, DAMAGES, (VERB[file],))
    assert found, f"{VERB[file]} does not read {file}"
    for verb, results in found.items():
        for damage, what, message in results:
            assert what in ("named", "rebuilt"), (verb, damage, what, message)
            assert what == "rebuilt" or message.isprintable()


@pytest.mark.slow
@pytest.mark.parametrize("device", ["hexagon-dsp", "local-cpu"])
def test_a_damaged_front_is_written_again_as_it_was(device, work, tmp_path, monkeypatch):
    """Also that of the device that was searched first, though the models of the others are known by now."""
    from hwnas.runs.start import open_run

    run = shutil.copytree(work / "run", tmp_path / "run")
    path = run / "devices" / device / "front.csv"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"1", b"2"))
    monkeypatch.setattr("hwnas.runs.choose.choose_models", None)  # nothing is chosen anew
    open_run(run).export()
    assert path.read_bytes() == before
