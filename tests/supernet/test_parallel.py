"""Parallel blocks of OFAv2 against their published definition, and how often each level is drawn."""

import itertools

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from hwnas.search.region import Region
from hwnas.supernet import SupernetConfig, make_layout
from hwnas.supernet.blocks.elastic import elastic_block
from hwnas.supernet.blocks.mbconv import MBConv
from hwnas.supernet.blocks.parallel import ParallelSpec
from hwnas.train.phases import PhaseConfig, phase_space, sample_step

STAGE = {
    "width": 16,
    "stride": 2,
    "depths": [2, 3],
    "kernel_sizes": [3, 5, 7],
    "expand_ratios": [3, 4, 6],
    "act": "relu",
}
CONFIG = {
    "family": "ofav2", "in_channels": 2, "classes": 7, "resolutions": [13, 16], "stem_stride": 1, "stem_width": 8,
    "expand_width": 48, "feature_width": 64, "parallel": True, "dense_skips": True, "early_exits": True,
    "stages": [STAGE, {**STAGE, "width": 24, "se": True, "act": "hswish"}],
}  # fmt: skip
ACTS = {"relu": nn.ReLU, "hswish": nn.Hardswish}


class Published(nn.Module):
    """The definition: up to three branches side by side, their outputs added from the first to the last.

    A is the inverted bottleneck with its residual connection, B a 1x1 convolution with the block's stride, batch norm
    and activation, C a max pool whose window is the stride (incomplete windows count), a 1x1 convolution where channels
    change, batch norm and activation.
    """

    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        self.a = MBConv(spec.bottleneck) if spec.level in (4, 5, 6, 7) else None
        self.b = nn.ModuleList([
            nn.Conv2d(spec.in_channels, spec.out_channels, 1, spec.stride, bias=False),
            nn.BatchNorm2d(spec.out_channels), ACTS[spec.act](),
        ]) if spec.level in (2, 3, 6, 7) else None  # fmt: skip
        c = [nn.MaxPool2d(kernel_size=spec.stride, stride=spec.stride, ceil_mode=True)] if spec.stride > 1 else []
        c += [nn.Conv2d(spec.in_channels, spec.out_channels, 1)] if spec.in_channels != spec.out_channels else []
        c += [nn.BatchNorm2d(spec.out_channels), ACTS[spec.act]()]
        self.c = nn.ModuleList(c) if spec.level in (1, 3, 5, 7) else None

    def forward(self, x):
        total = 0
        for branch in (self.a, self.b, self.c):
            if branch is None:
                continue
            y = x
            for layer in [branch] if isinstance(branch, MBConv) else branch:
                y = layer(y)
            total = total + y
        return total


@pytest.mark.parametrize("size", [13, 16, 1])
@pytest.mark.parametrize(("channels", "stride"), [((8, 16), 2), ((16, 16), 1), ((16, 16), 2), ((8, 16), 1)])
def test_every_level_computes_the_published_definition_bit_for_bit(channels, stride, size):
    n_in, n_out = channels
    specs = [
        ParallelSpec(n_in, n_out, size, level, 24 * (level > 3), 5 * (level > 3), stride, True, "hswish",
                     level > 3 and stride == 1 and n_in == n_out)
        for level in range(1, 8)
    ]  # fmt: skip
    block = elastic_block(specs, True)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in block.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=g)
                tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else noise)
    x = torch.randn(3, n_in, size, size, generator=g)
    for spec in specs:
        published, plain = Published(spec), spec.build()
        block.fill(plain, spec)
        theirs = list(published.state_dict().values())
        ours = list(plain.state_dict().values())
        assert [t.shape for t in theirs] == [t.shape for t in ours], "other tensors than the definition's"
        published.load_state_dict(dict(zip(published.state_dict(), ours, strict=True)))
        with torch.no_grad():
            wanted = published.eval()(x)
            assert wanted.shape == (3, n_out, -(-size // stride), -(-size // stride))
            assert torch.equal(plain.eval()(x), wanted)
            assert torch.equal(block.eval()(x, spec), wanted)


def layout():
    return make_layout(TypeAdapter(SupernetConfig).validate_python(CONFIG))


def check_even(levels, allowed):
    """Every level as often as the next, within four standard errors of the binomial distribution."""
    n, p = len(levels), 1 / len(allowed)
    counts = np.array([np.sum(np.array(levels) == level) for level in allowed])
    assert counts.sum() == n
    assert np.abs(counts / n - p).max() < 4 * np.sqrt(p * (1 - p) / n), dict(zip(allowed, counts / n, strict=True))


def levels_of(archs):
    return [a["stage1.block1"][0] for a in archs]


def test_levels_are_drawn_evenly_over_masks():
    space = layout().space
    rng = np.random.default_rng(0)
    check_even(levels_of(space.sample(rng, 7000)), range(1, 8))
    region = Region.whole(space)
    check_even(levels_of(space.decode_many(region.draw(rng, 7000))), range(1, 8))
    fresh = region.mutate(rng, space.encode_many([space.largest()] * 7000), 1.0)
    check_even(levels_of(space.decode_many(fresh)), range(1, 8))
    pairs = [a["stage1.block1"][1:] for a in space.sample(rng, 7000) if a["stage1.block1"][0] == 7]
    check_even([10 * k + e for k, e in pairs], [10 * k + e for k, e in itertools.product((3, 5, 7), (3, 4, 6))])


def test_training_draws_the_masks_that_a_phase_leaves_evenly():
    space = layout().space
    rng = np.random.default_rng(1)
    for levels in ((3, 5, 6, 7), (1, 2, 3, 4, 5, 6, 7)):
        phase = PhaseConfig(name="level", epochs=1, lr=1, elastic={"kernel_size": "all", "level": levels})
        part = phase_space(phase, space)
        check_even(levels_of([sample_step(phase, part, rng)[0] for _ in range(2000)]), levels)


def test_a_region_draws_evenly_among_the_masks_it_allows():
    space = layout().space
    options = space["stage1.block1"].options
    allowed = np.array([i for i, o in enumerate(options) if o[0] in (1, 6, 7) and o[1] in (None, 3)])
    region = Region.whole(space).with_options("stage1.block1", allowed)
    drawn = space.decode_many(region.draw(np.random.default_rng(2), 6000))
    check_even(levels_of(drawn), (1, 6, 7))
    repaired = region.repair(np.random.default_rng(3), space.encode_many([space.where(level=[5]).largest()] * 6000))
    check_even(levels_of(space.decode_many(repaired)), (1, 6, 7))
