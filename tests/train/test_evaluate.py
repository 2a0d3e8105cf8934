"""Accuracy by hand."""

import math

import pytest
import torch
from torch import nn

from hwnas.task.classification import CLASSIFICATION
from hwnas.train.evaluate import inference_batch_size, predict, scores

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
    assert inference_batch_size(torch.zeros(1, 3, px, px)) == n
