"""Does a block in sweeps compute the values, gradients and statistics of the same block layer by layer?"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from hwnas.supernet.blocks import fused
from hwnas.supernet.blocks.mbconv import MBConvSpec

CASES = [
    *itertools.product((True,), (3, 7), (1, 2), (True, False), ("relu", "hswish")),
    (False, 3, 1, False, "relu"),
    (False, 5, 2, True, "relu6"),
]


def trained(spec, dtype, batch):
    torch.manual_seed(0)
    wider = replace(spec, mid_channels=spec.mid_channels + 8)
    block = MBConvSpec.elastic([spec, wider] if spec.expand else [spec]).to(dtype).train()
    for p in block.parameters():
        torch.nn.init.normal_(p, 0.2, 0.5)
    x = torch.randn(batch, spec.in_channels, 9, 9, dtype=dtype).to(memory_format=torch.channels_last)
    x = (x + 3.0).requires_grad_()  # a mean far from zero
    y = block(x, spec)
    inputs = [x, *block.parameters()]
    gradients = torch.autograd.grad(y, inputs, torch.randn_like(y), allow_unused=True)
    return [y.detach(), *gradients, *block.buffers()]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_block_layer_by_layer(monkeypatch, case):
    expand, kernel_size, stride, se, act = case
    spec = MBConvSpec(10, 10, 9, 24 if expand else 10, expand, kernel_size, stride, se, act, stride == 1)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-4)):
        plain = trained(spec, dtype, 7)
        monkeypatch.setattr(fused, "WORTHWHILE_ELEMENTS", 0)
        monkeypatch.setattr(fused, "PIECE_ELEMENTS", 6000)  # pieces of 3, 3 and 1 images
        swept = trained(spec, dtype, 7)
        monkeypatch.undo()
        for expected, found in zip(plain, swept, strict=True):
            if expected is None:  # a kernel map that this size does not need
                assert found is None
                continue
            scale = float(expected.detach().abs().max()) or 1.0
            torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)


def test_only_training_on_a_cpu_in_full_precision_is_swept(monkeypatch):
    monkeypatch.setattr(fused, "WORTHWHILE_ELEMENTS", 0)
    x = torch.zeros(2, 4, 8, 8)
    assert fused.suits(x, 16)
    with torch.no_grad():
        assert not fused.suits(x, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fused.suits(x, 16)
    assert not fused.suits(x.to("meta"), 16)
