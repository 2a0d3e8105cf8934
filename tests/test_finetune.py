"""Fine-tuning: never worse on validation, the given network untouched, the same bits for the same seed."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from hwnas.data import AugmentConfig, ImageSet, TrainBatches, as_input
from hwnas.errors import ResumeError, TrainingError
from hwnas.finetune import FinetuneConfig, Student, finetune, relative_cost, seconds_per_epoch, train_together
from hwnas.finetune.together import MIXUP_STREAM
from hwnas.supernet import calibrate_bn, extract_subnet
from hwnas.train import PhaseConfig, TrainConfig, scores
from hwnas.train.mixing import draw_mixup
from hwnas.train.step import learning_rate, make_optimiser

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
    monkeypatch.setattr("hwnas.finetune.together.scores_of", lambda *args: {"top1_percent": next(values)})
    result = finetune(subnet, 11, splits, CONFIG)
    assert (result.score_before, result.score, result.best_epoch) == (80.0, 80.0, 0)
    assert equal(state(result.network), state(subnet))


def test_the_first_of_equal_epochs_is_kept(subnet, splits, monkeypatch):
    values = iter([50.0, 70.0, 70.0])
    monkeypatch.setattr("hwnas.finetune.together.scores_of", lambda *args: {"top1_percent": next(values)})
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


def test_images_and_labels_are_mixed_in_pairs(subnet, splits):
    config = CONFIG.model_copy(update={"mixup_alpha": 0.4})
    notes, mixes = [], [draw_mixup(0.4, np.random.default_rng((0, step, MIXUP_STREAM)), 8) for step in range(2)]
    finetune(subnet, 11, splits, config, progress=lambda *args: notes.append(args))
    x, y = TrainBatches(splits.train, *splits.mean_std, 8, AugmentConfig(), 0).batch(0, 11)
    own, partner = mixes[0].share, mixes[0].order
    with torch.no_grad():
        logits = copy.deepcopy(subnet).train()(own * x + (1 - own) * x[partner])
    losses = [F.cross_entropy(logits, labels, label_smoothing=0.1) for labels in (y, y[partner])]
    assert notes[0][3] == f"loss {float(own * losses[0] + (1 - own) * losses[1]):.3f}"
    assert mixes[0].share != mixes[1].share
    assert not torch.equal(mixes[0].order, mixes[1].order)


def test_what_a_recipe_trains_with_is_what_its_models_are_finished_with():
    """Every setting of both is the recipe's, but for the rate, which is that of a phase."""
    changed = {
        "batch_size": 9, "momentum": 0.5, "weight_decay": 0.1, "label_smoothing": 0.2, "mixup_alpha": 0.3,
        "clip_grad_norm": 2.0, "device": "cpu", "seed": 7, "checkpoint_every_s": 3.0,
    }  # fmt: skip
    assert set(changed) == set(FinetuneConfig.model_fields) & set(TrainConfig.model_fields)
    like = FinetuneConfig.like(TrainConfig(phases=(PhaseConfig(name="p", epochs=1, lr=0.02),), **changed))
    assert {name: getattr(like, name) for name in changed} == changed
    assert like.lr == 0.02


def test_a_loss_that_is_not_finite_says_what_to_do(subnet, splits):
    subnet[-1].classifier.weight.data[0, 0] = math.inf
    with pytest.raises(TrainingError, match=r"not finite at step 0; lower the learning rate \(it is 0\.05\)"):
        finetune(subnet, 11, splits, CONFIG)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"lr": -1}, {"batch_size": 1}, {"epoch": 1}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        FinetuneConfig(**change)


# -- several on one stream of images ---------------------------------------------------------------------


@pytest.fixture
def two(make_net, splits):
    net = make_net()
    space = net.space.restrict({"resolution": [11]})
    made = []
    for arch in (space.largest(), space.smallest()):
        subnet = extract_subnet(net, arch)
        calibrate_bn(subnet, [as_input(splits.train.images, 11, *splits.mean_std)])
        made.append(subnet)
    return made


