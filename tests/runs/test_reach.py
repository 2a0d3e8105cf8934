"""What archs can be is said before anything is trained, and a limit that none can meet is an error then."""

import json

import numpy as np
import pytest

from hwnas import load_recipe, plan, reach, run, start_run
from hwnas.errors import RecipeError, SearchError
from hwnas.objectives.exact import params_of_space

DEVICE = "hexagon-dsp"


@pytest.fixture
def everything(recipe_file, tmp_path):
    """Every genome of the space of the tiny recipe, and its run."""
    run = start_run(recipe_file(), tmp_path / "run")
    return run, run.layout.space.all_genomes()


def test_bounds_hold_for_every_arch_and_are_reached(everything):
    run, genomes = everything
    for sums in (params_of_space(run.layout), *(d.compile(run.layout) for d in run.devices.values())):
        values = sums.of_genomes(genomes)
        low, high = sums.bounds()
        assert low <= values.min() + 1e-9
        assert high >= values.max() - 1e-9
        # Blocks share the width of their stage's input only: the bounds are close.
        assert low == pytest.approx(values.min(), rel=0.1)
        assert high == pytest.approx(values.max(), rel=0.1)


def test_ranges_are_those_of_the_space(everything, recipe_file):
    run, genomes = everything
    found = {one.device: one for one in reach(recipe_file(constraints=[f"{DEVICE}:params<=3000"]))}
    assert list(found) == list(run.devices)
    params = params_of_space(run.layout).of_genomes(genomes)
    for name, device in run.devices.items():
        latency = device.compile(run.layout).of_genomes(genomes)
        low, middle, high = found[name].values["latency_ms"]
        assert latency.min() <= low <= middle <= high <= latency.max()
        assert low == pytest.approx(latency.min(), rel=0.02)
        assert high == pytest.approx(latency.max(), rel=0.02)
        assert found[name].space_size == run.layout.space.size
        assert {"params", "macs", "peak_memory_kib", "model_size_kib"} <= set(found[name].values)
    drawn = run.layout.space.sample_genomes(np.random.default_rng(1), 4000)
    share = 100 * (params_of_space(run.layout).of_genomes(drawn) <= 3000).mean()
    assert 0 < found[DEVICE].within_percent == pytest.approx(share, abs=5)
    assert found["myriad-vpu"].within_percent == 100
    assert params.min() < 3000 < params.max()


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (
            f"{DEVICE}:latency_ms<=1e-6",
            f"no arch of this space keeps latency_ms<=1e-06 on {DEVICE}: every one has at least",
        ),
        ("params>=1e9", "no arch of this space keeps params>=1000000000 on hexagon-dsp: every one has at most"),
    ],
)
def test_a_limit_that_no_arch_can_meet_is_an_error_before_training(recipe_file, limit, words):
    for ask in (plan, reach):
        with pytest.raises(SearchError, match=words.replace("+", r"\+")) as caught:
            ask(recipe_file(constraints=[limit]))
        assert "\n" not in str(caught.value)
    assert plan(recipe_file(constraints=["params<=1e9", f"{DEVICE}:latency_ms<=1e6"]))


def test_limits_on_what_needs_a_network_are_left_to_the_search(recipe_file):
    (one, _) = reach(recipe_file(constraints=["top1_percent>=99.9"]))
    assert one.within_percent is None, "nothing is known of it"
    assert one.unchecked == ("top1_percent>=99.9",)
    (one, _) = reach(recipe_file(constraints=["top1_percent>=99.9", "params<=1e9"]))
    assert (one.within_percent, one.unchecked) == (100, ("top1_percent>=99.9",))


