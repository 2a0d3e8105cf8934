"""Training: gradients and rates by hand, and the same bits after any interruption."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hwnas.data import DataConfig
from hwnas.errors import ResumeError, TrainingError
from hwnas.supernet import build_supernet
from hwnas.task.classification import CLASSIFICATION
from hwnas.train.checkpoint import load_tensors, save_tensors
from hwnas.train.loop import train_supernet
from hwnas.train.phases import PhaseConfig, TrainConfig
from hwnas.train.step import learning_rate, make_optimiser, train_step

PHASES = [
    {"name": "full", "epochs": 1, "lr": 0.05, "warmup_epochs": 0.4},
    {
        "name": "kernel", "epochs": 0.6, "lr": 0.03, "elastic": {"kernel_size": "all"}, "teacher": "fixed",
        "sampling": "sandwich", "subnets_per_step": 2,
    },
    {
        "name": "width", "epochs": 1, "lr": 0.02, "teacher": "inplace", "sampling": "sandwich", "sort_channels": True,
        "subnets_per_step": 3, "elastic": {"kernel_size": "all", "depth": "all", "expand_ratio": "all"},
    },
]  # fmt: skip
N_STEPS = 5 + 3 + 5  # 41 images in batches of 8


def train_config(**changes):
    return TrainConfig.model_validate({"batch_size": 8, "phases": PHASES, "checkpoint_every_s": 1e-9, **changes})


@pytest.fixture(scope="module")
def dropping(tiny_with):
    """The tiny supernet with dropout, whose random numbers must be replayed too."""
    return tiny_with(dropout_percent=20)


class Stop(BaseException):
    """Stands for a user's Ctrl-C or a crash."""


def stopping_at(step):
    def progress(task, done, total, note=""):
        if done == step:
            raise Stop

    return progress


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(dropping, splits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    config = DataConfig(augment={"flip": True, "cutout_percent": 20})
    train_supernet(dropping, train_config(checkpoint_every_s=1e9), config, splits, folder)
    return config, contents(folder)


def test_a_training_leaves_weights_and_a_log(uninterrupted):
    _, files = uninterrupted
    assert sorted(files) == ["metrics.jsonl", "supernet.safetensors"]
    lines = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    assert [line["step"] for line in lines] == list(range(1, N_STEPS + 1))
    assert [line["phase"] for line in lines] == ["full"] * 5 + ["kernel"] * 3 + ["width"] * 5
    assert all(math.isfinite(line["loss"]) for line in lines)


@pytest.mark.parametrize("steps", [[1], [2, 4], [5], [6], [7, 8], [9], [11, 12], [13]])
def test_an_interrupted_training_ends_with_the_same_bits(dropping, splits, tmp_path, uninterrupted, steps):
    data_config, whole = uninterrupted
    for step in steps:
        with pytest.raises(Stop):
            train_supernet(dropping, train_config(), data_config, splits, tmp_path, stopping_at(step))
        torch.manual_seed(step)
    train_supernet(dropping, train_config(), data_config, splits, tmp_path)
    assert contents(tmp_path) == whole


def test_a_training_without_checkpoints_in_between_starts_its_phase_again(dropping, splits, tmp_path, uninterrupted):
    data_config, whole = uninterrupted
    rarely = train_config(checkpoint_every_s=1e9)
    seen = []
    with pytest.raises(Stop):
        train_supernet(dropping, rarely, data_config, splits, tmp_path, stopping_at(7))
    train_supernet(dropping, rarely, data_config, splits, tmp_path, lambda task, done, *_: seen.append(done))
    assert seen == list(range(6, N_STEPS + 1))
    assert contents(tmp_path) == whole


def test_a_log_cut_short_by_a_kill_is_written_again(dropping, splits, tmp_path, uninterrupted):
    data_config, whole = uninterrupted
    with pytest.raises(Stop):
        train_supernet(dropping, train_config(), data_config, splits, tmp_path, stopping_at(7))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "kernel", "step": 7, "loss": 1.0, "lr": 0.1}\n{"phase": "ker')
    train_supernet(dropping, train_config(), data_config, splits, tmp_path)
    assert contents(tmp_path) == whole


def test_a_finished_training_is_read_not_repeated(dropping, splits, tmp_path, uninterrupted):
    data_config, whole = uninterrupted
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    net = train_supernet(dropping, train_config(), data_config, splits, tmp_path, stopping_at(1))
    assert not net.training
    assert contents(tmp_path) == whole
    tensors, _ = load_tensors(tmp_path / "supernet.safetensors")
    assert all(torch.equal(v, tensors[k]) for k, v in net.state_dict().items())


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_bits(dropping, splits, killed_when, tmp_path, uninterrupted):
    data_config, whole = uninterrupted
    script = """
import sys, torch
from pathlib import Path
from hwnas.data import DataConfig, ImageSet, Splits
from hwnas.supernet.families.mbv3 import MBV3Config
from hwnas.train import TrainConfig, train_supernet
torch.set_num_threads(1)
folder = Path(sys.argv[1])
part = lambda name: ImageSet(*torch.load(folder / f"{name}.pt", weights_only=True))
splits = Splits("made", tuple("abcdefg"), part("train"), part("validation"), part("test"))
train_supernet(
    MBV3Config.model_validate_json((folder / "net.json").read_text()),
    TrainConfig.model_validate_json((folder / "train.json").read_text()),
    DataConfig.model_validate_json((folder / "data.json").read_text()),
    splits, folder / "run", lambda task, done, *_: print(done, flush=True),
)
"""
    for name in ("train", "validation", "test"):
        part = getattr(splits, name)
        torch.save((part.images, part.labels), tmp_path / f"{name}.pt")
    (tmp_path / "net.json").write_text(dropping.model_dump_json())
    (tmp_path / "train.json").write_text(train_config().model_dump_json())
    (tmp_path / "data.json").write_text(data_config.model_dump_json())
    for kill_at in (3, 7, 12):
        steps = killed_when(script, [tmp_path], lambda lines, at=kill_at: int(lines[-1]) == at)
        assert kill_at == 3 or int(steps[0]) > 1, "it began again"
        assert not (tmp_path / "run" / "supernet.safetensors").exists()
    seen = []
    train_supernet(
        dropping, train_config(), data_config, splits, tmp_path / "run", lambda task, done, *_: seen.append(done)
    )
    assert seen[0] > 5, "it began again"
    for leftover in (tmp_path / "run").glob(".*"):
        leftover.unlink()  # a temporary file may survive a kill
    assert contents(tmp_path / "run") == whole


def test_other_settings_are_refused_by_name(dropping, tiny_with, splits, splits_with, tmp_path, uninterrupted):
    data_config, _ = uninterrupted
    with pytest.raises(Stop):
        train_supernet(dropping, train_config(), data_config, splits, tmp_path, stopping_at(7))
    before = contents(tmp_path)
    other = tiny_with(dropout_percent=20, expand_width=48)
    for name, arguments in {
        "train": (dropping, train_config(momentum=0.5), data_config, splits),
        "supernet": (other, train_config(), data_config, splits),
        "data": (dropping, train_config(), DataConfig(), splits),
        "images": (dropping, train_config(), data_config, splits_with(seed=4)),
    }.items():
        with pytest.raises(ResumeError, match=f"made with other settings of {name}; use another --out"):
            train_supernet(*arguments, tmp_path)
        assert contents(tmp_path) == before


def test_other_settings_of_a_finished_training_are_refused(dropping, splits, tmp_path, uninterrupted):
    data_config, whole = uninterrupted
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ResumeError, match="other settings of train"):
        train_supernet(dropping, train_config(seed=1), data_config, splits, tmp_path)
    assert contents(tmp_path) == whole


