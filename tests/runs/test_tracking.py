"""A run in the files of other tools: what stands there is what the archive holds."""

import builtins
import math
import sqlite3
import warnings

import pytest

from hwnas.errors import RecipeError
from hwnas.runs.start import open_run
from hwnas.runs.tracking.optuna_study import write_study
from hwnas.runs.tracking.trials import TrackedDevice, trials_of


def tracked(run, name):
    return TrackedDevice(run.devices[name], run.settings(name), run.front(name))


def test_every_evaluation_is_a_trial(finished_run):
    run = open_run(finished_run)
    with run.evaluations() as evaluations:
        found = trials_of(evaluations, tracked(run, "myriad-vpu"))
        known = [e for e in evaluations.archive.evaluations() if e.split.startswith("validation")]
    names = run.settings("myriad-vpu").objectives
    assert [t.arch.key for t in found] == list(dict.fromkeys(e.arch.key for e in known if e.precision == "fp32"))
    by_key = {t.arch.key: dict(zip(names, t.values, strict=True)) for t in found}
    for model in run.front("myriad-vpu"):
        for name in names:
            assert by_key[model.key][name] == pytest.approx(model.values[name], rel=1e-4)


def test_limits_say_how_far_a_trial_is_beyond(copied):
    run = open_run(copied)
    run.search(["myriad-vpu"], limits=["params<=3000", "top1_percent>=1"])
    with run.evaluations() as evaluations:
        for trial in trials_of(evaluations, tracked(run, "myriad-vpu")):
            names = run.settings("myriad-vpu").objectives
            values = dict(zip(names, trial.values, strict=True))
            assert trial.violations == pytest.approx((values["params"] - 3000, 1 - values["top1_percent"]))


def test_an_optuna_study_is_what_the_archive_holds(copied):
    optuna = pytest.importorskip("optuna")
    run = open_run(copied)
    run.search(["myriad-vpu"], limits=["params<=3000"])
    command = run.track("optuna")
    path = copied / "tracking" / "optuna.db"
    assert command == f"optuna-dashboard sqlite:///{path}"
    assert run.track("optuna") == command  # nothing stands there twice
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        studies = {s.study_name: s for s in optuna.get_all_study_summaries(f"sqlite:///{path}")}
        assert set(studies) == {"tiny/hexagon-dsp", "tiny/myriad-vpu"}
        study = optuna.load_study(study_name="tiny/myriad-vpu", storage=f"sqlite:///{path}")
        with run.evaluations() as evaluations:
            expected = trials_of(evaluations, tracked(run, "myriad-vpu"))
        assert [t.values for t in study.trials] == [list(one.values) for one in expected]
        assert [t.user_attrs["key"] for t in study.trials] == [one.arch.key for one in expected]
        assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE", "MAXIMIZE"]
        best = {t.user_attrs["key"] for t in study.best_trials}
        assert best, "some trial keeps the limit"
        broken = {one.arch.key for one in expected if max(one.violations) > 0}
        assert broken
        assert not best & broken
        front = {m.key for m in run.front("myriad-vpu")}
        assert front <= best


def test_a_failed_evaluation_is_a_failed_trial(copied):
    optuna = pytest.importorskip("optuna")
    run = open_run(copied)
    with sqlite3.connect(copied / "archive.db") as db:
        (key,) = db.execute("SELECT arch_key FROM evaluations WHERE split = 'validation' LIMIT 1").fetchone()
        db.execute(
            "UPDATE evaluations SET value = NULL, failed = 1 WHERE arch_key = ? AND split = 'validation'", (key,)
        )
    db.close()
    (copied / "archive.db.sha256").unlink()
    with run.evaluations() as evaluations, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_study(evaluations, [TrackedDevice(run.devices["myriad-vpu"], run.settings("myriad-vpu"), None)],
                    copied / "o.db")  # fmt: skip
        (study,) = optuna.get_all_study_names(f"sqlite:///{copied / 'o.db'}")
        trials = optuna.load_study(study_name=study, storage=f"sqlite:///{copied / 'o.db'}").trials
    states = {t.user_attrs["key"]: t.state.name for t in trials}
    assert states.pop(key) == "FAIL"
    assert set(states.values()) == {"COMPLETE"}


def test_tensorboard_has_training_and_search(copied):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = open_run(copied)
    run.track("tensorboard")
    run.track("tensorboard")  # in place of what was there
    folder = copied / "tracking" / "tensorboard"
    board = EventAccumulator(str(folder / "hexagon-dsp")).Reload()
    volume = [event.value for event in board.Scalars("search/hypervolume")]
    assert volume == sorted(volume)
    assert volume[-1] > 0
    with run.evaluations() as evaluations:
        expected = trials_of(evaluations, tracked(run, "hexagon-dsp"))
    assert [e.value for e in board.Scalars("evaluated/latency_ms")] == pytest.approx([t.values[1] for t in expected])
    assert EventAccumulator(str(folder / "train")).Reload().Tags()["scalars"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match=r"notes\.txt"):
        run.track("tensorboard")


def test_mlflow_has_settings_training_evaluations_and_models(copied):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    run = open_run(copied)
    assert run.track("mlflow") == f"mlflow ui --backend-store-uri sqlite:///{copied / 'tracking' / 'mlflow.db'}"
    run.track("mlflow")  # in place of what was there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = MlflowClient(tracking_uri=f"sqlite:///{copied / 'tracking' / 'mlflow.db'}")
        (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
        runs = {r.info.run_id: r for r in client.search_runs([experiment.experiment_id])}
        below = {i: r.data.tags.get("mlflow.parentRunId") for i, r in runs.items()}
        (top,) = [i for i, parent in below.items() if parent is None]
        devices = {runs[i].info.run_name: i for i, parent in below.items() if parent == top}
        assert set(devices) == {"hexagon-dsp", "myriad-vpu"}
        assert runs[top].data.params["train.batch_size"] == "25"
        assert len(client.get_metric_history(top, "loss")) == len((copied / "train/metrics.jsonl").open().readlines())
        models = {runs[i].info.run_name: runs[i] for i, p in below.items() if p == devices["hexagon-dsp"]}
        assert set(models) == {m.key for m in run.front("hexagon-dsp")}
        for model in run.front("hexagon-dsp"):
            assert models[model.key].data.metrics["top1_percent"] == pytest.approx(model.values["top1_percent"])
        with run.evaluations() as evaluations:
            n = len(trials_of(evaluations, tracked(run, "hexagon-dsp")))
        assert len(client.get_metric_history(devices["hexagon-dsp"], "latency_ms")) == n
        assert {a.path for a in client.list_artifacts(top)} >= {"recipe.yaml", "report.html"}


@pytest.mark.parametrize("tool", ["wandb", ""])
def test_an_unknown_tool_is_one_line(finished_run, hwnas_command, tool):
    code, _, err = hwnas_command("track", finished_run, tool)
    assert code == 2
    assert "known are optuna, mlflow, tensorboard" in err


def test_a_missing_package_is_one_line(finished_run, monkeypatch):
    monkeypatch.setattr("hwnas.runs.tracking.track.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"needs the package mlflow: pip install 'hwnas\[mlflow\]'"):
        open_run(finished_run).track("mlflow")


def test_hwnas_itself_needs_none_of_the_tools(monkeypatch, finished_run):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] in ("optuna", "mlflow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with open_run(finished_run).evaluations() as evaluations:
        assert all(math.isfinite(e.duration_s) for e in evaluations.archive.evaluations())
