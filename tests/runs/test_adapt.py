"""A supernet that follows the search of each device: whose weights, whose values, and the same after any kill."""

import html
import json
import re
import shutil

import numpy as np
import pytest
import torch
from run_files import Stop, made_files, rows_of

import hwnas
from hwnas.errors import RecipeError, ResumeError, SearchError, TrainingError
from hwnas.export.bundle import Bundle
from hwnas.files import write_json
from hwnas.progress import silent
from hwnas.reading import read_object
from hwnas.runs.adaptation import adaptation_training, frozen_stages
from hwnas.runs.choose import candidates_of
from hwnas.runs.latency_check import was_checked
from hwnas.runs.recipe import load_recipe
from hwnas.runs.start import open_run, run
from hwnas.search import AdaptationConfig
from hwnas.supernet import make_layout
from hwnas.train.checkpoint import load_tensors, weights_version

DEVICES = ("hexagon-dsp", "myriad-vpu")
ADAPTATION = {"rounds": 2, "epochs": 2, "lr": 0.1, "subnets_per_step": 2}  # so much that models become better
SEARCH = {"algorithm": "natv2", "seed": 1, "evaluations": 6, "adaptation": ADAPTATION}
EXPORT = {"front_size": 2}


@pytest.fixture(scope="module")
def adapted_run(finished_run, tiny_recipe, tmp_path_factory):
    """The finished run, searched again with adaptation; copy it before changing it."""
    folder = shutil.copytree(finished_run, tmp_path_factory.mktemp("adapted") / "run")
    path = folder.parent / "tiny.json.yaml"
    path.write_text(json.dumps({**tiny_recipe, "search": SEARCH, "export": EXPORT}))
    run(path, out=folder)
    return folder


@pytest.fixture
def copied(adapted_run, tmp_path):
    return shutil.copytree(adapted_run, tmp_path / "copy")


@pytest.fixture
def again(recipe_file):
    """Start the recipe with adaptation, and with other values of top-level keys."""
    return lambda out, progress=silent, **changes: run(
        recipe_file(**{"search": SEARCH, "export": EXPORT, **changes}), out=out, progress=progress
    )


def history(folder, device):
    return read_object(folder / "devices" / device / "search.json")


def last_search(folder, device):
    return history(folder, device)["searches"][-1]


def asked_last(archive, device):
    """Archs that the last search of a device asked for."""
    return archive.requested(archive.searches(device)[-1:])


def assert_same_run(folder, other):
    """What ``folder`` holds, apart from models of earlier fronts, is what ``other`` holds."""
    found, wanted = made_files(folder), made_files(other)
    assert {n for n in found if "models" not in n} == {n for n in wanted if "models" not in n}
    assert {n: d for n, d in found.items() if n in wanted} == wanted
    for device in DEVICES:
        states = [history(f, device) for f in (folder, other)]
        for state in states:
            for search in state["searches"]:
                assert search.pop("duration_s") >= 0
        assert states[0] == states[1]


@pytest.mark.parametrize("device", DEVICES)
def test_each_round_begins_with_the_weights_of_the_one_before(adapted_run, device):
    opened = open_run(adapted_run)
    first, second = opened.weights.adapted(device)
    assert len({opened.weights.trained, first.weights_version, second.weights_version}) == 3
    assert opened.weights.of_device(device) == (opened.weights.trained, second.weights_version)
    assert (first.evaluations, second.evaluations) == (2, 4)
    before = opened.weights.trained
    for number, one in enumerate((first, second), 1):
        path = adapted_run / "devices" / device / one.folder / "supernet.safetensors"
        assert weights_version(path) == one.weights_version
        info = load_tensors(path)[1]["info"]
        assert info["start"] == before
        assert info["teacher"] == opened.weights.trained
        assert info["train"]["seed"] == number
        (phase,) = info["train"]["phases"]
        assert {k: phase[k] for k in ("epochs", "lr", "subnets_per_step", "teacher")} == {
            "epochs": 2, "lr": 0.1, "subnets_per_step": 2, "teacher": "fixed",
        }  # fmt: skip
        assert set(phase["shares"]) == {c.name for c in opened.layout.space.choices}
        before = one.weights_version