def students(two, teacher=None):
    return [Student("large", two[0], 11), Student("small", two[1], 11, teacher)]


def test_together_without_a_teacher_each_learns_as_if_it_were_alone(two, splits):
    together = train_together(students(two), splits, CONFIG)
    for network, result in zip(two, together, strict=True):
        alone = finetune(network, 11, splits, CONFIG)
        assert equal(state(alone.network), state(result.network))
        assert (alone.score_before, alone.score, alone.best_epoch) == (
            result.score_before, result.score, result.best_epoch,
        )  # fmt: skip


def test_the_larger_one_teaches_the_smaller_one(two, splits, monkeypatch):
    """By hand: one step of the small one on labels and on what the large one says of the same images, unlearnt."""
    better = iter(range(100))  # so that the step is kept
    monkeypatch.setattr("hwnas.finetune.together.scores_of", lambda *args: {"top1_percent": float(next(better))})
    config = FinetuneConfig(epochs=0.2, lr=0.05, batch_size=8, momentum=0, weight_decay=0, distill_ratio=0.7)
    learnt = train_together(students(two, "large"), splits, config)
    by_hand = [copy.deepcopy(net).train() for net in two]
    x, y = TrainBatches(splits.train, *splits.mean_std, 8, AugmentConfig(), config.seed).batch(0, 11)
    large, small = (net(x) for net in by_hand)
    loss = F.cross_entropy(small, y, label_smoothing=0.1)
    loss = loss + 0.7 * F.cross_entropy(small, large.detach().softmax(1))
    loss.backward()
    for (name, p), trained in zip(by_hand[1].named_parameters(), learnt[1].network.parameters(), strict=True):
        torch.testing.assert_close(trained, p - 0.05 * p.grad, msg=lambda m, n=name: f"{n}: {m}")
    alone = finetune(two[0], 11, splits, config.model_copy(update={"distill_ratio": 0}))
    assert equal(state(alone.network), state(learnt[0].network)), "who teaches learns from labels only"


def test_smaller_images_are_resized_from_the_same_batch(two, splits, monkeypatch):
    seen = []
    two[1].register_forward_pre_hook(lambda net, x: seen.append(x[0]))
    batches = []
    original = TrainBatches.batch
    monkeypatch.setattr(TrainBatches, "batch", lambda *args: batches.append(original(*args)) or batches[-1])
    both = [Student("large", two[0], 13), Student("small", two[1], 11)]
    train_together(both, splits, CONFIG.model_copy(update={"epochs": 0.2}))
    assert len(batches) == 1
    resized = F.interpolate(batches[0][0], (11, 11), mode="bilinear", antialias=True)
    assert any(x.shape == resized.shape and torch.equal(x, resized) for x in seen)


def test_a_training_begins_with_small_images(subnet, splits, monkeypatch):
    monkeypatch.setattr("hwnas.finetune.together.SMALLEST_PX", 4)
    seen = []
    subnet.register_forward_pre_hook(lambda net, x: seen.append(x[0].shape[2]) if net.training else None)
    config = CONFIG.model_copy(update={"epochs": 2, "small_percent": 50.0})  # 5 steps an epoch
    train_together([Student("a", subnet, 11)], splits, config)
    assert seen == [7] * 5 + [11] * 5
    assert relative_cost(50.0) == pytest.approx(0.5 + 0.5 * 0.625**2)


def test_tiny_images_stay_as_they_are(subnet, splits):
    seen = []
    subnet.register_forward_pre_hook(lambda net, x: seen.append(x[0].shape[2]))
    train_together([Student("a", subnet, 11)], splits, CONFIG.model_copy(update={"small_percent": 50.0}))
    assert set(seen) == {11}


