"""Models are trained to their end: which ones, from which weights, the same after any kill, and never worse."""

import json
import shutil

import numpy as np
import pytest
from run_files import Stop, made_files, rows_of

import hwnas
from hwnas.data import AugmentConfig
from hwnas.errors import RecipeError, ResumeError, SearchError
from hwnas.finetune import FinetuneConfig
from hwnas.progress import silent
from hwnas.runs.choose import choose_to_finish, finished_models, spread_over_latency
from hwnas.runs.evaluations import Candidate
from hwnas.runs.finish import augment_of, epochs_in, finish_models
from hwnas.runs.problem import evaluated_values
from hwnas.runs.start import open_run, run
from hwnas.train.evaluate import scores_of

SEARCH = {"strategy": "supernet", "evaluations": 8}
FINISH = {"models": 2, "epochs": 8, "lr": 0.05}
FIRST, SECOND = "hexagon-dsp", "myriad-vpu"


@pytest.fixture(scope="module")
def with_finish(tiny_recipe, tmp_path_factory):
    """A run whose models are trained to their end; copy it before changing it."""
    folder = tmp_path_factory.mktemp("finish")
    (folder / "tiny.yaml").write_text(json.dumps({**tiny_recipe, "search": SEARCH, "finish": FINISH}))
    run(folder / "tiny.yaml", out=folder / "run")
    return folder / "run"


@pytest.fixture
def copied(with_finish, tmp_path):
    return shutil.copytree(with_finish, tmp_path / "copy")


@pytest.fixture
def again(recipe_file):
    """Start the recipe with finishing, and with other values of top-level keys."""
    return lambda out, progress=silent, **changes: run(
        recipe_file(**{"search": SEARCH, "finish": FINISH, **changes}), out=out, progress=progress
    )


def test_limits_on_the_score_are_for_finished_models(with_finish):
    opened = open_run(with_finish)
    with opened.evaluations() as evaluations:
        device, settings = opened.devices[FIRST], opened.settings(FIRST)
        whole = choose_to_finish(evaluations, device, settings)
        limited = settings.model_copy(update={"constraints": (*settings.constraints, "top1_percent>=99.99")})
        assert choose_to_finish(evaluations, device, limited) == whole
        for limit in ("params<=1", "latency_ms<=0.000001"):
            wrong = settings.model_copy(update={"constraints": (limit,)})
            with pytest.raises(SearchError, match="no model within the limits"):
                choose_to_finish(evaluations, device, wrong)


def test_what_models_inherit_is_of_as_many_images_as_what_they_become(recipe_file, tmp_path):
    search = {**SEARCH, "validation_images": 5}
    done = run(recipe_file(search=search, finish=FINISH), out=tmp_path / "run", devices=[FIRST])
    assert done.context.validation_images > 5
    with done.evaluations() as evaluations:
        known = evaluations.of_device(FIRST)
        for row in rows_of(done.folder, FIRST):
            arch = known.archive.find(row["key"])
            full = known.archive.values(arch, done.weights.trained, "validation", known.precision)
            assert float(row["top1_inherited_percent"]) == pytest.approx(full["top1_percent"], rel=1e-5)


@pytest.mark.parametrize("device", [FIRST, SECOND])
def test_fronts_and_bundles_are_of_finished_models(with_finish, device):
    opened = open_run(with_finish)
    finished = opened.weights.finished.by_version
    trained = opened.weights.trained
    assert {m.parent for m in finished.values()} == {trained}
    front = opened.front(device)
    assert len(front) >= 1
    for row, model in zip(rows_of(with_finish, device), front, strict=True):
        own = finished[row["weights_version"]]
        assert own.key == model.key
        with opened.evaluations() as evaluations:
            arch = evaluations.archive.find(model.key)
            own_precision = evaluations.of_device(device).precision
            inherited = evaluations.archive.values(arch, trained, "validation", own_precision)["top1_percent"]
            in_float = evaluations.archive.values(arch, trained, "validation")["top1_percent"]
        assert float(row["top1_inherited_percent"]) == pytest.approx(inherited, rel=1e-5)
        after = float(row["top1_fp32_percent" if own_precision == "int8" else "top1_percent"])
        assert after >= in_float - 1e-3, "the epoch that is best on validation is kept, or none"
        metrics = json.loads((model.folder / "metrics.json").read_text())
        assert metrics["weights_version"] == row["weights_version"]
        net, test = hwnas.load_model(model.folder), opened.splits.test
        found = scores_of(net, opened.context.networks.inputs(test, arch), opened.context.task)
        tested = "test_top1_fp32_percent" if own_precision == "int8" else "test_top1_percent"
        assert metrics[tested] == pytest.approx(found["top1_percent"])
    assert any(float(r["top1_percent"]) > float(r["top1_inherited_percent"]) for r in rows_of(with_finish, device))
    assert "inherited" in (with_finish / "report.html").read_text()


