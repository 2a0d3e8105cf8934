"""Classification by hand, scores and their names, and what every task does."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from task_plugins import MEAN_COLOUR

from hwnas.errors import DataError, PluginError
from hwnas.task import DEFAULT_TASK, TASKS, Score
from hwnas.task.classification import CLASSIFICATION
from hwnas.testing.task import TaskTests


class TestClassification(TaskTests):
    def make(self):
        return TASKS.get(DEFAULT_TASK)

    def labels(self, n):
        return np.arange(n) % 3

    def perfect_outputs(self, labels):
        return 9.0 * F.one_hot(torch.from_numpy(labels), 3)


class TestMeanColour(TaskTests):
    def make(self):
        return MEAN_COLOUR

    def labels(self, n):
        return np.random.default_rng(0).uniform(0, 255, (n, 3))

    def perfect_outputs(self, labels):
        return torch.from_numpy(labels / 255).float()


def test_a_score_names_what_belongs_to_it():
    assert Score("top1_percent", "max", "top-1", "%").named("stderr") == "top1_stderr_percent"
    assert Score("rmse_levels", "min", "error", "levels").named("before") == "rmse_before_levels"
    assert Score("mean_f1", "max", "F1").named("stderr") == "mean_f1_stderr"


def test_scores_that_cannot_be_are_refused():
    with pytest.raises(PluginError, match="direction 'up'; use 'min' or 'max'"):
        Score("top1_percent", "up", "top-1", "%")
    with pytest.raises(PluginError, match="name it top1_<unit>"):
        Score("top1", "max", "top-1", "%")


def test_the_sign_makes_more_better():
    assert Score("f1", "max", "F1").sign == 1
    assert Score("loss", "min", "loss").sign == -1


def test_accuracy_by_hand():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 2.0]])
    meter = CLASSIFICATION.meter()
    meter.add(logits[:3], torch.tensor([0, 1, 1]))
    meter.add(logits[3:], torch.tensor([1]))
    found = meter.values()
    assert found["top1_percent"] == 75.0
    assert found["top1_stderr_percent"] == pytest.approx(100 * math.sqrt(0.75 * 0.25 / 4))


def test_the_error_of_full_marks_is_that_of_half_an_image():
    meter = CLASSIFICATION.meter()
    meter.add(torch.eye(5), torch.arange(5))
    assert meter.values() == {"top1_percent": 100.0, "top1_stderr_percent": pytest.approx(100 * 0.5 / 5)}


def test_losses_are_cross_entropies():
    g = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(6, 4, generator=g), torch.randn(6, 4, generator=g)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    assert torch.equal(CLASSIFICATION.loss(logits, y), F.cross_entropy(logits, y))
    assert torch.equal(CLASSIFICATION.loss(logits, y, 0.1), F.cross_entropy(logits, y, label_smoothing=0.1))
    soft = CLASSIFICATION.soft_targets(teacher)
    assert torch.equal(soft, teacher.softmax(1))
    by_hand = -(soft * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(CLASSIFICATION.distillation_loss(logits, soft), by_hand)


@pytest.mark.parametrize(
    ("train", "test", "outputs", "names", "message"),
    [
        (np.zeros(4, int), None, 2, "ab", "here has one class only; a classifier needs at least two"),
        (np.array([0, 1]), None, 1, "a", "one class only"),
        (np.array([0, 3]), None, 3, "abc", "labels from 0 to 3, but the 3 classes are numbered from 0 to 2; correct"),
        (np.array([0, 1, 2, 3]), None, 3, "abcd", r"labels from 0 to 3, but the network has 3 .*supernet\.classes=4"),
        (np.array([1, 2, 3]), None, 3, "abc", "labels from 1 to 3 and none is 0; .* subtract 1 from all labels"),
        (np.array([1, 2, 3]), None, 3, "0123", "labels from 1 to 3 and none is 0; .* subtract 1 from all labels"),
        (np.array([0, 1, 3]), None, 4, "abcd", "no training image of the class 'c'; give images of each, or take"),
        (np.array([-1, 0, 1]), None, 2, "ab", "labels from -1 to 1, 1 of them below 0, .* a missing label"),
        (np.array([0, 1]), np.array([0, 4]), 2, "ab", "test labels from 0 to 4, but the 2 classes are numbered"),
        (np.array([0, 1]), np.array([-1]), 2, "ab", "labels from -1 to -1"),
        (np.array([0, 1]), None, 3, "ab", r"2 classes, the network 3; set supernet\.classes=2"),
        (np.array([0.0, 1.0]), None, 2, "ab", "labels are float64; they must be integers"),
        (np.array([[0, 1]]), None, 2, "ab", "they must be integers, one an image"),
    ],
)
def test_labels_that_a_classifier_cannot_learn(train, test, outputs, names, message):
    with pytest.raises(DataError, match=message) as caught:
        CLASSIFICATION.check(train, test, outputs, tuple(names), "here")
    assert "\n" not in str(caught.value)


def test_a_task_that_lacks_something_is_named(monkeypatch):
    import task_plugins

    monkeypatch.setattr(task_plugins, "HALF", object(), raising=False)
    with pytest.raises(PluginError, match=r"task 'task_plugins:HALF' .* lacks name, scores, .*hwnas\.task\.task says"):
        TASKS.get("task_plugins:HALF")


def test_alpha_divergence_is_the_larger_of_two_and_is_clipped():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 3.0]], requires_grad=True)
    p = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    q = logits.detach().softmax(1)
    kl = (p * (p / q).log()).sum(1)
    at_minus_one = 0.5 * (q * ((q / p).clamp(max=5.0) - 1)).sum(1)
    found = CLASSIFICATION.alpha_divergence(logits, p)
    torch.testing.assert_close(found.detach(), torch.maximum(kl, at_minus_one).mean())
    assert (at_minus_one > kl).any()
    same = CLASSIFICATION.alpha_divergence(p.log(), p)
    assert abs(same.item()) < 1e-6 < found.item()
    hopeless = torch.tensor([[100.0, 0.0]])
    bounded = CLASSIFICATION.alpha_divergence(hopeless, torch.tensor([[1e-9, 1.0]]))
    assert torch.isfinite(bounded)