def test_a_checkpoint_that_is_none_is_refused(dropping, splits, tmp_path):
    save_tensors(tmp_path / "checkpoint.safetensors", {"a": torch.zeros(2)}, {"arch": 1})
    with pytest.raises(ResumeError, match="other settings"):
        train_supernet(dropping, train_config(), DataConfig(), splits, tmp_path)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tiny, splits, tmp_path):
    phases = [PHASES[0], {**PHASES[2], "name": "wild", "lr": 1e30}]
    config = train_config(phases=phases, checkpoint_every_s=1e9)
    with pytest.raises(TrainingError, match=r"loss is \w+ in phase 'wild', step \d, subnets .*; lower .*lr") as caught:
        train_supernet(tiny, config, DataConfig(), splits, tmp_path)
    assert str(tmp_path) in str(caught.value)
    tensors, metadata = load_tensors(tmp_path / "checkpoint.safetensors")
    assert (metadata["phase"], metadata["step"]) == (1, 0)
    assert all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point())
    assert not (tmp_path / "supernet.safetensors").exists()


# -- one step -------------------------------------------------------------------------------------------


def smooth_cross_entropy(logits, target):
    """Mean cross entropy against a distribution, from its definition."""
    log = logits.double() - torch.logsumexp(logits.double(), 1, keepdim=True)
    return float(-(target.double() * log).sum(1).mean())


def smoothed(labels, classes, share):
    return F.one_hot(labels, classes) * (1 - share) + share / classes


def test_the_loss_of_a_step_by_hand(tiny, images):
    net = build_supernet(tiny, 2).train()
    teacher = build_supernet(tiny, 3).eval()
    space = net.space.restrict({"resolution": [11]})
    archs = [space.largest(), space.smallest()]
    x, y = images(6, 11), torch.tensor([0, 1, 2, 3, 4, 6])
    phase = PhaseConfig(name="p", epochs=1, lr=0.1, teacher="fixed", distill_ratio=0.7)
    config = TrainConfig(phases=(phase,), label_smoothing=0.1)
    reference = build_supernet(tiny, 2).train()
    with torch.no_grad():
        soft = torch.softmax(teacher(x, archs[0]), 1)
        wanted = [
            smooth_cross_entropy(z, smoothed(y, 7, 0.1)) + 0.7 * smooth_cross_entropy(z, soft)
            for z in (reference(x, a) for a in archs)
        ]
    loss = train_step(net, make_optimiser(net, config), x, y, archs, phase, config, 0.1, CLASSIFICATION, teacher)
    assert loss == pytest.approx(np.mean(wanted), rel=1e-5)


