"""HURRICANE as one command: operators by device, later stages, then earlier ones, each searched under its latencies."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from run_files import Stop, made_files, rows_of

import hwnas
from hwnas.errors import RecipeError, SearchError
from hwnas.progress import silent
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Candidate
from hwnas.runs.folder import RunFolder
from hwnas.runs.history import read_history
from hwnas.runs.recipe import load_recipe
from hwnas.runs.staged import operators_of, target_latencies
from hwnas.runs.start import open_run, plan, run, start_run
from hwnas.search.operators import keep_operators, operators_table
from hwnas.space import SearchSpace
from hwnas.supernet import build_supernet
from hwnas.train.checkpoint import load_tensors

FIRST, SECOND = "cortex-a76-cpu", "myriad-vpu"
TARGETS = {FIRST: [0.012, 0.02], SECOND: [1.35]}
LATER, EARLIER = ["stage2.layer1", "stage2.layer2"], ["stage1.layer1", "stage1.layer2"]
VALUES = {
    "name": "staged",
    "devices": [FIRST, SECOND],
    "objectives": ["top1_percent", "latency_ms", "params"],
    "data": {"source": "digits", "max_images": 150, "augment": {"shift_percent": 8}},
    "supernet": {
        "family": "hurricane", "in_channels": 1, "classes": 10, "resolutions": [8, 10], "stem_width": 8,
        "stem_stride": 1, "feature_width": 24,
        "pool": {"operators": ["separable", "shuffle", "mbconv"], "expand_ratios": [1, 3], "kernel_sizes": [3, 5]},
        "stages": [{"width": 8, "stride": 2, "layers": 2}, {"width": 16, "stride": 1, "layers": 2}],
    },
    "train": {
        "batch_size": 25, "clip_grad_norm": 5,
        "phases": [
            {"name": "later", "epochs": 2, "lr": 0.1, "open_stages": [2],
             "elastic": {"operator": "all", "expand_ratio": "all", "kernel_size": "all", "se": "all"}},
            {"name": "earlier", "epochs": 1, "lr": 0.1, "open_stages": [1],
             "elastic": {"operator": "all", "expand_ratio": "all", "kernel_size": "all", "se": "all"}},
        ],
    },
    "search": {"strategy": "staged", "operators_kept": 3, "algorithm": "nsga2", "evaluations": 24},
    "finish": {"models": 2, "epochs": 1, "latencies_ms": TARGETS},
    "export": {"front_size": 4},
}  # fmt: skip


@pytest.fixture
def staged_file(tmp_path):
    def write(**changes):
        path = tmp_path / "staged.yaml"
        path.write_text(yaml.safe_dump({**VALUES, **changes}))
        return path

    return write


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A whole run; copy it before changing it."""
    folder = tmp_path_factory.mktemp("staged")
    (folder / "staged.yaml").write_text(yaml.safe_dump(VALUES))
    run(folder / "staged.yaml", out=folder / "run")
    return folder / "run"


@pytest.fixture
def copied(done, tmp_path):
    return shutil.copytree(done, tmp_path / "copy")


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "staged.yaml"
    path.write_text(yaml.safe_dump(VALUES))
    return RunContext(RunFolder(path.parent / "run"), load_recipe(path))


def searches(folder, device):
    return read_history(RunFolder(folder).device(device)).searches


def tiny_space():
    return SearchSpace.of_choices({"size": [1, 2], "layer": ["a", "b", "c", "d"]}, stages=[["layer"]])


def test_a_layer_keeps_the_cheapest_operator_and_those_of_least_cost_for_their_capacity():
    cost = {"layer": np.array([1.0, 4.0, 2.0, 8.0])}
    macs, params = {"layer": np.array([1.0, 40.0, 5.0, 50.0])}, {"layer": np.array([1.0, 10.0, 5.0, 10.0])}
    found = keep_operators(tiny_space(), cost, (macs, params), 2, "latency_ms")
    relative = cost["layer"] / 8
    wanted = relative / ((macs["layer"] / 50 + params["layer"] / 10) / 2)
    np.testing.assert_allclose(found.score[1], wanted)
    assert [found.kept[0].tolist(), found.kept[1].tolist()] == [[0, 1], [0, 1]]  # a is the cheapest, b the best
    assert keep_operators(tiny_space(), cost, (macs, params), 3, "ms").kept[1].tolist() == [0, 1, 2]
    assert keep_operators(tiny_space(), cost, (macs, params), 9, "ms").kept[1].tolist() == [0, 1, 2, 3]
    assert keep_operators(tiny_space(), cost, (macs, params), 1, "ms").kept[1].tolist() == [0]
    table = operators_table(found)
    assert "a 1 (" in table
    assert "2 of 2 to 8" in table
    assert "size" not in table


