"""A second task, from its images to a fine-tuned subnet, without a line of hwnas that knows of it."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from task_plugins import MEAN_COLOUR, RMSE

from hwnas.data import DataConfig, ImageSet, Splits, as_input, load_data
from hwnas.errors import DataError, PluginError, RecipeError, ResumeError
from hwnas.finetune import FinetuneConfig, finetune
from hwnas.objectives.config import EvaluationConfig
from hwnas.objectives.proxies.by_name import PROXIES
from hwnas.objectives.resolve import objective_of
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.runs.learnt import blind_score
from hwnas.supernet import build_supernet
from hwnas.supernet.families.mbv3 import MBV3Config
from hwnas.task.classification import CLASSIFICATION
from hwnas.train import PhaseConfig, TrainConfig, scores, train_supernet
from hwnas.train.mixing import Mix
from hwnas.train.step import make_optimiser, train_step

DATA = DataConfig(source="task_plugins:TINTS", options={"n_images": 150})
PHASES = (
    PhaseConfig(name="full", epochs=20, lr=0.05),
    PhaseConfig(
        name="all", epochs=10, lr=0.03, elastic={"kernel_size": "all", "depth": "all"}, sampling="sandwich",
        subnets_per_step=2, teacher="fixed", distill_ratio=0.5,
    ),
    PhaseConfig(
        name="inplace", epochs=1, lr=0.01, elastic={"depth": "all"}, sampling="sandwich", subnets_per_step=2,
        teacher="inplace",
    ),
)  # fmt: skip
TRAIN = TrainConfig(batch_size=20, phases=PHASES, device="cpu", monitor_epochs=1, mixup_alpha=0.2, ema_decay=0.5)


@pytest.fixture(scope="module")
def supernet_config():
    stage = {"width": 8, "stride": 2, "depths": [1, 2], "kernel_sizes": [3, 5], "expand_ratios": [2]}
    return MBV3Config.model_validate({
        "family": "mbv3", "in_channels": 3, "classes": 3, "resolutions": [8], "stem_width": 8, "stem_stride": 1,
        "first_block": False, "stages": [stage], "expand_width": 16, "feature_width": 16, "dropout_percent": 0,
    })  # fmt: skip


@pytest.fixture(scope="module")
def splits():
    return load_data(DATA, MEAN_COLOUR, 3, 3, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, supernet_config, splits):
    folder = tmp_path_factory.mktemp("colours") / "train"
    train_supernet(supernet_config, TRAIN, DATA, splits, folder)
    return folder


@pytest.fixture(scope="module")
def evaluator(folder, supernet_config, splits):
    supernet = train_supernet(supernet_config, TRAIN, DATA, splits, folder)  # read from the folder
    return SubnetEvaluator(supernet, splits, EvaluationConfig(proxy_images=16))


def guess_of_the_mean(splits):
    """Error in levels of a network that says the mean colour of the training images, whatever it sees."""
    return 255 * float((splits.validation.labels - splits.train.labels.mean(0)).square().mean().sqrt())


def test_images_are_split_and_labelled_for_the_task(splits):
    assert splits.task is MEAN_COLOUR
    assert splits.classes == ("red", "green", "blue")
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [102, 18, 30]
    assert splits.train.labels.dtype == torch.float32
    means = splits.train.images.double().mean((2, 3)) / 255
    torch.testing.assert_close(splits.train.labels.double(), means, rtol=0, atol=1e-6)
    assert load_data(DATA, MEAN_COLOUR, 3, 3, 8).sha256 == splits.sha256
    other = DATA.model_copy(update={"options": {"n_images": 150, "seed": 1}})
    assert load_data(other, MEAN_COLOUR, 3, 3, 8).sha256 != splits.sha256


def test_the_task_decides_which_labels_fit():
    with pytest.raises(DataError, match=r"task_plugins:TINTS.* labels of shape \(150, 3\), the network has 4 outputs"):
        load_data(DATA, MEAN_COLOUR, 3, 4, 8)
    with pytest.raises(DataError, match=r"labels are float64; they must be integers, one an image"):
        load_data(DATA, CLASSIFICATION, 3, 3, 8)


def test_a_supernet_learns_it(folder, evaluator, splits):
    """Every subnet is far better than the best constant answer, on images that were not trained on."""
    space = evaluator.supernet.space
    constant = guess_of_the_mean(splits)
    for arch in (space.smallest(), space.largest()):
        found = evaluator.score(arch)
        assert set(found) == {"rmse_levels", "rmse_stderr_levels"}
        assert 0 < found["rmse_levels"] < 0.6 * constant
        subnet = evaluator.subnet(arch)
        x = as_input(splits.validation.images, 8, *splits.mean_std)
        with torch.no_grad():
            wanted = 255 * float((subnet(x) - splits.validation.labels).square().mean().sqrt())
        assert found["rmse_levels"] == pytest.approx(wanted, rel=1e-5)
        assert scores(subnet, x, splits.validation.labels, MEAN_COLOUR)["rmse_levels"] == pytest.approx(
            wanted, rel=1e-4
        )


@pytest.mark.parametrize("teacher", ["none", "fixed", "inplace"])
def test_every_loss_of_a_step_is_that_of_the_task(supernet_config, splits, teacher):
    net, other = build_supernet(supernet_config, 1).train(), build_supernet(supernet_config, 2).eval()
    reference = copy.deepcopy(net)
    archs = [net.space.largest(), net.space.smallest()]
    phase = PhaseConfig(
        name="p", epochs=1, lr=0.1, sampling="sandwich", subnets_per_step=2, teacher=teacher, distill_ratio=0.7
    )  # fmt: skip
    x, y = as_input(splits.train.images[:6], 8, *splits.mean_std), splits.train.labels[:6]
    mix = Mix(torch.tensor([3, 4, 5, 0, 1, 2]), 0.8, False)
    given = other if teacher == "fixed" else None
    loss = train_step(net, make_optimiser(net, TRAIN), x, y, archs, phase, TRAIN, 0.1, MEAN_COLOUR, given, mix)
    mixed = 0.8 * x + 0.2 * x[mix.order]
    with torch.no_grad():
        answers = [reference(mixed, arch) for arch in archs]
        soft = {"none": [None, None], "fixed": 2 * [other(mixed, archs[0])], "inplace": [None, answers[0]]}[teacher]
    wanted = 0.0
    for answer, told in zip(answers, soft, strict=True):
        wanted += 0.8 * (answer - y).square().mean() + 0.2 * (answer - y[mix.order]).square().mean()
        wanted += 0.0 if told is None else 0.7 * (answer - told).square().mean()
    assert loss == pytest.approx(float(wanted) / 2, rel=1e-5)


def test_the_log_has_the_score_under_its_name(folder, splits):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [line["rmse_levels"] for line in lines if "rmse_levels" in line]
    assert set(logged[-1]) == {"smallest", "middle", "largest"}
    assert logged[-1]["largest"] < logged[0]["largest"]
    assert not any("top1_percent" in line for line in lines)


def test_a_folder_of_another_task_is_not_continued(folder, supernet_config, splits):
    with pytest.raises(ResumeError, match="other settings of task"):
        train_supernet(supernet_config, TRAIN, DATA, replace(splits, task=CLASSIFICATION), folder)


def test_fine_tuning_keeps_the_epoch_of_the_smallest_error(evaluator, splits):
    space = evaluator.supernet.space
    subnet, teacher = evaluator.subnet(space.smallest()), evaluator.subnet(space.largest())
    config = FinetuneConfig(epochs=6, lr=0.02, batch_size=20, distill_ratio=0.5)
    result = finetune(subnet, 8, splits, config, teacher=teacher)
    assert result.score < result.score_before == evaluator_score(evaluator, subnet)
    assert result.score == evaluator_score(evaluator, result.network)
    assert result.best_epoch > 0
    worse = finetune(subnet, 8, splits, config.model_copy(update={"lr": 5.0, "epochs": 1, "distill_ratio": 0}))
    assert (worse.best_epoch, worse.score) == (0, worse.score_before)


def evaluator_score(evaluator, network):
    splits = evaluator.splits
    x = as_input(splits.validation.images, 8, *splits.mean_std)
    return scores(network, x, splits.validation.labels, MEAN_COLOUR)[RMSE.name]


def test_its_score_is_an_objective_and_others_are_not():
    found = objective_of("rmse_levels", MEAN_COLOUR)
    assert (found.direction, found.cost, found.title) == ("min", "evaluated", "colour error")
    with pytest.raises(PluginError, match=r"'top1_percent' is unknown; known are rmse_levels, latency_ms"):
        objective_of("top1_percent", MEAN_COLOUR)
    with pytest.raises(RecipeError, match="needs a task that predicts classes; 'mean_colour' does not"):
        objective_of("introspectability", MEAN_COLOUR)


def test_proxies_take_the_loss_of_the_task(evaluator):
    found = evaluator.score(evaluator.supernet.space.largest(), PROXIES)
    assert set(found) == {*PROXIES, "rmse_levels", "rmse_stderr_levels"}
    assert np.isfinite([found[name] for name in ("grad_norm", "snip", "fisher", "grasp", "flatness")]).all()


def test_a_network_that_fails_has_no_score(evaluator, splits):
    arch = evaluator.supernet.space.smallest()
    broken = evaluator.subnet(arch)
    for p in broken.parameters():
        p.data.fill_(math.nan)
    assert all(math.isnan(v) for v in evaluator.score_network(broken, arch).values())


def test_the_blind_answer_is_the_mean_target():
    images, levels = torch.zeros(2, 3, 2, 2, dtype=torch.uint8), torch.tensor
    train = ImageSet(images, levels([[10.0, 0, 0], [30.0, 0, 0]]) / 255)
    validation = ImageSet(images, levels([[26.0, 0, 0], [20.0, 0, 0]]) / 255)
    score, _ = blind_score(Splits("by hand", (), train, validation, validation, MEAN_COLOUR), 3)
    assert score == pytest.approx((6**2 / 3 / 2) ** 0.5)
