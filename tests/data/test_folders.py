"""Folders as people have them: every image is used, or counted by the reason for which it is not."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from hwnas.data import DataConfig, load_data
from hwnas.data.source import SourceConfig
from hwnas.data.sources import SOURCES
from hwnas.data.sources.tree import IMAGE_ENDINGS, is_hidden
from hwnas.data.split_names import SPELLINGS, chosen_splits, split_of
from hwnas.errors import DataError
from hwnas.task.classification import CLASSIFICATION


def pictures(folder, n=4, ending=".png", kind=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        pixels = np.random.default_rng([i, len(folder.name)]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}{ending}", kind)


def opened(root):
    return SOURCES.get("folder").open(SourceConfig(source="folder", path=str(root)), 8)


def left_out(root):
    return {entry.reason: entry.count for entry in opened(root).left_out}


def names(part, root):
    return None if part is None else [os.path.relpath(part.place(i), root) for i in range(len(part))]


def accounted(root):
    """Whether every file below a folder is used or counted."""
    found = opened(root)
    used = sum(len(part) for part in (found.train, found.validation, found.test) if part is not None)
    return used + sum(entry.count for entry in found.left_out) == sum(len(files) for *_, files in os.walk(root))


def load(root, classes):
    return load_data(DataConfig(source="folder", path=str(root)), CLASSIFICATION, 3, classes, 8)


# -- hidden and system entries ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "__MACOSX", "$RECYCLE.BIN", "@eaDir", ".git", "__macosx"])
@pytest.mark.parametrize("depth", ["", "train", "train/cat"])
def test_hidden_folders_are_no_classes_and_no_images(tmp_path, name, depth):
    for split in ("train", "test") if depth else ("",):
        for label in ("cat", "dog"):
            pictures(tmp_path / split / label)
    pictures(tmp_path / depth / name, 3)
    assert opened(tmp_path).classes == ("cat", "dog")
    assert len(opened(tmp_path).train) == 8
    assert left_out(tmp_path) == {"files in hidden or system folders": 3}
    assert accounted(tmp_path)


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", "THUMBS.DB", ".hidden.jpg"])
def test_hidden_files_are_no_images(tmp_path, name):
    for label in ("cat", "dog"):
        pictures(tmp_path / label)
    for place in (tmp_path, tmp_path / "cat"):
        (place / name).write_bytes(b"x")
    assert left_out(tmp_path) == {"hidden or system files": 2}
    assert accounted(tmp_path)
    assert is_hidden(name)


# -- splits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((spelling, split) for split, spellings in SPELLINGS.items() for spelling in spellings),
        ("Train", "train"), ("TRAINING", "train"), ("training_set", "train"), ("train-images", "train"),
        ("train2017", "train"), ("trainset", "train"), ("Train Data", "train"), ("Val", "validation"),
        ("VALID", "validation"), ("val_set", "validation"), ("validation.split", "validation"), ("dev1", "validation"),
        ("Test", "test"), ("test_set", "test"), ("TestSet", "test"), ("Eval", "test"), ("testing ", "test"),
        ("trains", None), ("cat", None), ("train_test", None), ("", None), ("set", None), ("contest", None),
        ("tester", None), ("valley", None), ("unsupervised", None),
    ],
)  # fmt: skip
def test_names_of_splits_in_every_usual_spelling(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize("labels", [["bullet_train", "steam_train"], ["train_station", "test_tube"], ["a_b", "b_a"]])
def test_classes_of_two_words_are_classes(tmp_path, labels):
    for label in labels:
        pictures(tmp_path / label)
    assert opened(tmp_path).classes == tuple(sorted(labels))


def test_of_several_names_of_one_split_the_commonest_is_chosen():
    assert chosen_splits(["TRAIN", "Train", "train"]) == {"train": "train"}
    chosen = chosen_splits(["dev", "train2017", "validation", "Test", "eval", "train", "extra"])
    assert chosen == {"train": "train", "validation": "validation", "test": "Test"}


@pytest.mark.parametrize("validation", ["val", "Valid", "validation_set", "DEV"])
@pytest.mark.parametrize("test", ["test", "Testing", "eval", "test_images"])
def test_given_splits_are_used_as_they_are(tmp_path, validation, test):
    for split, n in (("Training", 6), (validation, 2), (test, 3)):
        for label in ("cat", "dog"):
            pictures(tmp_path / split / label, n)
    data = load(tmp_path, 2)
    assert [len(data.train), len(data.validation), len(data.test)] == [12, 4, 6]
    assert data.left_out == ()
    assert accounted(tmp_path)


def test_validation_images_test_where_there_are_no_others(tmp_path):
    for split, n in (("train", 10), ("val", 3)):
        for label in ("cat", "dog"):
            pictures(tmp_path / split / label, n)
    data = load(tmp_path, 2)
    assert [len(data.train), len(data.validation), len(data.test)] == [16, 4, 6]


def test_a_second_split_of_one_kind_is_counted(tmp_path):
    for split in ("train", "val", "dev", "extra"):
        for label in ("cat", "dog"):
            pictures(tmp_path / split / label)
    assert left_out(tmp_path) == {"files in folders that are no split, beside the splits": 16}
    assert accounted(tmp_path)


def test_splits_may_be_inside_the_classes(tmp_path):
    for label in ("cat", "dog"):
        for split, n in (("train", 4), ("test", 2), ("ground_truth", 1)):
            pictures(tmp_path / label / split, n)
    pictures(tmp_path / "cat", 1)
    found = opened(tmp_path)
    assert found.classes == ("cat", "dog")
    assert names(found.test, tmp_path) == ["cat/test/0.png", "cat/test/1.png", "dog/test/0.png", "dog/test/1.png"]
    assert len(found.train) == 8
    assert accounted(tmp_path)


@pytest.mark.parametrize("others", [["bus", "car"], ["control"], ["bus", "test"]])
@pytest.mark.parametrize("name", ["train", "test", "val"])
def test_a_class_may_be_called_like_a_split(tmp_path, name, others):
    for label in {name, *others}:
        pictures(tmp_path / label)
    found = opened(tmp_path)
    assert found.classes == tuple(sorted({name, *others}))
    assert found.test is None
    assert accounted(tmp_path)


def test_a_class_of_a_split_may_be_called_like_one(tmp_path):
    for split in ("train", "test"):
        for label in ("test", "control"):
            pictures(tmp_path / split / label)
    found = opened(tmp_path)
    assert found.classes == ("control", "test")
    assert [len(found.train), len(found.test)] == [8, 8]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ["train/2019", "train/2020", "bus/2019", "car"],
            "has train/ with folders in it, beside 'bus', 'car' with images",
        ),
        (["train", "test"], "has the splits 'test', 'train' with images, but no folders of classes in them"),
        (["val/cat", "val/dog", "test/cat"], "has the splits 'test', 'val', and no train"),
        ([""], "has no folders of classes; put the images of each class in a folder of its own"),
        (
            ["seg_train/cat", "seg_test/cat", "seg_pred"],
            "has the folders 'seg_test', 'seg_train', which look like splits",
        ),
        (["train-v2/cat", "val-v2/cat"], "has the folders 'train-v2', 'val-v2', which look like splits; call them"),
        (["pets/cat", "pets/dog"], r"has the one folder 'pets', .* give data\.path=.*pets$"),
        (["train/pets/cat", "train/pets/dog", "test/cat"], "has the one folder 'pets', .* move them to .*train$"),
        (
            ["train/cat", "train/dog", "test/cat", "test/lynx"],
            "has images of 'lynx', which is no class of the training",
        ),
        (["train/cat", "train/dog", "test/Cats", "test/Dogs"], "has images of 'Cats', 'Dogs', which is no class"),
    ],
)
def test_folders_that_cannot_be_understood_say_what_to_do(tmp_path, folders, message):
    for folder in folders:
        pictures(tmp_path / folder)
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


# -- classes ------------------------------------------------------------------------------------------------


def test_classes_of_splits_are_matched_by_name(tmp_path):
    for label, n in (("ant", 3), ("bee", 4), ("cow", 5)):
        pictures(tmp_path / "train" / label, n)
    for label, n in (("COW", 2), (unicodedata.normalize("NFD", "bee"), 1)):
        pictures(tmp_path / "test" / label, n)
    found = opened(tmp_path)
    assert found.test.labels.tolist() == [1, 2, 2]
    assert names(found.test, tmp_path) == ["test/bee/0.png", "test/COW/0.png", "test/COW/1.png"]


def test_accents_written_in_two_ways_are_the_same_class(tmp_path):
    pictures(tmp_path / "train" / unicodedata.normalize("NFC", "möwe"))
    pictures(tmp_path / "train" / "gans")
    pictures(tmp_path / "test" / unicodedata.normalize("NFD", "möwe"), 2)
    assert opened(tmp_path).test.labels.tolist() == [1, 1]


@pytest.mark.parametrize("place", ["test", "test/test", "test/images", "test/unlabelled"])
def test_images_without_labels_are_counted_and_not_used(tmp_path, place):
    for label in ("cat", "dog"):
        pictures(tmp_path / "train" / label, 5)
    pictures(tmp_path / place, 7)
    found = opened(tmp_path)
    assert found.test is None
    (entry,) = found.left_out
    assert entry.count == 7
    assert "label" in entry.reason
    assert accounted(tmp_path)


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled", "unsup", "no_label"])
def test_a_folder_that_says_so_is_no_class(tmp_path, name):
    for label in ("cat", "dog", name):
        pictures(tmp_path / label)
    assert opened(tmp_path).classes == ("cat", "dog")
    assert left_out(tmp_path) == {f"files in folders called {name}": 4}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"cat": 9, "dog": 9, "puma": 1},
            r"too few images of 'puma' \(1\): none is left to train .* at least 3 images",
        ),
        ({"cat": 9, "dog": 9, "lynx": 2, "puma": 1}, r"too few images of 'lynx' \(2\), 'puma' \(1\)"),
        ({"cat": 9, "dog": 9, "puma": 0}, "has no training image of the class 'puma'; give images of each, or take"),
        ({"cat": 9, "dog": 9, "lynx": 0, "puma": 0}, "has no training image of the classes 'lynx', 'puma'"),
        ({"cat": 9}, "has one class only; a classifier needs at least two"),
    ],
)
def test_a_class_without_training_images_is_named(tmp_path, sizes, message):
    for label, n in sizes.items():
        pictures(tmp_path / label, n)
    with pytest.raises(DataError, match=message):
        load(tmp_path, len(sizes))


def test_a_class_of_two_images_is_enough_where_test_images_are_given(tmp_path):
    for split, n in (("train", 2), ("test", 1)):
        for label in ("cat", "dog"):
            pictures(tmp_path / split / label, n)
    data = load(tmp_path, 2)
    assert sorted(data.train.labels.tolist()) == sorted(data.validation.labels.tolist()) == [0, 1]
    pictures(tmp_path / "train" / "puma", 1)
    with pytest.raises(
        DataError, match=r"'puma' \(1\): none is left .* when validation images are held out; .* least 2"
    ):
        load(tmp_path, 3)


# -- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (".jfif", "JPEG"), (".JPG", "JPEG"), (".jpe", "JPEG"), (".Jpeg", "JPEG"), (".webp", "WEBP"), (".TIF", "TIFF"),
        (".tiff", "TIFF"), (".bmp", "BMP"), (".dib", "BMP"), (".gif", "GIF"), (".ppm", "PPM"), (".tga", "TGA"),
        (".PNG", "PNG"), (".apng", "PNG"), (".ico", "ICO"), (".pcx", "PCX"), (".jp2", "JPEG2000"),
    ],
)  # fmt: skip
def test_endings_of_images(tmp_path, ending, kind):
    pictures(tmp_path / "cat", 5, ending, kind)
    pictures(tmp_path / "dog", 5)
    data = load(tmp_path, 2)
    assert len(data.train) + len(data.validation) + len(data.test) == 10
    assert ending.lower() in IMAGE_ENDINGS


def test_files_that_are_no_images_are_counted_by_ending(tmp_path):
    for label in ("cat", "dog"):
        pictures(tmp_path / label)
        for name in ("notes.txt", "a.TXT", "labels.csv", "README", "clip.mp4", "photo.heic"):
            (tmp_path / label / name).write_text("x")
    pictures(tmp_path, 2)
    assert left_out(tmp_path) == {
        "images outside the folders of classes, which have no label": 2,
        "files without an ending": 2,
        "files that end in .txt, which is no image": 4,
        "files that end in .mp4, which is no image": 2,
        "files that end in .csv, which is no image": 2,
        "files that end in .heic, which is no image": 2,
    }
    assert accounted(tmp_path)
    entry = next(e for e in opened(tmp_path).left_out if ".txt" in e.reason)
    assert str(entry) == (
        "files that end in .txt, which is no image: 4 ('cat/a.TXT', 'cat/notes.txt', 'dog/a.TXT', ...)"
    )


def test_links_and_nested_folders_are_followed(tmp_path):
    root = tmp_path / "root"
    pictures(root / "cat" / "2019" / "may", 2)
    pictures(root / "cat" / "2020.png", 1)  # a folder that is called like an image
    pictures(tmp_path / "elsewhere", 3)
    pictures(tmp_path / "dogs", 4)
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "dog").symlink_to(tmp_path / "dogs")
    (root / "cat" / "one.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "cat" / "2019" / "back").symlink_to(root / "cat")
    (root / "cat" / "self.png").symlink_to(root / "cat" / "self.png")
    os.mkfifo(root / "cat" / "pipe.png")
    found = opened(root)
    assert names(found.train, root) == [
        "cat/2019/may/0.png", "cat/2019/may/1.png", "cat/2020.png/0.png", "cat/more/0.png", "cat/more/1.png",
        "cat/more/2.png", "cat/one.png", "dog/0.png", "dog/1.png", "dog/2.png", "dog/3.png",
    ]  # fmt: skip
    assert left_out(root) == {
        "links back to a folder above": 1, "links that lead nowhere": 2, "pipes, sockets or devices": 1,
    }  # fmt: skip
    assert found.train.pixels(np.array([6]), 8).shape == (1, 3, 8, 8)


def test_images_come_in_the_order_of_their_paths(tmp_path):
    for name in ("b.png", "a/z.png", "a.png", "a-b/1.png", "B.png", "a/y/1.png", "10.png", "9.png"):
        pictures((tmp_path / "cat" / name).parent, 0)
        Image.new("RGB", (8, 8)).save(tmp_path / "cat" / name)
    pictures(tmp_path / "dog", 1)
    found = names(opened(tmp_path).train, tmp_path / "cat")[:-1]
    assert found == [str(p.relative_to(tmp_path / "cat")) for p in sorted((tmp_path / "cat").rglob("*.png"))]


def test_names_that_are_no_text_and_files_that_cannot_be_read_are_one_line(tmp_path, monkeypatch):
    pictures(tmp_path / "cat")
    pictures(tmp_path / "dog")
    strange = os.fsencode(tmp_path / "cat") + b"/\xff\n\x1b[31m.png"
    with open(strange, "wb") as file:
        file.write(b"broken")
    with pytest.raises(DataError, match=r"cat/\\udcff\\n\\x1b\[31m\.png: it is no image"):
        load(tmp_path, 2)
    os.remove(strange)

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=r"cannot list the folder .*: Permission denied; make it readable"):
        opened(tmp_path)