def test_operators_are_those_of_their_own_layer_on_their_own_device(context):
    for name in (FIRST, SECOND):
        device = context.devices[name]
        found = operators_of(context, device, 3)
        for i, choice in enumerate(context.layout.space.choices[1:], 1):
            slot = next(s for s in context.layout.slots if choice.name in s.choices)
            by_hand = np.array([
                np.mean([device.block_ms(slot.spec(r, o)) for r in (8, 10)]) for o in choice.options
            ])  # fmt: skip
            np.testing.assert_allclose(found.cost[i], by_hand)
            assert len(found.kept[i]) == 3
            assert int(np.argmin(by_hand)) in found.kept[i]
    assert len(context.layout.space["stage1.layer1"].options) == 16


def test_each_device_has_a_table_of_its_operators_a_training_a_stage_and_a_search_a_latency(done):
    assert not (done / "train").exists()
    for name, targets in TARGETS.items():
        folder = done / "devices" / name
        assert len((folder / "operators.txt").read_text().splitlines()) == 2 + 4
        records = searches(done, name)
        asked = [(r.settings["stage"], r.settings["latency_ms"]) for r in records]
        assert asked == [(1, t) for t in targets] + [(2, t) for t in targets]
        assert len({r.adapted[0].weights_version for r in records if r.settings["stage"] == 1}) == 1, "trained once"
        size = 24 // (2 * len(targets))
        assert all(0 < r.evaluations <= size for r in records)


def test_other_layers_stand_still_while_a_stage_is_trained_and_searched(done, context):
    opened = open_run(done)
    for name in TARGETS:
        kept = operators_of(context, context.devices[name], 3)
        allowed = {c.name: set(c.options) for c in kept.restricted.choices}
        with opened.archive() as archive:
            for record in searches(done, name):
                archs = archive.requested([record.search])
                held, free = (EARLIER, LATER) if record.settings["stage"] == 1 else (LATER, EARLIER)
                assert len({tuple(a[c] for c in held) for a in archs}) == 1
                assert len({tuple(a[c] for c in free) for a in archs}) > 1
                assert all(a[c] in allowed[c] for a in archs for c in (*held, *free))
                ms = context.devices[name].compile(context.layout).of_archs(archs)
                assert (ms <= record.settings["latency_ms"]).any()


def test_the_second_stage_holds_the_winner_of_the_first_and_begins_with_its_weights(done):
    opened = open_run(done)
    first, second = searches(done, SECOND)
    latency, target = opened.devices[SECOND].compile(opened.layout), TARGETS[SECOND][0]
    version = first.adapted[0].weights_version
    with opened.evaluations() as evaluations:
        archs = evaluations.archive.requested([first.search])
        ms = latency.of_archs(archs)
        top1 = [evaluations.known(Candidate(a, version))["top1_percent"] for a in archs]
        rows = [i for i in range(len(archs)) if ms[i] <= target]
        best = archs[min(rows, key=lambda i: (-top1[i], ms[i]))]
        held = evaluations.archive.requested([second.search])[0]
        assert [held[c] for c in LATER] == [best[c] for c in LATER]
        assert second.settings["before"] == [best.key]
        again = evaluations.known(Candidate(best, second.adapted[0].weights_version))
        assert "top1_percent" in again, "the winner is compared with the new weights, too"
    folder = done / "devices" / SECOND
    one, two = (load_tensors(folder / r.adapted[0].folder / "supernet.safetensors")[0] for r in (first, second))
    fresh = build_supernet(load_recipe(done / "recipe.yaml").supernet, 0).state_dict()
    learnt = {n for n in one if n.endswith("weight") and not torch.equal(one[n], fresh[n])}
    kept = {n for n in learnt if torch.equal(one[n], two[n])}
    assert kept, "operators of later layers that did not win keep what they learnt"
    assert all("stage2" in n for n in kept)
    moved = {n for n in two if n.endswith("weight") and not torch.equal(one[n], two[n])}
    assert any("stage1" in n and n not in learnt for n in moved), "operators of earlier layers learn now"


