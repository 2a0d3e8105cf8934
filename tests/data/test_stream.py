"""Images that are not in memory: the same ones whatever reads them, and what is said where one cannot be read."""

import gc
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from hwnas.data import AugmentConfig, DataConfig, ImageSet, ImageStream, TrainBatches, load_data
from hwnas.data import stream as stream_module
from hwnas.data.joined import joined
from hwnas.errors import DataError
from hwnas.task import TASKS

PX, N = 12, 30


@pytest.fixture
def photos(tmp_path, rng):
    """Three classes of ten JPEGs of differing sizes."""
    for label in range(3):
        for i in range(N // 3):
            path = tmp_path / "photos" / "abc"[label] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 200, (4, 5, 3), dtype=np.uint8) + np.uint8(20 * label)
            Image.fromarray(pixels).resize((40 + i, 30)).save(path, quality=95)
    return tmp_path / "photos"


def splits(photos, **settings):
    settings = {"source": "folder", "path": str(photos), "memory_mib": 0, **settings}
    return load_data(DataConfig(**settings), TASKS.get("classification"), 3, 3, PX)


def in_memory(photos, **settings):
    return splits(photos, **{"memory_mib": 256, **settings})


def all_of(images, size=7):
    read = list(images.batches(size))
    return torch.cat([x for x, _ in read]), torch.cat([y for _, y in read])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """So that few images make many chunks."""
    monkeypatch.setattr(stream_module, "CHUNK_BYTES", 4 * 3 * PX * PX)


def test_small_sets_are_in_memory_and_large_ones_are_not(photos):
    assert isinstance(in_memory(photos).train.images, torch.Tensor)
    assert isinstance(splits(photos).train.images, ImageStream)


@pytest.mark.parametrize(("workers", "kept"), [(0, False), (1, True), (3, False), (3, True), (12, False)])
def test_a_stream_gives_the_images_of_memory(photos, tmp_path, workers, kept):
    expected = in_memory(photos)
    found = splits(photos, workers=workers, cache=str(tmp_path / "kept") if kept else None)
    for name in ("train", "validation", "test"):
        pixels, labels = all_of(getattr(found, name))
        assert torch.equal(pixels, getattr(expected, name).images)
        assert torch.equal(labels, getattr(expected, name).labels)


def test_parts_of_a_stream(photos):
    found, expected = splits(photos, workers=0).train, in_memory(photos).train
    rows = torch.tensor([5, 0, 11, 3])
    assert torch.equal(all_of(found.take(rows))[0], expected.images[rows])
    assert torch.equal(all_of(found.take(rows).first(3).take(torch.tensor([2, 1])))[0], expected.images[[11, 0]])
    assert len(found.first(None)) == len(found) == len(expected)
    assert torch.equal(found.take(rows).labels, expected.labels[rows])
    assert torch.equal(found.in_memory().images, expected.images)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_follow_from_seed_and_step(photos, workers):
    def made(data):
        return TrainBatches(data, (0.5,) * 3, (0.25,) * 3, 8, AugmentConfig(flip=True, shift_percent=10), 3)

    expected = made(in_memory(photos).train)
    with made(splits(photos, workers=workers).train) as found:
        for step in (0, 1, 2, 3, 1, 7, 8):  # also back and far ahead
            for part in (None, slice(2, 5)):
                x, y = expected.batch(step, 9, part)
                found_x, found_y = found.batch(step, 9, part)
                assert torch.equal(found_x, x)
                assert torch.equal(found_y, y)


def gone(processes):
    deadline = time.monotonic() + 10
    while set(multiprocessing.active_children()) & processes and time.monotonic() < deadline:
        time.sleep(0.05)
    return not set(multiprocessing.active_children()) & processes


def test_processes_stay_as_long_as_somebody_may_read(photos):
    before = set(multiprocessing.active_children())
    found = splits(photos, workers=2)
    begun = set(multiprocessing.active_children()) - before
    assert len(begun) == 2
    with TrainBatches(found.train, (0.5,) * 3, (0.5,) * 3, 4, AugmentConfig(), 0) as batches:
        batches.batch(0, PX)
        all_of(found.validation)
    assert set(multiprocessing.active_children()) - before == begun
    del found, batches
    gc.collect()
    assert gone(begun)


def read_some(photos):
    next(splits(photos, workers=2).train.images.feed([np.arange(3)]))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_that_was_begun_by_another_one_ends(photos, method):
    process = multiprocessing.get_context(method).Process(target=read_some, args=(photos,))
    process.start()
    process.join(60)
    try:
        assert process.exitcode == 0
    finally:
        process.kill()