def test_a_limit_beyond_what_a_score_can_be_is_refused_before_training(recipe_file, hwnas_command, tmp_path):
    for limit in ("top1_percent>=120", "top1_percent<=-1"):
        with pytest.raises(
            SearchError, match=r"no network can keep top1.* on hexagon-dsp: top-1 is between 0 and 100 %"
        ):
            reach(recipe_file(constraints=[limit]))
        with pytest.raises(SearchError, match="no network can keep"):
            run(recipe_file(constraints=[limit]), out=tmp_path / "run")
    with pytest.raises(SearchError, match="no arch of this space keeps params<=1 on hexagon-dsp"):
        run(recipe_file(constraints=["params<=1"]), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    code, out, _ = hwnas_command("plan", recipe_file(), "--limit", "top1_percent>=90", "--devices", "hexagon-dsp")
    assert code == 0
    assert "known later: top1_percent>=90" in out
    assert "100 %" not in out


def test_latencies_that_are_measured_later_are_not_invented(recipe_file):
    (one,) = reach(recipe_file(), devices=["local-cpu"])
    assert one.measured_later
    assert "latency_ms" not in one.values
    assert "params" in one.values


def test_plan_prints_it(hwnas_command, recipe_file):
    code, out, _ = hwnas_command("plan", recipe_file(), "--devices", "hexagon-dsp,local-cpu")
    assert code == 0
    assert out.splitlines()[0] == f"{reach(recipe_file())[0].space_size:,} archs"
    assert "latencies of local-cpu are measured when the run begins" in out
    code, out, _ = hwnas_command("plan", recipe_file(), "--json")
    assert [one["device"] for one in json.loads(out)["devices"]] == list(load_recipe(recipe_file()).devices)
    code, _, err = hwnas_command("plan", recipe_file(), "constraints=[params<=1]")
    assert code == 2
    assert err.count("\n") == 1


def test_limits_of_the_command_line_are_those_of_the_recipe(hwnas_command, recipe_file):
    limit = "params<=3000"
    limited = reach(recipe_file(constraints=[limit]))
    path = recipe_file()
    assert reach(path, limits=[limit]) == limited != reach(path)
    code, out, _ = hwnas_command("plan", path, "--limit", limit, "--devices", DEVICE)
    assert code == 0
    assert "keep the limits" in out
    assert out.splitlines()[-1].endswith(f"--devices {DEVICE} --limit '{limit}'")
    _, out, _ = hwnas_command("plan", path, "--devices", DEVICE)
    assert "keep the limits" not in out
    code, _, err = hwnas_command("plan", path, "--limit", "params<=1")
    assert (code, err.count("\n")) == (2, 1)
    for ask in (plan, reach):
        with pytest.raises(RecipeError, match="limits name"):
            ask(path, devices=[DEVICE], limits=["edge-tpu:params<=3000"])


def test_a_plan_says_how_long_its_parts_take(hwnas_command, recipe_file):
    finish = {"models": 2, "epochs": 1}
    path = recipe_file(search={"strategy": "supernet"}, finish=finish)
    found = plan(path)
    assert set(found.estimated_s) == {"train", "search", "finish", "tables"}
    assert found.estimated_s["tables"] == 0  # no device of the recipe is measured here
    parts = {name: found.estimated_s[name] / getattr(found, f"{name}_gmacs") for name in ("train", "search", "finish")}
    assert len({round(seconds, 9) for seconds in parts.values()}) == 1  # the speed that was timed
    assert plan(path, devices=["local-cpu"]).estimated_s["tables"] > 0
    within = plan(path, budget=10)
    assert 5 <= sum(within.estimated_s.values()) <= 10  # at least half of it, however long the plan itself took
    alone = plan(recipe_file(search={"strategy": "direct"}, finish=finish))
    assert (alone.estimated_s["train"], alone.estimated_s["search"]) == (0, 0)
    assert alone.estimated_s["finish"] > 0
    for strategy, words in (("supernet", "train the supernet"), ("direct", "train each model alone")):
        code, out, _ = hwnas_command("plan", recipe_file(search={"strategy": strategy}, finish=finish))
        assert code == 0
        assert words in out
        assert "together, with exports" in out


def test_a_budget_that_tables_use_up_is_named(recipe_file, monkeypatch):
    path, there = recipe_file(finish={"models": 1}), 30.0
    monkeypatch.setattr("hwnas.runs.plan.seconds_of_tables", lambda *_: there)
    short = plan(path, devices=["local-cpu"], budget=20)
    assert "the budget of 20 s is too short: measuring latencies on this machine takes about 30 s" in short.why
    assert short.estimated_s["tables"] == there
    assert "too short" not in plan(path, devices=["local-cpu"], budget=300).why
    assert "too short" not in plan(path, devices=[DEVICE], budget=20).why


def test_networks_far_smaller_than_those_of_a_profile_are_named(recipe_file, hwnas_command):
    given = recipe_file(devices=[DEVICE, "note10-cpu"])
    found = {one.device: one.beyond for one in reach(given)}
    assert found[DEVICE] == ""
    assert "take 9.9 to 92.4 ms" in found["note10-cpu"]
    code, _, err = hwnas_command("plan", given)
    assert code == 0
    assert f"warning: note10-cpu: {found['note10-cpu']}" in err
    assert f"warning: {DEVICE}" not in err
