"""Data that are opened, not loaded, and what is said about them."""

import numpy as np
import pytest
import torch
from PIL import Image

import hwnas
from hwnas.data import AugmentConfig, DataConfig, as_input, load_data, open_dataset
from hwnas.data.look import FEW_IMAGES, MOST_SHOWN, look
from hwnas.data.sheet import EACH, GAP_PX, LABEL_PX, contact_sheet, write_sheet
from hwnas.errors import DataError, OutputError
from hwnas.task.classification import CLASSIFICATION


def folder(root, sizes, px=9, split=""):
    for label, n in sizes.items():
        (root / split / label).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            pixels = np.random.default_rng([i, *label.encode()]).integers(0, 256, (px, px + 3, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / label / f"{i:03}.png")
    return DataConfig(source="folder", path=str(root))


def seen(config, classes, channels=3, px=9):
    return look(config, CLASSIFICATION, channels, classes, px)


def opened(config, classes, px=9):
    return open_dataset(config, CLASSIFICATION, 3, classes, px)


# -- open_data ----------------------------------------------------------------------------------------------------


def test_opened_data_are_those_that_are_loaded(tmp_path):
    config = folder(tmp_path, {"ant": 20, "bee": 20})
    data, loaded = opened(config, 2), load_data(config, CLASSIFICATION, 3, 2, 9)
    assert data.classes == loaded.classes == ("ant", "bee")
    for name, split in data.splits().items():
        part = getattr(loaded, name)
        assert len(split) == len(part)
        assert split.labels.dtype == np.int64
        assert split.labels.tolist() == part.labels.tolist()
        assert np.array_equal(split.pixels(np.arange(len(split))), part.images.numpy())
        some = np.array([len(split) - 1, 0, 0])
        assert np.array_equal(split.pixels(some), part.images.numpy()[some])
        assert all(f"{data.classes[label]}/" in split.place(i) for i, label in enumerate(split.labels))


@pytest.mark.parametrize("resolution", [5, 9, 14])
def test_pixels_come_at_the_resolution_of_a_network(tmp_path, resolution):
    data = opened(folder(tmp_path, {"ant": 9, "bee": 9}), 2)
    rows = np.array([2, 1])
    found = data.train.pixels(rows, resolution)
    assert found.dtype == np.uint8
    assert found.shape == (2, 3, resolution, resolution)
    wanted = as_input(torch.from_numpy(data.train.pixels(rows)), resolution, (0, 0, 0), (1, 1, 1))
    torch.testing.assert_close(torch.from_numpy(found) / 255, wanted.contiguous(), atol=0.5 / 255 + 1e-6, rtol=0)


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path):
    config = folder(tmp_path, {"ant": 9, "bee": 9})
    first = opened(config, 2)
    for i in range(len(first.train)):
        if i != 4:
            (tmp_path / first.train.place(i)).write_bytes(b"broken")
    data = opened(config, 2)
    assert data.train.pixels(np.array([4])).shape == (1, 3, 9, 9)
    with pytest.raises(DataError, match="cannot read image"):
        data.train.pixels(np.array([5]))


@pytest.mark.parametrize("indices", [[14], [-1], [0.0], ["0"], [True], 3, [[0]], None, [2**70]])
def test_images_that_are_not_there_are_one_line(tmp_path, indices):
    data = opened(folder(tmp_path, {"ant": 9, "bee": 9}), 2)
    assert len(data.train) < 15
    with pytest.raises(DataError, match=r"images are (chosen by a row of whole numbers|numbered from 0 to \d+), got"):
        data.train.pixels(indices)


def test_numbers_of_images_may_be_of_any_integer_type(tmp_path):
    data = opened(folder(tmp_path, {"ant": 9, "bee": 9}), 2)
    wanted = data.train.pixels([1, 2])
    for indices in ((1, 2), range(1, 3), np.array([1, 2], np.uint8), torch.tensor([1, 2])):
        assert np.array_equal(data.train.pixels(indices), wanted)
    assert data.train.pixels([], np.int64(7)).shape == (0, 3, 7, 7)
    for resolution in (0, -3, 2.5, "9", 10**6):
        with pytest.raises(DataError, match=r"resolution is .*; give a whole number of pixels from 1 to 8192"):
            data.train.pixels([0], resolution)


