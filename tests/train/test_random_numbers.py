"""Whoever calls hwnas has a stream of random numbers of their own, and finds it as it was left."""

import pytest
import torch

from hwnas.data import AugmentConfig, DataConfig
from hwnas.data.random_state import seeded
from hwnas.finetune import FinetuneConfig, finetune
from hwnas.supernet import extract_subnet
from hwnas.train import PhaseConfig, TrainConfig, train_supernet

CONFIG = TrainConfig(batch_size=16, phases=(PhaseConfig(name="full", epochs=2, lr=0.05),), device="cpu", ema_decay=0.9)


@pytest.fixture
def with_dropout(tiny_with):
    return tiny_with(dropout_percent=50)


def test_inside_it_is_as_after_manual_seed_and_outside_nothing_happened():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    before = torch.rand(1)
    with seeded(5):
        assert torch.equal(torch.rand(3), wanted)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), before)
    assert torch.equal(torch.rand(1), after)


def test_an_error_inside_leaves_the_stream_alone_too():
    state = torch.random.get_rng_state()

    def fail():
        with seeded(5):
            torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_takes_nothing_from_the_callers_stream_and_depends_on_nothing_of_it(with_dropout, splits, tmp_path):
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state, seen = torch.random.get_rng_state(), []
        net = train_supernet(
            with_dropout, CONFIG, DataConfig(augment=AugmentConfig(flip=True)), splits, tmp_path / str(seed),
            progress=lambda *told, seen=seen: seen.append(torch.random.get_rng_state()),
        )  # fmt: skip
        assert torch.equal(torch.random.get_rng_state(), state)
        assert all(torch.equal(s, state) for s in seen), "not even for the moment in which a caller is told of progress"
        weights.append(net.state_dict())
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())


def test_dropout_follows_the_seed(with_dropout, splits, tmp_path):
    data = DataConfig(augment=AugmentConfig(flip=True))
    a = train_supernet(with_dropout, CONFIG, data, splits, tmp_path / "a")
    without = with_dropout.model_copy(update={"dropout_percent": 0})
    b = train_supernet(without, CONFIG, data, splits, tmp_path / "b")
    assert not torch.equal(
        a.state_dict()["parts.head.classifier.weight"], b.state_dict()["parts.head.classifier.weight"]
    )


def test_fine_tuning_takes_nothing_from_the_callers_stream(with_dropout, make_net, splits):
    net = make_net(0, with_dropout)
    subnet = extract_subnet(net, net.space.smallest())
    assert any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in subnet.modules())
    config, found = FinetuneConfig(epochs=1, lr=0.01, batch_size=8, distill_ratio=0), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        losses = []
        finetune(subnet, 11, splits, config, progress=lambda *told, losses=losses: losses.append(told[3]))
        assert torch.equal(torch.random.get_rng_state(), state)
        found.append(losses)
    assert found[0] == found[1]
