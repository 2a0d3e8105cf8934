"""Fine-tuning: never worse on validation, the given network untouched, the same bits for the same seed."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from hwnas.data import AugmentConfig, TrainBatches, as_input
from hwnas.errors import TrainingError
from hwnas.finetune import FinetuneConfig, finetune
from hwnas.supernet import calibrate_bn, extract_subnet
from hwnas.train import scores

CONFIG = FinetuneConfig(epochs=2, lr=0.05, batch_size=8, distill_ratio=0)


@pytest.fixture
def subnet(make_net, splits):
    net = make_net()
    made = extract_subnet(net, net.space.smallest())
    calibrate_bn(made, [as_input(splits.train.images, 11, *splits.mean_std)])
    return made


def state(net):
    return {k: v.clone() for k, v in net.state_dict().items()}


def equal(a, b):
    return all(torch.equal(v, b[k]) for k, v in a.items())


def validation_top1(net, splits):
    x = as_input(splits.validation.images, 11, *splits.mean_std)
    return scores(net, x, splits.validation.labels, splits.task)["top1_percent"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_best_epoch_on_validation_is_kept(subnet, splits, seed):
    before = state(subnet)
    result = finetune(subnet, 11, splits, CONFIG.model_copy(update={"seed": seed}))
    assert equal(before, state(subnet))
    assert result.score_before == validation_top1(subnet, splits)
    assert result.score == validation_top1(result.network, splits)
    assert result.score >= result.score_before
    assert (result.best_epoch == 0) == equal(state(result.network), before)
    assert not result.network.training


def test_a_network_that_only_gets_worse_comes_back_as_it_was(subnet, splits, monkeypatch):
    values = iter([80.0, 70.0, 60.0])
    monkeypatch.setattr("hwnas.finetune.together.scores", lambda *args: {"top1_percent": next(values)})
    result = finetune(subnet, 11, splits, CONFIG)
    assert (result.score_before, result.score, result.best_epoch) == (80.0, 80.0, 0)
    assert equal(state(result.network), state(subnet))


def test_the_first_of_equal_epochs_is_kept(subnet, splits, monkeypatch):
    values = iter([50.0, 70.0, 70.0])
    monkeypatch.setattr("hwnas.finetune.together.scores", lambda *args: {"top1_percent": next(values)})
    assert finetune(subnet, 11, splits, CONFIG).best_epoch == 1


def test_the_same_seed_gives_the_same_bits(subnet, splits):
    augment = AugmentConfig(flip=True, cutout_percent=20)
    torch.manual_seed(1)
    a = finetune(subnet, 11, splits, CONFIG, augment)
    torch.manual_seed(2)
    b = finetune(subnet, 11, splits, CONFIG, augment)
    assert equal(state(a.network), state(b.network))


def test_it_learns_the_training_images(subnet, splits):
    """Enough steps on 41 images: nearly all are known, where chance is one of seven."""
    everything = type(splits)(splits.name, splits.classes, splits.train, splits.train, splits.test)
    config = FinetuneConfig(epochs=40, lr=0.05, batch_size=8, distill_ratio=0, label_smoothing=0)
    assert finetune(subnet, 11, everything, config).score > 90


def test_the_teacher_is_followed_and_left_alone(subnet, make_net, splits):
    net = make_net(4)
    teacher = extract_subnet(net, net.space.restrict({"resolution": [11]}).largest())
    before = state(teacher)
    config = FinetuneConfig(epochs=1, lr=0.05, batch_size=8, distill_ratio=2.0)
    notes = []
    finetune(subnet, 11, splits, config, teacher=teacher, progress=lambda *args: notes.append(args))
    assert equal(before, state(teacher))
    assert [n[:3] for n in notes] == [("finetune", i, 5) for i in range(1, 6)]
    x, y = TrainBatches(splits.train, *splits.mean_std, 8, AugmentConfig(), 0).batch(0, 11)
    with torch.no_grad():
        logits = copy.deepcopy(subnet).train()(x)
        soft = F.softmax(teacher(x), 1)
    wanted = F.cross_entropy(logits, y, label_smoothing=0.1) + 2.0 * F.cross_entropy(logits, soft)
    assert notes[0][3] == f"loss {float(wanted):.3f}"


def test_a_loss_that_is_not_finite_says_what_to_do(subnet, splits):
    subnet[-1].classifier.weight.data[0, 0] = math.inf
    with pytest.raises(TrainingError, match=r"not finite at step 0; lower the learning rate \(it is 0\.05\)"):
        finetune(subnet, 11, splits, CONFIG)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"lr": -1}, {"batch_size": 1}, {"epoch": 1}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        FinetuneConfig(**change)