def test_a_recipe_is_opened_by_its_name(recipe_file):
    data = hwnas.open_data(recipe_file(), ["data.max_images=40"])
    assert data.classes == tuple("0123456789")
    assert [len(s) for s in data.splits().values()] == [40, 40, 40]
    assert data.test.pixels([3, 1], 10).shape == (2, 1, 10, 10)
    with pytest.raises(DataError, match=r"supernet\.classes=10"):
        hwnas.open_data(recipe_file(), ["supernet.classes=9"])


# -- what is said -------------------------------------------------------------------------------------------------


def test_counts_means_and_deviations_by_hand(tmp_path):
    config = folder(tmp_path, {"ant": 120, "bee": 90})
    found = seen(config, 2)
    data = load_data(config, CLASSIFICATION, 3, 2, 9)
    x, y = data.train.images.numpy().astype(float), data.train.labels.numpy()
    np.testing.assert_allclose(found.mean_levels, x.mean((0, 2, 3)))
    np.testing.assert_allclose(found.deviation_levels, x.std((0, 2, 3)))
    for label, summary in enumerate(found.classes):
        np.testing.assert_allclose(summary.mean_levels, x[y == label].mean((0, 2, 3)))
        np.testing.assert_allclose(summary.deviation_levels, x[y == label].std((0, 2, 3)))
        counts = {n: int((getattr(data, n).labels == label).sum()) for n in ("train", "validation", "test")}
        assert dict(summary.images) == counts
    assert sum(found.images.values()) == 210
    assert found.problems == ()
    assert found.dataset is not None


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    config = folder(tmp_path, {"ant": 30, "bee": 30, "puma": 1})
    for i in range(MOST_SHOWN + 4):
        (tmp_path / "ant" / f"{i:03}.png").write_bytes(b"broken")
    (tmp_path / "bee" / "notes.txt").write_text("x")
    found = seen(config, 7, channels=1)
    assert "set supernet.classes=3" in found.problems[0]
    assert "too few images of 'puma' (1)" in found.problems[1]
    assert "set supernet.in_channels=3" in found.problems[2]
    broken = [p for p in found.problems[3:] if "cannot read image" in p]
    assert len(set(broken)) == MOST_SHOWN
    assert found.problems[-1] == "4 more images cannot be read"
    assert [e.count for e in found.left_out] == [1]
    assert found.dataset is None
    assert found.classes[1].mean_levels[0] > 100, "what can be read is looked at"


def test_a_split_that_is_too_small_says_how_uncertain_it_is(tmp_path):
    folder(tmp_path, {"ant": 150, "bee": 150}, split="train")
    folder(tmp_path, {"ant": 2, "bee": 2}, split="val")
    config = folder(tmp_path, {"ant": FEW_IMAGES}, split="test")
    found = seen(config, 2)
    assert found.warnings == (
        "validation has 4 images, too few to tell networks apart: top-1 would have a standard error of up to 25 %; "
        "give at least 100, better 1,000",
        "test has no images of 'bee'",
    )


@pytest.mark.parametrize(("high", "warned"), [(20, True), (200, False)])
def test_dark_images_are_warned_of(tmp_path, high, warned):
    x = np.random.default_rng(0).integers(0, high, (60, 8, 8)).astype(np.uint16) << 8
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(60) % 2)
    found = seen(DataConfig(source="npz", path=str(tmp_path / "a.npz")), 2, channels=1)
    assert any("10, 12 or 14 bits" in w for w in found.warnings) is warned


