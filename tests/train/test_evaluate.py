"""Accuracy by hand."""

import math

import pytest
import torch
from torch import nn

from hwnas.train.evaluate import inference_batch_size, predict, top1_percent

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 5.0], [1.0, 0.0, 0.5], [0.0, 2.0, 1.0]])
LABELS = torch.tensor([0, 1, 0, 0, 2])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_share_of_right_answers_by_hand(batch_size):
    assert top1_percent(nn.Identity(), LOGITS, LABELS, batch_size) == pytest.approx(60.0)


def test_logits_come_in_order_and_without_gradients():
    net = nn.Linear(3, 2)
    out = predict(net, LOGITS, 2)
    assert not out.requires_grad
    torch.testing.assert_close(out, LOGITS @ net.weight.detach().T + net.bias.detach())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_is_no_accuracy(bad):
    logits = LOGITS.clone()
    logits[3, 1] = bad
    assert math.isnan(top1_percent(nn.Identity(), logits, LABELS))


@pytest.mark.parametrize(("px", "n"), [(8, 500), (28, 500), (64, 97), (224, 16)])
def test_large_images_come_in_smaller_batches(px, n):
    assert inference_batch_size(torch.zeros(1, 3, px, px)) == n
