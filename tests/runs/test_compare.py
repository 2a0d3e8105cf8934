"""What several runs reached beside each other, and what a device gains from a front of its own."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import hwnas
from hwnas.errors import RecipeError
from hwnas.pareto import hypervolume
from hwnas.runs.analysis.compare import compare_runs
from hwnas.runs.analysis.decisions import flat_settings
from hwnas.runs.front import Front, FrontModel
from hwnas.runs.recipe import load_recipe
from hwnas.runs.start import open_run
from hwnas.task import Score

TOP1 = Score("top1_percent", "max", "top-1", "%")


def front_of(folder, points, stderr=1.0):
    models = [
        FrontModel("d", f"{i:012x}", {"top1_percent": s, "latency_ms": ms, "top1_stderr_percent": stderr}, folder)
        for i, (s, ms) in enumerate(points)
    ]
    return Front("d", tuple(models), TOP1)


@pytest.fixture
def two_folders(finished_run, tmp_path):
    return [shutil.copytree(finished_run, tmp_path / name) for name in ("a", "b")]


def test_the_reference_point_is_that_of_all_runs(two_folders):
    a, b = two_folders
    fronts = {a: {"d": front_of(a, [(50, 1.0), (90, 5.0)])}, b: {"d": front_of(b, [(60, 3.0), (80, 4.0)])}}
    found = compare_runs(fronts, TOP1)
    (device,) = found.devices
    assert (device.reference_score, device.reference_ms) == pytest.approx((90 - 1.1 * 40, 1 + 1.1 * 4))
    for one, points in zip(device.runs, ([(50, 1), (90, 5)], [(60, 3), (80, 4)]), strict=True):
        losses = np.array([[-s, ms] for s, ms in points], dtype=float)
        box = (90 - device.reference_score) * (device.reference_ms - 1)
        corner = np.array([-device.reference_score, device.reference_ms])
        assert one.hypervolume == pytest.approx(hypervolume(losses, corner) / box)
        assert one.hypervolume_stderr > 0
    assert [one.best_score for one in device.runs] == [90, 80]
    assert [one.models_kept for one in device.runs] == [2, 2]


def test_a_beaten_model_is_not_kept(two_folders):
    a, b = two_folders
    fronts = {a: {"d": front_of(a, [(50, 1.0), (90, 5.0)])}, b: {"d": front_of(b, [(50, 2.0), (90, 5.0)])}}
    assert [one.models_kept for one in compare_runs(fronts, TOP1).devices[0].runs] == [2, 1]


def test_without_standard_errors_none_is_said(two_folders):
    a, b = two_folders
    fronts = {f: {"d": front_of(f, [(50, 1.0)], stderr=float("nan"))} for f in (a, b)}
    found = compare_runs(fronts, TOP1)
    assert found.as_dict()["devices"][0]["runs"][0]["hypervolume_stderr"] is None
    json.dumps(found.as_dict(), allow_nan=False)


@pytest.mark.slow
def test_runs_are_compared_from_the_command_line(finished_run, recipe_file, tmp_path, hwnas_command, again):
    again(tmp_path / "other", search={"algorithm": "nsga2", "evaluations": 8}, devices=["hexagon-dsp"])
    code, out, _ = hwnas_command("compare", finished_run, tmp_path / "other")
    assert code == 0
    assert "search.algorithm" in out
    assert "nsga2" in out
    assert "reference point" in out
    code, out, _ = hwnas_command("compare", finished_run, tmp_path / "other", "--json")
    values = json.loads(out)
    assert [d["device"] for d in values["devices"]] == ["hexagon-dsp"]
    assert len(values["devices"][0]["runs"]) == 2
    assert ["search.algorithm", ["hurricane", "nsga2"]] in values["differences"]


def test_settings_that_files_leave_out_are_shown_as_their_defaults(recipe_file):
    plain, changed = (flat_settings(load_recipe(recipe_file(finish=f))) for f in ({}, {"shared": False}))
    assert (plain["finish.shared"], changed["finish.shared"]) == ("True", "False")
    assert plain["finetune.two_step"] == "False"
    assert plain["data.broken_images"] == "stop"


def test_a_run_of_other_data_is_one_line(finished_run, tmp_path, hwnas_command):
    other = shutil.copytree(finished_run, tmp_path / "run")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["data"]["sha256"] = "0" * 64
    manifest.pop("sha256")
    (other / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = hwnas_command("compare", finished_run, other)
    assert code == 2
    assert "is of other data" in err
    with pytest.raises(RecipeError, match="alone"):
        open_run(finished_run).compare()


# -- what a device gains ----------------------------------------------------------------------------------


def test_the_own_front_is_the_measure_of_the_others(finished_run):
    run = open_run(finished_run)
    found = run.gains()
    assert list(found) == ["hexagon-dsp", "myriad-vpu"]
    for name, device in found.items():
        own, other, fleet = device.gains
        assert (own.source, fleet.source) == ("own front", "fleet of 1")
        assert other.source.startswith("front of ")
        assert (own.difference, own.difference_stderr, own.mean_difference, own.served_share) == (0, 0, 0, 1)
        assert own.score == pytest.approx(run.front(name).within(f"latency_ms<={own.limit_ms * 1.00001}").best().values[
            "top1_percent"
        ], abs=1e-3)  # fmt: skip
        error = run.devices[name].profile.error.mape_percent
        assert own.latency_error_ms == pytest.approx(own.latency_ms * error / 100)
        for gain in (other, fleet):
            if gain.key:
                assert gain.latency_ms <= own.limit_ms * 1.0001
                assert gain.difference == pytest.approx(gain.score - own.score)
                assert (gain.difference_stderr == 0) == (gain.key == own.key)
        steps = device.steps[run.front(name).knee().key]
        assert steps[0].score is not None
        assert steps[-1].test_score is not None
        assert steps[0].score_stderr > 0
    json.dumps([one.as_dict() for one in found.values()], allow_nan=False)


def test_the_gain_of_a_front_follows_from_its_scores(finished_run):
    """Another front of one known model: within the own latencies it is best, worse, or cannot serve."""
    from hwnas.runs.analysis.gains import gains_of

    run = open_run(finished_run)
    hexagon, myriad = (run.searched_device(n) for n in ("hexagon-dsp", "myriad-vpu"))
    last = hexagon.front[-1]
    lent = replace(last, device="myriad-vpu", folder=myriad.front[0].folder)
    myriad = replace(myriad, front=replace(myriad.front, models=(lent,)))
    with run.evaluations() as evaluations:
        own, other, *_ = gains_of(evaluations, [hexagon, myriad])["hexagon-dsp"]
    latencies = [m.values["latency_ms"] for m in hexagon.front]
    served = [ms for ms in latencies if last.values["latency_ms"] <= ms * 1.00001]
    assert other.served_share == pytest.approx(len(served) / len(latencies))
    scores = [
        max(m.values["top1_percent"] for m in hexagon.front if m.values["latency_ms"] <= ms * 1.00001) for ms in served
    ]
    expected = np.mean([last.values["top1_percent"] - s for s in scores])
    assert other.mean_difference == pytest.approx(expected, abs=1e-3)
    assert (other.key == "") == (last.values["latency_ms"] > own.limit_ms * 1.00001)


def test_gains_are_printed_and_in_the_report(finished_run, hwnas_command):
    code, out, _ = hwnas_command("compare", finished_run)
    assert code == 0
    assert "own front" in out
    assert "front of myriad-vpu" in out
    assert "fleet of 1" in out
    assert "±" in out
    code, out, _ = hwnas_command("compare", finished_run, "--json")
    assert code == 0
    assert json.loads(out)["hexagon-dsp"]["gains"][0]["source"] == "own front"
    page = (finished_run / "report.html").read_text()
    assert "What a front of its own gains" in page
    assert "fleet of 1" in page


def test_python_has_the_names():
    assert hwnas.RunComparison
    assert hwnas.DeviceGains
    assert hwnas.RunState