def test_models_of_all_devices_are_trained_together_and_once(with_finish):
    (group,) = (with_finish / "finished").iterdir()
    assert not (group / "checkpoint.safetensors").exists()
    models = json.loads((group / "models.json").read_text())["models"]
    keys = [m["key"] for m in models]
    assert 2 <= len(set(keys)) == len(keys) <= 4
    sizes = [float(r["macs"]) for k in keys for d in (FIRST, SECOND) for r in rows_of(with_finish, d) if r["key"] == k]
    assert sizes == sorted(sizes, reverse=True), "the largest, which teaches, comes first"


def test_evaluations_of_finished_models_know_their_parent(with_finish):
    opened = open_run(with_finish)
    with opened.archive() as archive:
        rows = archive._db.execute(
            "SELECT DISTINCT weights_version, conditions FROM evaluations WHERE split='validation'"
        )
        parents = {version: json.loads(conditions).get("parent") for version, conditions in rows}
    for version in opened.weights.finished.by_version:
        assert parents[version] == opened.weights.trained
    assert parents[opened.weights.trained] is None


def test_a_second_start_computes_nothing(copied, again):
    before, told = made_files(copied), []
    again(copied, lambda task, *_: told.append(task))
    assert made_files(copied) == before
    assert set(told) <= {f"export for {d}" for d in (FIRST, SECOND)}


@pytest.mark.slow
def test_a_finish_killed_or_stopped_ends_with_the_same_files(
    with_finish, finished_run, tiny_recipe, recipe_file, killed_run, again, tmp_path
):
    out = shutil.copytree(finished_run, tmp_path / "run")
    often = {**tiny_recipe["train"], "checkpoint_every_s": 1e-6}
    task = f"finish for {FIRST}, {SECOND}"
    killed_run(recipe_file(search=SEARCH, finish=FINISH, train=often), out, f"{task}: 3")
    assert (out / "finished").is_dir()
    seen = []

    def stop(name, done, total, note=""):
        if name == task:
            seen.append(done)
            if len(seen) == 3:
                raise Stop

    with pytest.raises(Stop):
        again(out, stop, train=often)
    assert seen[0] > 1, "it began again"
    again(out)
    found, wanted = made_files(out), made_files(with_finish)
    assert found == wanted


def test_without_finished_models_nothing_is_trained(finished_run):
    assert not (finished_run / "finished").exists()
    assert "top1_inherited_percent" not in rows_of(finished_run, FIRST)[0]


def test_another_device_trains_only_what_is_missing(copied):
    before = made_files(copied)
    opened = open_run(copied)
    known = {m.key for m in opened.weights.finished.by_version.values()}
    opened.search(devices=["edge-tpu"])
    after = made_files(copied)
    assert {n: d for n, d in after.items() if n in before} == before
    added = [m.key for m in open_run(copied).weights.finished.by_version.values()]
    assert len(added) == len(set(added)), "no arch is trained twice"
    rows = rows_of(copied, "edge-tpu")
    assert {r["key"] for r in rows} <= set(added)
    assert set(added) >= known


