"""Without a supernet: archs chosen by what is known without training, each trained from fresh weights."""

import json
import shutil

import numpy as np
import pytest
from run_files import made_files, rows_of

import hwnas
from hwnas.errors import RecipeError, ResumeError, SearchError
from hwnas.finetune import FinishConfig
from hwnas.latency.table import load_device
from hwnas.progress import silent
from hwnas.runs.direct import DirectWishes
from hwnas.runs.history import write_history
from hwnas.runs.plan import ENOUGH_IMAGES, make_plan, write_plan
from hwnas.runs.recipe import load_recipe, with_values
from hwnas.runs.start import open_run, run, start_run
from hwnas.search.capacity import DEPTH_COUNTS, capacity, most_capable
from hwnas.search.sharing import share
from hwnas.space import SearchSpace
from hwnas.train.evaluate import scores_of

FIRST, SECOND = "hexagon-dsp", "myriad-vpu"
SEARCH = {"strategy": "direct", "evaluations": 2}
FINISH = {"models": 3, "epochs": 2, "lr": 0.1, "shared": False}


@pytest.fixture(scope="module")
def direct(tiny_recipe, tmp_path_factory):
    """A run without a supernet; copy it before changing it."""
    folder = tmp_path_factory.mktemp("direct")
    values = {**tiny_recipe, "search": SEARCH, "finish": FINISH}
    (folder / "tiny.yaml").write_text(json.dumps(values))
    run(folder / "tiny.yaml", out=folder / "run")
    return folder / "run"


@pytest.fixture
def copied(direct, tmp_path):
    return shutil.copytree(direct, tmp_path / "copy")


@pytest.fixture
def again(recipe_file):
    return lambda out, progress=silent, **changes: run(
        recipe_file(**{"search": SEARCH, "finish": FINISH, **changes}), out=out, progress=progress
    )


def test_no_supernet_is_trained(direct):
    assert not (direct / "train").exists()
    assert json.loads((direct / "plan.json").read_text())["strategy"] == "direct"


@pytest.mark.parametrize("device", [FIRST, SECOND])
def test_the_front_is_of_models_trained_from_fresh_weights(direct, device):
    opened = open_run(direct)
    finished = opened.weights.finished.by_version
    assert {m.parent for m in finished.values()} == {""}
    assert all(m.best_epoch > 0 for m in finished.values()), "training is better than none"
    plan = json.loads((direct / "plan.json").read_text())
    assert {m.epochs for m in finished.values()} == {round(plan["direct_epochs"], 2)}
    for row, model in zip(rows_of(direct, device), opened.front(device), strict=True):
        assert finished[row["weights_version"]].key == model.key
        assert row["top1_inherited_percent"] == "nan"
        metrics = json.loads((model.folder / "metrics.json").read_text())
        net, test = hwnas.load_model(model.folder), opened.splits.test
        with opened.archive() as archive:
            arch = archive.find(model.key)
        found = scores_of(net, opened.context.networks.inputs(test, arch), opened.context.task)
        # hexagon-dsp computes in int8
        in_float = "test_top1_fp32_percent" if device == "hexagon-dsp" else "test_top1_percent"
        assert metrics[in_float] == pytest.approx(found["top1_percent"])
        card = (model.folder / "MODEL_CARD.md").read_text()
        assert "A network of the family `mbv3`, trained alone from fresh weights, exported by hwnas." in card
    assert "without a supernet" in (direct / "report.html").read_text()


def test_the_verbs_work_without_a_supernet(copied, tmp_path):
    opened = open_run(copied)
    model = opened.front(FIRST).best()
    assert opened.export(device=FIRST, best=True)[0].folder.name == model.key
    result, bundle = opened.finetune(model.key, out=tmp_path / "tuned", epochs=1, lr=0.001, device=FIRST)
    assert result.score_before == pytest.approx(model.values["top1_percent"], rel=1e-5)
    assert bundle.metrics["finetuned_from"] == model.weights_version
    assert opened.report().exists()
    assert opened.fleet(1).keys


def test_a_second_start_computes_nothing(copied, again):
    before, told = made_files(copied), []
    again(copied, lambda task, *_: told.append(task))
    assert made_files(copied) == before
    assert set(told) <= {f"export for {d}" for d in (FIRST, SECOND)}