def test_in_place_distillation_teaches_all_but_the_largest(tiny, images):
    net, reference = build_supernet(tiny, 2).train(), build_supernet(tiny, 2).train()
    space = net.space.restrict({"resolution": [11]})
    archs = [space.largest(), space.smallest()]
    x, y = images(6, 11), torch.tensor([0, 1, 2, 3, 4, 6])
    phase = PhaseConfig(
        name="p", epochs=1, lr=0.1, teacher="inplace", sampling="sandwich", subnets_per_step=2, distill_ratio=0.7
    )
    config = TrainConfig(phases=(phase,), label_smoothing=0.0)
    with torch.no_grad():
        big, small = (reference(x, a) for a in archs)
    label = F.one_hot(y, 7)
    first = smooth_cross_entropy(big, label)
    second = smooth_cross_entropy(small, label) + 0.7 * smooth_cross_entropy(small, torch.softmax(big, 1))
    loss = train_step(net, make_optimiser(net, config), x, y, archs, phase, config, 0.1, CLASSIFICATION)
    assert loss == pytest.approx((first + second) / 2, rel=1e-5)


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_the_update_of_a_step_by_hand(tiny, images, clip):
    """Gradients add up over subnets; then SGD with Nesterov's momentum and decay of weights only."""
    net, reference = build_supernet(tiny, 2).train(), build_supernet(tiny, 2).train()
    space = net.space.restrict({"resolution": [11]})
    archs = [space.largest(), space.smallest()]
    x, y = images(6, 11), torch.tensor([0, 1, 2, 3, 4, 6])
    phase = PhaseConfig(name="p", epochs=1, lr=0.1)
    config = TrainConfig(phases=(phase,), label_smoothing=0.0, weight_decay=0.01, momentum=0.9, clip_grad_norm=clip)
    train_step(net, make_optimiser(net, config), x, y, archs, phase, config, 0.25, CLASSIFICATION)
    sum(F.cross_entropy(reference(x, a), y) for a in archs).backward()
    used = {n: p for n, p in reference.named_parameters() if p.grad is not None}
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in used.values()))
    scale = min(1.0, clip / norm) if clip else 1.0
    assert not clip or scale < 1
    after = dict(net.named_parameters())
    for name, p in reference.named_parameters():
        before = p.detach()
        if name not in used:
            assert torch.equal(after[name], p), name
            continue
        gradient = p.grad * scale + (0.01 * before if p.ndim > 1 else 0)
        wanted = before - 0.25 * (gradient + 0.9 * gradient)  # the first buffer is the gradient itself
        torch.testing.assert_close(after[name].detach(), wanted, rtol=1e-4, atol=1e-5)


def test_a_step_with_a_loss_that_is_not_finite_changes_no_weight(tiny, images):
    net = build_supernet(tiny, 2).train()
    phase = PhaseConfig(name="p", epochs=1, lr=0.1)
    config = TrainConfig(phases=(phase,))
    before = [p.detach().clone() for p in net.parameters()]
    x = images(6, 11)
    x[0, 0, 0, 0] = math.nan
    arch = net.space.restrict({"resolution": [11]}).largest()
    optimiser = make_optimiser(net, config)
    loss = train_step(net, optimiser, x, torch.zeros(6, dtype=torch.long), [arch], phase, config, 0.1, CLASSIFICATION)
    assert math.isnan(loss)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_rates_by_hand():
    phase = PhaseConfig(name="p", epochs=3, lr=0.8, warmup_epochs=0.5)
    rates = [learning_rate(phase, step, 12, 4) for step in range(12)]
    wanted = [0.4, 0.8] + [0.4 * (1 + math.cos(math.pi * k / 10)) for k in range(10)]
    assert rates == pytest.approx(wanted)
    assert rates[7] == pytest.approx(0.4)


def test_rates_without_warm_up_begin_at_the_peak():
    phase = PhaseConfig(name="p", epochs=3, lr=0.8)
    assert [learning_rate(phase, step, 4, 4) for step in range(4)] == pytest.approx(
        [0.8, 0.8 * (0.5 + 0.25 * 2**0.5), 0.4, 0.8 * (0.5 - 0.25 * 2**0.5)]
    )


def test_biases_and_batch_norms_are_not_decayed(tiny):
    net = build_supernet(tiny)
    optimiser = make_optimiser(net, train_config(weight_decay=0.01))
    decayed = {id(p) for g in optimiser.param_groups if g["weight_decay"] for p in g["params"]}
    for name, p in net.named_parameters():
        assert (id(p) in decayed) == (p.ndim > 1), name