def test_the_front_has_the_best_that_any_stage_found_under_each_latency(done):
    opened = open_run(done)
    finished = opened.weights.finished.by_version
    with opened.evaluations() as evaluations:
        for name, targets in TARGETS.items():
            latency = opened.devices[name].compile(opened.layout)
            versions = {r.adapted[0].weights_version for r in searches(done, name)}
            found = [
                (evaluations.known(Candidate(a, v))["top1_percent"], float(ms), a.key)
                for v in versions
                for archs in [evaluations.evaluated(v, ["top1_percent"])]
                for a, ms in zip(archs, latency.of_archs(archs), strict=True)
            ]
            parents = {(m.key, m.parent) for m in finished.values() if m.parent in versions}
            for target in targets:
                best = max(top1 for top1, ms, _ in found if ms <= target)
                keys = {key for top1, ms, key in found if ms <= target and top1 == best}
                assert keys & {key for key, _ in parents}, (name, target)
            rows = rows_of(done, name)
            assert rows
            assert {r["weights_version"] for r in rows} <= set(finished)
            assert (done / "devices" / name / "models" / rows[0]["key"] / "model.onnx").exists()
    assert "cortex-a76-cpu" in (done / "report.html").read_text()


def test_a_second_start_computes_nothing_and_changes_nothing(copied, staged_file):
    before, told = made_files(copied), []
    run(staged_file(), out=copied, progress=lambda task, *_: told.append(task))
    assert made_files(copied) == before
    assert not [t for t in told if t.startswith(("stage ", "search", "finish"))]


@pytest.mark.parametrize("at", ["search for cortex-a76-cpu", "stage 2 (earlier) for"])
def test_a_run_that_was_stopped_goes_on_to_the_same_files(at, done, staged_file, tmp_path):
    def stopping(task, step, total, note=""):
        if task.startswith(at) and step >= 3:
            raise Stop

    with pytest.raises(Stop):
        run(staged_file(), out=tmp_path / "run", progress=stopping)
    run(staged_file(), out=tmp_path / "run")
    assert made_files(tmp_path / "run") == made_files(done)


def test_another_device_is_added_and_the_others_stay(copied):
    before = made_files(copied)
    open_run(copied).search(devices=["edge-tpu"], evaluations=8)
    after = made_files(copied)
    assert all(after[name] == data for name, data in before.items())
    records = searches(copied, "edge-tpu")
    assert [r.settings["stage"] for r in records] == [1, 1, 2, 2]  # two models are wanted, so two latencies
    rows = rows_of(copied, "edge-tpu")
    assert rows
    opened = open_run(copied)
    assert opened.devices["edge-tpu"].profile.precision == "int8"
    with opened.evaluations() as evaluations:  # searched and chosen by what the device will compute
        seen = evaluations.of_device("edge-tpu")
        for record in records:
            arch = evaluations.archive.requested([record.search])[0]
            candidate = Candidate(arch, record.adapted[0].weights_version)
            assert "top1_percent" in seen.known(candidate)


def test_an_arch_that_is_on_no_front_leaves_with_weights_that_have_seen_it(copied):
    opened = open_run(copied)
    first = searches(copied, FIRST)[0]
    on_front = {m.key for m in opened.front(FIRST)}
    with opened.evaluations() as evaluations:
        arch = next(a for a in evaluations.archive.requested([first.search]) if a.key not in on_front)
        versions = [
            v for v in opened.weights.of_device(FIRST)
            if evaluations.known(Candidate(arch, v))
        ]  # fmt: skip
        assert opened.candidate(FIRST, arch, evaluations).weights_version == versions[-1]
    result, _ = opened.finetune(
        arch.key, epochs=1, device=FIRST
    )  # the largest net was never trained: it does not teach
    assert np.isfinite(result.score)