def test_images_without_any_difference_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.full((60, 8, 8), 200, np.uint16), y_train=np.arange(60) % 2)
    config = DataConfig(source="npz", path=str(tmp_path / "a.npz"))
    with pytest.raises(DataError, match=r"every pixel of the training images is 0, .* multiply by 257"):
        load_data(config, CLASSIFICATION, 1, 2, 8)
    assert "every pixel" in seen(config, 2, channels=1).problems[0]


def test_classes_that_differ_in_case_only_are_asked_about(tmp_path):
    found = seen(folder(tmp_path, {"ant": 150, "Ant": 150, "bee": 150}), 3)
    assert found.warnings[0].startswith("validation has")
    assert "classes 'Ant', 'ant' differ in upper and lower case only" in found.warnings[-1]


def test_labels_that_are_no_classes_are_counted_together(tmp_path):
    y = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    x = np.random.default_rng(1).integers(0, 256, (300, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y)
    config = DataConfig(source="npz", path=str(tmp_path / "a.npz"))

    class Task(type(CLASSIFICATION)):
        def check(self, train, test, n_outputs, names, where):
            assert train.shape == (300, 2)

        def strata(self, labels):
            return np.zeros(len(labels), dtype=np.int64)

    found = look(config, Task(), 1, 2, 6)
    assert [c.images for c in found.classes] == [{}, {}]
    assert sum(found.images.values()) == 300
    assert contact_sheet(found.dataset, AugmentConfig(), 6, 0).size[0] > 0
    with pytest.raises(DataError, match="labels are float32"):
        seen(config, 2, channels=1)


# -- contact sheets -----------------------------------------------------------------------------------------------


def tiles(dataset, augment, resolution):
    """The images of a sheet of two classes: row, side, column."""
    sheet = np.asarray(contact_sheet(dataset, augment, resolution, 3))
    scale = max(1, round(96 / resolution))
    tile = resolution * scale + GAP_PX
    found = {}
    for row in range(2):
        for side in range(2):
            for column in range(EACH):
                top = 2 * LABEL_PX + row * (tile + LABEL_PX) + GAP_PX
                left = (side * EACH + column) * tile + (1 + 2 * side) * GAP_PX
                found[row, side, column] = sheet[top : top + tile - GAP_PX : scale, left : left + tile - GAP_PX : scale]
    return found


@pytest.mark.parametrize("resolution", [7, 9, 120])
def test_a_sheet_shows_what_a_network_sees(tmp_path, resolution):
    data = opened(folder(tmp_path, {"ant": 9, "bee": 9}), 2)
    plain = tiles(data, AugmentConfig(), resolution)
    varied = tiles(data, AugmentConfig(flip=True, cutout_percent=40, rotate_degrees=30), resolution)
    for row in range(2):
        chosen = np.flatnonzero(data.train.labels == row)[:EACH]
        for column, image in enumerate(data.train.pixels(chosen, resolution)):
            wanted = image.transpose(1, 2, 0).astype(int)
            assert np.abs(plain[row, 0, column] - wanted).max() <= 1
            assert np.abs(plain[row, 1, column] - wanted).max() <= 1, "nothing varies them"
            assert np.array_equal(plain[row, 0, column], varied[row, 0, column])
            assert not np.array_equal(plain[row, 1, column], varied[row, 1, column])


def test_a_sheet_is_written_or_refused(tmp_path):
    data = opened(folder(tmp_path / "images", {"ant": 9, "bée \x1b[31m日本": 9}), 2)
    write_sheet(data, AugmentConfig(), 9, 0, tmp_path / "new" / "sheet.PNG")
    with Image.open(tmp_path / "new" / "sheet.PNG") as sheet:
        assert sheet.format == "PNG"
    with pytest.raises(OutputError, match=r"a contact sheet is a PNG file, got .*sheet\.jpg"):
        write_sheet(data, AugmentConfig(), 9, 0, tmp_path / "sheet.jpg")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match=r"folder\.png is a folder"):
        write_sheet(data, AugmentConfig(), 9, 0, tmp_path / "folder.png")