@pytest.mark.parametrize("stop_at", [1, 6, 9])
def test_a_stopped_training_ends_with_the_same_bits(two, splits, tmp_path, stop_at):
    config = CONFIG.model_copy(update={"checkpoint_every_s": 1e-9, "distill_ratio": 1.0})
    whole = train_together(students(two, "large"), splits, config)

    class Stop(BaseException):
        pass

    def stop(task, done, total, note=""):
        if done == stop_at:
            raise Stop

    with pytest.raises(Stop):
        train_together(students(two, "large"), splits, config, folder=tmp_path, progress=stop)
    told = []
    again = train_together(
        students(two, "large"), splits, config, folder=tmp_path, progress=lambda task, done, *_: told.append(done)
    )
    assert told[0] == max(1, stop_at)
    for one, other in zip(whole, again, strict=True):
        assert equal(state(one.network), state(other.network))
        assert (one.score_before, one.score, one.best_epoch) == (other.score_before, other.score, other.best_epoch)
    told.clear()
    train_together(
        students(two, "large"), splits, config, folder=tmp_path, progress=lambda task, done, *_: told.append(done)
    )
    assert not told, "a finished training is read"


def test_a_checkpoint_of_other_settings_is_refused(two, splits, tmp_path):
    train_together(students(two), splits, CONFIG, folder=tmp_path)
    with pytest.raises(ResumeError, match="other settings of config"):
        train_together(students(two), splits, CONFIG.model_copy(update={"lr": 0.01}), folder=tmp_path)


def test_a_teacher_must_stand_before_its_student(two, splits):
    with pytest.raises(TrainingError, match=r"student 'small' needs .* not 'later'; before it are \['large'\]"):
        train_together(students(two, "later"), splits, CONFIG)
    with pytest.raises(TrainingError, match="needs a name of its own"):
        train_together([Student("a", two[0], 11), Student("a", two[1], 11)], splits, CONFIG)


def test_only_late_epochs_are_looked_at_where_that_is_asked(subnet, splits, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "hwnas.finetune.together.scores_of", lambda *args: calls.append(1) or {"top1_percent": float(len(calls))}
    )
    result = finetune(subnet, 11, splits, CONFIG.model_copy(update={"epochs": 10, "scored_percent": 20.0}))
    assert len(calls) == 1 + 2  # before, and after each of the last two epochs
    assert result.best_epoch == 10


def test_the_time_of_an_epoch_is_measured_and_changes_nothing(two, splits):
    before = [state(net) for net in two]
    assert seconds_per_epoch(students(two, "large"), splits, CONFIG) > 0
    assert all(equal(b, state(net)) for b, net in zip(before, two, strict=True))


def test_the_second_step_learns_training_and_validation_images_for_as_many_epochs(subnet, splits, monkeypatch):
    config = CONFIG.model_copy(update={"epochs": 4, "two_step": True})
    values = iter([10.0, 20.0, 50.0, 40.0, 30.0])  # as it came, then after each epoch
    monkeypatch.setattr("hwnas.finetune.together.scores_of", lambda *args: {"top1_percent": next(values)})
    told = []
    result = finetune(
        subnet, 11, splits, config, progress=lambda task, done, total, note="": told.append((task, total))
    )
    assert (result.score_before, result.score, result.best_epoch, result.saw_validation) == (10.0, 50.0, 2, True)
    second = [total for task, total in told if task == "finetune with validation images"]
    assert set(second) == {len(second)}
    n = len(splits.train) + len(splits.validation)
    by_hand, generator = copy.deepcopy(subnet), TrainBatches(
        joined := ImageSet(
            torch.cat([splits.train.images, splits.validation.images]),
            torch.cat([splits.train.labels, splits.validation.labels]),
        ),
        *splits.mean_std, 8, AugmentConfig(), config.seed,
    )  # fmt: skip
    assert len(joined) == n
    assert len(second) == 2 * generator.per_epoch
    optimiser = make_optimiser(by_hand, config)
    schedule = PhaseConfig(name="by hand", epochs=4, lr=config.lr)
    for step in range(2 * generator.per_epoch):
        x, y = generator.batch(step, 11)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(schedule, step, 4 * generator.per_epoch, generator.per_epoch)
        optimiser.zero_grad()
        with torch.random.fork_rng():
            torch.manual_seed(config.seed + step)
            outputs = by_hand.train()(x)
        F.cross_entropy(outputs, y, label_smoothing=config.label_smoothing).backward()
        optimiser.step()
    assert equal(state(by_hand), state(result.network))


