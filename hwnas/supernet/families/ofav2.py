"""The OFAv2 family: Once-For-All MobileNetV3 with any of dense skips, parallel blocks and early exits.

Elastic besides mbv3's choices: ``level`` of a block, three bits that say which of its branches exist, and ``exit``, the
stage after which the network ends.

Reference:
    Sarti et al., 2023, OFAv2 (arXiv 2302.01888), and its code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hwnas.space import Choice, SearchSpace
from hwnas.supernet.blocks.block import BlockSpec
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.layers import make_divisible
from hwnas.supernet.blocks.parallel import ParallelSpec
from hwnas.supernet.blocks.skip_add import SkipAddSpec
from hwnas.supernet.families.builder import SlotBuilder, size_after
from hwnas.supernet.families.mbv3 import MBV3Config, add_stem
from hwnas.supernet.families.mobile import StageConfig, inverted_bottleneck
from hwnas.supernet.layout import Layout, Slot


class OFAv2Config(MBV3Config):
    """Sizes of an ofav2 supernet; with everything off it is mbv3."""

    dense_skips: bool = False
    """Add a stage's first outputs to its later ones."""
    parallel: bool = False
    """Blocks have up to three branches."""
    early_exits: bool = False
    """A head after every stage; a subnet has one of them and no later stages."""


class OFAv2:
    """The family ``ofav2``; see `hwnas.supernet.families.family.Family`."""

    config = OFAv2Config

    @staticmethod
    def layout(config: OFAv2Config) -> Layout:
        """Return space and slots of an ofav2 supernet."""
        return Layout(_space(config), tuple(_slots(config)), config.bn_eps, first_stage=1)


def _space(config: OFAv2Config) -> SearchSpace:
    n_stages = len(config.stages)
    choices, groups = [Choice("resolution", config.resolutions)], []
    if config.early_exits:
        choices.append(Choice("exit", tuple(range(1, n_stages + 1))))
    fields = ("level", "kernel_size", "expand_ratio") if config.parallel else ("kernel_size", "expand_ratio")
    for s, stage in enumerate(config.stages, 1):
        exits = tuple(range(s, n_stages + 1)) if config.early_exits else ()
        depth = Choice(f"stage{s}.depth", stage.depths, (), "exit" if config.early_exits else None, exits)
        made = [depth]
        for b in range(1, max(stage.depths) + 1):
            active_for = tuple(d for d in stage.depths if d >= b)
            operators = _operators(stage, config.parallel)
            evenly = "level" if config.parallel else ""
            made.append(Choice(f"stage{s}.block{b}", operators, fields, depth.name, active_for, evenly))
        choices += made
        groups.append(tuple(c.name for c in made))
    return SearchSpace(tuple(choices), tuple(groups))


def _operators(stage: StageConfig, parallel: bool) -> tuple[tuple[Any, ...], ...]:
    """Operators of a block; kernel and ratio mean nothing where the level has no inverted bottleneck.

    Of these three levels there is one operator each, of the other four one for each kernel and ratio.
    """
    pairs = [(k, e) for k in stage.kernel_sizes for e in stage.expand_ratios]
    if not parallel:
        return tuple(pairs)
    return ((1, None, None), (2, None, None), (3, None, None), *((level, *p) for level in (4, 5, 6, 7) for p in pairs))


def _slots(config: OFAv2Config) -> list[Slot]:
    builder = SlotBuilder(config.in_channels)
    add_stem(builder, config)
    for s, stage in enumerate(config.stages, 1):
        out_channels = config.width(stage.width)
        depth = f"stage{s}.depth"
        for b in range(1, max(stage.depths) + 1):
            stride = stage.stride if b == 1 else 1
            name = f"stage{s}.block{b}"
            builder.add(name, (name,), _block(config, stage, out_channels, stride), out_channels, stride, s)
            if config.dense_skips and b >= 3:
                builder.add(f"stage{s}.skip{b}", (depth,), _skip(b), out_channels, stage=s)
        if config.early_exits or s == len(config.stages):
            builder.slots += _exit(config, s, out_channels, builder.strides)
    return builder.slots


def _block(
    config: OFAv2Config, stage: StageConfig, out_channels: int, stride: int
) -> Callable[[int, int, tuple[Any, ...]], BlockSpec]:
    plain = inverted_bottleneck(stage, out_channels, stride)

    def make(in_channels: int, size_px: int, operator: tuple[Any, ...]) -> BlockSpec:
        if not config.parallel:
            return plain(in_channels, size_px, (operator[0], operator[1]))
        level, kernel_size, expand_ratio = operator
        if kernel_size is None:  # no inverted bottleneck: its sizes are written as 0
            return ParallelSpec(
                in_channels, out_channels, size_px, level, 0, 0, stride, stage.se, stage.act, residual=False
            )
        b = plain(in_channels, size_px, (kernel_size, expand_ratio))
        return ParallelSpec(
            in_channels, out_channels, size_px, level, b.mid_channels, kernel_size, stride, b.se, b.act, b.residual
        )

    return make


def _skip(block: int) -> Callable[[int, int, int], BlockSpec | None]:
    """After block b from the third on: the outputs of blocks 1 to b - 2 are added."""

    def make(channels: int, size_px: int, depth: int) -> BlockSpec | None:
        return SkipAddSpec(channels, channels, size_px, block - 2) if depth >= block else None

    return make


def _exit(config: OFAv2Config, stage: int, channels: int, strides: tuple[int, ...]) -> list[Slot]:
    """Head after a stage: 1x1 convolution to 6 times its channels, pool, feature mix of 8 times, classifier.

    The last stage has the head of mbv3, whose published sizes are the same multiples.
    """
    last = stage == len(config.stages)
    wide = config.width(config.expand_width) if last else make_divisible(6 * channels)
    features = config.width(config.feature_width) if last and config.feature_width else make_divisible(8 * channels)

    def present(spec: BlockSpec, exit_: int | None) -> BlockSpec | None:
        return spec if exit_ is None or exit_ == stage else None

    def expand(resolution: int, exit_: int | None = None) -> BlockSpec | None:
        size = size_after(resolution, strides)
        return present(ConvSpec(channels, wide, size, 1, 1, config.head_act), exit_)

    def head(resolution: int, exit_: int | None = None) -> BlockSpec | None:
        size = size_after(resolution, strides)
        spec = HeadSpec(wide, config.classes, size, features, config.head_act, config.dropout_percent)
        return present(replace(spec, feature_channels=0) if last and not config.feature_width else spec, exit_)

    choices = ("resolution", "exit") if config.early_exits else ("resolution",)
    return [Slot(f"exit{stage}.expand", choices, expand), Slot(f"exit{stage}.head", choices, head)]
