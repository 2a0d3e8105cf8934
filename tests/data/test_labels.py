"""Labels: the same name is the same class in every split, and what has no label or no class is told."""

import numpy as np
import pytest
from PIL import Image

from hwnas.data import DataConfig, load_data
from hwnas.data.dataset import check_parts, divided
from hwnas.data.source import MemoryImages, Opened, SourceConfig
from hwnas.data.sources import SOURCES
from hwnas.errors import DataError
from hwnas.task.classification import CLASSIFICATION

N = 24


def noise(n=N, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **{k: v for k, v in arrays.items() if v is not None})
    return {"source": "npz", "path": str(tmp_path / "a.npz")}


def load(classes, **settings):
    return load_data(DataConfig(**settings), CLASSIFICATION, 3, classes, 6)


def given(settings):
    return SOURCES.get(settings["source"]).open(SourceConfig(**settings), 6)


# -- arrays ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["U", "S"])
def test_labels_may_be_texts(tmp_path, kind):
    y, y_test = np.array(["cow", "ant", "bee"] * 8, kind), np.array(["cow", "bee"], kind)
    found = given(npz(tmp_path, x_train=noise(), y_train=y, x_test=noise(2), y_test=y_test))
    assert found.classes == ("ant", "bee", "cow")
    assert found.train.labels[:3].tolist() == [2, 0, 1]
    assert found.test.labels.tolist() == [2, 1]
    ordered = given(npz(tmp_path, x_train=noise(), y_train=y, classes=np.array(["cow", "bee", "ant"])))
    assert ordered.classes == ("cow", "bee", "ant")
    assert ordered.train.labels[:3].tolist() == [0, 2, 1]
    with pytest.raises(DataError, match="split test has images of 'elk', which is no class of the training images"):
        given(npz(tmp_path, x_train=noise(), y_train=y, x_test=noise(2), y_test=np.array(["ant", "elk"], kind)))