def test_a_network_that_only_gets_worse_has_no_second_step(subnet, splits, monkeypatch):
    values = iter([80.0, 70.0, 60.0])
    monkeypatch.setattr("hwnas.finetune.together.scores_of", lambda *args: {"top1_percent": next(values)})
    result = finetune(subnet, 11, splits, CONFIG.model_copy(update={"two_step": True}))
    assert (result.score, result.best_epoch, result.saw_validation) == (80.0, 0, False)
    assert equal(state(result.network), state(subnet))


def test_adamw_takes_adamws_steps(subnet, splits, monkeypatch, tmp_path):
    values = iter([10.0, 20.0])  # the epoch is kept
    monkeypatch.setattr("hwnas.finetune.together.scores_of", lambda *args: {"top1_percent": next(values)})
    config = CONFIG.model_copy(update={"epochs": 1, "lr": 0.001, "optimiser": "adamw", "weight_decay": 0.01})
    found = finetune(subnet, 11, splits, config).network
    by_hand = copy.deepcopy(subnet).train()
    optimiser = torch.optim.AdamW(by_hand.parameters(), weight_decay=0.01)
    batches = TrainBatches(splits.train, *splits.mean_std, 8, AugmentConfig(), config.seed)
    schedule = PhaseConfig(name="by hand", epochs=1, lr=config.lr)
    for step in range(batches.per_epoch):
        x, y = batches.batch(step, 11)
        optimiser.param_groups[0]["lr"] = learning_rate(schedule, step, batches.per_epoch, batches.per_epoch)
        optimiser.zero_grad()
        with torch.random.fork_rng():
            torch.manual_seed(config.seed + step)
            outputs = by_hand(x)
        F.cross_entropy(outputs, y, label_smoothing=config.label_smoothing).backward()
        optimiser.step()
    assert equal(state(by_hand), state(found))


@pytest.mark.parametrize(
    ("change", "stops"),
    [
        ({"optimiser": "adamw"}, 8), ({"two_step": True}, 8), ({"two_step": True}, 17),
        ({"optimiser": "adamw", "two_step": True}, 17),
    ],
)  # fmt: skip
def test_every_way_of_training_goes_on_where_it_was_stopped(subnet, splits, tmp_path, change, stops, monkeypatch):
    config = CONFIG.model_copy(update={"epochs": 2, "checkpoint_every_s": 1e-9, **change})
    better = itertools.count(10.0)  # every look at the validation images finds more
    monkeypatch.setattr("hwnas.finetune.together.scores_of", lambda *args: {"top1_percent": next(better)})
    whole = finetune(subnet, 11, splits, config)
    calls = itertools.count()

    def stop(*_):
        if next(calls) == stops:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(subnet, 11, splits, config, progress=stop, folder=tmp_path)
    steps = []
    found = finetune(subnet, 11, splits, config, progress=lambda *a: steps.append(a), folder=tmp_path)
    whole_steps = 2 * 6 + (14 if config.two_step else 0)
    assert len(steps) < whole_steps - stops + 3, "it began anew"
    assert equal(state(found.network), state(whole.network))
    assert (found.best_epoch, found.saw_validation) == (whole.best_epoch, whole.saw_validation)


def test_settings_that_came_later_are_left_out_of_digests():
    assert not {"optimiser", "two_step"} & FinetuneConfig().binding().keys()
    changed = FinetuneConfig(optimiser="adamw", two_step=True).binding()
    assert (changed["optimiser"], changed["two_step"]) == ("adamw", True)