def test_devices_have_lineages_of_their_own(adapted_run):
    opened = open_run(adapted_run)
    first, second = (opened.weights.of_device(d) for d in DEVICES)
    assert first[0] == second[0] == opened.weights.trained
    assert first[1] != second[1]
    with opened.evaluations() as evaluations:
        asked = {d: asked_last(evaluations.archive, d) for d in DEVICES}
        assert [len(archs) for archs in asked.values()] == [6, 6]
        for device, own in zip(DEVICES, (first[1], second[1]), strict=True):
            models = candidates_of(evaluations, device, opened.settings(device))
            assert len({m.arch.key for m in models}) == len(models), "one model an arch"
            assert {m.weights_version for m in models} <= {opened.weights.trained, own}
            for model in models:  # of several weights those that score best
                top1 = {
                    version: evaluations.archive.values(model.arch, version, "validation").get("top1_percent", -1)
                    for version in (opened.weights.trained, own)
                }
                assert top1[model.weights_version] == max(top1.values())
            assert {a.key for a in asked[device]} <= {m.arch.key for m in models}


@pytest.mark.parametrize("device", DEVICES)
def test_every_arch_is_evaluated_again_with_the_last_weights(adapted_run, device):
    opened = open_run(adapted_run)
    versions = [opened.weights.trained, *(a.weights_version for a in opened.weights.adapted(device))]
    precision = "int8" if device == "hexagon-dsp" else "fp32"
    with opened.archive() as archive:
        archs = asked_last(archive, device)
        known = np.array(
            [["top1_percent" in archive.values(a, v, "validation", precision) for v in versions] for a in archs]
        )
        # two archs were asked for in each state of the weights, and every later state knows them
        assert known[:, 2].all()
        assert known[:, 1].tolist() == [True] * 4 + [False] * 2
        assert known[:2, 0].all()
        evaluator = opened.weights.evaluator(versions[-1])
        for arch in archs[:3]:
            kept = archive.values(arch, versions[-1], "validation")
            assert kept["top1_percent"] == evaluator.score(arch)["top1_percent"]
        means = [
            [archive.values(a, v, "validation", precision)["top1_percent"] for a in archs[:4]] for v in versions[1:]
        ]
    second = opened.weights.adapted(device)[1]
    assert [second.score_before, second.score_after] == pytest.approx(np.mean(means, axis=1), abs=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_front_and_bundles_are_of_the_weights_that_they_say(adapted_run, device):
    opened = open_run(adapted_run)
    versions = opened.weights.of_device(device)
    seen = set()
    for row, model in zip(rows_of(adapted_run, device), opened.front(device), strict=True):
        assert row["weights_version"] == model.weights_version
        assert model.weights_version in versions
        seen.add(model.weights_version)
        metrics = json.loads((model.folder / "metrics.json").read_text())
        assert metrics["weights_version"] == model.weights_version
        net = hwnas.load_model(model.folder)
        with opened.archive() as archive:
            arch = archive.find(row["key"])
        suffix = "_fp32_percent" if device == "hexagon-dsp" else "_percent"  # that is an int8 device
        for split, name in (("validation", f"top1{suffix}"), ("test", f"test_top1{suffix}")):
            images = getattr(opened.splits, split)
            with torch.no_grad():
                right = (
                    (net(opened.context.trained_evaluator.inputs(images, arch)).argmax(1) == images.labels)
                    .double()
                    .mean()
                )
            assert metrics[name] == pytest.approx(100 * float(right))
        assert float(row["top1_percent"]) == pytest.approx(metrics["top1_percent"], rel=1e-5)
    assert versions[-1] in seen, "the adapted weights are of use"


@pytest.mark.parametrize("device", DEVICES)
def test_the_message_counts_repeated_evaluations(adapted_run, device):
    found = last_search(adapted_run, device)
    assert (found["evaluations"], found["repeated"]) == (6, 6)  # 2 after the first round, 4 after the second
    assert "6 archs evaluated" in found["message"]
    assert "all archs evaluated again in 2 round(s), which repeated 6 evaluations" in found["message"]
    assert f"supernet adapted to weights {found['adapted'][-1]['weights_version']}" in found["message"]
    page = html.unescape(re.sub(r"<script.*?</script>", "", (adapted_run / "report.html").read_text(), flags=re.S))
    assert f"models come from the adapted weights {found['adapted'][-1]['weights_version']} or from the trained" in page
    assert "and again after each adaptation of the supernet" in page


def test_a_second_start_computes_nothing(copied, again):
    before, told = made_files(copied), []
    again(copied, lambda task, *_: told.append(task))
    assert made_files(copied) == before
    assert set(told) <= {f"export for {d}" for d in DEVICES}


def test_a_search_stopped_at_every_step_ends_with_the_same_files(adapted_run, finished_run, again, tmp_path):
    out = shutil.copytree(finished_run, tmp_path / "run")
    first, second = DEVICES
    for task, at in (
        (f"search for {first}", 2), (f"adaptation 1 for {first}", 1), (f"adaptation 1 for {first}", 3),
        (f"evaluate again 1 for {first}", 1), (f"search for {first}", 4), (f"adaptation 2 for {first}", 2),
        (f"evaluate again 2 for {first}", 3), (f"search for {first}", 6), (f"adaptation 2 for {second}", 3),
        (f"export for {first}", 2),
    ):  # fmt: skip

        def progress(name, done, total, note="", task=task, at=at):
            if name == task and done == at:
                raise Stop

        with pytest.raises(Stop):
            again(out, progress)
    again(out)
    assert_same_run(out, adapted_run)


@pytest.mark.slow
def test_a_search_killed_while_it_adapts_ends_with_the_same_files(
    adapted_run, finished_run, again, recipe_file, killed_run, tmp_path
):
    out = shutil.copytree(finished_run, tmp_path / "run")
    recipe = recipe_file(search=SEARCH, export=EXPORT)
    first, second = DEVICES
    for at in (f"adaptation 1 for {first}: 3", f"evaluate again 1 for {first}: 1", f"adaptation 2 for {second}: 2"):
        killed_run(recipe, out, at)
    again(out)
    assert_same_run(out, adapted_run)


def test_going_back_searches_nothing_and_keeps_adapted_models(copied, finished_run, again, tiny_recipe):
    told = []
    export = {"front_size": 99}
    again(copied, lambda task, *_: told.append(task), search=tiny_recipe["search"], export=export)
    assert not any(task.startswith(("search", "adaptation", "evaluate again")) for task in told)
    never = shutil.copytree(finished_run, copied.parent / "never")
    again(never, search=tiny_recipe["search"], export=export)
    for device in DEVICES:
        front, without = (open_run(f).front(device) for f in (copied, never))
        assert "weights_version" not in rows_of(never, device)[0], "only the trained weights are there"
        assert {m.weights_version for m in front} <= set(open_run(copied).weights.of_device(device))
        names = {"top1_percent": -1, "latency_ms": 1, "params": 1, "introspectability": -1}
        losses, before = (np.array([[s * m.values[n] for n, s in names.items()] for m in f]) for f in (front, without))
        for row in before:
            assert (losses <= row).all(axis=1).any(), "the front is at least as good as without adaptation"
        for model in front:
            assert json.loads((model.folder / "metrics.json").read_text())["weights_version"] == model.weights_version


def test_settings_at_their_defaults_make_no_other_search(finished_run, again, tiny_recipe, tmp_path):
    """So a version that adds a setting finds the searches of one that did not have it."""
    assert last_search(finished_run, DEVICES[0])["settings"]["search"] == {"evaluations": 8}
    run_folder = shutil.copytree(finished_run, tmp_path / "run")
    told = []
    search = {**tiny_recipe["search"], "adaptation": None, "selection": None, "population": None, "seed": 0}
    again(run_folder, lambda task, *_: told.append(task), search=search, export=tiny_recipe["export"])
    assert not any(task.startswith("search") for task in told)


def test_stages_that_were_held_do_not_learn(finished_run, again, tmp_path):
    out = shutil.copytree(finished_run, tmp_path / "run")
    too_large_to_list = {"settings": {"listed_archs": 0}}
    search = {"algorithm": "hurricane", "evaluations": 9, "adaptation": ADAPTATION, "options": too_large_to_list}
    done = again(out, devices=[DEVICES[0]], search=search)
    first, second = done.weights.adapted(DEVICES[0])
    assert (first.evaluations, second.evaluations) == (5, 6)  # 4 first archs, then a fifth of 5 each
    assert (first.frozen_stages, second.frozen_stages) == ((0, 1), ())
    paths = [out / "train", *(out / "devices" / DEVICES[0] / one.folder for one in (first, second))]
    trained, later, all_stages = (load_tensors(p / "supernet.safetensors")[0] for p in paths)
    for name in trained:
        if name.endswith("conv.weight"):
            held = name.startswith(("parts.stem", "parts.stage1_"))
            assert torch.equal(trained[name], later[name]) == held, name
            assert not torch.equal(trained[name], all_stages[name]), name


def test_a_stage_is_frozen_where_all_its_choices_are_held(layout):
    stages = layout.space.stages
    assert frozen_stages(layout, stages[0]) == (0, 1)
    assert frozen_stages(layout, stages[1]) == (0, 2)
    assert frozen_stages(layout, ()) == ()
    assert frozen_stages(layout, stages[0][:1]) == ()  # the rest of the stage varies
    cell = make_layout(load_recipe("nasbench201").supernet)
    assert frozen_stages(cell, cell.space.stages[0]) == ()  # all stages share the cell
    deep = make_layout(load_recipe("ofa-resnet50d").supernet)
    assert frozen_stages(deep, [name for stage in deep.space.stages[:2] for name in stage]) == (0, 1)


def test_an_adaptation_is_one_phase_in_which_everything_is_elastic(layout, tiny_recipe):
    train = hwnas.train.TrainConfig.model_validate(tiny_recipe["train"])
    shares = {c.name: np.full(len(c.options), 1 / len(c.options)) for c in layout.space.choices}
    made = adaptation_training(train, AdaptationConfig(distill_ratio=0.0), 2, shares, (0, 1), layout.space)
    assert (made.batch_size, made.weight_decay, made.seed) == (train.batch_size, train.weight_decay, train.seed + 2)
    (phase,) = made.phases
    assert hwnas.train.phases.phase_space(phase, layout.space).size == layout.space.size
    assert (phase.teacher, phase.frozen_stages, phase.sampling) == ("none", (0, 1), "uniform")


def test_fine_tuning_begins_with_the_weights_of_the_device(copied):
    opened = open_run(copied)
    model = opened.front(DEVICES[1])[0]
    _, bundle = opened.finetune(model.key, copied / "finetuned", device=DEVICES[1])
    assert bundle.metrics["finetuned_from"] == model.weights_version
    assert model.weights_version in opened.weights.of_device(DEVICES[1])
    assert bundle.metrics["top1_before_percent"] == pytest.approx(model.values["top1_percent"], rel=1e-5)


def test_a_latency_check_counts_only_where_it_stands_in_the_bundles(copied):
    models = list(open_run(copied).front(DEVICES[0]))
    path = copied / "devices" / DEVICES[0] / "latency_check.json"
    assert not was_checked(path, models)
    about = {"mape_percent": 1, "within_10_percent": 100, "spearman": 1, "machine_slowdown": 1}
    times = [1.0] * len(models)
    write_json(path, {"keys": [m.key for m in models], "predicted_ms": times, "measured_ms": times, **about})
    assert not was_checked(path, models)  # bundles of other weights were written in their place
    for model in models:
        write_json(model.folder / "metrics.json", {**Bundle(model.folder).metrics, "measured_latency": {}})
    assert was_checked(path, models)
    assert not was_checked(path, models[:1])


# -- mistakes -------------------------------------------------------------------------------------------


def test_devices_without_common_weights_have_no_fleet(adapted_run):
    with pytest.raises(SearchError, match=r"was adapted to hexagon-dsp, myriad-vpu, so devices have no weights in"):
        open_run(adapted_run).fleet(1)


def test_a_budget_of_time_does_not_plan_trainings(copied, recipe_file, tmp_path):
    with pytest.raises(RecipeError, match="a budget sizes searches without"):
        run(recipe_file(search=SEARCH), out=tmp_path / "new", budget=60)
    assert not (tmp_path / "new").exists()
    opened = open_run(copied)
    with pytest.raises(RecipeError, match=r"a budget sizes searches without search\.adaptation; give --evaluations"):
        opened.search(budget="60s")


def test_weights_that_are_not_those_of_the_search_are_refused(copied):
    opened = open_run(copied)
    (one, last), base = opened.weights.adapted(DEVICES[0]), copied / "devices" / DEVICES[0]
    shutil.copy(base / one.folder / "supernet.safetensors", base / last.folder / "supernet.safetensors")
    with pytest.raises(ResumeError, match="has other weights than its search used"):
        opened.weights.evaluator(last.weights_version)
    with pytest.raises(ResumeError, match="has no weights 0123"):
        opened.weights.evaluator("0123")


def test_a_rate_that_is_too_high_names_the_setting(finished_run, again, tmp_path):
    out = shutil.copytree(finished_run, tmp_path / "run")
    with pytest.raises(TrainingError, match=r"adaptation 1 for hexagon-dsp: loss is .*; lower search\.adaptation\.lr"):
        again(out, search={**SEARCH, "adaptation": {**ADAPTATION, "lr": 1e30}})
