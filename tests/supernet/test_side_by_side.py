"""Supernets of several widths, side by side: separate weights, one space, one search."""

import numpy as np
import pytest
import torch

import hwnas
from hwnas.errors import CheckpointError, RecipeError, SpaceError
from hwnas.objectives.exact import params_of_space
from hwnas.runs.recipe import check_recipe
from hwnas.space.dialects.once_for_all import format_ofa, parse_ofa
from hwnas.supernet import build_supernet, make_layout
from hwnas.supernet.build import of_width
from hwnas.supernet.weights.once_for_all import ofa_names
from hwnas.train.phases import PhaseConfig, phase_space, sample_step
from hwnas.train.start import starting_state

WIDTHS = [1.0, 1.5]


@pytest.fixture(scope="module")
def config(tiny_with):
    return tiny_with(separate_widths=WIDTHS)


def alone(arch, config):
    """The same arch in the supernet of its width alone, and that space."""
    values = arch.as_dict()
    layout = make_layout(of_width(config, values.pop("width_multiplier")))
    return layout.space.arch(values), layout


def test_every_arch_of_either_width_is_there(config):
    layout = make_layout(config)
    assert layout.space.size == sum(make_layout(of_width(config, w)).space.size for w in WIDTHS)
    for arch in layout.space.sample(np.random.default_rng(0), 30):
        same, one = alone(arch, config)
        assert [spec for _, spec in layout.blocks(arch)] == [spec for _, spec in one.blocks(same)]
        assert params_of_space(layout).of_archs([arch]) == params_of_space(one).of_archs([same])


def test_once_for_alls_form_names_the_supernet(config):
    space = make_layout(config).space
    for arch in space.sample(np.random.default_rng(2), 20):
        written = format_ofa(arch, space)
        assert written["wid"] == WIDTHS.index(arch["width_multiplier"])
        assert parse_ofa(written, space) == arch
    with pytest.raises(SpaceError, match=r"has wid None; give 0 to 1, for \[1\.0, 1\.5\]"):
        parse_ofa({**written, "wid": None}, space)


def test_bounds_are_those_of_the_narrow_and_of_the_wide_one(config):
    low, high = params_of_space(make_layout(config)).bounds()
    bounds = [params_of_space(make_layout(of_width(config, w))).bounds() for w in WIDTHS]
    assert (low, high) == (bounds[0][0], bounds[1][1])


def test_each_width_computes_with_the_weights_it_was_given(config, make_net, images, tmp_path):
    nets = [make_net(seed, of_width(config, w)) for seed, w in enumerate(WIDTHS, 5)]
    for number, net in enumerate(nets):
        hwnas.save_supernet(net, tmp_path / str(number))
    both = build_supernet(config).eval()
    state, new = starting_state(both, [str(tmp_path / "0"), str(tmp_path / "1")])
    assert new == ""
    both.load_state_dict(state)
    for arch in both.space.sample(np.random.default_rng(1), 12):
        same, _ = alone(arch, config)
        x = images(2, arch["resolution"])
        with torch.inference_mode():
            assert torch.equal(both(x, arch), nets[WIDTHS.index(arch["width_multiplier"])](x, same))


def test_published_weights_of_each_width_are_joined(config, make_net, tmp_path):
    for number, width in enumerate(WIDTHS):
        net = make_net(number, of_width(config, width))
        names = ofa_names(net)
        torch.save({"state_dict": {names[k]: v for k, v in net.state_dict().items()}}, tmp_path / f"{number}.pth")
    both = build_supernet(config)
    state, _ = starting_state(both, [str(tmp_path / "0.pth"), str(tmp_path / "1.pth")])
    wide = make_net(1, of_width(config, 1.5)).state_dict()
    for name, tensor in wide.items():
        assert torch.equal(state[f"parts.x1_5_{name.removeprefix('parts.')}"], tensor)


def test_a_start_for_each_width_or_none(config, tiny, make_net, tmp_path):
    path = str(hwnas.save_supernet(make_net(), tmp_path / "one"))
    with pytest.raises(CheckpointError, match=r"names 3 supernets, and .* has 2 widths \(1, 1\.5\); give one for each"):
        starting_state(build_supernet(config), [path] * 3)
    with pytest.raises(CheckpointError, match=r"names 2 supernets, and supernet\.separate_widths has one width"):
        starting_state(build_supernet(tiny), [path] * 2)
    with pytest.raises(CheckpointError, match=r"it differs in width_multiplier"):
        starting_state(build_supernet(config), [path] * 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"separate_widths": [1.0]}, "ascending, without repeats and at least two"),
        ({"separate_widths": [1.2, 1.0]}, "ascending, without repeats and at least two"),
        ({"separate_widths": [1.0, 1.2], "width_multiplier": 1.1}, "both say how wide networks are"),
    ],
)
def test_widths_that_make_no_sense_are_refused(tiny_recipe, values, message):
    with pytest.raises(RecipeError, match=message):
        check_recipe({**tiny_recipe, "supernet": {**tiny_recipe["supernet"], **values}}, "here")


def test_files_of_one_width_stay_what_they_were(tiny, config):
    assert "separate_widths" not in tiny.model_dump(mode="json")
    assert config.model_dump(mode="json")["separate_widths"] == WIDTHS


def test_widths_that_look_alike_in_few_digits_are_two(tiny_with):
    layout = make_layout(tiny_with(separate_widths=[1.0, 1.0000001]))
    assert len({slot.module_name for slot in layout.slots}) == len(layout.slots)


def test_phases_train_every_width_unless_they_name_some(config):
    space = make_layout(config).space
    phase = PhaseConfig(name="full", epochs=1, lr=0.1)
    drawn = [a for k in range(40) for a in sample_step(phase, phase_space(phase, space), np.random.default_rng(k))]
    assert {a["width_multiplier"] for a in drawn} == set(WIDTHS)
    assert {a["stage1.depth"] for a in drawn} == {2}
    named = PhaseConfig(name="wide", epochs=1, lr=0.1, elastic={"width_multiplier": (1.5,)})
    assert phase_space(named, space)["width_multiplier"].options == (1.5,)


def test_a_run_searches_both_and_hands_over_models_of_either(tiny_recipe, recipe_file, tmp_path):
    supernet = {**tiny_recipe["supernet"], "separate_widths": WIDTHS}
    run = hwnas.run(recipe_file(supernet=supernet, devices=["hexagon-dsp"]), out=tmp_path / "run")
    front = run.front("hexagon-dsp")
    with run.evaluations() as evaluations:
        archs = evaluations.archive.archs_of([m.key for m in front])
        seen = {a["width_multiplier"] for a in evaluations.archive.archs()}
    assert seen == set(WIDTHS)
    for model, arch in zip(front, archs, strict=True):
        network = hwnas.load_model(model.folder)
        assert (
            sum(p.numel() for p in network.parameters())
            == model.values["params"]
            == params_of_space(run.layout).of_archs([arch])
        )
    again = hwnas.run(
        recipe_file(
            supernet=supernet,
            devices=["hexagon-dsp"],
            train={**tiny_recipe["train"], "start_from": str(tmp_path / "run")},
        ),
        out=tmp_path / "again",
    )
    assert len(again.front("hexagon-dsp"))
