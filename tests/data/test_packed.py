"""Packed files whose content does not fit into memory are refused before they are unpacked."""

import gzip
import struct

import numpy as np
import pytest

from hwnas.data.config import DataConfig
from hwnas.data.sources.files import npz_arrays
from hwnas.data.sources.idx import IDX
from hwnas.errors import DataError
from hwnas.reading import memory


@pytest.fixture
def small_machine(monkeypatch):
    """A machine of 1 MB."""
    monkeypatch.setattr(memory, "memory_bytes", lambda: 2**20)


def idx(shape, content):
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + content


def mnist(folder, images, labels):
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return DataConfig(source="idx", path=str(folder))


def test_zipped_arrays(small_machine, tmp_path):
    np.savez_compressed(tmp_path / "small.npz", x=np.zeros(1000, np.uint8))
    assert npz_arrays(tmp_path / "small.npz")["x"].shape == (1000,)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(2**21, np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < 5000
    with pytest.raises(DataError, match=r"bomb\.npz cannot be read as \.npz: it unpacks to .* GB, this machine has"):
        npz_arrays(tmp_path / "bomb.npz")


def test_gzipped_arrays(small_machine, tmp_path):
    labels = idx((4,), bytes([0, 1, 0, 1]))
    config = mnist(tmp_path, idx((4, 3, 3), bytes(36)), labels)
    assert len(IDX.open(config, 3).train) == 4
    config = mnist(tmp_path, idx((2**20, 1024, 1024), bytes(10)), labels)
    with pytest.raises(DataError, match="cannot be read: it unpacks to 1,024"):
        IDX.open(config, 3)


def test_no_more_is_unpacked_than_the_header_says(tmp_path):
    config = mnist(tmp_path, idx((4, 3, 3), bytes(36) + bytes(2**24)), idx((4,), bytes([0, 1, 0, 1])))
    with pytest.raises(DataError, match=r"holds 37 bytes, its header says \[4, 3, 3\]"):
        IDX.open(config, 3)
