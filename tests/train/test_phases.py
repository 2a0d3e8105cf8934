"""Phases: what each may draw, what its ends are, and mistakes that are named."""

import numpy as np
import pytest
from pydantic import ValidationError

from hwnas.errors import RecipeError
from hwnas.runs.recipe import load_recipe
from hwnas.supernet import make_layout
from hwnas.train.phases import PhaseConfig, TrainConfig, phase_space, sample_step, trained_options


def phase(**settings):
    return PhaseConfig(**{"name": "p", "epochs": 1, "lr": 0.1, **settings})


def values(space, field):
    return sorted({c.field_value(o, field) for c in space.choices if field in c.fields for o in c.options})


def test_what_is_not_elastic_stays_at_its_largest_and_resolution_varies(layout):
    space = phase_space(phase(), layout.space)
    assert values(space, "resolution") == [11, 13]
    assert space["stage1.depth"].options == (2,)
    assert space["stage2.depth"].options == (3,)
    assert space["stage1.block1"].options == ((7, 3),)
    assert space["stage2.block1"].options == ((5, 4),)
    assert space.size == 2


@pytest.mark.parametrize(
    ("elastic", "size"),
    [
        ({"kernel_size": "all"}, 2 * 3**2 * 2**3),
        ({"kernel_size": [3, 5], "resolution": [13]}, 2**2 * 2**3),
        ({"depth": "all"}, 2 * 2 * 3),
        ({"kernel_size": "all", "depth": "all"}, 2 * (3 + 9) * (2 + 4 + 8)),
        ({"expand_ratio": "all"}, 2 * 2**2 * 3**3),
        ({"kernel_size": "all", "depth": "all", "expand_ratio": "all"}, 2 * (6 + 36) * (6 + 36 + 216)),
    ],
)
def test_sizes_of_phases_by_hand(layout, elastic, size):
    assert phase_space(phase(elastic=elastic), layout.space).size == size


def test_stages_without_a_named_value_take_the_nearest(layout):
    space = phase_space(phase(elastic={"kernel_size": [7], "depth": [1]}), layout.space)
    assert space["stage1.block1"].options == ((7, 3),)
    assert space["stage2.block1"].options == ((5, 4),)
    assert space["stage2.depth"].options == (1,)


@pytest.mark.parametrize(
    ("elastic", "message"),
    [
        ({"kernel": "all"}, r"train\.phases 'p': unknown fields \['kernel'\] in elastic; known are .*'kernel_size'"),
        ({"kernel_size": [9]}, r"train\.phases 'p': kernel_size=\[9\] matches nothing: its values are \[3, 5, 7\]"),
        ({"resolution": [99]}, r"train\.phases 'p': resolution=\[99\] matches nothing: its values are \[11, 13\]"),
    ],
)
def test_values_that_the_space_does_not_have_are_named(layout, elastic, message):
    with pytest.raises(RecipeError, match=message):
        phase_space(phase(elastic=elastic), layout.space)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_sandwich_has_the_largest_first_and_the_smallest_last(layout, rng, n):
    space = phase_space(phase(elastic={"kernel_size": "all", "depth": "all"}), layout.space)
    for _ in range(10):
        archs = sample_step(phase(sampling="sandwich", subnets_per_step=n), space, rng)
        assert len(archs) == n
        here = space.restrict({"resolution": [archs[0]["resolution"]]})
        assert archs[0] == here.largest()
        assert n == 1 or archs[-1] == here.smallest()
        assert {a["resolution"] for a in archs} == {archs[0]["resolution"]}
        assert all(here.contains(a) for a in archs)


def test_a_step_is_of_one_resolution_and_all_are_drawn(layout, rng):
    config = phase(subnets_per_step=4)
    drawn = [sample_step(config, layout.space, rng) for _ in range(40)]
    assert all(len({a["resolution"] for a in archs}) == 1 for archs in drawn)
    assert {archs[0]["resolution"] for archs in drawn} == {11, 13}


def test_the_generator_alone_decides(layout):
    config = phase(subnets_per_step=3)
    a, b, c = (sample_step(config, layout.space, np.random.default_rng(s)) for s in (1, 1, 2))
    assert a == b != c


def test_options_are_drawn_by_their_shares(layout, rng):
    everything = {"kernel_size": "all", "depth": "all", "expand_ratio": "all"}
    shares = {"resolution": [1, 3], "stage1.depth": [0, 1], "stage2.depth": [1, 0, 1]}
    config = phase(subnets_per_step=3, elastic=everything, shares=shares)
    space = phase_space(config, layout.space)
    archs = [a for _ in range(300) for a in sample_step(config, space, rng)]
    assert np.mean([a["resolution"] == 13 for a in archs]) == pytest.approx(3 / 4, abs=0.06)
    assert {a["stage1.depth"] for a in archs} == {2}
    assert {a["stage2.depth"] for a in archs} == {1, 3}
    assert {a["stage1.block1"] for a in archs} == set(layout.space["stage1.block1"].options)


def test_shares_are_of_the_options_that_a_phase_leaves(layout):
    config = phase(elastic={"depth": [1, 2]}, shares={"stage2.depth": [1, 1]})
    assert phase_space(config, layout.space)["stage2.depth"].options == (1, 2)
    with pytest.raises(
        RecipeError, match=r"train\.phases 'p': shares of choice 'stage2\.depth' are .*; give 3 numbers"
    ):
        phase_space(phase(elastic={"depth": "all"}, shares={"stage2.depth": [1, 1]}), layout.space)
    with pytest.raises(RecipeError, match=r"train\.phases 'p': the space has no choice 'stage9\.depth'"):
        phase_space(phase(shares={"stage9.depth": [1]}), layout.space)


