"""Accuracy by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.data import ImageSet, NetworkInputs
from hwnas.task.classification import CLASSIFICATION
from hwnas.train.evaluate import inference_batch_size, predict, scores, scores_of

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 5.0], [1.0, 0.0, 0.5], [0.0, 2.0, 1.0]])
LABELS = torch.tensor([0, 1, 0, 0, 2])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_share_of_right_answers_by_hand(batch_size):
    found = scores(nn.Identity(), LOGITS, LABELS, CLASSIFICATION, batch_size)
    assert found == {
        "top1_percent": pytest.approx(60.0),
        "top1_stderr_percent": pytest.approx(100 * math.sqrt(0.24 / 5)),
    }


def test_logits_come_in_order_and_without_gradients():
    net = nn.Linear(3, 2)
    out = predict(net, LOGITS, 2)
    assert not out.requires_grad
    torch.testing.assert_close(out, LOGITS @ net.weight.detach().T + net.bias.detach())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_is_no_accuracy(bad):
    logits = LOGITS.clone()
    logits[3, 1] = bad
    found = scores(nn.Identity(), logits, LABELS, CLASSIFICATION)
    assert set(found) == {"top1_percent", "top1_stderr_percent"}
    assert all(map(math.isnan, found.values()))


@pytest.mark.parametrize(("px", "n"), [(8, 500), (28, 500), (64, 97), (224, 16)])
def test_large_images_come_in_smaller_batches(px, n):
    assert inference_batch_size(px * px) == n


def test_images_that_come_in_batches_are_scored_like_all_at_once(rng):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    images = torch.from_numpy(rng.integers(0, 256, (1100, 3, 8, 8), dtype=np.uint8))
    inputs = NetworkInputs(ImageSet(images, torch.arange(1100) % 4), 7, (0.5,) * 3, (0.2,) * 3)
    expected = scores(net, *inputs.tensors(), CLASSIFICATION)
    assert scores_of(net, inputs, CLASSIFICATION) == scores_of(net, inputs.keep(), CLASSIFICATION) == expected
    assert len(inputs.first(30)) == len(inputs.keep().first(30)) == 30
