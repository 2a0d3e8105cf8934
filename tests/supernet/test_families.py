"""Does every family keep what all of them promise?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from hwnas.export.graph import count_macs
from hwnas.export.onnx_check import verify_onnx
from hwnas.export.onnx_file import to_onnx
from hwnas.objectives.exact import macs_of_space, params_of_space
from hwnas.supernet import (
    SupernetConfig,
    build_supernet,
    calibrate_bn,
    count_params,
    extract_subnet,
    make_layout,
)


def stage(width, stride, act, se=False):
    return {
        "width": width, "stride": stride, "depths": [2, 3, 4], "kernel_sizes": [3, 5], "expand_ratios": [2, 3],
        "act": act, "se": se,
    }  # fmt: skip


MOBILE = {
    "in_channels": 2, "classes": 7, "resolutions": [13, 16], "stem_stride": 1,
    "stages": [stage(16, 2, "relu"), stage(24, 2, "hswish", se=True)],
}  # fmt: skip
HEAD = {"stem_width": 8, "expand_width": 48, "feature_width": 64}
CONFIGS = {
    "mbv3": {"family": "mbv3", **MOBILE, **HEAD},
    "proxyless": {
        "family": "proxyless", **MOBILE, "stem_width": 8, "first_width": 16, "feature_width": 48, "bn_eps": 1e-3,
    },
    "resnet50d": {
        "family": "resnet50d", "in_channels": 2, "classes": 7, "resolutions": [29, 32], "stem_width": 16,
        "stages": [{"width": 32, "stride": 1, "base_depth": 1}, {"width": 64, "stride": 2, "base_depth": 2}],
    },
    "hurricane": {
        "family": "hurricane", "in_channels": 2, "classes": 7, "resolutions": [13, 16], "stem_width": 8,
        "feature_width": 48,
        "stages": [{"width": 16, "stride": 2, "layers": 2}, {"width": 24, "stride": 1, "layers": 2, "act": "hswish"}],
    },
    "nasbench201": {
        "family": "nasbench201", "in_channels": 2, "classes": 7, "resolutions": [12, 15], "stem_width": 8,
        "cells_per_stage": 1,
    },
    **{
        f"ofav2-{'skips' if a else ''}-{'parallel' if b else ''}-{'exits' if c else ''}": {
            "family": "ofav2", "dense_skips": a, "parallel": b, "early_exits": c, **MOBILE, **HEAD,
        }
        for a in (False, True) for b in (False, True) for c in (False, True)
    },
}  # fmt: skip


def config_of(name):
    return TypeAdapter(SupernetConfig).validate_python(CONFIGS[name])


@pytest.fixture(params=sorted(CONFIGS))
def supernet(request):
    return build_supernet(config_of(request.param)).eval()


def some_archs(supernet, n=6):
    space = supernet.space
    return [space.smallest(), space.largest(), *space.sample(np.random.default_rng(0), n)]


def inputs_of(supernet, arch, n=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, *supernet.layout.input_shape(arch), generator=generator)
    return x.to(memory_format=torch.channels_last)


def test_a_subnet_is_the_supernets_own_computation_bit_for_bit(supernet):
    for arch in some_archs(supernet):
        x = inputs_of(supernet, arch)
        with torch.inference_mode():
            assert torch.equal(extract_subnet(supernet, arch)(x), supernet(x, arch))


def test_params_and_macs_of_the_space_are_those_of_the_networks(supernet):
    macs, params = macs_of_space(supernet.layout), params_of_space(supernet.layout)
    for arch in some_archs(supernet):
        subnet = extract_subnet(supernet, arch)
        channels, resolution, _ = supernet.layout.input_shape(arch)
        assert params.of_archs([arch])[0] == count_params(subnet)
        assert macs.of_archs([arch])[0] == count_macs(subnet, channels, resolution)


def test_every_network_leaves_as_onnx(supernet, tmp_path):
    for arch in some_archs(supernet, 2):
        subnet = extract_subnet(supernet, arch)
        x = inputs_of(supernet, arch)
        calibrate_bn(subnet, [x])
        channels, resolution, _ = supernet.layout.input_shape(arch)
        to_onnx(subnet, channels, resolution, tmp_path / "model.onnx")
        assert verify_onnx(tmp_path / "model.onnx", subnet, x) < 1e-5


def test_sorting_channels_does_not_change_the_largest_network(supernet):
    arch = supernet.space.largest()
    x = inputs_of(supernet, arch)
    with torch.inference_mode():
        before = supernet(x, arch)
        supernet.sort_channels()
        torch.testing.assert_close(supernet(x, arch), before, rtol=1e-4, atol=1e-5)


def test_every_subnet_can_be_trained(supernet):
    supernet.train()
    for arch in some_archs(supernet, 1):
        supernet.zero_grad(set_to_none=True)
        supernet(inputs_of(supernet, arch), arch).square().mean().backward()
        grads = [p.grad for p in supernet.parameters() if p.grad is not None]
        assert grads
        assert all(bool(g.isfinite().all()) for g in grads)


def test_slots_before_in_and_after_stages_know_where_they_stand(supernet):
    slots = supernet.layout.slots
    first = next(i for i, slot in enumerate(slots) if slot.name.startswith("stage1."))
    assert [slot.stage for slot in slots[:first]] == [0] * first
    for slot in slots[first:]:
        in_stage = slot.name.startswith("stage")
        assert slot.stage == (int(slot.name.removeprefix("stage")[0]) if in_stage else None), slot.name
    starts = {slot.stage: slot.name for slot in reversed(slots) if slot.stage}
    assert {slot.name for slot in slots if slot.begins_stage} == set(starts.values())


def test_choices_know_the_stage_that_they_shape(supernet):
    layout = supernet.layout
    cell = supernet.config.family == "nasbench201"  # its stages share one cell
    for choice in layout.space.choices:
        place, dot, _ = choice.name.partition(".")
        number = (0 if place == "stem" else int(place.removeprefix("stage"))) if dot and not cell else None
        assert layout.stage_of_choice(choice.name) == number, choice.name


def test_the_pool_of_hurricane_has_32_operators():
    space = make_layout(config_of("hurricane")).space
    assert len(space["stage1.layer1"].options) == 32
    assert space.size == 2 * 32**4


def test_dense_skips_add_the_outputs_before_the_last_two_blocks():
    config = config_of("ofav2-skips--")
    supernet = build_supernet(config).eval()
    space = supernet.space
    arch = space.where(depth=[4]).largest()
    x = inputs_of(supernet, arch)
    parts = dict(supernet.layout.blocks(arch))
    run = {name: lambda y, n=name: supernet.parts[n.replace(".", "_")](y, parts[n]) for name in parts}
    with torch.inference_mode():
        y = run["first_block"](run["stem"](x))
        for s in (1, 2):
            y1 = run[f"stage{s}.block1"](y)
            y2 = run[f"stage{s}.block2"](y1)
            y3 = run[f"stage{s}.block3"](y2)
            y4 = run[f"stage{s}.block4"](y3 + y1)
            y = y4 + y1 + y2
        expected = run["exit2.head"](run["exit2.expand"](y))
        torch.testing.assert_close(supernet(x, arch), expected)


def test_an_early_exit_has_no_later_stages():
    layout = make_layout(config_of("ofav2---exits"))
    early = layout.space.arch({**layout.space.largest().as_dict(), "exit": 1})
    assert {name.split(".")[0] for name, _ in layout.blocks(early)} == {"stem", "first_block", "stage1", "exit1"}
    assert "stage2.depth" not in early
    # 9 archs a stage of 2 blocks' pairs: (4^2 + 4^3 + 4^4) a stage, twice for resolution
    stage_size = 4**2 + 4**3 + 4**4
    assert layout.space.size == 2 * (stage_size + stage_size**2)


def test_levels_choose_branches_and_hide_the_kernel_where_there_is_none():
    space = make_layout(config_of("ofav2--parallel-")).space
    options = space["stage1.block1"].options
    assert len(options) == 3 + 4 * 2 * 2
    only_bottleneck = space.where(level=[4])
    assert {o[0] for o in only_bottleneck["stage1.block1"].options} == {4}
    kept = space.where(kernel_size=[3])["stage1.block1"].options
    assert {o[1] for o in kept} == {None, 3}