def test_even_draws_leave_files_and_hashes_as_they_were():
    assert "shares" not in phase().model_dump(mode="json")
    assert "shares" not in TrainConfig(phases=(phase(),)).model_dump_json()
    drawn = phase(shares={"a": (0.25, 0.75)})
    assert PhaseConfig.model_validate(drawn.model_dump(mode="json")) == drawn


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"lr": 0}, {"subnets_per_step": 0}, {"sampling": "best"}, {"teacher": "me"}, {"elastc": {}}],
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        phase(**change)


def test_a_training_needs_a_phase():
    with pytest.raises(ValidationError, match="give at least one phase, or the weights"):
        TrainConfig(phases=())


def test_coupled_fields_stand_at_the_same_share_of_their_range(layout):
    space = layout.space
    phase = PhaseConfig(
        name="x", epochs=1, lr=0.1, elastic={"kernel_size": "all", "depth": "all", "expand_ratio": "all"},
        subnets_per_step=40, coupled=("depth", "expand_ratio"),
    )  # fmt: skip
    archs = sample_step(phase, phase_space(phase, space), np.random.default_rng(0))
    ratios, depths = {1: [2, 3], 2: [1.5, 3, 4]}, {1: [1, 2], 2: [1, 2, 3]}
    kernels = set()
    for arch in archs:
        for stage in (1, 2):
            at = depths[stage].index(arch[f"stage{stage}.depth"])
            for block in range(1, arch[f"stage{stage}.depth"] + 1):
                kernel, ratio = arch[f"stage{stage}.block{block}"]
                assert ratios[stage].index(ratio) == at
                kernels.add((stage, kernel))
    assert kernels == {(1, 3), (1, 5), (1, 7), (2, 3), (2, 5)}, "what is not coupled is drawn by itself"
    assert {a["stage2.depth"] for a in archs} == {1, 2, 3}


def test_unknown_coupled_fields_are_refused(layout):
    phase = PhaseConfig(name="x", epochs=1, lr=0.1, coupled=("widht",))
    with pytest.raises(RecipeError, match=r"unknown fields \['widht'\] in coupled"):
        phase_space(phase, layout.space)


def test_settings_added_later_leave_files_of_earlier_trainings_as_they_were():
    plain = PhaseConfig(name="x", epochs=1, lr=0.1).model_dump()
    assert not {"shares", "coupled", "divergence"} & set(plain)
    given = PhaseConfig(name="x", epochs=1, lr=0.1, coupled=("depth",), divergence="alpha")
    assert PhaseConfig.model_validate(given.model_dump()) == given


EVERYTHING = {"kernel_size": "all", "depth": "all", "expand_ratio": "all"}


def trained(layout, *phases, **more):
    return trained_options(TrainConfig(phases=phases, **more), layout)


def test_what_no_phase_varies_is_not_trained(layout):
    kernels = phase(elastic={"kernel_size": "all"})
    found = trained(layout, kernels)
    assert "resolution" not in found
    assert found["stage2.depth"] == (3,)
    assert found["stage1.block1"] == ((3, 3), (5, 3), (7, 3))
    depths = phase(elastic={"kernel_size": "all", "depth": [1, 3]})
    both = trained(layout, kernels, depths)
    assert both["stage2.depth"] == (1, 3)
    assert "stage1.depth" not in both, "of 1 and 2, the second phase trains 1 and the first 2"
    assert trained(layout, kernels, phase(elastic=EVERYTHING)) == {}


def test_two_phases_train_what_either_of_them_does(layout):
    small, large = (phase(elastic=EVERYTHING, only={"stage1.depth": [depth]}) for depth in (1, 2))
    assert trained(layout, small) == {"stage1.depth": (1,)}
    assert trained(layout, small, large) == {}


def test_fields_that_share_weights_may_be_trained_one_after_the_other():
    fields = {"operator": "all", "expand_ratio": "all", "kernel_size": "all", "se": "all"}
    phases = [phase(elastic={f: "all"}) for f in ("kernel_size", "expand_ratio", "depth")]
    shared = make_layout(load_recipe("digits-mbv3").supernet)
    assert trained(shared, *phases) == {}
    pool = make_layout(load_recipe("mnist-hurricane").supernet)
    assert trained(pool, phase(elastic=fields)) == {}
    # Operators of a pool have weights of their own: that another one of kernel 3 and one of ratio 6 learn is no help.
    some = [("mbconv", 6, 5, 0), ("mbconv", 3, 3, 0)]
    assert trained(pool, phase(elastic=fields, only={"stage1.layer1": some})) == {"stage1.layer1": tuple(sorted(some))}


def test_weights_from_elsewhere_may_have_been_trained_everywhere(layout):
    assert trained(layout, phase(), start_from="elsewhere") == {}


def test_exits_that_learn_together_are_all_trained():
    layout = make_layout(load_recipe("mnist-ofav2").supernet)
    assert trained(layout, phase())["exit"] == layout.space["exit"].options[-1:]
    assert "exit" not in trained(layout, phase(exits="all"))
