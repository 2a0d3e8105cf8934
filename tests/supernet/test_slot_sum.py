"""Look-ups over a space: equal to adding up the chain, for every arch."""

import numpy as np
import pytest

from hwnas.supernet import make_layout
from hwnas.supernet.families.mbv3 import MBV3Config
from hwnas.supernet.slot_sum import SlotSum, distinct_blocks


@pytest.fixture(scope="module")
def small():
    stage = {"width": 8, "stride": 2, "depths": [1, 2], "kernel_sizes": [3, 5], "expand_ratios": [1, 2]}
    config = MBV3Config(family="mbv3", in_channels=5, classes=3, resolutions=[11, 13], stem_width=8, stages=[stage])
    return make_layout(config)


def value_of(block):
    """Any number that tells blocks apart."""
    return float(sum(ord(c) * (i + 1) for i, c in enumerate(block.signature)) % 1009)


def test_every_arch_is_the_sum_of_its_chain(small):
    genomes = small.space.all_genomes()
    assert len(genomes) == small.space.size == 2 * (4 + 16)
    archs = small.space.decode_many(genomes)
    wanted = [10.5 + sum(value_of(block) for _, block in small.blocks(a)) for a in archs]
    sums = SlotSum.of(small, value_of, 10.5)
    np.testing.assert_array_equal(sums.of_genomes(genomes), wanted)
    np.testing.assert_array_equal(sums.of_archs(archs), wanted)


def test_a_block_without_a_finite_value_counts_only_where_it_is(small):
    genomes = small.space.all_genomes()
    archs = small.space.decode_many(genomes)
    second = {block for arch in archs for slot, block in small.blocks(arch) if slot == "stage1.block2"}
    sums = SlotSum.of(small, lambda block: np.inf if block in second else 1.0).of_genomes(genomes)
    np.testing.assert_array_equal(np.isinf(sums), [any(b in second for _, b in small.blocks(a)) for a in archs])
    assert 0 < np.isinf(sums).sum() < len(sums)
    assert not np.isnan(sums).any()


def test_random_archs_of_a_larger_space(layout, rng):
    archs = layout.space.sample(rng, 100)
    wanted = [sum(value_of(block) for _, block in layout.blocks(a)) for a in archs]
    np.testing.assert_array_equal(SlotSum.of(layout, value_of).of_archs(archs), wanted)


def test_no_archs_give_no_sums(layout):
    assert SlotSum.of(layout, value_of).of_archs([]).shape == (0,)


def test_genes_of_absent_blocks_add_nothing(small, rng):
    genomes = rng.integers(0, small.space.n_options, (50, len(small.space)))
    sums = SlotSum.of(small, value_of)
    np.testing.assert_array_equal(sums.of_genomes(genomes), sums.of_genomes(small.space.canonical(genomes)))


def test_every_block_is_asked_for_once(small):
    asked = []
    SlotSum.of(small, lambda block: asked.append(block) or 1.0)
    assert len(asked) == len(set(asked))
    everywhere = {b for a in small.space.decode_many(small.space.all_genomes()) for _, b in small.blocks(a)}
    assert set(asked) == everywhere == set(distinct_blocks(small))
    assert len(distinct_blocks(small)) == len(everywhere)