def test_few_networks_stand_for_many_latencies_where_the_time_is_short(direct, again, tmp_path):
    again(tmp_path / "run", finish={**FINISH, "shared": True})
    opened, plan = open_run(tmp_path / "run"), json.loads((tmp_path / "run" / "plan.json").read_text())
    finished = opened.weights.finished.by_version.values()
    alone = open_run(direct).weights.finished.by_version.values()
    assert len(finished) == plan["direct_networks"] < len(alone)
    (epochs,) = {m.epochs for m in finished}
    assert epochs == pytest.approx(plan["direct_epochs"] * plan["direct_longer"], abs=0.01 * plan["direct_longer"])

    def compute(models):
        with opened.archive() as archive:
            archs = [archive.find(m.key) for m in models]
        return sum(m.epochs * macs for m, macs in zip(models, opened.context.macs.of_archs(archs), strict=True))

    with open_run(direct).archive() as archive:
        macs = opened.context.macs.of_archs([archive.find(m.key) for m in alone])
    spent = sum(m.epochs * one for m, one in zip(alone, macs, strict=True))
    assert compute(list(finished)) == pytest.approx(spent, rel=0.01)
    for device in (FIRST, SECOND):
        assert rows_of(tmp_path / "run", device)
    assert "times as long (finish.shared)" in (tmp_path / "run" / "report.html").read_text()
    before, told = made_files(tmp_path / "run"), []
    again(tmp_path / "run", lambda task, *_: told.append(task), finish={**FINISH, "shared": True})
    assert made_files(tmp_path / "run") == before
    assert set(told) <= {f"export for {d}" for d in (FIRST, SECOND)}


