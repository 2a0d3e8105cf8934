"""A damaged checkpoint: the training goes on from the one before."""

import pytest
import torch

from hwnas.errors import CheckpointError
from hwnas.train.last_good import before, load_checkpoint, remove_checkpoint, save_checkpoint


@pytest.fixture
def path(tmp_path):
    """Two checkpoints of a training."""
    for step in (1, 2):
        save_checkpoint(tmp_path / "checkpoint.safetensors", {"w": torch.full((3,), float(step))}, {"step": step})
    return tmp_path / "checkpoint.safetensors"


def step_of(path, told=None):
    progress = (lambda *values: told.append(values)) if told is not None else (lambda *values: None)
    tensors, metadata = load_checkpoint(path, progress)
    assert tensors["w"].tolist() == [metadata["step"]] * 3
    return metadata["step"]


def test_the_last_checkpoint_is_read(path):
    told = []
    assert step_of(path, told) == 2
    assert told == []


@pytest.mark.parametrize("damage", [lambda b: b[:50], lambda b: b[:-4] + b"\x00\x00\x80?", lambda b: b""])
def test_where_it_is_damaged_the_one_before_is_read_and_that_is_said(path, damage):
    path.write_bytes(damage(path.read_bytes()))
    told = []
    assert step_of(path, told) == 1
    assert told[0][0] == "resume"
    assert str(path) in told[0][3]


def test_where_writing_was_stopped_the_one_before_is_read(path):
    path.unlink()
    assert step_of(path) == 1


def test_where_both_are_damaged_that_is_an_error(path):
    for file in (path, before(path)):
        file.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_both_are_removed(path):
    remove_checkpoint(path)
    assert list(path.parent.iterdir()) == []
    assert load_checkpoint(path) is None
