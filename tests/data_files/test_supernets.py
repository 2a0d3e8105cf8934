"""Every shipped recipe: it loads, its blocks fit together, its phases belong to its space, its devices exist."""

import itertools

import numpy as np
import pytest
import torch

from hwnas.latency.device import shipped_devices
from hwnas.objectives.class_profiles import divide
from hwnas.runs.recipe import load_recipe, shipped_recipes
from hwnas.space.dialects.nasbench201 import format_nasbench201, parse_nasbench201
from hwnas.space.dialects.once_for_all import format_ofa, parse_ofa
from hwnas.supernet import build_supernet, extract_subnet, make_layout
from hwnas.train.phases import phase_space, sample_step

NAMES = shipped_recipes()


@pytest.fixture(params=NAMES)
def recipe(request):
    return load_recipe(request.param)


def test_there_are_recipes():
    assert "digits-mbv3" in NAMES


def test_the_file_has_the_name_of_the_recipe():
    assert [load_recipe(name).name for name in NAMES] == NAMES


def test_blocks_fit_together(recipe):
    layout = make_layout(recipe.supernet)
    rng = np.random.default_rng(0)
    for arch in [layout.space.smallest(), layout.space.largest(), *layout.space.sample(rng, 20)]:
        chain = [spec for _, spec in layout.blocks(arch)]
        assert (chain[0].in_channels, chain[0].in_size_px) == (recipe.supernet.in_channels, arch["resolution"])
        assert chain[-1].out_channels == recipe.supernet.classes
        for before, after in itertools.pairwise(chain):
            assert before.out_channels == after.in_channels
            assert 0 < after.in_size_px <= before.in_size_px
        assert layout.space.decode(layout.space.encode(arch)) == arch
        if layout.cell_edges is not None:
            assert parse_nasbench201(format_nasbench201(arch), layout.space) == arch
        elif layout.ofa_names is not None:
            assert parse_ofa(format_ofa(arch, layout.space), layout.space) == arch


def test_phases_open_the_space_until_all_of_it_is_trained(recipe):
    space = make_layout(recipe.supernet).space
    sizes = []
    for phase in recipe.train.phases:
        part = phase_space(phase, space)
        sizes.append(part.size)
        archs = sample_step(phase, part, np.random.default_rng(0))
        assert len(archs) == phase.subnets_per_step
        assert all(space.contains(a) for a in archs)
    assert sizes == sorted(sizes)
    if recipe.search.strategy == "staged":  # each phase opens its own stages, for operators that were kept before
        assert all(phase.open_stages for phase in recipe.train.phases)
    else:
        assert sizes[-1] == space.size


def test_teachers_are_trained_before_they_teach(recipe):
    assert recipe.train.phases[0].teacher not in ("fixed", "pet")


def test_devices_exist(recipe):
    assert set(recipe.devices) <= set(shipped_devices())


def test_no_path_of_a_machine_is_inside(recipe):
    assert recipe.data.path is None or not recipe.data.path.startswith("/")


def test_the_smallest_subnet_computes_logits(recipe):
    layout = make_layout(recipe.supernet)
    arch = layout.space.smallest()
    with torch.no_grad():
        assert layout.build_subnet(arch).eval()(torch.zeros(2, *layout.input_shape(arch))).shape == (
            2, recipe.supernet.classes,
        )  # fmt: skip


def test_the_digits_supernet_computes_logits():
    net = build_supernet(load_recipe("digits-mbv3").supernet).eval()
    for arch in (net.space.smallest(), net.space.largest()):
        with torch.no_grad():
            assert net(torch.zeros(2, *net.layout.input_shape(arch)), arch).shape == (2, 10)


def test_an_evaluation_goes_over_the_images_a_few_times_at_most(recipe):
    """Introspectability takes more passes where its class profiles do not fit into memory."""
    supernet = build_supernet(recipe.supernet, 0)
    arch = supernet.space.largest()
    image = torch.zeros(1, *make_layout(recipe.supernet).input_shape(arch))
    division = divide(extract_subnet(supernet, arch).eval(), image, recipe.evaluation.introspectability.reduce)
    assert len(division.passes) <= 4