@pytest.mark.parametrize(("words", "settings"), [
    (("x_train", "y_train", "x_val", "y_val", "x_test", "y_test"), {}),
    (("x_training", "y_training", "x_dev", "y_dev", "x_testing", "y_testing"), {}),
    (("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"),
     {"image_column": "images", "label_column": "labels"}),
])  # fmt: skip
def test_arrays_of_every_split_are_used(tmp_path, words, settings):
    parts = [noise(n, n) for n in (N, 6, 8)]
    arrays = {w: parts[i // 2] if i % 2 == 0 else np.arange(len(parts[i // 2])) % 2 for i, w in enumerate(words)}
    data = load(2, **npz(tmp_path, **arrays, extra=np.zeros(3)), **settings)
    assert [len(data.train), len(data.validation), len(data.test)] == [N, 6, 8]
    assert np.array_equal(data.validation.images.permute(0, 2, 3, 1).numpy(), parts[1])
    assert [str(e) for e in data.left_out] == ["arrays that are neither images nor labels of a split: 1 ('extra')"]


def test_a_column_of_labels_is_chosen(tmp_path):
    y = np.arange(N)
    settings = npz(tmp_path, x_train=noise(), y_train=y % 2, coarse_train=y % 3)
    assert given(settings).classes == ("0", "1")
    assert given({**settings, "label_column": "coarse"}).train.labels.tolist() == (y % 3).tolist()
    with pytest.raises(DataError, match="needs x_train and kind_train"):
        given({**settings, "label_column": "kind"})


def test_both_labels_of_cifar100_can_be_learnt(tmp_path):
    records = np.random.default_rng(0).integers(0, 256, (200, 3074), dtype=np.uint8)
    records[:, 0], records[:, 1] = np.arange(200) % 20, np.arange(200) % 100
    for name in ("train.bin", "test.bin"):
        (tmp_path / name).write_bytes(records.tobytes())
    settings = {"source": "cifar100", "path": str(tmp_path)}
    assert given(settings).test.labels.tolist() == given({**settings, "label_column": "fine"}).test.labels.tolist()
    assert given(settings).test.labels.max() == 99
    coarse = given({**settings, "label_column": "coarse"})
    assert len(coarse.classes) == 20
    assert coarse.train.labels.max() == 19
    with pytest.raises(DataError, match="label_column is 'rough'; the labels of cifar100 are coarse, fine"):
        given({**settings, "label_column": "rough"})


@pytest.mark.parametrize("setting", ["label_column", "image_column"])
@pytest.mark.parametrize("source", ["digits", "folder", "idx"])
def test_a_source_without_columns_says_so(setting, source, tmp_path):
    with pytest.raises(DataError, match=rf"has no columns to choose from; leave data\.{setting} out"):
        load(10, source=source, path=str(tmp_path), **{setting: "a"})


def test_columns_that_are_not_chosen_are_in_no_file_and_no_hash():
    assert not {"label_column", "image_column", "options"} & set(DataConfig().model_dump())
    assert DataConfig(label_column="a").model_dump()["label_column"] == "a"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": np.arange(N) % 3 + 1}, "labels from 1 to 3 and none is 0; .* subtract 1 from all labels"),
        ({"y_train": np.arange(N) % 3 + 1, "classes": np.array(list("abc"))}, "labels from 1 to 3 and none is 0"),
        ({"y_train": np.arange(N) % 3 * 2}, "no training image of the classes '1', '3'; .* from 0 without gaps"),
        ({"y_train": np.arange(N) % 3 - 1}, "labels from -1 to 1, 8 of them below 0, .* remove these images"),
        ({"y_train": np.full(N, -1)}, "has one class only"),
        ({"y_train": np.arange(N) % 3, "classes": np.array(list("abcd"))}, "no training image of the class 'd'"),
        ({"y_train": np.arange(N) % 3, "classes": np.array(list("ab"))}, "labels from 0 to 2, but the 2 classes are"),
        ({"y_train": np.arange(N) % 3, "classes": np.array(list("aba"))}, "several classes called 'a'; give every"),
        ({"y_train": np.eye(3, dtype=int)[np.arange(N) % 3]}, r"labels have shape \(24, 3\); .* y\.argmax\(1\)"),
        ({"y_train": (np.arange(N) % 3).astype(float)}, "labels are float64; .* whole numbers: keep them as integers"),
        ({"y_train": np.where(np.arange(N) % 3, 0.5, np.nan)}, "labels are not all finite"),
        ({"y_train": np.full(N, "a")}, "has one class only"),
        ({"y_train": np.array([*np.arange(N - 1) % 3, 2**40])}, "24 labels, which reach 1,099,511,627,776"),
        ({"y_train": np.array(None)}, "cannot be read as .npz"),
    ],
)
def test_labels_that_cannot_be_learnt_say_what_to_do(tmp_path, changes, message):
    with pytest.raises(DataError, match=message) as caught:
        load(3, **npz(tmp_path, x_train=noise(), **changes))
    assert "\n" not in str(caught.value)
    for nonsense in ("classes=0", "classes=-"):
        assert nonsense not in str(caught.value)


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_split_without_labels_is_counted_and_held_out_instead(tmp_path, split):
    arrays = {"x_train": noise(), "y_train": np.arange(N) % 2}
    data = load(2, **npz(tmp_path, **arrays, **{f"x_{split}": noise(5), f"y_{split}": np.full(5, -1)}))
    assert len(data.train) + len(data.validation) + len(data.test) == N
    (entry,) = data.left_out
    assert (entry.count, "which have no label" in entry.reason) == (5, True)


def test_labels_of_two_kinds_may_be_bool(tmp_path):
    assert given(npz(tmp_path, x_train=noise(), y_train=np.arange(N) % 2 > 0)).classes == ("0", "1")


