"""A run on images that are not in memory: the same weights and fronts, whoever decodes them."""

import hashlib
import json
import re

import numpy as np
import pytest
import yaml
from PIL import Image

import hwnas
from hwnas.errors import DataError, HwnasError
from hwnas.progress import silent
from hwnas.runs.start import start_run

KINDS = {
    "no process": ["data.workers=0"],
    "one process": ["data.workers=1"],
    "two processes": ["data.workers=2"],
    "kept": ["data.workers=2", "data.cache=kept"],
    "kept before": ["data.workers=0", "data.cache=kept"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_recipe):
    """A folder with photographs of ten classes, and a recipe."""
    folder, rng = tmp_path_factory.mktemp("streamed"), np.random.default_rng(0)
    for label in range(10):
        for i in range(16):
            path = folder / "photos" / f"{label}" / f"{i:02}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(20 * label + rng.normal(0, 30, (3, 4, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).resize((48, 40)).save(path)
    recipe = {
        **tiny_recipe, "devices": ["hexagon-dsp"],
        "data": {"source": "folder", "path": "photos", "memory_mib": 0, "augment": {"flip": True, "crop_percent": 60}},
    }  # fmt: skip
    recipe["supernet"] = {**tiny_recipe["supernet"], "in_channels": 3}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_weights_and_fronts_do_not_depend_on_who_decodes(place, monkeypatch):
    monkeypatch.chdir(place)
    found = {}
    for kind, settings in KINDS.items():
        hwnas.run("tiny.yaml", settings, out=kind)
        weights = (place / kind / "train" / "supernet.safetensors").read_bytes()
        front = (place / kind / "devices" / "hexagon-dsp" / "front.csv").read_bytes()
        found[kind] = hashlib.sha256(weights).hexdigest(), front
        covers = json.loads((place / kind / "manifest.json").read_text())["data"]["sha256_covers"]
        assert covers.startswith("names and sizes of all files, all labels, the pixels of ")
    assert len(set(found.values())) == 1
    assert b"top1_percent" in next(iter(found.values()))[1]


def train(*overrides, out, progress=silent):
    run = start_run("tiny.yaml", out, overrides=overrides, progress=progress)
    run.train()
    return run


def test_a_run_may_go_on_with_other_workers_and_a_cache(place, monkeypatch):
    monkeypatch.chdir(place)
    train("data.workers=0", out="changed")
    again = train("data.workers=2", "data.cache=kept", out="changed")
    assert again.recipe.data.workers == 2


def test_a_broken_image_in_the_middle_of_a_training(place, monkeypatch):
    monkeypatch.chdir(place)
    name = hwnas.open_data("tiny.yaml").train.place(7)
    path = place / name
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    try:
        with pytest.raises(DataError, match=rf"cannot read image {re.escape(name)}.*data\.broken_images=skip"):
            train(out="broken")
        told = []
        skips = "data.broken_images=skip"
        train(skips, out="skipped", progress=lambda *arguments: told.append(arguments[3:]))
        left_out = f"images that cannot be read: 1 ('{name}')"
        assert (f"left out: {left_out}",) in told
        in_memory = train(skips, "data.memory_mib=9", out="skipped in memory")
        assert list(map(str, in_memory.splits.left_out)) == [left_out]
    finally:
        path.write_bytes(whole)


def test_a_source_that_shrinks_between_two_starts_is_noticed(place, monkeypatch):
    monkeypatch.chdir(place)
    train(out="shrinks")
    path = place / "photos" / "4" / "05.jpg"
    whole = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(HwnasError, match="images"):
            train(out="shrinks")
    finally:
        path.write_bytes(whole)
