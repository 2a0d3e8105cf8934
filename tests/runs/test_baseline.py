"""What one would do by hand: the family scaled evenly, as many networks as the front has, for the same compute."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from hwnas.errors import RecipeError
from hwnas.objectives.exact import macs_of_space
from hwnas.runs.analysis.baseline import WIDTHS, hand_scaled_baselines
from hwnas.runs.plan import TRAINING
from hwnas.runs.recipe import load_recipe, shipped_recipes
from hwnas.runs.start import open_run
from hwnas.supernet.families.scaled import scaled_by_hand

FIRST = "hexagon-dsp"


@pytest.fixture(scope="module")
def with_baseline(finished_run, tmp_path_factory):
    folder = shutil.copytree(finished_run, tmp_path_factory.mktemp("baseline") / "run")
    opened = open_run(folder)
    return opened, opened.baseline(devices=[FIRST], lr=0.1)[0]


def test_networks_are_as_fast_as_the_front(with_baseline):
    opened, found = with_baseline
    wanted = sorted(m.latency_ms for m in opened.front(FIRST))
    assert 1 <= len(found.models) <= len(wanted)
    for model in found.models:
        layout, arch = scaled_by_hand(opened.recipe.supernet, model.width)
        assert model.latency_ms == pytest.approx(opened.devices[FIRST].compile(layout).of_archs([arch])[0])
        assert any(model.latency_ms <= ms for ms in wanted)
    assert found.models[-1].latency_ms <= wanted[-1]


def test_they_get_the_compute_of_the_run(with_baseline):
    opened, found = with_baseline
    plan = json.loads((opened.folder / "plan.json").read_text())
    n = len(opened.splits.train)
    spent = sum(m.epochs * TRAINING * n * m.macs for m in found.models) / 1e9
    share = (plan["train_gmacs"] + plan["search_gmacs"] + plan["finish_gmacs"]) / 2
    assert found.models[0].epochs == 1 or spent == pytest.approx(share, rel=0.01)


def test_a_network_that_suits_several_devices_is_trained_once(finished_run, tmp_path):
    opened = open_run(shutil.copytree(finished_run, tmp_path / "run"))
    layout, arch = scaled_by_hand(opened.recipe.supernet, WIDTHS[20])
    wanted = [(d, [float(d.compile(layout).of_archs([arch])[0])]) for d in opened.devices.values()]
    epoch_gmacs = TRAINING * len(opened.splits.train) * float(macs_of_space(layout).of_archs([arch])[0]) / 1e9
    gmacs = 5 * epoch_gmacs
    found = hand_scaled_baselines(opened.context, wanted, gmacs, None, lr=0.1)
    assert [one.device for one in found] == [device.name for device, _ in wanted]
    first, second = (one.models for one in found)
    assert len(first) == len(second) == 1
    spent = first[0].epochs * TRAINING * len(opened.splits.train) * first[0].macs / 1e9
    assert spent == pytest.approx(gmacs, rel=0.01)
    assert replace(first[0], latency_ms=second[0].latency_ms) == second[0]
    assert first[0].latency_ms != second[0].latency_ms
    assert len(list(opened.context.folder.baseline.glob("*/epochs.json"))) == 1


def test_fewer_networks_are_trained_for_longer(finished_run, tmp_path):
    opened = open_run(shutil.copytree(finished_run, tmp_path / "run"))
    devices, context = list(opened.devices.values()), opened.context
    wanted = []
    for device in devices:
        layouts = [scaled_by_hand(opened.recipe.supernet, width) for width in (WIDTHS[20], WIDTHS[34], WIDTHS[47])]
        wanted.append((device, [float(device.compile(layout).of_archs([arch])[0]) for layout, arch in layouts]))
    every = hand_scaled_baselines(context, wanted, 0.5, None, lr=0.1)
    networks = {m.width for one in every for m in one.models}
    assert len(networks) >= 3
    one = hand_scaled_baselines(context, wanted, 0.5, None, lr=0.1, networks=1)
    assert [[m.width for m in of.models] for of in one] == [[min(networks)]] * len(devices)
    assert one[0].models[0].epochs > 1.3 * every[0].models[0].epochs
    two = hand_scaled_baselines(context, wanted, 0.5, None, lr=0.1, networks=2)
    assert {m.width for of in two for m in of.models} == {min(networks), max(networks)}
    for of, (_, latencies_ms) in zip(two, wanted, strict=True):
        assert [m.latency_ms <= max(latencies_ms) for m in of.models] == [True] * len(of.models)
    with pytest.raises(RecipeError, match="give at least 1"):
        hand_scaled_baselines(context, wanted, 0.5, None, networks=0)


@pytest.mark.parametrize(("gmacs", "time_s"), [(0.5, None), (None, 2.0)])
@pytest.mark.parametrize(("trivial_epochs", "trivial"), [(1.0, True), (1e6, False)])
def test_images_are_varied_as_those_of_the_models_that_are_handed_over(
    trivial_epochs, trivial, gmacs, time_s, finished_run, tmp_path, monkeypatch
):
    opened = open_run(shutil.copytree(finished_run, tmp_path / "run"))
    context, device = opened.context, next(iter(opened.devices.values()))
    finish = context.recipe.finish.model_copy(update={"trivial_epochs": trivial_epochs})
    context.recipe = context.recipe.model_copy(update={"finish": finish})
    seen = []

    def caught(students, splits, config, augment, **_):
        seen.append(augment)
        raise KeyError("caught")

    monkeypatch.setattr("hwnas.runs.analysis.baseline.train_together", caught)
    with pytest.raises(KeyError, match="caught"):
        hand_scaled_baselines(context, [(device, [1e6])], gmacs, time_s, networks=1)
    assert seen == [context.recipe.data.augment.model_copy(update={"trivial": trivial})]


def test_a_second_start_trains_nothing(with_baseline):
    opened, found = with_baseline
    told = []
    again = open_run(opened.folder, progress=lambda task, *_: told.append(task)).baseline(devices=[FIRST], lr=0.1)[0]
    assert again == found
    assert not told


def test_the_report_shows_them_beside_the_front(with_baseline):
    opened, found = with_baseline
    page = opened.report().read_text()
    assert "scaled by hand" in page
    assert all(0 <= m.test_score <= 100 for m in found.models)


def test_a_run_without_a_plan_is_refused(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    (folder / "plan.json").unlink()
    with pytest.raises(RecipeError, match=r"has no plan\.json; `hwnas run`"):
        open_run(folder).baseline()


@pytest.mark.parametrize("recipe", shipped_recipes())
def test_every_family_scales(recipe):
    config = load_recipe(recipe).supernet
    macs = []
    for width in (0.1, 0.5, 1.0):
        layout, arch = scaled_by_hand(config, width)
        assert arch["resolution"] == max(config.resolutions)
        macs.append(macs_of_space(layout).of_archs([arch])[0])
    assert macs[0] < macs[1] < macs[2]


def test_a_scaled_network_is_the_same_whatever_the_options_of_the_space(tiny_recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe))
    config = load_recipe(path).supernet
    layout, arch = scaled_by_hand(config, 1.0)
    assert layout.space.size == 1
    assert [c.name for c in layout.space.choices] == [name for name, _ in arch.items]
    assert np.unique([spec.kernel_size for _, spec in layout.blocks(arch) if spec.kind == "mbconv"]).tolist() == [3]