@pytest.mark.parametrize("percent", [20, 60, 90])
def test_no_class_is_lost_to_the_splits(percent):
    found = Opened(("a", "b"), MemoryImages(noise(20).transpose(0, 3, 1, 2), np.repeat([0, 1], [16, 4])))
    parts = divided(found, DataConfig(test_percent=percent, validation_percent=20), CLASSIFICATION)
    if percent < 90:
        check_parts(found, parts, CLASSIFICATION, "here")
        assert set(found.train.labels[parts["train"][1]].tolist()) == {0, 1}
    else:
        with pytest.raises(DataError, match=r"here has too few images of 'b' \(4\): none is left to train"):
            check_parts(found, parts, CLASSIFICATION, "here")


# -- Hugging Face ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def datasets():
    return pytest.importorskip("datasets")


@pytest.fixture
def saved(datasets, tmp_path):
    """Save splits, each a mapping of columns and their features, and return the settings that read them."""

    def save(**splits):
        parts = {}
        for name, (columns, features) in splits.items():
            n = len(next(iter(columns.values())))
            values = {"image": [Image.fromarray(x) for x in noise(n, n)], **columns}
            parts[name] = datasets.Dataset.from_dict(
                values, features=datasets.Features({"image": datasets.Image(), **features})
            )
        datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
        return {"source": "huggingface", "path": str(tmp_path / "set")}

    return save


@pytest.fixture
def labels(datasets):
    """A column ``label`` of class labels."""
    return lambda names, values: ({"label": list(values)}, {"label": datasets.ClassLabel(names=list(names))})


@pytest.mark.slow
def test_classes_of_splits_are_matched_by_name(saved, labels):
    train = labels(["ant", "bee", "cow"], np.arange(N) % 3)
    found = given(saved(train=train, test=labels(["cow", "bee"], [0, 1, 1, 0])))
    assert found.classes == ("ant", "bee", "cow")
    assert found.test.labels.tolist() == [2, 1, 1, 2]
    unused = labels(["elk", "cow", "bee", "ant"], [1, 2, 3])  # a name that no image has
    assert given(saved(train=train, test=unused)).test.labels.tolist() == [2, 1, 0]
    with pytest.raises(DataError, match="split test has images of 'elk', which is no class of the training images"):
        given(saved(train=train, test=labels(["elk", "cow"], [0, 1])))
    with pytest.raises(DataError, match="no training image of the class 'cow'"):
        load(3, **saved(train=labels(["ant", "bee", "cow"], np.arange(N) % 2)))


@pytest.mark.slow
def test_images_without_labels_are_counted(saved, labels):
    train = labels("ab", [-1, *(np.arange(N - 2) % 2), None])
    found = given(saved(train=train, test=labels("ab", [-1] * 5), validation=labels("ab", [0, 1, 0])))
    assert found.train.labels.tolist() == (np.arange(N - 2) % 2).tolist()
    assert found.train.place(0).startswith("row 1 of dataset")
    assert np.array_equal(found.train.pixels(np.array([0]), 6)[0].transpose(1, 2, 0), noise(N, N)[1])
    assert found.test is None
    assert len(found.validation) == 3
    assert [(e.reason, e.count) for e in found.left_out] == [
        ("images of train, which have no label", 2), ("images of test, which have no label", 5),
    ]  # fmt: skip


@pytest.mark.slow
def test_splits_of_every_usual_name(saved, labels):
    parts = {n: labels("ab", np.arange(k) % 2) for n, k in (("Training", N), ("dev", 6), ("eval", 8), ("extra", 3))}
    data = load(2, **saved(**parts))
    assert [len(data.train), len(data.validation), len(data.test)] == [N, 6, 8]
    assert [str(e) for e in data.left_out] == ["images of splits that are not used: 3 ('extra')"]
    with pytest.raises(DataError, match=r"has splits \['dev', 'extra'\]; it needs train"):
        given(saved(dev=parts["dev"], extra=parts["extra"]))


