"""Every shipped family keeps what all promise, and so does one that hwnas has never seen, with blocks of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import pytest
import torch
from torch import Tensor, nn

from hwnas.errors import PluginError, RecipeError
from hwnas.latency.table import load_device
from hwnas.runs.recipe import check_recipe
from hwnas.space import Choice, SearchSpace
from hwnas.supernet import FAMILIES, BlockSpec, FamilyConfig, Layout, Slot, build_supernet, make_layout
from hwnas.supernet.blocks.block import ElasticBlock, ElasticMultiInputBlock, MultiInputBlock, largest_of
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.single_path import ChoiceBlock
from hwnas.supernet.families.mbv3 import MBV3Config
from hwnas.testing.family import FamilyTests

STAGES = [
    {"width": 16, "stride": 2, "depths": [2, 3, 4], "kernel_sizes": [3, 5], "expand_ratios": [2, 3]},
    {
        "width": 24, "stride": 2, "depths": [2, 3], "kernel_sizes": [3, 5], "expand_ratios": [2, 3],
        "act": "hswish", "se": True,
    },
]  # fmt: skip
MOBILE = {
    "in_channels": 2, "classes": 7, "resolutions": [13, 16], "stem_width": 8, "stem_stride": 1, "stages": STAGES,
}  # fmt: skip
HEAD = {"expand_width": 48, "feature_width": 64}


class TestMBV3(FamilyTests):
    def make(self):
        return {"family": "mbv3", **MOBILE, **HEAD}


class TestMBV3OfTwoWidths(FamilyTests):
    def make(self):
        return {"family": "mbv3", **MOBILE, **HEAD, "separate_widths": [1.0, 1.5]}


class TestOFAv2OfTwoWidths(FamilyTests):
    def make(self):
        shape = {"dense_skips": True, "parallel": True, "early_exits": True}
        return {"family": "ofav2", **MOBILE, **HEAD, **shape, "separate_widths": [1.0, 1.5]}


class TestProxyless(FamilyTests):
    def make(self):
        return {"family": "proxyless", **MOBILE, "first_width": 16, "feature_width": 48, "bn_eps": 1e-3}


class TestResNet50D(FamilyTests):
    def make(self):
        stages = [{"width": 32, "stride": 1, "base_depth": 1}, {"width": 64, "stride": 2, "base_depth": 2}]
        sizes = {"in_channels": 2, "classes": 7, "resolutions": [29, 32], "stem_width": 16}
        return {"family": "resnet50d", **sizes, "stages": stages}


class TestOFAv2(FamilyTests):
    def make(self):
        return {
            "family": "ofav2", **MOBILE, **HEAD, "dense_skips": True, "parallel": True, "early_exits": True,
        }  # fmt: skip


class TestHurricane(FamilyTests):
    def make(self):
        stages = [
            {"width": 16, "stride": 2, "layers": 1},
            {"width": 24, "stride": 1, "layers": 2, "act": "hswish"},
        ]
        sizes = {"in_channels": 2, "classes": 7, "resolutions": [13, 16], "stem_width": 8, "feature_width": 48}
        return {"family": "hurricane", **sizes, "stages": stages}


class TestNASBench201(FamilyTests):
    def make(self):
        sizes = {"in_channels": 2, "classes": 7, "resolutions": [12, 15], "stem_width": 8, "cells_per_stage": 1}
        return {"family": "nasbench201", **sizes}


def test_every_shipped_family_is_tested_here():
    tested = {cls().make()["family"] for cls in FamilyTests.__subclasses__()}
    assert tested >= set(FAMILIES.names())


# -- a family that hwnas does not know, with blocks that it does not know -------------------------------


@dataclass(frozen=True, slots=True)
class BiasSpec(BlockSpec):
    """A convolution with bias and ReLU; its middle channels share weights."""

    kind: ClassVar[str] = "toy_bias"

    mid_channels: int

    def build(self):
        return Bias(self.in_channels, self.mid_channels, self.out_channels)

    @classmethod
    def elastic(cls, specs: Sequence[Self]):
        return ElasticBias(largest_of(specs, "mid_channels"))


class Bias(nn.Module):
    def __init__(self, channels, mid, out):
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, mid, 3, 1, 1), nn.Conv2d(mid, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class ElasticBias(ElasticBlock):
    def __init__(self, largest: BiasSpec) -> None:
        super().__init__()
        self.largest = largest.build()

    def sliced(self, spec):
        first, second, mid = self.largest.first, self.largest.second, spec.mid_channels
        return first.weight[:mid], first.bias[:mid], second.weight[:, :mid], second.bias

    def forward(self, x, spec):
        w1, b1, w2, b2 = self.sliced(spec)
        return nn.functional.conv2d(nn.functional.conv2d(x, w1, b1, padding=1).relu(), w2, b2)

    def fill(self, plain, spec):
        tensors = (plain.first.weight, plain.first.bias, plain.second.weight, plain.second.bias)
        with torch.no_grad():
            for tensor, own in zip(tensors, self.sliced(spec), strict=True):
                tensor.copy_(own)


@dataclass(frozen=True, slots=True)
class PickSpec(BlockSpec):
    """A convolution of one of two kernels, which share no weights."""

    kind: ClassVar[str] = "toy_pick"

    kernel_size: int

    def build(self):
        return nn.Sequential(
            nn.Conv2d(self.in_channels, self.out_channels, self.kernel_size, 1, self.kernel_size // 2), nn.ReLU()
        )


@dataclass(frozen=True, slots=True)
class RecallSpec(BlockSpec):
    """Adds the first output of the stage."""

    kind: ClassVar[str] = "toy_recall"

    def build(self):
        return Recall()

    @classmethod
    def elastic(cls, specs):
        return ElasticRecall()


class Recall(MultiInputBlock):
    def combine(self, x, earlier):
        return x + earlier[0]

    def forward(self, x):
        return x + x


class ElasticRecall(ElasticMultiInputBlock):
    def combine(self, x, earlier, spec):
        return x + earlier[0]

    def fill(self, plain, spec):
        pass


class ToyConfig(FamilyConfig):
    family: str
    width: int = 5
    middle: tuple[int, ...] = (3, 7)


class Toy:
    config = ToyConfig

    @staticmethod
    def layout(config: ToyConfig) -> Layout:
        channels, width = config.in_channels, config.width
        choices = (
            Choice("resolution", config.resolutions),
            Choice("first.middle", config.middle),
            Choice("second.kernel_size", (1, 3)),
        )
        slots = (
            Slot("first", ("resolution", "first.middle"), lambda px, m: BiasSpec(channels, width, px, m), 1, True),
            Slot("second", ("resolution", "second.kernel_size"), lambda px, k: PickSpec(width, width, px, k), 1),
            Slot("recall", ("resolution",), lambda px: RecallSpec(width, width, px), 1),
            Slot("head", ("resolution",), lambda px: HeadSpec(width, config.classes, px, 0, "none", 0)),
        )
        return Layout(SearchSpace(choices, (("first.middle", "second.kernel_size"),)), slots, first_stage=1)


TOY = {"family": f"{__name__}:Toy", "in_channels": 2, "classes": 3, "resolutions": [7, 9]}


class TestToy(FamilyTests):
    def make(self):
        return dict(TOY)


def test_blocks_say_themselves_how_they_share_weights():
    blocks = build_supernet(ToyConfig.model_validate(TOY)).elastic_blocks
    assert [type(b) for b in blocks.values()][:3] == [ElasticBias, ChoiceBlock, ElasticRecall]
    assert len(blocks["second"].candidates) == 2


def test_a_recipe_names_a_family_of_ones_own(tiny_recipe):
    recipe = check_recipe({**tiny_recipe, "supernet": TOY}, "mine.yaml")
    assert recipe.supernet == ToyConfig.model_validate(TOY)
    assert recipe.model_dump(mode="json")["supernet"]["middle"] == [3, 7]
    with pytest.raises(
        RecipeError, match=r"unknown key 'supernet\.midle'; known keys here are .*; did you mean 'middle'"
    ):
        check_recipe({**tiny_recipe, "supernet": {**TOY, "midle": [3]}}, "mine.yaml")
    with pytest.raises(RecipeError, match=r"supernet\.width: .* got 'wide'"):
        check_recipe({**tiny_recipe, "supernet": {**TOY, "width": "wide"}}, "mine.yaml")


def test_devices_estimate_blocks_of_ones_own():
    layout = make_layout(ToyConfig.model_validate(TOY))
    latency_ms = load_device("hexagon-dsp").compile(layout)
    smallest, largest = latency_ms.of_archs([layout.space.smallest(), layout.space.largest()])
    assert 0 < smallest < largest


class Half:
    config = ToyConfig


def test_what_is_no_family_is_refused_with_what_is_missing():
    with pytest.raises(PluginError, match=r"lacks layout; hwnas\.supernet\.families\.family says"):
        FAMILIES.get(f"{__name__}:Half")


def test_settings_of_another_family_are_refused():
    with pytest.raises(ValueError, match=r"family 'ofav2' has the settings OFAv2Config, not MBV3Config"):
        MBV3Config.model_validate({"family": "ofav2", **MOBILE})


def test_settings_that_forget_their_family_say_so():
    class Forgetful(FamilyConfig):
        width: int = 3

    with pytest.raises(ValueError, match="Forgetful lacks the field family"):
        Forgetful(classes=2, resolutions=(7,))