def test_processes_end_where_the_one_that_asks_is_killed(photos, killed_when):
    script = """
import multiprocessing, sys, time
from hwnas.data import DataConfig, load_data
from hwnas.task import TASKS
config = DataConfig(source="folder", path=sys.argv[1], memory_mib=0, workers=2)
found = load_data(config, TASKS.get("classification"), 3, 3, 12)
print(*(p.pid for p in multiprocessing.active_children()), flush=True)
time.sleep(60)
"""
    lines = killed_when(script, [str(photos)], lambda lines: bool(lines))
    for pid in map(int, lines[0].split()):
        deadline = time.monotonic() + 10
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kept", [False, True])
def test_a_broken_image_is_named_or_left_out(photos, tmp_path, workers, kept):
    whole = splits(photos, workers=0)
    broken = whole.train.images.split.place(4)
    with open(broken, "r+b") as file:
        file.truncate(200)
    settings = {"workers": workers, **({"cache": str(tmp_path / "kept")} if kept else {})}
    with pytest.raises(DataError, match=rf"cannot read image {broken}: .*; repair or remove .*broken_images=skip"):
        list(splits(photos, **settings).train.batches(8))

    for _ in range(2):  # with a cache the second start decodes nothing
        found = splits(photos, broken_images="skip", **settings)
        pixels, labels = all_of(found.train, 8)
        expected = [i for i in range(len(whole.train)) if i != 4]
        assert torch.equal(labels, whole.train.labels[expected])
        assert not (pixels == 0).all(3).all(2).all(1).any()
        assert list(found.train.images.skipped) == [broken]
        with TrainBatches(
            found.train, (0.5,) * 3, (0.5,) * 3, len(whole.train), AugmentConfig(flip=True), 0
        ) as batches:
            x, y = batches.batch(0, PX)
            assert len(x) == len(y) == len(expected)
    assert len(in_memory(photos, broken_images="skip", **settings).train) == len(expected)


def test_a_batch_of_which_nothing_can_be_read_is_an_error(photos):
    found = splits(photos, broken_images="skip", workers=0).train.take(torch.tensor([0, 1]))
    for row in found.images.rows:
        open(found.images.split.place(row), "wb").close()
    with (
        pytest.raises(DataError, match="no image of a batch of 2 can be read"),
        TrainBatches(found, (0.5,) * 3, (0.5,) * 3, 2, AugmentConfig(), 0) as batches,
    ):
        batches.batch(0, PX)
    with pytest.raises(DataError, match=r"has no image that can be read, such as .*hwnas data"):
        found.in_memory()


def test_a_process_that_the_system_ends_is_one_line(photos):
    before = set(multiprocessing.active_children())
    images = splits(photos, workers=1).train.images
    feed = images.feed(np.arange(4) for _ in range(10_000))
    next(feed)
    (worker,) = set(multiprocessing.active_children()) - before
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r"was ended by the system, .* give fewer with data.workers \(now 1\)"):
        for _ in feed:
            pass
    assert len(next(images.feed([np.arange(3)])).pixels) == 3, "others begin with the next request"


def test_mean_and_deviation_are_those_of_a_sample(photos, monkeypatch):
    expected, found = in_memory(photos).mean_std, splits(photos).mean_std
    assert np.allclose(found, expected, atol=0.01)
    monkeypatch.setattr("hwnas.data.images.SAMPLE", 12)
    fewer = splits(photos)
    assert fewer.sample.n == 12
    assert np.allclose(fewer.mean_std, expected, atol=0.1)
    assert "pixels of 12 training images" in fewer.sha256_covers
    assert fewer.mean_std == splits(photos).mean_std


def test_the_hash_of_a_stream_changes_with_names_sizes_labels_and_pixels(photos):
    first = splits(photos)
    assert first.sha256 == splits(photos, workers=0).sha256 != in_memory(photos).sha256
    assert "names and sizes of all files" in first.sha256_covers
    assert in_memory(photos).sha256_covers == "every pixel and label"
    path = photos / "a" / "3.jpg"
    content = path.read_bytes()
    path.write_bytes(content + b"more")
    assert splits(photos).sha256 != first.sha256
    path.write_bytes(content)
    assert splits(photos).sha256 == first.sha256
    path.rename(photos / "a" / "33.jpg")
    assert splits(photos).sha256 != first.sha256


def test_images_of_one_level_are_refused(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("RGB", (20, 20), (7, 7, 7)).save(tmp_path / name / f"{i}.png")
    with pytest.raises(DataError, match="every pixel of the training images is 7"):
        splits(tmp_path)


def test_a_file_that_is_gone_is_named(photos):
    found = splits(photos, workers=0)
    os.remove(found.train.images.split.place(2))
    with pytest.raises(DataError, match=r"cannot read image .*No such file"):
        list(found.train.batches(8))


def test_settings_that_do_not_change_images_are_in_no_file_and_no_hash():
    assert not {"memory_mib", "workers", "broken_images"} & set(DataConfig().model_dump(mode="json"))
    assert DataConfig(workers=3).model_dump(mode="json")["workers"] == 3


def test_labels_go_where_they_are_needed(photos):
    moved = splits(photos).train.to(torch.device("cpu"))
    assert isinstance(moved, ImageSet)
    assert isinstance(moved.images, ImageStream)


def test_two_sets_as_one_wherever_they_are(photos):
    streamed, memory = splits(photos, workers=0), in_memory(photos)
    rows = torch.tensor([2, 0])
    expected = joined(memory.train, memory.validation.take(rows))
    for first in (streamed.train, memory.train):
        for second in (streamed.validation, memory.validation):
            found = joined(first, second.take(rows))
            pixels, labels = all_of(found)
            assert torch.equal(pixels, expected.images)
            assert torch.equal(labels, expected.labels)
    found = joined(memory.train, streamed.validation.take(rows))
    assert found.images.split.place(len(memory.train)) == streamed.validation.images.split.place(2)