@pytest.mark.slow
def test_columns_are_chosen_and_listed(datasets, saved):
    fine, coarse = (datasets.ClassLabel(names=list(names)) for names in ("abcd", "xy"))
    y = np.arange(N)
    columns = {
        "fine": (y % 4).tolist(), "coarse": (y % 2).tolist(), "kind": ["ant", "bee", "cow"] * 8,
        "number": (y % 3).tolist(), "size": [0.5] * N,
        "second": [Image.fromarray(x) for x in noise(N, 5)],
    }  # fmt: skip
    features = {
        "fine": fine, "coarse": coarse, "kind": datasets.Value("string"), "number": datasets.Value("int32"),
        "size": datasets.Value("float32"), "second": datasets.Image(),
    }  # fmt: skip
    settings = saved(train=(columns, features))
    with pytest.raises(DataError, match=(
        r"image columns \['image', 'second'\] and label columns \['fine', 'coarse'\]; it needs one of each; choose one "
        r"with data\.image_column=image; choose one with data\.label_column=fine"
    )):  # fmt: skip
        given(settings)
    settings["image_column"] = "second"
    for column, classes, wanted in (
        ("fine", tuple("abcd"), y % 4), ("coarse", ("x", "y"), y % 2), ("kind", ("ant", "bee", "cow"), y % 3),
        ("number", ("0", "1", "2"), y % 3),
    ):  # fmt: skip
        found = given({**settings, "label_column": column})
        assert found.classes == classes
        assert found.train.labels.tolist() == wanted.tolist()
    assert np.array_equal(found.train.pixels(np.array([2]), 6)[0].transpose(1, 2, 0), noise(N, 5)[2])
    for wrong in ("size", "second", "none"):
        with pytest.raises(DataError, match=f"label_column is '{wrong}'; .* 'fine', 'coarse', 'kind', 'number'"):
            given({**settings, "label_column": wrong})
    with pytest.raises(DataError, match=r"image_column is 'fine'; .* the image columns 'image', 'second'"):
        given({**settings, "image_column": "fine", "label_column": "fine"})


@pytest.mark.slow
def test_texts_without_class_labels_are_offered(datasets, saved):
    settings = saved(train=({"kind": ["ant", None, "bee"] * 8}, {"kind": datasets.Value("string")}))
    with pytest.raises(DataError, match=r"label columns \[\]; .*; data\.label_column can name one of 'kind'"):
        given(settings)
    found = given({**settings, "label_column": "kind"})
    assert (found.classes, len(found.train), found.left_out[0].count) == (("ant", "bee"), 16, 8)


@pytest.mark.slow
def test_a_column_that_says_grey_is_read_grey(datasets, tmp_path):
    features = datasets.Features({"image": datasets.Image(mode="L"), "l": datasets.ClassLabel(names=["a", "b"])})
    pixels = noise(4)
    rows = {"image": [Image.fromarray(x) for x in pixels], "l": [0, 1, 0, 1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    found = given({"source": "huggingface", "path": str(tmp_path / "set")}).train.pixels(np.array([1]), 6)[0]
    grey = np.asarray(Image.fromarray(pixels[1]).convert("L"))
    assert np.array_equal(found, np.stack([grey] * 3))


@pytest.mark.slow
def test_a_dataset_that_cannot_be_read_is_one_line(datasets, saved, labels, tmp_path):
    settings = saved(train=labels("ab", np.arange(N) % 2))
    arrow = next((tmp_path / "set" / "train").glob("*.arrow"))
    whole = arrow.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"rubbish" * 99):
        arrow.write_bytes(content)
        with pytest.raises(DataError, match=r"data\.path .* cannot be loaded with datasets: ") as caught:
            load(2, **settings)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be loaded with datasets"):
        given({"source": "huggingface", "path": str(tmp_path)})
