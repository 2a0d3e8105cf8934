"""Sizes in closed form, and genomes that come back."""

import numpy as np
import pytest

from hwnas.errors import SpaceError
from hwnas.space import Choice, SearchSpace
from hwnas.space.dialects.once_for_all import format_ofa, parse_ofa

BLOCKS = tuple((k, e) for e in (3, 4, 6) for k in (3, 5, 7))


def ofa_space(stages=5, resolutions=(224,)):
    choices = [Choice("resolution", tuple(resolutions))]
    groups = []
    for s in range(stages):
        depth = f"stage{s}.depth"
        choices.append(Choice(depth, (2, 3, 4)))
        names = [f"stage{s}.block{b}" for b in range(4)]
        for b, name in enumerate(names):
            active = tuple(d for d in (2, 3, 4) if d > b)
            choices.append(Choice(name, BLOCKS, ("kernel_size", "expand_ratio"), depth, active))
        groups.append((depth, *names))
    return SearchSpace(tuple(choices), tuple(groups))


def test_the_size_of_once_for_all():
    assert ofa_space().size == (9**2 + 9**3 + 9**4) ** 5 == 21_758_655_492_572_485_851
    assert ofa_space(resolutions=range(160, 228, 4)).size == 17 * 21_758_655_492_572_485_851


def test_a_listed_space_has_its_size_and_no_repetition():
    space = ofa_space(stages=1)
    genomes = space.all_genomes()
    assert len(genomes) == len(np.unique(genomes, axis=0)) == space.size == 9**2 + 9**3 + 9**4
    np.testing.assert_array_equal(space.canonical(genomes), genomes)


def test_genomes_come_back():
    space = ofa_space()
    genomes = space.sample_genomes(np.random.default_rng(0), 57)
    np.testing.assert_array_equal(space.encode_many(space.decode_many(genomes)), genomes)


def test_genes_of_switched_off_choices_do_not_matter():
    space = ofa_space(stages=1)
    shallow = [0, 0, 3, 4, 5, 6]
    assert space.decode(shallow) == space.decode([0, 0, 3, 4, 8, 8])
    assert space.decode(shallow) != space.decode([0, 0, 3, 5, 5, 6])
    assert len({space.decode(shallow), space.decode([0, 0, 3, 4, 0, 0])}) == 1


def test_the_key_is_stable():
    arch = SearchSpace.of_choices({"a": [1, 2], "b": ["x"]}).arch({"a": 2, "b": "x"})
    assert arch.key == SearchSpace.of_choices({"a": [2], "b": ["x"]}).smallest().key
    assert len(arch.key) == 12


def test_the_dialect_of_once_for_all_round_trips():
    space = ofa_space()
    config = {"ks": [3, 5, 7, 3] * 5, "e": [3, 4, 6, 6] * 5, "d": [2, 3, 4, 2, 3], "r": 224}
    arch = parse_ofa(config, space)
    assert parse_ofa(format_ofa(arch, space), space) == arch
    assert arch["stage0.block1"] == (5, 4)
    assert "stage0.block2" not in arch


def test_named_choices_are_drawn_by_their_shares_and_the_others_evenly(rng):
    space = SearchSpace.of_choices({"a": [0, 1], "b": ["x", "y", "z"], "c": [1, 2]})
    drawn = space.sample_genomes(rng, 6000, shares={"a": [1, 7], "b": np.array([0.0, 0.25, 0.25])})
    np.testing.assert_allclose(np.bincount(drawn[:, 0]) / 6000, [1 / 8, 7 / 8], atol=0.02)
    np.testing.assert_allclose(np.bincount(drawn[:, 1], minlength=3) / 6000, [0, 1 / 2, 1 / 2], atol=0.02)
    np.testing.assert_allclose(np.bincount(drawn[:, 2]) / 6000, [1 / 2, 1 / 2], atol=0.02)
    assert {a["b"] for a in space.sample(rng, 50, shares={"b": [0, 0, 1]})} == {"z"}
    seeds = [np.random.default_rng(3) for _ in range(2)]
    np.testing.assert_array_equal(
        *(space.sample_genomes(r, 9, shares=s) for r, s in zip(seeds, (None, {}), strict=True))
    )


@pytest.mark.parametrize("bad", [{"a": [1.0]}, {"a": [-1, 2]}, {"a": [0, 0]}, {"a": [np.nan, 1]}, {"z": [1, 1]}])
def test_shares_that_do_not_fit_are_named(rng, bad):
    space = SearchSpace.of_choices({"a": [0, 1]})
    with pytest.raises(SpaceError, match=r"shares of choice 'a' are .*; give 2 numbers|no choice 'z'"):
        space.sample(rng, 1, shares=bad)


def test_uniform_over_archs_draws_deep_stages_more_often():
    space = ofa_space(stages=1)
    rng = np.random.default_rng(0)
    deep = (space.sample_genomes(rng, 3000, uniform="archs")[:, 1] == 2).mean()
    assert deep == pytest.approx(9**4 / space.size, abs=0.02)
    assert (space.sample_genomes(rng, 3000)[:, 1] == 2).mean() == pytest.approx(1 / 3, abs=0.04)


def test_restrict_and_contains():
    space = ofa_space(stages=1)
    small = space.restrict({"stage0.depth": [2], "stage0.block0": [[3, 3], [7, 6]]})
    genomes = small.all_genomes()
    assert len(genomes) == small.size == 2 * 9
    archs = small.decode_many(genomes)
    assert all(space.contains(a) for a in archs)
    assert all(small.contains(a) for a in archs)
    assert not small.contains(space.largest())


def test_where_keeps_by_field():
    assert ofa_space(stages=1).where(kernel_size=[3], depth=[2]).size == 3**2


def test_one_hot_of_an_inactive_choice_is_zero():
    space = ofa_space(stages=1)
    rows = space.one_hot(np.array([[0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0]]))
    assert rows.shape == (2, 3 + 4 * 6)
    assert rows.sum(axis=1).tolist() == [1 + 2 * 2, 1 + 4 * 2]


def test_dictionaries_come_back():
    space = ofa_space(stages=2)
    assert space.arch(space.largest().as_dict()) == space.largest()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Choice("a", ()), "has no options"),
        (lambda: Choice("a", (1, 1)), "repeats an option"),
        (lambda: SearchSpace((Choice("a", (1,)), Choice("a", (2,)))), "stands twice"),
        (lambda: SearchSpace.of_choices({"a": [1]}, [["b"]]), "unknown choices"),
        (lambda: ofa_space().all_genomes(), "more than the limit"),
        (lambda: SearchSpace.of_choices({"a": [1, 2]}).decode([2]), "out of range"),
        (lambda: SearchSpace.of_choices({"a": [1, 2]}).arch({}), "is missing"),
    ],
)
def test_mistakes_are_named(make, text):
    with pytest.raises(SpaceError, match=text):
        make()
