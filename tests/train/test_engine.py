"""The rest of the engine: exits, teachers, averages, stages, precision, mixing, logs; by hand where a hand reaches."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from hwnas.data import DataConfig, as_input
from hwnas.errors import CheckpointError, RecipeError, ResumeError
from hwnas.supernet import build_supernet, calibrate_bn, extract_subnet, make_layout
from hwnas.supernet.families.ofav2 import OFAv2Config
from hwnas.supernet.weights.other_classes import head_tensors
from hwnas.task.classification import CLASSIFICATION
from hwnas.train import PhaseConfig, TrainConfig, scores, train_supernet
from hwnas.train.checkpoint import load_supernet, load_tensors, save_supernet, weights_version
from hwnas.train.loop import _follow
from hwnas.train.mixing import Mix, draw_mix, exchanged_moments
from hwnas.train.monitor import landmarks
from hwnas.train.phases import phase_space, sample_step
from hwnas.train.step import make_optimiser, train_step
from hwnas.train.teacher import calibrate_largest, exit_weights, soft_targets

Y = torch.tensor([0, 1, 2, 3, 4, 6])


class Stop(BaseException):
    """Stands for a crash."""


def stopping_at(step):
    def progress(task, done, total, note=""):
        if done == step:
            raise Stop

    return progress


def soft_loss(logits, target):
    """Mean cross entropy against a distribution."""
    return float(F.cross_entropy(logits.double(), target.double()))


@pytest.fixture(scope="module")
def exits_config():
    stage = {"depths": [1, 2], "kernel_sizes": [3, 5], "expand_ratios": [2, 3]}
    return OFAv2Config.model_validate({
        "family": "ofav2", "in_channels": 5, "classes": 7, "resolutions": [11, 13], "stem_width": 8, "stem_stride": 1,
        "first_block": False, "expand_width": 24, "feature_width": 16, "dropout_percent": 0, "early_exits": True,
        "stages": [
            {"width": 8, "stride": 1, **stage}, {"width": 8, "stride": 2, **stage}, {"width": 16, "stride": 1, **stage},
        ],
    })  # fmt: skip


@pytest.fixture
def trio(exits_config):
    """A supernet with three exits in train mode, a reference with the same weights, and its largest arch."""
    net, reference = (build_supernet(exits_config, 2).train() for _ in range(2))
    return net, reference, net.space.restrict({"resolution": [11]}).largest()


def phase(**settings):
    return PhaseConfig(**{"name": "p", "epochs": 1, "lr": 0.1, **settings})


def train(**settings):
    return TrainConfig(**{"batch_size": 8, "phases": (phase(),), "device": "cpu", **settings})


def at_exit(net, arch, exit_):
    return net.space.arch({**arch.as_dict(), "exit": exit_})


# -- exits and teachers ---------------------------------------------------------------------------------


def test_all_exits_in_one_pass_are_the_single_exits(make_net, exits_config, images):
    net = make_net(0, exits_config)
    x = images(3, 11)
    with torch.no_grad():
        for arch in net.space.restrict({"resolution": [11]}).sample(np.random.default_rng(1), 8):
            found = net.exits(x, arch)
            assert len(found) == arch["exit"]
            for exit_, logits in enumerate(found, 1):
                assert torch.equal(logits, net(x, at_exit(net, arch, exit_)))


def test_a_space_without_exits_has_one(make_net, images):
    net = make_net()
    arch = net.space.restrict({"resolution": [11]}).smallest()
    with torch.no_grad():
        (logits,) = net.exits(images(2, 11), arch)
        assert torch.equal(logits, net(images(2, 11), arch))


def test_weights_of_exits_by_hand():
    assert exit_weights("ascending", 5) == pytest.approx([1 / 15, 2 / 15, 3 / 15, 4 / 15, 5 / 15])
    assert exit_weights("descending", 3) == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    assert exit_weights("uniform", 4) == [0.25] * 4


@pytest.mark.parametrize("scheme", ["ascending", "descending"])
def test_the_joint_loss_of_all_exits_by_hand(trio, images, scheme):
    net, reference, arch = trio
    config = train(label_smoothing=0.1, exit_loss=scheme)
    x = images(6, 11)
    loss = train_step(net, make_optimiser(net, config), x, Y, [arch], phase(exits="all"), config, 0.1, CLASSIFICATION)
    with torch.no_grad():
        each = [soft_loss(z, 0.9 * F.one_hot(Y, 7) + 0.1 / 7) for z in reference.exits(x, arch)]
    shares = {"ascending": [1 / 6, 2 / 6, 3 / 6], "descending": [3 / 6, 2 / 6, 1 / 6]}[scheme]
    assert loss == pytest.approx(np.dot(shares, each), rel=1e-5)


def test_the_ensemble_of_a_teachers_exits_by_hand(trio, make_net, exits_config, images):
    net, reference, arch = trio
    teacher = make_net(7, exits_config)
    config = train(label_smoothing=0.0, exit_ensemble="uniform")
    student, x = at_exit(net, arch, 2), images(6, 11)
    settings = phase(teacher="fixed", teacher_exits="all", distill_ratio=0.7)
    loss = train_step(net, make_optimiser(net, config), x, Y, [student], settings, config, 0.1, CLASSIFICATION, teacher)
    with torch.no_grad():
        single = [teacher(x, at_exit(teacher, arch, e)) for e in (1, 2, 3)]
        target = torch.softmax(sum(single) / 3, 1)
        own = reference(x, student)
    wanted = soft_loss(own, F.one_hot(Y, 7)) + 0.7 * soft_loss(own, target)
    assert loss == pytest.approx(wanted, rel=1e-5)


def test_a_teachers_last_exit_is_its_largest_net(make_net, exits_config, images):
    teacher, x = make_net(7, exits_config), images(4, 13)
    largest = teacher.space.restrict({"resolution": [13]}).largest()
    with torch.no_grad():
        assert torch.equal(
            soft_targets(teacher, x, CLASSIFICATION, False, "uniform"), torch.softmax(teacher(x, largest), 1)
        )


def test_an_extracted_teacher_is_calibrated_as_a_subnet_is(make_net, exits_config, images):
    net = make_net(5, exits_config)
    batches = [images(9, 11, seed) for seed in range(3)]
    arch = net.space.restrict({"resolution": [11]}).largest()
    plain = extract_subnet(net, arch)
    calibrate_bn(plain, batches)
    calibrate_largest(net, batches)
    with torch.no_grad():
        torch.testing.assert_close(net(batches[0], arch), plain(batches[0]), rtol=1e-4, atol=1e-5)
    assert not net.training
    assert {m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}


# -- a whole training with everything on ------------------------------------------------------------------

PHASES = [
    {"name": "full", "epochs": 0.8, "lr": 0.05, "exits": "all"},
    {"name": "height", "epochs": 0.8, "lr": 0.05, "elastic": {"exit": "all"}, "teacher": "pet", "teacher_exits": "all",
     "subnets_per_step": 2},
    {"name": "width", "epochs": 0.8, "lr": 0.05, "elastic": {"exit": "all", "expand_ratio": "all"}, "teacher": "pet",
     "sort_channels": True, "frozen_stages": [0, 1]},
]  # fmt: skip
DATA = DataConfig(augment={"trivial": True, "crop_percent": 60, "cutout_percent": 20})


def everything(**settings):
    return TrainConfig.model_validate({
        "batch_size": 8, "phases": PHASES, "ema_decay": 0.8, "moex_percent": 50, "monitor_epochs": 0.4,
        "checkpoint_every_s": 1e-9, "device": "cpu", **settings,
    })  # fmt: skip


@pytest.mark.parametrize(("precision", "steps"), [("float32", (2, 6, 8, 10)), ("float16", (6,))])
def test_an_interrupted_training_with_everything_ends_with_the_same_bits(
    exits_config, splits, tmp_path, precision, steps
):
    config = everything(precision=precision)
    train_supernet(exits_config, config, DATA, splits, tmp_path / "whole")
    for step in steps:
        with pytest.raises(Stop):
            train_supernet(exits_config, config, DATA, splits, tmp_path / "parts", stopping_at(step))
    train_supernet(exits_config, config, DATA, splits, tmp_path / "parts")
    for name in ("supernet.safetensors", "metrics.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_log_has_the_accuracies_that_subnets_have(exits_config, splits, tmp_path):
    net = train_supernet(exits_config, everything(ema_decay=0), DATA, splits, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "top1_percent" in line] == [2, 4, 6, 8, 10, 12]
    for name, arch in landmarks(net.space).items():
        subnet = extract_subnet(net, arch)
        calibrate_bn(subnet, [as_input(splits.train.images, arch["resolution"], *splits.mean_std)])
        x = as_input(splits.validation.images, arch["resolution"], *splits.mean_std)
        assert lines[-1]["top1_percent"][name] == pytest.approx(
            scores(subnet, x, splits.validation.labels, splits.task)["top1_percent"], abs=1e-3
        )


def test_tensorboard_shows_losses_by_phase_and_accuracies(exits_config, splits, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_supernet(exits_config, everything(tensorboard=True), DATA, splits, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in ("full", "height", "width"):
        shown = {e.step: e.value for e in events.Scalars(f"loss/{name}")}
        assert shown == pytest.approx({v["step"]: v["loss"] for v in lines if v["phase"] == name}, rel=1e-5)
    assert [e.step for e in events.Scalars("top1_percent/smallest")] == [2, 4, 6, 8, 10, 12]


def test_every_finished_phase_is_told(exits_config, splits, tmp_path):
    told = []
    train_supernet(
        exits_config, everything(), DATA, splits, tmp_path,
        after_phase=lambda p, net: told.append((p.name, net.training)),
    )  # fmt: skip
    assert told == [("full", False), ("height", False), ("width", False)]


# -- averages -------------------------------------------------------------------------------------------


def test_an_average_follows_by_hand():
    net = torch.nn.BatchNorm2d(2)
    average = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        net.weight.copy_(torch.tensor([3.0, 5.0]))
        net.num_batches_tracked += 4
    _follow(average, net, 0.75)
    assert average["weight"].tolist() == [1.5, 2.0]
    assert int(average["num_batches_tracked"]) == 4


def test_a_phase_ends_with_its_average(exits_config, splits, tmp_path):
    """One step: the decay is the smaller of the setting and 1/10 then."""
    one = {"phases": ({"name": "p", "epochs": 0.2, "lr": 0.05},)}
    plain = train_supernet(exits_config, train(**one), DataConfig(), splits, tmp_path / "plain")
    mean = train_supernet(exits_config, train(**one, ema_decay=0.9), DataConfig(), splits, tmp_path / "mean")
    start = build_supernet(exits_config, 0).state_dict()
    for name, value in mean.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.1 * start[name] + 0.9 * plain.state_dict()[name])


# -- stages ---------------------------------------------------------------------------------------------


def test_only_open_stages_vary_and_the_others_are_held(exits_config):
    space = make_layout(exits_config).space
    elastic = {"kernel_size": "all", "expand_ratio": "all", "depth": "all"}
    late = phase_space(phase(elastic=elastic, open_stages=[3], held="smallest"), space)
    # depth 1 or 2 of blocks with 4 operators, and two resolutions
    assert late.size == 2 * (4 + 16)
    assert late["stage1.block1"].options == ((3, 2),)
    assert late["stage1.depth"].options == (1,)
    assert late["exit"].options == (3,)
    held = phase_space(phase(elastic=elastic, open_stages=[3]), space)
    assert held["stage2.block2"].options == ((5, 3),)
    assert held.size == late.size


def test_only_named_options_are_drawn(exits_config):
    space = make_layout(exits_config).space
    config = phase(
        elastic={"kernel_size": "all", "expand_ratio": "all"},
        only={"stage1.block1": [[3, 2], [3, 3]], "stage3.block2": [[5, 2]]},
    )
    part = phase_space(config, space)
    assert part["stage1.block1"].options == ((3, 2), (3, 3))
    assert part["stage3.block2"].options == ((5, 2),)
    assert part["stage2.block1"].options == space["stage2.block1"].options
    assert all(part.contains(a) for a in sample_step(config, part, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"open_stages": [4]}, r"phases 'p': stages \[4\] do not exist; the supernet has stages 1 to 3"),
        ({"frozen_stages": [0, 9]}, r"stages \[9\] do not exist"),
        ({"only": {"stage9.depth": [1]}}, r"no choice 'stage9.depth'"),
        ({"only": {"stage1.depth": [7]}}, r"\[7\] are no options of 'stage1.depth'"),
    ],
)
def test_stages_and_options_that_are_not_there_are_named(exits_config, settings, message):
    with pytest.raises(RecipeError, match=message):
        phase_space(phase(**settings), make_layout(exits_config).space)


def test_exits_need_a_family_that_has_them(layout):
    with pytest.raises(RecipeError, match=r"exits all needs a supernet with early exits"):
        phase_space(phase(exits="all"), layout.space)


def test_frozen_stages_do_not_learn_and_the_others_do(exits_config, splits, tmp_path):
    start = build_supernet(exits_config, 0)
    config = train(phases=({"name": "p", "epochs": 1, "lr": 0.1, "frozen_stages": [0, 2]},), weight_decay=0.1)
    net = train_supernet(exits_config, config, DataConfig(), splits, tmp_path)
    assert all(p.requires_grad for p in net.parameters())
    for (name, before), after in zip(start.named_parameters(), net.parameters(), strict=True):
        part = name.split(".")[1]
        frozen = part == "stem" or part.startswith("stage2_")
        if frozen or (part.startswith("exit") and not part.startswith("exit3")):  # other exits had no turn
            assert torch.equal(before, after), name
        elif name.endswith("conv.weight"):
            assert not torch.equal(before, after), name


# -- beginning with other weights -------------------------------------------------------------------------


def test_a_training_begins_with_given_weights(exits_config, splits, tmp_path, tiny):
    first = train_supernet(exits_config, train(), DataConfig(), splits, tmp_path / "a")
    tiny_steps = ({"name": "p", "epochs": 0.2, "lr": 1e-12, "teacher": "fixed"},)
    config = train(phases=tiny_steps, start_from=str(tmp_path / "a"))
    second = train_supernet(exits_config, config, DataConfig(), splits, tmp_path / "b")
    for before, after in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-8)
    train_supernet(exits_config, train(seed=5), DataConfig(), splits, tmp_path / "c")
    other = train(phases=tiny_steps, start_from=str(tmp_path / "c"))
    with pytest.raises(ResumeError, match="other settings of start"):
        train_supernet(exits_config, other, DataConfig(), splits, tmp_path / "b")
    with pytest.raises(CheckpointError, match="is a supernet of other settings"):
        train_supernet(tiny, config, DataConfig(), splits, tmp_path / "d")


def test_other_classes_get_a_new_head_and_inherit_the_rest(exits_config, splits, tmp_path):
    start = exits_config.model_copy(update={"classes": 9, "resolutions": (*exits_config.resolutions, 40)})
    given = build_supernet(start, 3).eval()
    save_supernet(given, tmp_path / "start")
    told = []
    config = train(
        phases=({"name": "p", "epochs": 0.2, "lr": 1e-12},), start_from=str(tmp_path / "start"), seed=5
    )  # fmt: skip
    made = train_supernet(
        exits_config, config, DataConfig(), splits, tmp_path / "out", lambda task, *_: told.append((task, _[-1]))
    )
    new = head_tensors(exits_config)
    assert new == {n for n in made.state_dict() if n.endswith(("classifier.weight", "classifier.bias"))}
    before, fresh = given.state_dict(), build_supernet(exits_config, 5).state_dict()
    for name, tensor in made.named_parameters():
        torch.testing.assert_close(tensor.data, (fresh if name in new else before)[name], rtol=0, atol=1e-8)
    said = "the head is new, for 7 instead of 9 classes; all other weights are inherited"
    assert ("inherit", said) in told
    fixed = train(phases=(phase(teacher="fixed"),), start_from=str(tmp_path / "start"))
    with pytest.raises(RecipeError, match=r"use none or inplace there \(the head is new"):
        train_supernet(exits_config, fixed, DataConfig(), splits, tmp_path / "fixed")


def test_a_start_of_other_sizes_names_what_differs(exits_config, splits, tmp_path):
    save_supernet(build_supernet(exits_config.model_copy(update={"classes": 9, "stem_width": 24})), tmp_path / "start")
    config = train(start_from=str(tmp_path / "start"))
    with pytest.raises(CheckpointError, match="it differs in stem_width; give one of the same settings"):
        train_supernet(exits_config, config, DataConfig(), splits, tmp_path / "out")


def test_a_teacher_of_another_folder_is_its_largest_net_recalibrated(exits_config, splits, tmp_path, tiny):
    for name, seed in (("teacher", 1), ("start", 2)):
        save_supernet(build_supernet(exits_config, seed).eval(), tmp_path / name)
    phases = (phase(elastic={"depth": "all"}, teacher="fixed"),)
    config = train(phases=phases, checkpoint_every_s=1e-9, start_from=str(tmp_path / "start"))

    def go(out, *args):
        return train_supernet(exits_config, config, DataConfig(), splits, out, *args, teacher_from=tmp_path / "teacher")

    with pytest.raises(Stop):
        go(tmp_path / "parts", stopping_at(2))
    tensors, metadata = load_tensors(tmp_path / "parts" / "checkpoint.safetensors")
    assert metadata["settings"]["teacher"] == weights_version(tmp_path / "teacher" / "supernet.safetensors")
    expected = load_supernet(tmp_path / "teacher")
    sizes = expected.space["resolution"].options
    calibrate_largest(expected, [as_input(splits.train.images, int(sizes[0]), *splits.mean_std)])
    for name, tensor in expected.state_dict().items():
        if name.endswith(("weight", "running_mean", "running_var")):
            torch.testing.assert_close(tensors[f"teacher.{name}"], tensor)
    go(tmp_path / "parts")
    go(tmp_path / "whole")
    made = [(tmp_path / name / "supernet.safetensors").read_bytes() for name in ("parts", "whole")]
    assert made[0] == made[1]
    save_supernet(build_supernet(exits_config, 3).eval(), tmp_path / "teacher")
    with pytest.raises(ResumeError, match="other settings of teacher"):
        go(tmp_path / "whole")


def test_a_first_phase_has_no_trained_teacher(tiny, splits, tmp_path):
    config = train(phases=({"name": "p", "epochs": 1, "lr": 0.1, "teacher": "fixed"},))
    with pytest.raises(RecipeError, match=r"teacher fixed is trained in the first phase; use none"):
        train_supernet(tiny, config, DataConfig(), splits, tmp_path)


def test_younger_settings_stand_at_their_defaults_in_older_files(tiny, splits, tmp_path):
    """What a version without a setting wrote is continued by one with it."""
    net = train_supernet(tiny, train(), DataConfig(), splits, tmp_path)
    _, metadata = load_tensors(tmp_path / "supernet.safetensors")
    del metadata["info"]["train"]["ema_decay"], metadata["info"]["train"]["phases"][0]["exits"]
    save_supernet(net, tmp_path, metadata["info"])
    train_supernet(tiny, train(), DataConfig(), splits, tmp_path, stopping_at(1))
    with pytest.raises(ResumeError, match="other settings of train"):
        train_supernet(tiny, train(ema_decay=0.5), DataConfig(), splits, tmp_path)


# -- precision and mixing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_has_about_the_same_loss(trio, images, precision):
    net, reference, arch = trio
    x = images(6, 11)
    plain, half = train(), train(precision=precision)
    wanted = train_step(reference, make_optimiser(reference, plain), x, Y, [arch], phase(), plain, 0.1, CLASSIFICATION)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "float16")
    loss = train_step(net, make_optimiser(net, half), x, Y, [arch], phase(), half, 0.1, CLASSIFICATION, scaler=scaler)
    assert loss == pytest.approx(wanted, rel=0.02)
    assert loss != wanted
    assert all(p.dtype == torch.float32 for p in net.parameters())
    for a, b in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.02)


def test_mixed_images_and_labels_by_hand(tiny, images):
    net, reference = (build_supernet(tiny, 2).train() for _ in range(2))
    arch, x, config = net.space.restrict({"resolution": [11]}).largest(), images(6, 11), train(label_smoothing=0.0)
    mix = Mix(torch.tensor([3, 4, 5, 1, 2, 0]), 0.8, moments=False)
    loss = train_step(net, make_optimiser(net, config), x, Y, [arch], phase(), config, 0.1, CLASSIFICATION, mix=mix)
    with torch.no_grad():
        logits = reference(0.8 * x + 0.2 * x[mix.order], arch)
    target = 0.8 * F.one_hot(Y, 7) + 0.2 * F.one_hot(Y[mix.order], 7)
    assert loss == pytest.approx(soft_loss(logits, target), rel=1e-5)


def test_features_get_the_moments_of_their_partners(tiny, images):
    net = build_supernet(tiny, 2).train()
    x, seen = images(6, 11), []
    mix = Mix(torch.tensor([3, 4, 5, 1, 2, 0]), 0.9, moments=True)
    arch = net.space.restrict({"resolution": [11]}).largest()
    stem = next(iter(net.parts.values()))
    with torch.no_grad():
        before = stem(mix.images(x), net.blocks(arch)[0][1])
        with exchanged_moments([net], mix):
            handle = stem.register_forward_hook(lambda m, a, y: seen.append(y))
            net(x, arch)
            handle.remove()
        after = seen[0]
        torch.testing.assert_close(after.mean(1), before.mean(1)[mix.order], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(after.std(1), before.std(1)[mix.order], rtol=1e-2, atol=1e-3)
        assert torch.equal(stem(x, net.blocks(arch)[0][1]), before), "the exchange ends with its context"


def test_how_often_and_how_much_is_mixed():
    rng = np.random.default_rng(0)
    assert draw_mix(train(), rng, 8) is None
    drawn = [draw_mix(train(moex_percent=25), rng, 8) for _ in range(400)]
    assert 70 < sum(m is not None for m in drawn) < 130
    assert {m.share for m in drawn if m} == {0.9}
    shares = [draw_mix(train(mixup_alpha=0.4), rng, 8).share for _ in range(400)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    assert np.var(shares) == pytest.approx(0.25 / 1.8, abs=0.02)  # of Beta(0.4, 0.4)


@pytest.mark.parametrize(
    "settings",
    [
        {"mixup_alpha": 0.2, "moex_percent": 10}, {"ema_decay": 1.0}, {"precision": "int8"}, {"device": "tpu"},
        {"phases": ({"name": "p", "epochs": 1, "lr": 0.1, "teacher": "inplace"},)},
        {"phases": ({"name": "p", "epochs": 1, "lr": 0.1, "frozen_stages": [-1]},)},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValidationError):
        train(**settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(tiny, splits, tmp_path):
    with pytest.raises(RecipeError, match="sees no GPU; use auto or cpu"):
        train_supernet(tiny, train(device="cuda"), DataConfig(), splits, tmp_path)


def test_alpha_divergence_changes_what_is_learnt_and_needs_a_task_that_has_it(tiny, splits, tmp_path, data_config):
    def trained(name, **changes):
        phase = PhaseConfig(
            name="x", epochs=1, lr=0.05, sampling="sandwich", subnets_per_step=2, teacher="inplace",
            elastic={"depth": "all"}, **changes,
        )  # fmt: skip
        config = TrainConfig(batch_size=16, phases=[phase])
        return train_supernet(tiny, config, data_config, splits, tmp_path / name).state_dict()

    plain, alpha = trained("kl"), trained("alpha", divergence="alpha")
    assert any(not torch.equal(plain[k], alpha[k]) for k in plain)
    without = type(splits.task).__new__(type(splits.task))

    class Other:
        name = "other"

        def __getattr__(self, attribute):
            if attribute == "alpha_divergence":
                raise AttributeError(attribute)
            return getattr(without, attribute)

    other = replace(splits, task=Other())
    config = TrainConfig(phases=[PhaseConfig(name="x", epochs=1, lr=0.1, divergence="alpha")])
    with pytest.raises(RecipeError, match=r"divergence alpha needs a task.*'other'.*use kl"):
        train_supernet(tiny, config, data_config, other, tmp_path / "other")
