"""Every source by the same rules, and sources of one's own."""

import gzip
import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from hwnas.data import DataConfig
from hwnas.data.source import FileImages, MemoryImages, SourceConfig
from hwnas.data.sources import SOURCES
from hwnas.testing.source import SourceTests


def files_of(tmp_path, name, rng):
    """Write a small dataset of a source, and return what its config says beside the name."""
    x, y = rng.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8), np.arange(40) % (10 if name == "cifar10" else 4)
    if name == "npz":
        splits = {"x_test": x[:8], "y_test": y[:8], "x_val": x[:12], "y_val": y[:12], "classes": np.array(list("abcd"))}
        np.savez(tmp_path / "a.npz", x_train=x, y_train=y, **splits, notes=np.zeros(3))
        return {"path": str(tmp_path / "a.npz")}
    if name == "jpeg":
        arrays = {}
        for part, n in (("train", 40), ("test", 8)):
            encoded = []
            for image in x[:n]:
                buffer = io.BytesIO()
                Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
                encoded.append(np.frombuffer(buffer.getvalue(), np.uint8))
            arrays |= {f"jpeg_{part}": np.concatenate(encoded), f"y_{part}": y[:n]}
            arrays[f"offset_{part}"] = np.cumsum([0, *map(len, encoded)])
        np.savez(tmp_path / "a.npz", **arrays)
        return {"path": str(tmp_path / "a.npz")}
    if name == "idx":
        for prefix, n in (("train", 40), ("t10k", 8)):
            for kind, array in (("images-idx3", x[:n, 0]), ("labels-idx1", y[:n].astype(np.uint8))):
                header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
                (tmp_path / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    elif name.startswith("cifar"):
        columns = [y[:, None].astype(np.uint8)] * (1 if name == "cifar10" else 2)
        records = np.concatenate([*columns, x.reshape(40, -1)], axis=1).tobytes()
        for file in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "train.bin", "test.bin"):
            (tmp_path / file).write_bytes(records)
        if name == "cifar100":
            (tmp_path / "fine_label_names.txt").write_text("apple\nbear\nclock\ndoor\n")
    elif name == "folder":
        for i, image in enumerate(x):
            (tmp_path / "abcd"[i % 4]).mkdir(exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)[:, : 20 + i % 9]).save(tmp_path / "abcd"[i % 4] / f"{i}.png")
    elif name == "webdataset":
        for part, n in (("train", 40), ("val", 12)):
            with tarfile.open(tmp_path / f"{part}-0000.tar", "w") as tar:
                for i, image in enumerate(x[:n]):
                    buffer = io.BytesIO()
                    Image.fromarray(image.transpose(1, 2, 0)[:, : 20 + i % 9]).save(buffer, "PNG")
                    for ending, content in (("png", buffer.getvalue()), ("cls", str(i % 4).encode())):
                        entry = tarfile.TarInfo(f"{i:04}.{ending}")
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
    elif name == "huggingface":
        datasets = pytest.importorskip("datasets")
        features = datasets.Features({"i": datasets.Image(), "l": datasets.ClassLabel(names=list("abcd"))})
        rows = {"i": [Image.fromarray(a.transpose(1, 2, 0)) for a in x], "l": y.tolist()}
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path))
    return {} if name.endswith("digits") else {"path": str(tmp_path)}


@pytest.mark.parametrize("source_name", SOURCES.names())
class TestShippedSources(SourceTests):
    @pytest.fixture(autouse=True)
    def _take(self, source_name, tmp_path, rng):
        self.name = source_name
        settings = {"source": source_name, **files_of(tmp_path, source_name, rng)}
        self.make, self.config = lambda: SOURCES.get(source_name), lambda: SourceConfig(**settings)

    def test_its_labels_can_be_learnt(self, source_name):
        super().test_its_labels_can_be_learnt()


def test_cluttered_digits_are_the_digits_among_pieces_of_others():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    digits = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    found = SOURCES.get("cluttered-digits").open(SourceConfig(source="cluttered-digits"), 12)
    members = []
    for part, n, times in ((found.train, 4312, 4), (found.validation, 3600, 10), (found.test, 1795, 5)):
        assert len(part) == n
        pixels = part.pixels(np.arange(n), 12)[:, 0]
        assert pixels.shape == (n, 12, 12)
        seen = set()
        for number in range(0, n, 97):
            picture, label = pixels[number].astype(int), part.labels[number]
            windows = np.lib.stride_tricks.sliding_window_view(picture, (8, 8)).reshape(-1, 64)
            same = [i for i in np.flatnonzero(bunch.target == label) if (windows >= digits[i].reshape(64)).all(1).any()]
            assert same, "no digit of the class lies in it"
            seen |= {int(i) for i in same if len(same) == 1}
        members.append(seen)
        every = n // times
        assert (part.labels[:every] == part.labels[every : 2 * every]).all(), "each digit comes as often"
        assert not (pixels[:every] == pixels[every : 2 * every]).all((1, 2)).any(), "each time elsewhere"
    assert not members[0] & members[1]
    assert not members[0] & members[2]
    again = SOURCES.get("cluttered-digits").open(SourceConfig(source="cluttered-digits"), 12)
    assert (again.train.pixels(np.arange(99), 12) == found.train.pixels(np.arange(99), 12)).all()


def test_only_the_files_that_are_asked_for_are_decoded(tmp_path, rng):
    good = tmp_path / "good.png"
    Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(good)
    images = FileImages([tmp_path / "missing.png", good], np.array([0, 1]))
    assert images.pixels(np.array([1, 1]), 5).shape == (2, 3, 5, 5)


def test_images_in_memory_come_as_they_are(rng):
    x = rng.integers(0, 256, (5, 1, 4, 6), dtype=np.uint8)
    images = MemoryImages(x, np.arange(5))
    assert np.array_equal(images.pixels(np.array([4, 2]), 99), x[[4, 2]])
    assert np.shares_memory(images.pixels(np.arange(5), 99), x)  # a memory map of all images is not read


def test_a_source_is_known_by_its_name():
    with pytest.raises(
        ValidationError,
        match=r"source 'nmpz' is unknown; known are digits, cluttered-digits, npz, .*did you mean 'npz'",
    ):
        DataConfig(source="nmpz")
    with pytest.raises(ValidationError, match=r"lacks open; hwnas\.data\.source says what it needs"):
        DataConfig(source="hwnas.data.sources:SOURCES")


def test_settings_without_options_are_written_as_before_there_were_any():
    assert "options" not in DataConfig().model_dump()
    assert list(DataConfig().model_dump())[:5] == ["source", "path", "cache", "image_size_px", "validation_percent"]
    given = DataConfig(options={"a": 1})
    assert given.model_dump()["options"] == {"a": 1}
    assert DataConfig.model_validate(given.model_dump()) == given


@pytest.mark.parametrize("where", ["in its file", "by its function"])
def test_digits_are_those_of_scikit_learn(monkeypatch, where):
    from sklearn.datasets import load_digits

    from hwnas.data.sources.digits import DIGITS

    if where == "by its function":
        monkeypatch.setattr("hwnas.data.sources.digits.importlib.util.find_spec", lambda name: None)
    bunch, opened = load_digits(), DIGITS.open(None, 8)
    np.testing.assert_array_equal(opened.train.images[:, 0], np.rint(bunch.images * (255 / 16)))
    np.testing.assert_array_equal(opened.train.labels, bunch.target)
    assert opened.classes == tuple(map(str, bunch.target_names))