def test_a_choice_that_is_interrupted_is_made_again_for_all_devices(again, tmp_path, monkeypatch):
    finish = {**FINISH, "shared": True, "latencies_ms": {SECOND: [1000.0]}}  # alone it would get a large network
    again(tmp_path / "whole", finish=finish)
    written = []

    def write_once(*arguments):
        if written:
            raise KeyboardInterrupt
        written.append(arguments)
        write_history(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("hwnas.runs.direct.write_history", write_once)
        with pytest.raises(KeyboardInterrupt):
            again(tmp_path / "run", finish=finish)
    again(tmp_path / "run", finish=finish)
    assert made_files(tmp_path / "run") == made_files(tmp_path / "whole")


@pytest.mark.slow
def test_killed_runs_end_with_the_same_files(direct, tiny_recipe, recipe_file, killed_run, again, tmp_path):
    out = tmp_path / "run"
    train = {**tiny_recipe["train"], "checkpoint_every_s": 1e-6}
    recipe = recipe_file(search=SEARCH, finish=FINISH, train=train)
    for at in (f"finish for {FIRST}, {SECOND}: 3", f"export for {FIRST}: 1"):
        killed_run(recipe, out, at)
    again(out)
    assert made_files(out) == made_files(direct)


def test_another_device_is_added_without_a_supernet(copied):
    before = made_files(copied)
    open_run(copied).search(devices=["edge-tpu"])
    assert rows_of(copied, "edge-tpu")
    after = made_files(copied)
    assert {n: d for n, d in after.items() if n in before} == before


def test_a_supernet_that_follows_keeps_the_models(copied, again):
    before = {d: {r["key"] for r in rows_of(copied, d)} for d in (FIRST, SECOND)}
    done = again(copied, search={"strategy": "supernet", "evaluations": 6})
    assert (copied / "train" / "supernet.safetensors").exists()
    finished = done.weights.finished.by_version.values()
    assert {m.parent for m in finished} == {"", done.weights.trained}
    for device, keys in before.items():
        assert keys <= {m.key for m in finished}, device


def test_limits_hold_for_the_chosen_archs(tiny_recipe, recipe_file, tmp_path):
    loaded = load_recipe(recipe_file(search={"strategy": "direct"}, finish={"models": 4}))
    context = start_run(loaded, tmp_path / "run").context
    device, settings = context.devices[FIRST], context.settings(FIRST)

    def chosen_with(settings):
        return DirectWishes(context, {FIRST: (device, settings)}).own().archs[FIRST]

    free = chosen_with(settings)
    params = context.params.of_archs(free)
    ms = device.compile(context.layout).of_archs(free)
    assert len(free) == 4
    assert (np.diff(ms) > 0).all()
    bound = int(np.median(params))
    limited = settings.model_copy(update={"constraints": (f"params<={bound}",)})
    assert (context.params.of_archs(chosen_with(limited)) <= bound).all()
    wanted = settings.model_copy(
        update={"finish": settings.finish.model_copy(update={"latencies_ms": {FIRST: (ms[1], ms[2])}})}
    )
    chosen = device.compile(context.layout).of_archs(chosen_with(wanted))
    assert len(chosen) == 2
    assert (chosen <= np.array([ms[1], ms[2]])).all()
    impossible = settings.model_copy(update={"constraints": ("params<=3",)})
    with pytest.raises(
        SearchError, match=r"keeps params<=3 on hexagon-dsp; .* the nearest has \d+ params; loosen a limit"
    ):
        chosen_with(impossible)
    smallest, fastest = f"params<={params.min() * 1.01:.0f}", f"macs>={context.macs.of_archs(free).max():.0f}"
    both = settings.model_copy(update={"constraints": (smallest, fastest)})
    with pytest.raises(
        SearchError, match=r"the nearest to params<=\d+ that keeps the others has \S+ params, and the nea"
    ):
        chosen_with(both)


def test_archs_that_are_fast_enough_for_all_devices_are_looked_at(tiny_recipe, recipe_file, tmp_path, monkeypatch):
    stage = {"kernel_sizes": [3, 5], "expand_ratios": [2, 3, 4, 6], "depths": [1, 2, 3]}
    stages = [{**stage, "width": 16, "stride": 1}, {**stage, "width": 48, "stride": 2, "se": True}]
    supernet = {**tiny_recipe["supernet"], "resolutions": [32], "stages": stages}
    context = start_run(load_recipe(recipe_file(supernet=supernet)), tmp_path / "run").context
    sampled = context.layout.space.sample(np.random.default_rng(0), 20_000)
    devices = {n: (load_device(n), context.settings(FIRST)) for n in ("cortex-a76-cpu", "x86-server-cpu")}
    ms = {name: device.compile(context.layout).of_archs(sampled) for name, (device, _) in devices.items()}
    known = capacity(*(of.of_archs(sampled) for of in (context.macs, context.params, context.entropy)))
    offered = []
    monkeypatch.setattr("hwnas.runs.direct.share", lambda value, *rest: offered.append(value) or share(value, *rest))
    for quantile in (0.2, 0.8):
        wanted = {name: [float(np.quantile(values, quantile))] for name, values in ms.items()}
        finish = {"finish": FinishConfig(latencies_ms=wanted)}
        wishes = DirectWishes(context, {n: (d, s.model_copy(update=finish)) for n, (d, s) in devices.items()})
        wishes.choice(1.0)
        fast = np.all([values <= wanted[name][0] for name, values in ms.items()], axis=0)
        assert offered[-1].min(axis=1).max() > known[fast].max() - 0.15, "a search finds nearly the best"
        of_one = {arch for capable in wishes.capable.values() for arch in capable.all_archs}
        assert len(offered[-1]) > len(of_one)


def test_archs_are_the_most_capable_at_their_latency():
    space = SearchSpace.of_choices({c: list(range(4)) for c in "abcd"})
    weight, cost = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 1.0, 1.0, 9.0])

    def capacity_of(genomes):
        return genomes @ weight

    def latency_of(genomes):
        return 1.0 + genomes @ cost

    archs = most_capable(space, capacity_of, latency_of, lambda g: np.zeros(len(g)), 4).archs
    genomes = space.all_genomes()
    for arch in archs:
        own = space.encode(arch)[None]
        as_fast = latency_of(genomes) <= latency_of(own)
        assert capacity_of(own)[0] == capacity_of(genomes[as_fast]).max()
    assert latency_of(space.encode_many(archs)).tolist() == sorted(latency_of(space.encode_many(archs)).tolist())


def test_capacity_grows_with_size_and_depth():
    def one(*values):
        return float(capacity(*map(np.array, values)))

    assert one(1.0, 1.0, 1.0) == 0
    assert one(np.e, np.e, 1.0) == 1
    assert one(1.0, 1.0, np.e) == DEPTH_COUNTS
    assert one(1.0, 1.0, 0.0) == 0, "a space without convolutions"


def test_direct_without_models_is_refused(recipe_file, tmp_path):
    with pytest.raises(RecipeError, match=r"finish\.models, which is 0; give at least 1"):
        run(recipe_file(search={"strategy": "direct"}), out=tmp_path / "out")


