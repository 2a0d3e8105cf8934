"""The earlier exits of a run's model: attached again, trained, pruned, as a cascade; in Python and on a terminal."""

import json
import shutil

import numpy as np
import pytest
import torch

import hwnas
from hwnas.errors import SearchError
from hwnas.export.onnx_check import OnnxNetwork, session
from hwnas.runs.start import open_run

STAGE = {"width": 8, "stride": 1, "depths": [1, 2], "kernel_sizes": [3], "expand_ratios": [2, 3]}
EXITS = {
    "family": "ofav2", "in_channels": 1, "classes": 10, "resolutions": [8], "stem_width": 8, "stem_stride": 1,
    "first_block": False, "expand_width": 24, "feature_width": 0, "early_exits": True,
    "stages": [STAGE, {**STAGE, "width": 16, "stride": 2}, {**STAGE, "width": 16}],
}  # fmt: skip
DEVICE = "hexagon-dsp"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exits")
    everything = {"depth": "all", "expand_ratio": "all", "exit": "all"}
    recipe = {
        "name": "exits", "devices": [DEVICE], "objectives": ["top1_percent", "latency_ms"],
        "data": {"source": "digits", "max_images": 600}, "supernet": EXITS,
        "train": {"phases": [{"name": "all", "epochs": 6, "lr": 0.05, "exits": "all", "elastic": everything}]},
        "search": {"evaluations": 12}, "finish": {"models": 0}, "finetune": {"epochs": 2, "lr": 0.02},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return hwnas.run(folder / "recipe.yaml", out=folder / "run").folder


@pytest.fixture
def run(trained, tmp_path):
    return open_run(shutil.copytree(trained, tmp_path / "exits"))


def keys_by_exit(run):
    with run.evaluations() as evaluations:
        return {arch["exit"]: arch.key for arch in evaluations.archive.archs()}


def test_exits_are_trained_scored_pruned_and_written(run):
    key = keys_by_exit(run)[3]
    made = run.finetune_exits(key, device=DEVICE, ordering="mix")
    assert made.folder == run.folder / "finetuned" / DEVICE / f"{key}-exits"
    values = json.loads((made.folder / "exits.json").read_text())
    assert {k: v for k, v in values.items() if k != "sha256"} == made.values
    assert [one["exit"] for one in values["exits"]] == [1, 2, 3]
    latencies = [one["latency_ms"] for one in values["exits"]]
    assert latencies == sorted(latencies)
    assert values["pruned"]["validation"] >= max(one["validation"] for one in [*values["exits"], values["together"]])
    assert set(values["pruned"]["exits"]) <= {1, 2, 3}
    # What is written is what was scored.
    with run.evaluations() as evaluations:
        arch = run.find(key, evaluations)
    context = run.context
    assert context.test_scores(OnnxNetwork(made.folder / "pruned.onnx"), arch)["top1_percent"] == pytest.approx(
        values["pruned"]["test"]
    )
    assert [o.name for o in session(made.folder / "exits.onnx").get_outputs()] == ["exit1", "exit2", "exit3"]
    assert len(list((made.folder / "cascade").glob("part*.onnx"))) == 3
    again = run.finetune_exits(key, device=DEVICE)
    assert again.folder.name == f"{key}-exits-2"
    assert not list((run.folder / "finished").glob("exits-*")), "checkpoints are removed"
    hwnas.open_run(run.folder).report()  # the folder is no bundle


def test_cascades_say_what_their_thresholds_give(run):
    made = run.finetune_exits(keys_by_exit(run)[3], device=DEVICE)
    latencies = [one["latency_ms"] for one in made.values["exits"]]
    session_ = session(made.folder / "exits.onnx")
    with run.evaluations() as evaluations:
        arch = run.find(made.values["key"], evaluations)
    x, y = run.context.networks.inputs(run.splits.test, arch).tensors()
    logits = [torch.from_numpy(z).softmax(1) for z in session_.run(None, {"input": x.contiguous().numpy()})]
    for one in made.values["cascades"]:
        at = np.full(len(y), 2)
        for number in (1, 0):
            threshold = one["thresholds"][number]
            if threshold is not None:
                at[(logits[number].max(1).values >= threshold).numpy()] = number
        right = np.mean([int(logits[k][i].argmax()) == int(y[i]) for i, k in enumerate(at)])
        assert one["test"]["top1_percent"] == pytest.approx(100 * right, abs=0.3)
        assert one["test"]["expected_ms"] == pytest.approx(np.mean([latencies[k] for k in at]), rel=2e-3)
    fastest = made.values["cascades"][0]["validation"]
    assert fastest["expected_ms"] == pytest.approx(latencies[0])  # every image leaves at the first exit


def test_a_stopped_training_of_exits_goes_on(run):
    key, calls = keys_by_exit(run)[2], []

    def stop(task, done, total, note=""):
        calls.append((task, done))
        if task == "finetune" and done == total - 1:
            raise KeyboardInterrupt

    values = run.recipe.finetune.model_copy(update={"checkpoint_every_s": 1e-9})
    run.context.progress = stop
    with pytest.raises(KeyboardInterrupt):
        run.finetune_exits(key, config=values, device=DEVICE)
    steps = []
    run.context.progress = lambda task, done, total, note="": steps.append(done) if task == "finetune" else None
    found = run.finetune_exits(key, config=values, device=DEVICE)
    assert len(steps) <= 2
    assert len(found.values["exits"]) == 2


def test_what_has_no_earlier_exits_is_said(run, copied):
    with pytest.raises(SearchError, match="ends at the first exit"):
        run.finetune_exits(keys_by_exit(run)[1])
    plain = open_run(copied)
    with pytest.raises(SearchError, match=r"has one exit: family 'mbv3' has no early exits .* without --exits"):
        plain.finetune_exits(plain.front(DEVICE)[0].key)


def test_the_command_says_what_exits_give(run, hwnas_command):
    key = keys_by_exit(run)[3]
    words = ("finetune", run.folder, key, "optimiser=adamw", "two_step=true", "--lr", "0.002", "--exits")
    code, out, err = hwnas_command(*words)
    assert code == 0, err
    for text in ("exit 1 alone", "all together", "pruned to", "cascades:", "judge by the test images", "folder: "):
        assert text in out
    code, out, _ = hwnas_command(*words, "--json")
    assert code == 0
    assert json.loads(out)["trained_on_validation"]
    code, _, err = hwnas_command("finetune", run.folder, key, "two_stp=true")
    assert code == 2
    assert "did you mean 'two_step'?" in err


@pytest.mark.parametrize("change", ["optimiser=adamw", "two_step=true"])
def test_natv2s_settings_are_given_on_the_command_line(copied, hwnas_command, change):
    key = open_run(copied).front(DEVICE)[0].key
    code, out, err = hwnas_command("finetune", copied, key, change, "--epochs", "2", "--lr", "0.002")
    assert code == 0, err
    assert "bundle: " in out