def test_why_a_model_is_not_on_a_front_that_was_finished_later_for_another_device(copied):
    run = open_run(copied)
    settings = run.settings(FIRST).model_copy(update={"front_size": 16})  # room for all
    run.search_with({FIRST: settings})
    before = {device: {m.key for m in run.front(device)} for device in (FIRST, SECOND)}
    with run.evaluations() as evaluations:
        view = evaluations.of_device(FIRST)
        finished = {m.key for m in run.weights.finished.by_version.values()}
        space = run.context.layout.space
        some = [space.smallest(), *space.sample(np.random.default_rng(0), 50)]
        last = next(arch for arch in some if arch.key not in finished)
        candidate = Candidate(last, run.weights.trained)
        view.evaluate([candidate], evaluated_values(run.context, run.settings(FIRST)))
        finish_models(evaluations, [candidate], run.settings(SECOND).finish, " for another device")
    run = open_run(copied)
    assert "evaluated for hexagon-dsp; the front of hexagon-dsp stands" in run.why_not(last.key, FIRST).reason
    with run.evaluations() as evaluations:  # as the other device does
        view = evaluations.of_device(FIRST)
        trained = [m for m in finished_models(evaluations) if m.arch.key == last.key]
        view.evaluate(trained, evaluated_values(run.context, run.settings(FIRST)))
        score = view.known(trained[0])["top1_percent"]
    found = open_run(copied).why_not(last.key, FIRST)
    assert found.values["top1_percent"] == score, "in the device's own precision"
    if not found.dominated_by:
        assert "after this front was chosen" in found.reason
    # It is on the front once that is chosen again.
    run.search_with({FIRST: settings.model_copy(update={"front_size": settings.front_size + 1})})
    assert (last.key in {m.key for m in run.front(FIRST)}) == (not found.dominated_by)
    assert {m.key for m in run.front(SECOND)} == before[SECOND]


def test_more_of_the_same_never_loses_a_model(copied, again):
    def fronts():
        return {
            d: np.array([[-float(r["top1_percent"]), float(r["latency_ms"])] for r in rows_of(copied, d)])
            for d in (FIRST, SECOND)
        }

    before = fronts()
    again(copied, search={**SEARCH, "evaluations": 12})
    again(copied, finish={**FINISH, "epochs": 3})
    for device, losses in fronts().items():
        for row in before[device]:
            assert (losses <= row + 1e-9).all(axis=1).any()