def test_operators_are_shown_before_anything_is_trained(staged_file, hwnas_command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = staged_file()
    code, out, _ = hwnas_command("operators", path, "--devices", FIRST, "--keep", "2")
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.startswith("stage")]
    assert len(rows) == 4
    found = hwnas.operators(path, devices=[FIRST], keep=2)[FIRST]
    assert all(len(k) == 2 for k in found.kept[1:])
    layer = found.space.choices[1]
    for j in found.kept[1]:
        assert "-".join(str(part) for part in layer.options[j] if part is not None) in " ".join(rows[0])
    code, out, _ = hwnas_command("operators", path, "--json")
    read = json.loads(out)
    assert list(read) == [FIRST, SECOND]
    assert len(read[FIRST]["stage1.layer1"]) == 16
    assert sum(row["kept"] for row in read[FIRST]["stage1.layer1"]) == 3
    assert not (tmp_path / "runs").exists()


def test_target_latencies_are_asked_for_or_spread(context):
    settings = context.recipe_settings(FIRST, FIRST)
    device = context.devices[FIRST]
    assert target_latencies(settings, device, 1.0, 8.0) == TARGETS[FIRST]
    free = settings.model_copy(update={"finish": settings.finish.model_copy(update={"latencies_ms": {}})})
    assert target_latencies(free, device, 1.0, 8.0) == [2.0, 4.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {**VALUES["train"], "phases": [{**VALUES["train"]["phases"][0], "open_stages": []}]}},
         r"each phase of train opens .*the phases open \{'later': \[\]\}"),
        ({"train": {**VALUES["train"], "phases": [VALUES["train"]["phases"][0]] * 2}}, "each once"),
        ({"search": {**VALUES["search"], "adaptation": {}}}, "staged trains in its own order"),
    ],
    ids=["no-stages", "twice", "adaptation"],
)  # fmt: skip
def test_mistakes_are_found_before_anything_is_written(changes, message, staged_file, tmp_path):
    with pytest.raises(RecipeError, match=message):
        run(staged_file(**changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_latency_that_no_network_reaches_is_named_with_the_fastest(staged_file, tmp_path):
    finish = {**VALUES["finish"], "latencies_ms": {FIRST: [0.001]}}
    with pytest.raises(
        SearchError, match=r"no arch of this space is as fast as 0\.001 ms on cortex-a76-cpu .*the fastest takes 0\.0"
    ):
        run(staged_file(finish=finish), out=tmp_path / "run")
    started = start_run(staged_file(finish=finish), out=tmp_path / "other")
    with pytest.raises(
        SearchError, match=r"no network of cortex-a76-cpu is as fast as 0\.001 ms .*the fastest takes 0\.0"
    ):
        started.search(devices=[FIRST])


def test_there_is_no_supernet_to_train_alone_and_no_budget(staged_file, tmp_path):
    with pytest.raises(RecipeError, match=r"stage by stage .*use `hwnas run`"):
        start_run(staged_file(), out=tmp_path / "run").train()
    with pytest.raises(RecipeError, match="a budget does not divide a staged training"):
        run(staged_file(), out=tmp_path / "other", budget="1min")


def test_the_plan_counts_every_training(staged_file):
    one = plan(staged_file(devices=[SECOND], finish={**VALUES["finish"], "latencies_ms": {SECOND: TARGETS[SECOND]}}))
    both = plan(staged_file())
    assert one.strategy == both.strategy == "staged"
    phases = VALUES["train"]["phases"]
    first = plan(
        staged_file(
            devices=[SECOND], finish={**VALUES["finish"], "latencies_ms": {SECOND: TARGETS[SECOND]}},
            train={**VALUES["train"], "phases": phases[:1]},
        )
    )  # fmt: skip
    second = one.train_gmacs - first.train_gmacs
    assert second > 0
    assert both.train_gmacs == pytest.approx(2 * first.train_gmacs + 3 * second)


def test_the_shipped_recipes_are_stages(tmp_path):
    for name in ("mnist-hurricane", "hurricane-imagenet"):
        recipe = load_recipe(name)
        assert recipe.search.strategy == "staged"
        context = RunContext(RunFolder(tmp_path / name), recipe, silent)
        for device in recipe.devices:
            kept = operators_of(context, context.devices[device], recipe.search.operators_kept)
            targets = recipe.finish.latencies_ms[device]
            latency = context.devices[device].compile(context.layout)
            genome = [int(k[np.argmin(c[k])]) for k, c in zip(kept.kept, kept.cost, strict=True)]
            assert float(latency.of_archs([context.layout.space.decode(genome)])[0]) < min(targets)
