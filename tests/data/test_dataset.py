"""Datasets: exact splits, every layout of arrays, and one clear line for every input that cannot be used."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from hwnas import data as hwnas_data
from hwnas.data import DataConfig
from hwnas.errors import DataError
from hwnas.task.classification import CLASSIFICATION


def load_data(config, *sizes):
    return hwnas_data.load_data(config, CLASSIFICATION, *sizes)


def rows(part):
    """Images and labels as comparable values."""
    return [(x.numpy().tobytes(), int(y)) for x, y in zip(part.images, part.labels, strict=True)]


def counts(part, classes):
    return np.bincount(part.labels.numpy(), minlength=classes)


# -- digits ---------------------------------------------------------------------------------------------


def test_digits_are_the_real_ones_split_class_by_class():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = load_data(DataConfig(), 1, 10, 12)
    assert data.classes == tuple("0123456789")
    per_class = np.bincount(bunch.target)
    test = np.array([round(n * 0.2) for n in per_class])
    validation = np.array([round(n * 0.15) for n in per_class - test])
    np.testing.assert_array_equal(counts(data.test, 10), test)
    np.testing.assert_array_equal(counts(data.validation, 10), validation)
    np.testing.assert_array_equal(counts(data.train, 10), per_class - test - validation)
    every = sorted(rows(data.train) + rows(data.validation) + rows(data.test))
    grey = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    assert every == sorted((x.tobytes(), int(y)) for x, y in zip(grey, bunch.target, strict=True))


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    a, b = load_data(DataConfig(seed=1), 1, 10, 12), load_data(DataConfig(seed=1), 1, 10, 12)
    other = load_data(DataConfig(seed=2), 1, 10, 12)
    for part in ("train", "validation", "test"):
        assert rows(getattr(a, part)) == rows(getattr(b, part))
        assert rows(getattr(a, part)) != rows(getattr(other, part))
    assert a.sha256 == b.sha256 != other.sha256


def test_a_split_is_shuffled():
    labels = load_data(DataConfig(), 1, 10, 12).train.labels
    assert len(labels[:40].unique()) == 10


def test_mean_and_deviation_by_hand():
    data = load_data(DataConfig(), 1, 10, 12)
    x = data.train.images.numpy().astype(np.float64) / 255
    (mean,), (std,) = data.mean_std
    assert mean == pytest.approx(x.mean(), rel=1e-12)
    assert std == pytest.approx(x.std(ddof=1), rel=1e-12)


def test_grey_images_are_repeated_for_a_colour_network():
    grey, colour = load_data(DataConfig(), 1, 10, 12), load_data(DataConfig(), 3, 10, 12)
    assert torch.equal(colour.train.images, grey.train.images.expand(-1, 3, -1, -1))


def test_fewer_images_are_the_first_ones():
    full, few = load_data(DataConfig(), 1, 10, 12), load_data(DataConfig(max_images=31), 1, 10, 12)
    assert [len(few.train), len(few.validation), len(few.test)] == [31, 31, 31]
    assert rows(few.train) == rows(full.train)[:31]


# -- arrays ---------------------------------------------------------------------------------------------


def arrays(rng, n=35, shape=(11, 13), classes=5, **more):
    x = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    return {"x_train": x, "y_train": np.arange(n) % classes, **more}


def npz(tmp_path, values):
    path = tmp_path / "images.npz"
    np.savez(path, **values)
    return DataConfig(source="npz", path=str(path), validation_percent=20, test_percent=20)


@pytest.mark.parametrize(
    ("shape", "channels"), [((11, 13), 1), ((1, 11, 13), 1), ((11, 13, 1), 1), ((3, 11, 13), 3), ((11, 13, 3), 3)]
)
def test_every_layout_of_arrays_is_read(tmp_path, rng, shape, channels):
    values = arrays(rng, shape=shape)
    data = load_data(npz(tmp_path, values), channels, 5, 12)
    x = values["x_train"]
    if shape[-1] == channels:
        x = x.transpose(0, 3, 1, 2)
    x = x.reshape(35, channels, 11, 13)
    every = sorted(rows(data.train) + rows(data.validation) + rows(data.test))
    assert every == sorted((a.tobytes(), int(y)) for a, y in zip(x, values["y_train"], strict=True))


def test_a_given_test_split_is_kept_as_it_is(tmp_path, rng):
    x_test, y_test = rng.integers(0, 256, (7, 11, 13), dtype=np.uint8), np.array([0, 1, 2, 3, 4, 0, 1], np.uint8)
    values = arrays(rng, x_test=x_test, y_test=y_test.reshape(-1, 1), classes=5)
    data = load_data(npz(tmp_path, values), 1, 5, 12)
    assert np.array_equal(data.test.images[:, 0].numpy(), x_test)
    assert data.test.labels.tolist() == y_test.tolist()
    assert counts(data.validation, 5).tolist() == [1] * 5
    assert len(data.train) == 30


def test_names_of_classes_are_read(tmp_path, rng):
    values = arrays(rng, classes=3) | {"classes": np.array(["ant", "bee", "cat"])}
    assert load_data(npz(tmp_path, values), 1, 3, 12).classes == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("change", "channels", "message"),
    [
        ({"x_train": np.zeros((0, 11, 13), np.uint8), "y_train": np.zeros(0, int)}, 1, "has no training images"),
        ({"y_train": np.zeros(35, int)}, 1, "has one class only; a classifier needs at least two"),
        ({"y_train": np.full(35, 3)}, 1, "has one class only"),
        ({"y_train": np.arange(35) % 6}, 1, r"labels from 0 to 5, but the network has 5 .*supernet\.classes=6"),
        ({"y_train": np.arange(35) % 5 - 1}, 1, "labels from -1 to 3"),
        ({"y_train": np.arange(35) % 4}, 1, r"has 4 classes, the network 5; set supernet\.classes=4"),
        ({"x_train": np.full((35, 11, 13), 300, np.int32)}, 1, r"x_train: int32 pixels reach from 300 to 300, allowed"),
        ({"x_train": np.zeros((35, 11, 13), np.float32)}, 1, "every pixel of the training images is 0"),
        ({"x_train": np.zeros((35, 143), np.uint8)}, 1, r"x_train has shape \(35, 143\)"),
        ({"x_train": np.zeros((35, 2, 11, 13), np.uint8)}, 1, r"x_train has shape \(35, 2, 11, 13\)"),
        ({"y_train": np.arange(34) % 5}, 1, "35 images but 34 labels"),
        ({"y_train": (np.arange(35) % 5).astype(float)}, 1, "labels are float64; they must be integers"),
        ({"y_train": np.array(["a", "b"] * 17 + ["a"])}, 1, r"has 2 classes, the network 5; set supernet\.classes=2"),
        ({"y_train": np.zeros(35, complex)}, 1, "labels are complex128; they must be integers, floats or texts"),
        ({"x_train": np.zeros((35, 11, 13, 3), np.uint8)}, 1, r"images of 3 channels, the network takes 1"),
        ({"y_test": np.zeros(3, int)}, 1, "x_test with y_test or neither"),
        ({"x_test": np.zeros((2, 11, 13), np.uint8), "y_test": np.array([0, 9])}, 1, "labels from 0 to 9"),
        ({"x_test": np.zeros((0, 11, 13), np.uint8), "y_test": np.zeros(0, int)}, 1, "leaves no test images"),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be_used_are_one_clear_line(tmp_path, rng, change, channels, message):
    config = npz(tmp_path, arrays(rng) | change)
    with pytest.raises(DataError, match=message) as caught:
        load_data(config, channels, 5, 12)
    assert config.path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_that_are_missing_are_named(tmp_path, rng):
    values = arrays(rng)
    config = npz(tmp_path, {"images": values["x_train"], "y_train": values["y_train"]})
    with pytest.raises(DataError, match=r"has arrays \['images', 'y_train'\]; it needs x_train and y_train"):
        load_data(config, 1, 5, 12)


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 cut short", b"\x93NUMPY"])
def test_a_damaged_archive_is_named(tmp_path, content):
    path = tmp_path / "images.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images\.npz cannot be read as \.npz"):
        load_data(DataConfig(source="npz", path=str(path)), 1, 5, 12)


def test_an_archive_of_objects_is_never_unpickled(tmp_path):
    config = npz(tmp_path, {"x_train": np.array([{"a": 1}], dtype=object), "y_train": np.zeros(1, int)})
    with pytest.raises(DataError, match="cannot be read"):
        load_data(config, 1, 5, 12)


def test_a_truncated_archive_is_named(tmp_path, rng):
    config = npz(tmp_path, arrays(rng))
    whole = (tmp_path / "images.npz").read_bytes()
    (tmp_path / "images.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        load_data(config, 1, 5, 12)


def test_a_single_array_is_no_archive(tmp_path, rng):
    path = tmp_path / "images.npz"
    with path.open("wb") as file:
        np.save(file, arrays(rng)["x_train"])
    with pytest.raises(DataError, match="single array"):
        load_data(DataConfig(source="npz", path=str(path)), 1, 5, 12)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_with_damaged_bytes_is_named(tmp_path, rng, save):
    config = npz(tmp_path, arrays(rng))
    save(tmp_path / "images.npz", **arrays(rng))
    whole = bytearray((tmp_path / "images.npz").read_bytes())
    whole[400:440] = bytes(40)
    (tmp_path / "images.npz").write_bytes(bytes(whole))
    with pytest.raises(DataError, match="cannot be read"):
        load_data(config, 1, 5, 12)


@pytest.mark.parametrize("source", ["npz", "folder"])
def test_a_missing_path_is_named(source):
    with pytest.raises(DataError, match=rf"data source '{source}' needs data\.path"):
        load_data(DataConfig(source=source), 1, 5, 12)
    with pytest.raises(DataError, match=r"data\.path 'nowhere/x' does not exist"):
        load_data(DataConfig(source=source, path="nowhere/x"), 1, 5, 12)


# -- folders --------------------------------------------------------------------------------------------


def make_folder(root, rng, classes=("ant", "bee", "cat"), n=7, size=(17, 13)):
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return DataConfig(source="folder", path=str(root), validation_percent=20, test_percent=20)


def test_a_folder_of_classes_is_read_cropped_and_split(tmp_path, rng):
    config = make_folder(tmp_path / "pictures", rng, size=(17, 13))
    data = load_data(config, 3, 3, 13)
    assert data.classes == ("ant", "bee", "cat")
    assert counts(data.test, 3).tolist() == [1, 1, 1]
    assert counts(data.validation, 3).tolist() == [1, 1, 1]
    assert counts(data.train, 3).tolist() == [5, 5, 5]
    found = rows(data.train) + rows(data.validation) + rows(data.test)
    for label, name in enumerate(data.classes):
        for path in (tmp_path / "pictures" / name).iterdir():
            pixels = np.asarray(Image.open(path))[:, 2:15]  # the shorter edge fits; 17 wide: 2 off at each side
            assert (pixels.transpose(2, 0, 1).tobytes(), label) in found


def test_the_size_of_the_config_wins_over_that_of_the_recipe(tmp_path, rng):
    config = make_folder(tmp_path, rng).model_copy(update={"image_size_px": 8})
    assert load_data(config, 3, 3, 13).train.images.shape[1:] == (3, 8, 8)


def test_a_folder_with_train_and_test(tmp_path, rng):
    make_folder(tmp_path / "train", rng)
    make_folder(tmp_path / "test", rng, n=2)
    (tmp_path / "notes.txt").write_text("not an image")
    data = load_data(DataConfig(source="folder", path=str(tmp_path), validation_percent=20), 3, 3, 13)
    assert [len(data.train), len(data.validation), len(data.test)] == [18, 3, 6]


def test_a_broken_image_is_named(tmp_path, rng):
    config = make_folder(tmp_path, rng)
    whole = (tmp_path / "bee" / "3.png").read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        (tmp_path / "bee" / "3.png").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read image .*bee.3\.png: .*; repair or remove the file"):
            load_data(config, 3, 3, 13)


def test_folders_that_cannot_be_used(tmp_path, rng):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has no training images"):
        load_data(DataConfig(source="folder", path=str(tmp_path / "empty")), 3, 3, 13)
    with pytest.raises(DataError, match="has one class only"):
        load_data(make_folder(tmp_path / "one", rng, classes=("ant",)), 3, 3, 13)
    with pytest.raises(DataError, match=r"has 3 classes, the network 4; set supernet\.classes=3"):
        load_data(make_folder(tmp_path / "three", rng), 3, 4, 13)
    with pytest.raises(DataError, match="images of 3 channels, the network takes 1"):
        load_data(DataConfig(source="folder", path=str(tmp_path / "three")), 1, 3, 13)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file is a file; source 'folder' needs a folder"):
        load_data(DataConfig(source="folder", path=str(tmp_path / "file")), 3, 3, 13)


def test_too_few_images_to_split_are_an_error(tmp_path, rng):
    config = make_folder(tmp_path, rng, n=1)
    with pytest.raises(DataError, match=r"leaves no \w+ images; give more images"):
        load_data(config, 3, 3, 13)


@pytest.mark.parametrize(
    "change", [{"source": "imagenet"}, {"validation_percent": 0}, {"test_percent": 100}, {"max_images": 0}, {"sedd": 1}]
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        DataConfig(**change)


def test_mnist_is_read(shared):
    config = DataConfig(source="npz", path=str(shared / "images" / "mnist_uint8.npz"), max_images=101)
    data = load_data(config, 1, 10, 28)
    assert data.train.images.shape == (101, 1, 28, 28)
    assert len(data.classes) == 10


def idx_bytes(array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def test_idx_files_plain_and_gzipped(tmp_path, rng):
    import gzip

    arrays = {}
    for prefix, n in (("train", 40), ("t10k", 10)):
        arrays[prefix] = rng.integers(0, 256, (n, 11, 13 - 2), dtype=np.uint8), (np.arange(n) % 5).astype(np.uint8)
        images, labels = arrays[prefix]
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    splits = load_data(DataConfig(source="idx", path=str(tmp_path)), 1, 5, 11)
    assert torch.equal(splits.test.images[:, 0], torch.from_numpy(arrays["t10k"][0]))
    assert splits.test.labels.tolist() == arrays["t10k"][1].tolist()
    assert len(splits.train) + len(splits.validation) == 40
    cut = (tmp_path / "train-images-idx3-ubyte").read_bytes()[:-7]
    (tmp_path / "train-images-idx3-ubyte").write_bytes(cut)
    with pytest.raises(DataError, match="cut short"):
        load_data(DataConfig(source="idx", path=str(tmp_path)), 1, 5, 11)


def test_cifar_binary_planes_and_labels(tmp_path, rng):
    records = rng.integers(0, 256, (20, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(20) % 10
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}.bin").write_bytes(records.tobytes())
    (tmp_path / "test_batch.bin").write_bytes(records.tobytes())
    splits = load_data(DataConfig(source="cifar10", path=str(tmp_path)), 3, 10, 32)
    assert splits.classes[3] == "cat"
    assert splits.test.images[4, 1, 2, 5] == records[4, 1 + 1024 + 2 * 32 + 5]  # green plane, row 2, column 5
    (tmp_path / "data_batch_3.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(DataError, match="data_batch_3"):
        load_data(DataConfig(source="cifar10", path=str(tmp_path)), 3, 10, 32)


def test_a_path_is_also_looked_for_in_the_data_folder(tmp_path, rng, monkeypatch):
    x, y = rng.integers(0, 256, (40, 11, 11), dtype=np.uint8), np.arange(40) % 5
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y)
    monkeypatch.setenv("HWNAS_DATA", str(tmp_path))
    assert load_data(DataConfig(source="npz", path="mine.npz"), 1, 5, 11).name == "npz"