def test_few_models_are_trained_directly_and_many_share_a_supernet(recipe_file, tmp_path):
    def plan(models, **changes):
        changes = {"objectives": ["top1_percent", "latency_ms"], **changes}
        recipe = with_values(
            load_recipe(recipe_file()), {"finish": {"models": models, "epochs": 1, "shared": False}, **changes}, ""
        )
        context = start_run(recipe, tmp_path / f"{models}-{len(changes)}").context
        return make_plan(context, {d: context.settings(d) for d in context.devices})

    longer = {"train": {"phases": [{"name": "full", "epochs": 4000, "lr": 0.1}]}}
    few, many = plan(1, **longer), plan(40)
    assert 128 * few.direct_epochs > ENOUGH_IMAGES > 128 * many.direct_epochs
    assert (few.strategy, many.strategy) == ("direct", "supernet")
    assert str(few).startswith("direct: for the same compute one model that serves all 2 wanted latencies, ")
    assert str(many).startswith("supernet: for the same compute each of ")
    assert plan(0).strategy == "supernet"
    asked = {"search": {"strategy": "supernet"}, **longer}
    assert str(plan(2, **asked)).startswith("supernet: as search.strategy says; auto would be direct: for the same ")
    judged = {"objectives": ["top1_percent", "latency_ms", "introspectability"], **longer}
    assert str(plan(2, **judged)) == (
        "supernet: archs are also to be good at introspectability, which only a search can see to"
    )


def test_networks_that_cost_less_than_a_supernet_are_trained_alone(recipe_file, tmp_path):
    changes = {"objectives": ["top1_percent", "latency_ms"], "finish": {"models": 8, "epochs": 1}}
    context = start_run(load_recipe(recipe_file(**changes)), tmp_path / "run").context
    found = make_plan(context, {d: context.settings(d) for d in context.devices})
    assert found.direct_networks < found.models
    assert 128 * found.direct_epochs * found.direct_longer < ENOUGH_IMAGES
    assert str(found).startswith("direct: ")
    assert str(found).endswith("few, but a pass over them costs less than one of a supernet's training")


def test_settings_of_runs_without_sharing_stay_what_they_were():
    assert "shared" not in FinishConfig().model_dump()
    assert FinishConfig(**FinishConfig(shared=False).model_dump()) == FinishConfig(shared=False)


def test_weights_to_begin_with_are_never_thrown_away(finished_run, tiny_recipe, recipe_file, tmp_path):
    train = {**tiny_recipe["train"], "start_from": str(finished_run / "train")}
    train["phases"] = [{"name": "full", "epochs": 4000, "lr": 0.1}]

    def plan(**changes):
        loaded = load_recipe(recipe_file(finish={"models": 1, "epochs": 1}, train=train, **changes))
        context = start_run(loaded, tmp_path / f"run-{len(changes)}").context
        return make_plan(context, {d: context.settings(d) for d in context.devices})

    assert str(plan()) == "supernet: it begins with the weights of train.start_from; models trained alone would not"
    with pytest.raises(RecipeError, match=r"direct begins with fresh weights, so the weights of train\.start_from"):
        plan(search={"strategy": "direct"})


def test_a_budget_is_divided_kept_and_spent_once(recipe_file, tmp_path):
    path = recipe_file(devices=[FIRST], finish={"models": 2}, search={"strategy": "supernet"})
    done = run(path, out=tmp_path / "run", budget="10s")
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["asked"]["budget_s"] == 10
    recipe = load_recipe(path)
    for own, given in zip(done.recipe.train.phases, recipe.train.phases, strict=True):
        assert own.epochs == pytest.approx(given.epochs * plan["phase_factor"])
    (group,) = (tmp_path / "run" / "finished").iterdir()
    spent = json.loads((group / "epochs.json").read_text())
    assert spent["time_s"] == pytest.approx(plan["finish_s"], abs=1e-3)
    assert {m.epochs for m in done.weights.finished.by_version.values()} == {spent["epochs"]}
    before, told = made_files(tmp_path / "run"), []
    run(path, out=tmp_path / "run", budget="10s", progress=lambda task, *_: told.append(task))
    assert made_files(tmp_path / "run") == before
    assert set(told) <= {f"export for {FIRST}", "budget"}


def test_a_run_that_began_directly_goes_on_directly(tiny_recipe, recipe_file, tmp_path):
    # Its budget is large, so training alone pays; what the recipe takes without one is little, so it would not.
    train = {**tiny_recipe["train"], "phases": [{"name": "full", "epochs": 0.01, "lr": 0.1}]}
    values = {"objectives": ["top1_percent", "latency_ms"], "finish": {"models": 12, "shared": False}, "train": train}
    context = start_run(load_recipe(recipe_file(**values)), tmp_path / "run").context
    wanted = {d: context.settings(d) for d in context.devices}
    assert make_plan(context, wanted).strategy == "supernet"
    begun = make_plan(context, wanted, budget_s=86400.0)
    assert begun.strategy == "direct"
    write_plan(context, begun)
    found = make_plan(context, wanted)
    assert found.strategy == "direct"
    assert "its budget of 86400 s is not asked for any more" in found.why
    asked = {d: s.model_copy(update={"search": s.search.model_copy(update={"strategy": "supernet"})})
             for d, s in wanted.items()}  # fmt: skip
    assert make_plan(context, asked).strategy == "supernet"


