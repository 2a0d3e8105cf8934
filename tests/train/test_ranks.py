"""Several processes: the same training as one, and mistakes that are named."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from hwnas.data import DataConfig
from hwnas.errors import DataError, RecipeError
from hwnas.supernet import build_supernet
from hwnas.train import TrainConfig, load_supernet, train_supernet
from hwnas.train.ranks import Ranks, SynchronisedMixin, synchronise_batch_norm

CONFIG = {
    "batch_size": 8, "label_smoothing": 0.0, "device": "cpu", "phases": [
        {"name": "full", "epochs": 0.6, "lr": 0.05},
        {"name": "all", "epochs": 0.6, "lr": 0.05, "teacher": "fixed", "sampling": "sandwich", "subnets_per_step": 2,
         "elastic": {"kernel_size": "all", "depth": "all", "expand_ratio": "all"}, "sort_channels": True},
    ],
}  # fmt: skip
DATA = DataConfig(augment={"flip": True, "shift_percent": 10, "cutout_percent": 20})
SECOND_RANK = """
import sys, torch
from pathlib import Path
from hwnas.data import DataConfig, ImageSet, Splits
from hwnas.supernet.families.mbv3 import MBV3Config
from hwnas.train import TrainConfig, train_supernet
torch.set_num_threads(1)
folder = Path(sys.argv[1])
part = lambda name: ImageSet(*torch.load(folder / f"{name}.pt", weights_only=True))
train_supernet(
    MBV3Config.model_validate_json((folder / "net.json").read_text()),
    TrainConfig.model_validate_json((folder / "train.json").read_text()),
    DataConfig.model_validate_json((folder / "data.json").read_text()),
    Splits("made", tuple("abcdefg"), part("train"), part("validation"), part("test")), folder / "two",
)
"""


@pytest.mark.slow
def test_two_ranks_train_as_one_does(tiny, splits, tmp_path, monkeypatch):
    """Batch norms see the whole batch, so only the order of float32 sums differs: losses agree to 1e-3."""
    config = TrainConfig.model_validate(CONFIG)
    train_supernet(tiny, config, DATA, splits, tmp_path / "one")
    for name in ("train", "validation", "test"):
        part = getattr(splits, name)
        torch.save((part.images, part.labels), tmp_path / f"{name}.pt")
    for name, value in (("net", tiny), ("train", config), ("data", DATA)):
        (tmp_path / f"{name}.json").write_text(value.model_dump_json())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    child = subprocess.Popen(
        [sys.executable, "-c", SECOND_RANK, str(tmp_path)],
        env={**os.environ, **shared, "RANK": "1", "LOCAL_RANK": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for name, value in {**shared, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    two = train_supernet(tiny, config, DATA, splits, tmp_path / "two")
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    logs = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    assert [v["step"] for v in logs[1]] == [v["step"] for v in logs[0]]
    assert [v["loss"] for v in logs[1]] == pytest.approx([v["loss"] for v in logs[0]], rel=1e-3)
    one = load_supernet(tmp_path / "one").state_dict()
    for name, value in two.state_dict().items():
        torch.testing.assert_close(value, one[name], rtol=1e-2, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_ranks_share_a_batch_without_gaps():
    parts = [Ranks(r, 3).part(12) for r in range(3)]
    assert [list(range(12))[p] for p in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize(("world", "batch_size", "n_images"), [(9, 8, 100), (5, 8, 4)])
def test_more_ranks_than_images_are_refused(world, batch_size, n_images):
    with pytest.raises(DataError, match=rf"{world} ranks are more than there are images to share"):
        Ranks(0, world).check(batch_size, n_images)


def test_batches_that_ranks_cannot_share_equally_are_refused():
    with pytest.raises(RecipeError, match=r"batch_size=64 .* cannot be shared equally by 3 ranks; make it a multiple"):
        Ranks(0, 3).check(64, 1000)
    Ranks(0, 4).check(64, 1000)


def test_one_rank_changes_nothing():
    values = [torch.tensor([1.0, 3.0])]
    Ranks().average(values)
    assert values[0].tolist() == [1.0, 3.0]
    assert Ranks().mean(2.5) == 2.5


def test_synchronised_batch_norms_keep_their_names_and_their_answers(tiny, images):
    net = build_supernet(tiny, 1).eval()
    arch = net.space.restrict({"resolution": [11]}).smallest()
    names = list(net.state_dict())
    with torch.no_grad():
        before = net(images(3, 11), arch)
        synchronise_batch_norm(net)
        synchronise_batch_norm(net)
        assert torch.equal(net(images(3, 11), arch), before)
    assert list(net.state_dict()) == names
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(m, SynchronisedMixin) for m in norms)


def test_synchronised_blocks_are_not_fused(tiny, images, monkeypatch):
    """A fused block norms by the statistics of its own rank."""
    from hwnas.supernet.blocks import mbconv

    net = build_supernet(tiny, 1).train()
    arch = net.space.restrict({"resolution": [11]}).largest()
    fused_blocks = []
    monkeypatch.setattr(mbconv.fused, "suits", lambda x, mid: fused_blocks.append(mid))
    net(images(3, 11), arch)
    assert fused_blocks
    fused_blocks.clear()
    synchronise_batch_norm(net)
    monkeypatch.setattr(SynchronisedMixin, "forward", lambda self, x: x)
    net(images(3, 11), arch)
    assert not fused_blocks
