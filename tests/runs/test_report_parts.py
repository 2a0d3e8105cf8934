"""What a report says of a run beyond its values: blocks, curves, steps of a model, decisions, differences."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from hwnas.errors import DataError
from hwnas.export.bundle import Bundle, load_model
from hwnas.objectives.introspectability import class_profiles
from hwnas.pareto import hypervolume, normalise
from hwnas.runs.analysis.curves import _curve, curves_of
from hwnas.runs.analysis.decisions import decisions_of, differences
from hwnas.runs.analysis.pieces import by_layer_of, pieces_of, unfitted_shares
from hwnas.runs.analysis.results import collect, names_of
from hwnas.runs.analysis.stages import stages_of
from hwnas.runs.choose import inherited_candidates
from hwnas.runs.recipe import check_recipe
from hwnas.runs.start import open_run

DEVICES = ("hexagon-dsp", "myriad-vpu")


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    """A copy of a finished run, to look at."""
    return open_run(shutil.copytree(finished_run, tmp_path_factory.mktemp("parts") / "run"))


@pytest.fixture(scope="module")
def collected(run):
    with run.evaluations() as evaluations:
        return collect(evaluations, [run.searched_device(name) for name in run.with_fronts()])


def test_blocks_and_the_constant_add_up_to_the_latency_of_every_model(run, collected):
    for device in collected.devices:
        for model in device.models:
            blocks = collected.pieces[model["key"]].blocks
            total = device.constant_ms + sum(device.block_ms[number] for _, number in blocks)
            assert total == pytest.approx(model["latency_ms"], rel=1e-5)
            slots = [name for name, _ in blocks]
            assert slots[0] == "stem"
            assert slots[-1] == "head"
    assert len({str(sorted(block.items())) for block in collected.blocks}) == len(collected.blocks)


def test_the_share_outside_of_a_profile_is_what_its_assumed_operators_take(run):
    layout, device = run.layout, run.devices[DEVICES[0]]
    archs = [layout.space.smallest(), layout.space.largest()]
    model = device.profile.cost_model

    def with_sources(source_of):
        ops = {name: cost.model_copy(update={"source": source_of(name)}) for name, cost in model.ops.items()}
        profile = device.profile.model_copy(update={"cost_model": model.model_copy(update={"ops": ops})})
        return replace(device, profile=profile)

    assert unfitted_shares(layout, with_sources(lambda name: "fitted to networks"), archs) == [0.0, 0.0]
    everything = unfitted_shares(layout, with_sources(lambda name: "assumed: like another"), archs)
    for share, arch in zip(everything, archs, strict=True):
        assert share == pytest.approx(1 - device.constant_ms / device.estimate_ms(arch))
    some = unfitted_shares(layout, with_sources(lambda n: "assumed: x" if n == "conv" else "fitted"), archs)
    assert all(0 < one < whole for one, whole in zip(some, everything, strict=True))


def test_values_of_slots_and_layers_are_found_among_numbers(run):
    metrics = {
        "params": 5, "by_slot": {"stem": 0.5, "stage1.block1": 1}, "onnx_parity": {"largest": 1e-6}, "empty": {},
        "by_layer": {"stem.conv": 0.25, "stage1_block1.act": 0.5},
    }  # fmt: skip
    found = by_layer_of(metrics, run.layout)
    assert found == {"by_slot": {"stem": 0.5, "stage1.block1": 1.0}, "by_layer": metrics["by_layer"]}
    arch = run.layout.space.smallest()
    _, pieces = pieces_of(run.layout, [arch], {arch.key: found})
    assert pieces[arch.key].by_layer is found


def test_introspectability_of_each_layer_goes_from_the_bundle_to_the_page(run, collected):
    model = run.front(DEVICES[0])[0]
    layers = Bundle(model.folder).metrics["introspectability_by_layer"]
    network = load_model(model.folder)
    inputs = run.context.networks.inputs(run.splits.validation, network_arch(run, model)).tensors()[0]
    assert layers == pytest.approx(class_profiles(network, inputs).by_layer(), rel=1e-4)
    assert collected.pieces[model.key].by_layer == {"introspectability_by_layer": layers}
    card = (model.folder / "MODEL_CARD.md").read_text()
    assert "by_layer" not in card


def network_arch(run, model):
    with run.archive() as archive:
        return archive.archs_of([model.key])[0]


def test_a_curve_by_hand():
    losses = np.array([[-90.0, 4.0], [-80.0, 2.0], [-100.0, 6.0], [-100.0, 3.0]])
    inside = np.array([True, True, True, False])
    low, high = np.array([-100.0, 2.0]), np.array([-80.0, 6.0])
    steps, share = _curve(losses, inside, low, high)
    assert steps == [1, 2, 3, 4]
    # In the box the first is at (1/2, 1/2); the others lie on its edge; the last is outside of the limits.
    assert share == pytest.approx([0.25, 0.25, 0.25, 0.25])
    assert _curve(losses, np.ones(4, dtype=bool), low, high)[1][-1] == pytest.approx(1 * 0.75)


def test_a_search_has_its_curve_and_random_search_beside_it(run):
    with run.evaluations() as evaluations:
        for name in DEVICES[1:]:  # in int8 too few archs are known here to predict from
            device, settings = run.devices[name], run.settings(name)
            candidates = inherited_candidates(evaluations, name, settings)
            curves = curves_of(evaluations, device, settings, candidates)
            assert [c.name.split(",")[0] for c in curves] == ["1: hurricane", "random"]
            search, predicted = curves
            assert search.evaluations[-1] == 8
            assert list(search.share) == sorted(search.share)
            asked = {a.key for a in evaluations.archive.requested(evaluations.archive.searches(name))}
            view = evaluations.of_device(device)
            score = [view.known(c)["top1_percent"] for c in candidates]
            losses = np.stack([-np.array(score), device.compile(run.layout).of_archs([c.arch for c in candidates])], 1)
            mine = np.array([c.arch.key in asked for c in candidates])
            assert search.share[-1] == pytest.approx(hypervolume(normalise(losses)[mine], np.ones(2)))
            for low, middle, high in zip(predicted.low, predicted.share, predicted.high, strict=True):
                assert 0 <= low <= middle <= high <= 1


@pytest.mark.slow
def test_a_random_search_that_was_run_needs_no_prediction(finished_run, tmp_path):
    run = open_run(shutil.copytree(finished_run, tmp_path / "run"))
    run.search(devices=[DEVICES[0]], searcher="random")
    with run.evaluations() as evaluations:
        device, settings = run.devices[DEVICES[0]], run.settings(DEVICES[0])
        candidates = inherited_candidates(evaluations, DEVICES[0], settings)
        names = [c.name for c in curves_of(evaluations, device, settings, candidates)]
    assert names == ["1: hurricane", "2: random"]


def test_columns_say_where_they_come_from(collected):
    origins = {c.name: c.origin for c in collected.columns}
    assert all(origins.values())
    assert f"{collected.images['validation']} validation images" in origins["top1_percent"]
    assert f"once on {collected.images['test']} test images" in origins["test_top1_percent"]


def test_decisions_are_what_differs_from_the_defaults(run):
    found = {d.what: d for d in decisions_of(run.recipe, run.context.folder, DEVICES)}
    assert (found["search.evaluations"].value, found["search.evaluations"].default) == ("8", "200")
    assert (found["train.phases.0.epochs"].value, found["train.phases.0.epochs"].default) == ("2.0", "")
    assert "data.source" not in found or found["data.source"].value != found["data.source"].default
    for usual in ("train.momentum", "search.algorithm", "search.seed", "evaluation.batch_size", "name"):
        assert usual not in found
    values = run.recipe.model_dump(mode="json")
    values["train"]["momentum"] = 0.5
    changed = check_recipe(values, "test")
    more = {d.what for d in decisions_of(changed, run.context.folder, DEVICES)}
    assert more - set(found) == {"train.momentum"}


def test_another_search_with_a_limit_is_a_decision(finished_run, tmp_path):
    run = open_run(shutil.copytree(finished_run, tmp_path / "run"))
    before = len(decisions_of(run.recipe, run.context.folder, DEVICES))
    run.search(devices=[DEVICES[0]], limits=["params<=1e9"], evaluations=9)
    more = decisions_of(run.recipe, run.context.folder, DEVICES)[before:]
    assert [d.what for d in more] == [f"limit for {DEVICES[0]}", f"search for {DEVICES[0]}"]
    assert more[0].value == "params<=1000000000"
    assert not any(d.is_setting for d in more)


def test_runs_differ_in_what_was_set_differently(finished_run, tmp_path):
    other = shutil.copytree(finished_run, tmp_path / "other")
    values = yaml.safe_load((other / "recipe.yaml").read_text())
    values["search"]["seed"] = 7
    values["train"]["phases"] = values["train"]["phases"][:1]
    (other / "recipe.yaml").write_text(yaml.safe_dump(values))
    found = dict(differences({finished_run: DEVICES, other: DEVICES}))
    assert found["search.seed"] == ["0", "7"]
    assert found["train.phases.1.name"] == ["all", "–"]
    assert "train.phases.0.name" not in found
    assert differences({finished_run: DEVICES, finished_run.parent / "run": DEVICES}) == []


def test_runs_are_called_so_that_they_can_be_told_apart(tmp_path):
    a, b, c = tmp_path / "x" / "run", tmp_path / "y" / "run", tmp_path / "y" / "other"
    assert names_of([a, c]) == ["run", "other"]
    assert names_of([a, b, c]) == ["x/run", "y/run", "y/other"]


@pytest.mark.slow
def test_fine_tuning_and_other_verbs_show_in_the_page_at_once(finished_run, tmp_path):
    run = open_run(shutil.copytree(finished_run, tmp_path / "run"))
    page = run.context.folder.report
    model = run.front(DEVICES[1])[0]
    with run.evaluations() as evaluations:
        (only,) = stages_of(evaluations, model)
    assert (only.name, only.score) == ("as the supernet gives it", model.values["top1_percent"])
    assert only.size_mb == pytest.approx((model.folder / "model.onnx").stat().st_size / 1e6, abs=1e-3)
    page.write_text("old")
    result, bundle = run.finetune(model.key, device=DEVICES[1])
    with run.evaluations() as evaluations:
        _, tuned = stages_of(evaluations, model)
    assert (tuned.name, tuned.score) == ("fine-tuned", pytest.approx(result.score))
    assert tuned.test_score == bundle.metrics["test_top1_percent"]
    assert "fine-tuned" in page.read_text()
    page.write_text("old")
    run.export()
    assert "report-data" in page.read_text()
    page.write_text("old")
    run.search(devices=[DEVICES[1]])
    assert "report-data" in page.read_text()
    page.unlink()
    run.export()
    assert not page.exists()  # it is refreshed, not made


@pytest.mark.slow
def test_a_page_that_cannot_be_refreshed_does_not_take_the_work_away(finished_run, tmp_path):
    told = []
    run = open_run(shutil.copytree(finished_run, tmp_path / "run"), progress=lambda *event: told.append(event))
    (run.folder / "train" / "metrics.jsonl").write_text("no json\n")
    bundles = run.export()
    assert bundles
    assert "not written: " in told[-1][3]
    assert "metrics.jsonl" in told[-1][3]


def test_all_latencies_of_a_models_steps_are_at_one_speed_of_the_machine(finished_run, tmp_path):
    run = open_run(shutil.copytree(finished_run, tmp_path / "run"))
    run.export(device=DEVICES[1], int8=True)
    model = run.front(DEVICES[1])[0]
    timing = {"ci_percent": 4.0, "machine_slowdown": 2.0}
    Bundle(model.folder).add_metrics({"measured_latency_int8": {"median_ms": 3.0, **timing}})
    with run.evaluations() as evaluations:
        (in_8_bits,) = [s for s in stages_of(evaluations, model) if s.name == "INT8"]
    assert in_8_bits.latency_ms == 1.5
    assert in_8_bits.latency_stderr_ms == pytest.approx(1.5 * 0.04 / (2 * 1.96))


def test_a_report_needs_no_images(copied, monkeypatch):
    def gone(*_):
        raise DataError("they lie elsewhere now")

    before = (copied / "report.html").read_text()
    monkeypatch.setattr("hwnas.runs.context.load_data", gone)
    open_run(copied).report()
    assert (copied / "report.html").read_text() == before
    assert open_run(copied).why_not(open_run(copied).front(DEVICES[0])[0].key, DEVICES[0]).on_front