def test_models_for_given_latencies(copied, again):
    opened = open_run(copied)
    with opened.evaluations() as evaluations:
        archs = evaluations.evaluated(opened.weights.trained, ["top1_percent"])
    ms = np.sort(opened.devices[FIRST].compile(opened.layout).of_archs(archs))
    wanted = (float(ms[0]), float(ms[len(ms) // 2]))
    done = again(copied, finish={**FINISH, "epochs": 1, "latencies_ms": {FIRST: wanted}})
    digests = {m.settings for m in done.weights.finished.by_version.values() if m.epochs == 1}
    assert len(digests) == 1
    latencies = [m.values["latency_ms"] for m in done.front(FIRST)]
    assert any(v <= wanted[0] * 1.0001 for v in latencies)


def test_damaged_weights_of_a_finished_model_are_named(copied):
    (path, *_) = sorted((copied / "finished").glob("*/*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    opened = open_run(copied)
    version = next(v for v, m in opened.weights.finished.by_version.items() if path.name in m.file)
    with opened.archive() as archive:
        arch = archive.find(opened.weights.finished.by_version[version].key)
    with pytest.raises(ResumeError, match=r"has other weights than were trained.*hwnas search"):
        opened.weights.evaluator(version).subnet(arch)


def test_a_finished_model_can_be_fine_tuned(copied, tmp_path):
    opened = open_run(copied)
    model = opened.front(FIRST).best()
    result, bundle = opened.finetune(model.key, out=tmp_path / "tuned", epochs=1, lr=0.001)
    assert result.score_before == pytest.approx(model.values["top1_percent"], rel=1e-5)
    assert bundle.metrics["finetuned_from"] == model.weights_version


@pytest.mark.parametrize(("strategy", "warmup_epochs"), [("direct", 0.5), ("supernet", 0.0)])
def test_the_rate_of_fresh_weights_rises_as_in_the_first_phase(
    strategy, warmup_epochs, recipe_file, tiny_recipe, tmp_path, monkeypatch
):
    def caught(students, splits, config, *_):
        raise KeyError(config.warmup_epochs, config.epochs)

    monkeypatch.setattr("hwnas.runs.finish.train_together", caught)
    first, *others = tiny_recipe["train"]["phases"]
    train = {**tiny_recipe["train"], "phases": [{**first, "warmup_epochs": 0.5}, *others]}
    path = recipe_file(
        search={**SEARCH, "strategy": strategy}, finish=FINISH, train=train, objectives=["top1_percent", "latency_ms"]
    )
    with pytest.raises(KeyError) as found:
        run(path, out=tmp_path / "run")
    (warmed, epochs) = found.value.args
    assert warmed == min(warmup_epochs, epochs / 10)
    assert epochs > 5


@pytest.mark.parametrize(
    ("augment", "finish", "trivial"),
    [
        ({"shift_percent": 8}, {"trivial_epochs": 8}, True),
        ({"shift_percent": 8}, {"trivial_epochs": 8.1}, False),
        ({"shift_percent": 8}, {"trivial_epochs": None}, False),
        ({}, {"trivial_epochs": 8}, False),
        ({"shift_percent": 8}, {"epochs": 30}, True),
        ({"shift_percent": 8}, {"epochs": 29.9}, False),
        ({"shift_percent": 8}, {"trivial_epochs": 8, "time_s": 1000}, True),
        ({"trivial": True}, {}, True),
    ],
)
def test_long_trainings_vary_images_more(augment, finish, trivial, with_finish, again, tmp_path, monkeypatch):
    """A training that is long enough ends with what the recipe would give that asks for TrivialAugment itself."""
    seen = []
    monkeypatch.setattr(
        "hwnas.runs.finish.train_together", lambda s, splits, config, found, *_: seen.append(found) or _stop()
    )
    run_folder = shutil.copytree(with_finish, tmp_path / "run") if augment == {"shift_percent": 8} else tmp_path / "run"
    data = {"source": "digits", "max_images": 150, "augment": augment}
    with pytest.raises(Stop):
        again(run_folder, data=data, finish={**FINISH, "lr": 0.04, **finish})
    assert seen == [AugmentConfig(**{**augment, "trivial": trivial})]


def _stop():
    raise Stop


class Chooses:
    """What a task of somebody else has whose outputs choose a class."""

    def predicted_classes(self, outputs):
        return outputs.argmax(1)


@pytest.mark.parametrize(("task", "trivial"), [(Chooses(), True), (object(), False)])
def test_only_images_of_classes_are_varied_more(task, trivial, with_finish, monkeypatch):
    context = open_run(with_finish).context
    assert augment_of(context, context.recipe.finish, 100).trivial
    monkeypatch.setitem(vars(context), "task", task)
    assert augment_of(context, context.recipe.finish, 100).trivial == trivial


@pytest.mark.parametrize(("time_s", "epochs"), [(79, 79), (100, 50), (200, 100)])
def test_a_time_is_divided_by_what_passes_over_varied_images_take(time_s, epochs, with_finish, monkeypatch):
    context = open_run(with_finish).context
    monkeypatch.setattr(
        "hwnas.runs.finish.seconds_per_epoch",
        lambda students, splits, config, augment, teacher: 2.0 if augment.trivial else 1.0,
    )
    finish = context.recipe.finish.model_copy(update={"trivial_epochs": 80})
    assert epochs_in(time_s, context, finish, [], FinetuneConfig()) == epochs


def test_a_negative_number_of_models_is_refused(recipe_file, tmp_path):
    with pytest.raises(RecipeError, match=r"finish\.models"):
        run(recipe_file(finish={"models": -1}), out=tmp_path / "out")


def test_rows_are_spread_over_the_logarithm_of_the_latency():
    ms = np.array([1.0, 1.2, 2.0, 4.0, 7.0, 8.0, 5.0])
    losses = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 99.0])  # the last is dominated
    assert spread_over_latency(losses, ms, 4) == [0, 2, 3, 5]
    assert spread_over_latency(losses, np.array([1.0, 1.09, 2.0, 4.3, 7.9, 8.0, 5.0]), 4) == [1, 2, 3, 5], "1.09 for 1"
    assert spread_over_latency(losses, ms, 1) == [5]
    assert spread_over_latency(losses, ms, 6) == [0, 1, 2, 3, 4, 5]
    assert spread_over_latency(losses, ms, 9) == [0, 1, 2, 3, 4, 5]
    assert spread_over_latency(losses, ms, 4, [0.5, 1.5, 1.6, 100]) == [1, 5]
    # Several wanted latencies fall on one model: the number is kept by those farthest from it.
    ms, losses = np.array([1.0, 1.01, 1.02, 1.03, 100.0]), -np.arange(5.0)
    assert len(spread_over_latency(losses, ms, 4)) == 4


def test_a_wanted_latency_that_no_evaluated_model_reaches_is_named(copied):
    opened = open_run(copied)
    settings = opened.settings(FIRST)
    finish = settings.finish.model_copy(update={"latencies_ms": {FIRST: (1e-6,)}})
    with opened.evaluations() as evaluations, pytest.raises(SearchError, match=r"is as fast as 1e-06 ms .*takes 1\."):
        choose_to_finish(evaluations, opened.devices[FIRST], settings.model_copy(update={"finish": finish}))
