"""Sources beyond arrays: encoded images in one file, datasets of Hugging Face, and decoded images that are kept."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from hwnas.data import DataConfig, load_data
from hwnas.data.look import look
from hwnas.errors import DataError
from hwnas.task.classification import CLASSIFICATION


def noise(seed, px=6):
    return np.random.default_rng(seed).integers(0, 256, (px, px, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Ten images in each of two classes."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(noise(10 * label + i)).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def load(**settings):
    return load_data(DataConfig(**settings), CLASSIFICATION, 3, 2, 6)


def test_images_are_looked_at_as_they_are_in_the_files(folder, tmp_path):
    config = DataConfig(source="folder", path=str(folder), cache=str(tmp_path / "cache"))
    for name in ("cat/1.png", "dog/2.png"):
        (folder / name).write_bytes(b"no image")
    found = look(config, CLASSIFICATION, 3, 2, 6)
    assert [p.split(": ")[0].split("images/")[1] for p in found.problems] == ["cat/1.png", "dog/2.png"]
    assert not (tmp_path / "cache").exists()


def encoded(seeds):
    files = []
    for seed in seeds:
        buffer = io.BytesIO()
        Image.fromarray(noise(seed)).save(buffer, "PNG")  # lossless, so that pixels can be told
        files.append(np.frombuffer(buffer.getvalue(), np.uint8))
    return np.concatenate(files), np.cumsum([0, *map(len, files)])


def jpeg_file(tmp_path, **changes):
    arrays = {}
    for part, seeds in (("train", range(20)), ("test", range(20, 26))):
        arrays[f"jpeg_{part}"], arrays[f"offset_{part}"] = encoded(seeds)
        arrays[f"y_{part}"] = np.arange(len(seeds), dtype=np.uint8) % 2
    np.savez(tmp_path / "set.npz", **{k: v for k, v in {**arrays, **changes}.items() if v is not None})
    return str(tmp_path / "set.npz")


def test_encoded_images_in_one_file(tmp_path):
    found = load(source="jpeg", path=jpeg_file(tmp_path, classes=np.array(["even", "odd"])))
    assert found.classes == ("even", "odd")
    assert torch.equal(found.test.images[3], torch.from_numpy(noise(23)).permute(2, 0, 1))
    assert found.test.labels.tolist() == [0, 1] * 3
    assert len(found.train) + len(found.validation) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset_test": None}, r"lacks arrays \['offset_test'\]"),
        ({"y_train": np.zeros(7, np.uint8)}, "offset_train does not fit 7 labels"),
        ({"jpeg_test": np.zeros(30, np.uint8)}, "offset_test does not fit"),
        ({"jpeg_train": np.zeros(9999, np.uint8)}, "cannot read image 0 of jpeg_train"),
    ],
)
def test_damaged_files_of_encoded_images_are_told(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        load(source="jpeg", path=jpeg_file(tmp_path, **changes))


@pytest.mark.slow
def test_a_dataset_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"img": [Image.fromarray(noise(i)) for i in range(20)], "kind": [i % 2 for i in range(20)]}
    whole = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": whole, "test": whole.select(range(6))}).save_to_disk(str(tmp_path / "set"))
    found = load(source="huggingface", path=str(tmp_path / "set"))
    assert found.classes == ("cat", "dog")
    assert torch.equal(found.test.images[5], torch.from_numpy(noise(5)).permute(2, 0, 1))
    assert found.test.labels.tolist() == [0, 1] * 3
    datasets.Dataset.from_dict({"a": [1, 2]}).save_to_disk(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"image columns \[\] and label columns \[\]; it needs one of each"):
        load(source="huggingface", path=str(tmp_path / "none"))


def test_a_source_without_a_path_says_so():
    for source in ("jpeg", "huggingface"):
        with pytest.raises(DataError, match=r"needs data\.path"):
            load(source=source)
