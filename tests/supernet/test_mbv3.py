"""The mbv3 family: the published space's size and channels, chains by hand, the OFA dialect."""

import pytest
import torch
from pydantic import ValidationError

from hwnas.errors import SpaceError
from hwnas.space.dialects.once_for_all import format_ofa, parse_ofa
from hwnas.supernet import build_supernet, make_layout
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.mbconv import MBConvSpec
from hwnas.supernet.families.mbv3 import MBV3Config

WIDTHS = (24, 40, 80, 112, 160)
STRIDES = (2, 2, 2, 1, 2)
SE = (False, True, False, True, True)
ACT = ("relu", "relu", "hswish", "hswish", "hswish")


def ofa(width_multiplier=1.0, resolutions=tuple(range(128, 225, 4))):
    """Settings of the published once-for-all MobileNetV3 space."""
    stages = [
        {"width": w, "stride": s, "depths": [2, 3, 4], "kernel_sizes": [3, 5, 7], "expand_ratios": [3, 4, 6],
         "act": a, "se": se}
        for w, s, a, se in zip(WIDTHS, STRIDES, ACT, SE, strict=True)
    ]  # fmt: skip
    return MBV3Config(
        family="mbv3", classes=1000, resolutions=resolutions, width_multiplier=width_multiplier, stages=stages
    )


def test_the_published_space_has_its_published_size():
    layout = make_layout(ofa())
    operators = 3 * 3
    per_stage = operators**2 + operators**3 + operators**4
    assert layout.space.size == 25 * per_stage**5
    assert per_stage**5 == pytest.approx(2e19, rel=0.1)


def test_the_published_channels_at_width_one_and_a_fifth():
    layout = make_layout(ofa(1.2))
    chain = dict(layout.blocks(layout.space.largest()))
    assert chain["stem"] == ConvSpec(3, 24, 224, 3, 2, "hswish")
    assert chain["first_block"] == MBConvSpec(24, 24, 112, 24, False, 3, 1, False, "relu", True)
    assert [chain[f"stage{s}.block1"].out_channels for s in range(1, 6)] == [32, 48, 96, 136, 192]
    assert [chain[f"stage{s}.block1"].in_size_px for s in range(1, 6)] == [112, 56, 28, 14, 14]
    assert chain["final_expand"] == ConvSpec(192, 1152, 7, 1, 1, "hswish")
    assert chain["head"] == HeadSpec(1152, 1000, 7, 1536, "hswish", 10)


def test_chain_of_a_chosen_arch_by_hand(layout):
    arch = layout.space.arch(
        {
            "resolution": 11,
            "stage1.depth": 1, "stage1.block1": [5, 3],
            "stage2.depth": 2, "stage2.block1": [3, 1.5], "stage2.block2": [5, 4],
        }
    )  # fmt: skip
    assert layout.blocks(arch) == [
        ("stem", ConvSpec(5, 8, 11, 3, 1, "hswish")),
        ("first_block", MBConvSpec(8, 8, 11, 8, False, 3, 1, False, "relu", True)),
        ("stage1.block1", MBConvSpec(8, 8, 11, 24, True, 5, 1, False, "relu", True)),
        ("stage2.block1", MBConvSpec(8, 16, 11, 16, True, 3, 2, True, "hswish", False)),
        ("stage2.block2", MBConvSpec(16, 16, 6, 64, True, 5, 1, True, "hswish", True)),
        ("final_expand", ConvSpec(16, 40, 6, 1, 1, "hswish")),
        ("head", HeadSpec(40, 7, 6, 24, "hswish", 0)),
    ]


def test_size_of_the_tiny_space_by_hand(layout):
    one, two = 3 * 2, 2 * 3
    assert layout.space.size == 2 * (one + one**2) * (two + two**2 + two**3)


def test_the_ofa_dialect_comes_back(layout, rng):
    for arch in layout.space.sample(rng, 50):
        config = format_ofa(arch, layout.space)
        assert {len(config["ks"]), len(config["e"])} == {5}
        assert len(config["d"]) == 2
        assert parse_ofa(config, layout.space) == arch


def test_the_ofa_dialect_by_hand():
    space = make_layout(ofa()).space
    ks, e, d = [3, 5, 7, 3] * 5, [3, 4, 6, 3] * 5, [2, 3, 4, 2, 3]
    arch = parse_ofa({"ks": ks, "e": e, "d": d, "r": 160}, space)
    assert arch["stage1.block2"] == (5, 4)
    assert arch["stage5.block3"] == (7, 6)
    assert "stage1.block3" not in arch
    assert arch["resolution"] == 160
    other = [9 if i % 4 == 3 and i // 4 != 2 else k for i, k in enumerate(ks)]
    assert parse_ofa({"ks": other, "e": e, "d": d, "r": [160]}, space) == arch  # those blocks do not exist


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ks": [3] * 19}, "needs 20 entries in 'ks', got 19"),
        ({"d": [2, 2, 2, 2]}, "needs 5 entries in 'd', got 4"),
        ({"ks": [9] * 20}, r"\(9, 4\) is not an option of 'stage1.block1'"),
        ({"r": 130}, "130 is not an option of 'resolution'"),
        ({"kernel": 3}, r"unknown keys \['kernel'\]"),
    ],
)
def test_a_wrong_ofa_config_says_what_is_wrong(change, message):
    config = {"ks": [3] * 20, "e": [4] * 20, "d": [2] * 5, "r": 160}
    with pytest.raises(SpaceError, match=message):
        parse_ofa({**config, **change}, make_layout(ofa()).space)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolutions": []}, "resolutions must be ascending and not empty"),
        ({"resolutions": [13, 11]}, "ascending"),
        ({"classes": 1}, "greater than or equal to 2"),
        ({"stages": []}, "at least 1"),
        ({"family": "resnet"}, "mbv3"),
        ({"colour": 3}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_network_are_refused(tiny_with, change, message):
    with pytest.raises(ValidationError, match=message):
        tiny_with(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_sizes": [3, 4]}, "odd"),
        ({"depths": [2, 1]}, "depths must be ascending"),
        ({"expand_ratios": []}, "empty"),
    ],
)
def test_stages_that_make_no_network_are_refused(tiny, tiny_with, change, message):
    stage = {**tiny.stages[0].model_dump(), **change}
    with pytest.raises(ValidationError, match=message):
        tiny_with(stages=[stage])


@pytest.mark.parametrize("change", [{}, {"first_block": False}, {"feature_width": 0}, {"stem_stride": 2}])
def test_every_form_computes_logits(tiny_with, change, images):
    net = build_supernet(tiny_with(**change)).eval()
    for arch in (net.space.smallest(), net.space.largest()):
        with torch.no_grad():
            assert net(images(2, arch["resolution"]), arch).shape == (2, 7)
