"""Decoded images are kept: read again, filled up after a kill, and never used where they are damaged or of others."""

import json
import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from hwnas.data import DataConfig, load_data
from hwnas.data import cache as cache_module
from hwnas.data.source import MemoryImages, Opened
from hwnas.errors import DataError, OutputError
from hwnas.files import PARTIAL
from hwnas.task import TASKS

N, PX = 40, 8


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(cache_module, "PART", 4)


@pytest.fixture
def folder(tmp_path, rng):
    """Twenty images in each of two classes."""
    for label in ("cat", "dog"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(N // 2):
            pixels = rng.integers(0, 256, (9, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i}.png")
    return tmp_path / "images"


def load(folder, kept=None, **settings):
    config = DataConfig(source="folder", path=str(folder), cache=None if kept is None else str(kept), **settings)
    return load_data(config, TASKS.get("classification"), 3, 2, PX)


def pixels(splits):
    return torch.cat([x for part in (splits.train, splits.validation, splits.test) for x, _ in part.batches(5)])


@pytest.fixture
def kept(folder, tmp_path):
    """A folder that is filled."""
    load(folder, tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.parametrize("memory_mib", [0, 256])
def test_images_are_decoded_once(folder, kept, monkeypatch, memory_mib):
    expected = load(folder)
    monkeypatch.setattr(Image, "open", None)  # nothing is decoded any more
    found = load(folder, kept, memory_mib=memory_mib)
    assert torch.equal(pixels(found), pixels(expected))
    if memory_mib:
        assert found.sha256 == expected.sha256


def test_a_changed_file_is_decoded_again(folder, kept):
    Image.fromarray(np.full((7, 7, 3), 200, np.uint8)).save(folder / "cat" / "3.png")
    assert torch.equal(pixels(load(folder, kept)), pixels(load(folder)))
    (folder / "cat" / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot read image .*3\.png"):
        load(folder, kept)


def test_images_of_other_rules_or_sizes_are_not_used(folder, kept, monkeypatch):
    files = set(kept.glob("*.u8"))
    load(folder, kept, image_size_px=9)
    assert len(set(kept.glob("*.u8"))) == 2 * len(files)
    monkeypatch.setattr(cache_module, "RULES", 99)
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    load(folder, kept, workers=0)
    assert len(opened) >= N


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("memory_mib", [0, 256])
def test_damaged_pixels_are_decoded_again(folder, kept, share, cut, memory_mib):
    expected, before = pixels(load(folder)), {p: p.read_bytes() for p in kept.glob("*.u8")}
    for path, whole in before.items():
        place = int(share * len(whole))
        path.write_bytes(whole[:place] if cut else whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert torch.equal(pixels(load(folder, kept, memory_mib=memory_mib)), expected)
    assert {p: p.read_bytes() for p in kept.glob("*.u8")} == before, "they are put right"


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_list_of_parts_loses_only_what_follows(folder, kept, share, cut):
    expected = pixels(load(folder))
    for path in kept.glob("*.jsonl"):
        whole = path.read_bytes()
        place = int(share * len(whole))
        path.write_bytes(whole[:place] if cut else whole[:place] + b"\xff\xfe{[" + whole[place + 4 :])
    assert torch.equal(pixels(load(folder, kept)), expected)


@pytest.mark.parametrize(
    "line", ["[]", "{}", '{"first": 0, "crc32": [1, 2, "x"]}', '{"first": 1e99, "crc32": [1]}', "[" * 9999]
)
def test_a_list_of_parts_that_says_something_else(folder, kept, line):
    expected = pixels(load(folder))
    for path in kept.glob("*.jsonl"):
        header = path.read_text().splitlines()[0]
        path.write_text(f"{header}\n{line}\n")
    assert torch.equal(pixels(load(folder, kept)), expected)


def test_pixels_that_vanish_while_they_are_read(folder, kept):
    found = load(folder, kept, memory_mib=0)
    shutil.rmtree(kept)
    with pytest.raises(DataError, match=r"cannot read .*\.u8: No such file.*start again"):
        pixels(found)
    assert torch.equal(pixels(load(folder, kept)), pixels(load(folder)))


def _fill(folder, kept):
    cache_module.PART = 4
    real = Image.open

    def slow(*arguments, **options):
        time.sleep(0.02)
        return real(*arguments, **options)

    Image.open = slow
    load(folder, kept, workers=0)


def test_a_killed_start_is_continued(folder, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    process = multiprocessing.get_context("fork").Process(target=_fill, args=(folder, kept))
    process.start()

    def n_parts():
        return sum(len(p.read_text().splitlines()) - 1 for p in kept.glob("*.jsonl"))

    while n_parts() < 3:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = n_parts()
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    expected = pixels(load(folder))
    opened.clear()
    found = load(folder, kept, workers=0, memory_mib=0)
    splits = 3  # of each, one image says how large they are
    assert len(opened) <= N - 4 * done + splits
    assert torch.equal(pixels(found), expected)


def test_two_processes_fill_one_folder(folder, tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fill, args=(folder, tmp_path / "kept")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert torch.equal(pixels(load(folder, tmp_path / "kept")), pixels(load(folder)))
    for path in (tmp_path / "kept").glob("*.jsonl"):
        header, *parts = map(json.loads, path.read_text().splitlines())
        assert [i for p in parts for i in range(p["first"], p["first"] + len(p["crc32"]))] == [*range(header["images"])]


def test_a_full_disk_is_said_before_and_while_it_is_filled(folder, tmp_path, monkeypatch):
    real = shutil.disk_usage
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda p: real(p)._replace(free=100))
    with pytest.raises(OutputError, match=r"decoded images take .* GiB, .*kept has .* GiB free; .*data.cache"):
        load(folder, tmp_path / "kept")
    monkeypatch.undo()
    monkeypatch.setattr(cache_module, "PART", 4)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.json, "dumps", full)
    with pytest.raises(OutputError, match=r"cannot keep decoded images in .*No space left on device; free space"):
        load(folder, tmp_path / "kept")
    monkeypatch.undo()
    assert torch.equal(pixels(load(folder, tmp_path / "kept")), pixels(load(folder)))


def test_a_folder_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot create folder"):
        load(folder, tmp_path / "file" / "kept")

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache_module, "FileLock", denied)
    with pytest.raises(OutputError, match=r"cannot keep decoded images in .*Permission denied; .*data\.cache"):
        load(folder, tmp_path / "kept")


def test_its_size_is_said_first(folder, tmp_path):
    told = []
    config = DataConfig(source="folder", path=str(folder), cache=str(tmp_path / "kept"))
    load_data(
        config,
        TASKS.get("classification"),
        3,
        2,
        PX,
        lambda task, done, total, note="": told.append((task, done, note)),
    )
    task, done, note = told[0]
    assert (task, done) == ("decode images", 0)
    assert "GiB in" in note
    told.clear()
    load_data(config, TASKS.get("classification"), 3, 2, PX, lambda *a: told.append(a))
    assert not told


class _Nameless:
    """A source whose images cannot be told apart without decoding them."""

    def __init__(self, images):
        self.given = MemoryImages(images, np.arange(len(images)) % 2)
        self.labels = self.given.labels

    def __len__(self):
        return len(self.given)

    def pixels(self, indices, size_px):
        return self.given.pixels(indices, size_px)

    def open(self, config, size_px):
        return Opened(("a", "b"), self)


def test_images_that_cannot_be_told_apart_are_not_kept(tmp_path, monkeypatch, rng):
    source = _Nameless(rng.integers(0, 256, (20, 3, PX, PX), dtype=np.uint8))
    monkeypatch.setattr("hwnas.data.dataset.SOURCES", {"folder": source})
    with pytest.raises(DataError, match=r"cannot tell its images apart, so they cannot be kept; leave data.cache out"):
        load(tmp_path, tmp_path / "kept")


def test_what_is_unfinished_is_no_partial_file(kept):
    """`exclusive` removes those of a killed writer, and these are to be continued."""
    assert not [p for p in kept.iterdir() if p.name.endswith(PARTIAL)]