def test_a_budget_cannot_change_how_long_a_supernet_is_trained(copied, again, recipe_file):
    before = made_files(copied)
    changes = {"search": {"strategy": "supernet", "evaluations": 6}, "finish": FINISH}
    with pytest.raises(ResumeError, match=r"with a budget of 50 s there would be .*: leave out --budget, and"):
        run(recipe_file(**changes), out=copied, budget=50)
    assert made_files(copied) == before


def test_a_run_begun_with_a_budget_names_it(recipe_file, tmp_path):
    path, out = recipe_file(devices=[FIRST], search={"strategy": "supernet"}), tmp_path / "run"

    def stopped(task, *_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(path, out=out, budget=9, progress=stopped)
    for budget in (None, 500):
        with pytest.raises(ResumeError, match="give --budget 9s, as it was begun, or use another --out"):
            run(path, out=out, budget=budget)


def test_a_time_for_the_finish_is_planned_with(recipe_file, tmp_path):
    def plan(time_s, **changes):
        finish = {"models": 2, "time_s": time_s, **changes.pop("finish", {})}
        return hwnas.plan(recipe_file(finish=finish, **changes))

    both = 2  # devices
    for strategy in ("supernet", "direct"):
        found = plan(30.0, search={"strategy": strategy})
        assert found.estimated_s["finish"] == pytest.approx(both * 30.0)
        assert plan(60.0, search={"strategy": strategy}).estimated_s["finish"] == pytest.approx(both * 60.0)
    short, long = (plan(t, search={"strategy": "direct"}).direct_epochs for t in (1.0, 100.0))
    assert long > 20 * short, "models that are trained alone get this time, too"
    path = recipe_file(finish={"models": 2, "time_s": 2.0}, search={"strategy": "direct", "evaluations": 2})
    run(path, out=tmp_path / "run")
    before = made_files(tmp_path / "run")
    run(path, out=tmp_path / "run")
    assert made_files(tmp_path / "run") == before


def test_a_device_that_is_added_is_trained_as_long_as_the_run_was_planned(copied):
    open_run(copied).search(devices=["edge-tpu"])
    opened = open_run(copied)
    assert {m.epochs for m in opened.weights.finished.by_version.values()} == {
        round(json.loads((copied / "plan.json").read_text())["direct_epochs"], 2)
    }


def test_what_means_nothing_without_a_supernet_is_refused_not_dropped(copied):
    before = made_files(copied)
    for changes in ({"evaluations": 9}, {"searcher": "random"}):
        with pytest.raises(RecipeError, match=r"has no supernet to search.*search\.strategy=supernet"):
            open_run(copied).search(**changes)
    assert made_files(copied) == before


def test_a_budget_of_a_search_without_a_supernet_is_for_the_training_of_its_models(copied):
    open_run(copied).search(devices=["edge-tpu"], budget="2s")
    assert open_run(copied).settings("edge-tpu").finish.time_s == 2.0
    spent = [json.loads(p.read_text())["time_s"] for p in (copied / "finished").glob("*/epochs.json")]
    assert spent == [2.0]


def test_weights_are_found_that_appear_after_they_were_asked_for(copied):
    opened = open_run(copied)
    assert opened.weights.trained == ""
    opened.train()
    assert opened.weights.trained == open_run(copied).weights.trained != ""


def test_wanted_latencies_that_cannot_be_met_are_named(copied, again, recipe_file, tmp_path):
    with pytest.raises(RecipeError, match=r"finish\.latencies_ms names \['hexagon'\]; devices here are hexagon-dsp"):
        again(tmp_path / "out", finish={**FINISH, "latencies_ms": {"hexagon": [1.0]}})
    assert not (tmp_path / "out").exists()
    with pytest.raises(
        SearchError, match=r"is as fast as 1e-06 ms on hexagon-dsp \(finish\.latencies_ms\); the fastest"
    ):
        again(tmp_path / "out", finish={**FINISH, "latencies_ms": {FIRST: [1e-6]}})
    slowest = max(m.latency_ms for m in open_run(copied).front(FIRST))
    done = again(copied, finish={**FINISH, "latencies_ms": {FIRST: [1e-6, slowest]}})
    assert done.history(FIRST).last.message.endswith("; none within the limits is as fast as 1e-06 ms")
