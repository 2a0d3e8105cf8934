"""Is it said where a supernet has learnt too little for its networks to be ranked?"""

import json
import math
from dataclasses import replace

import pytest
import torch

from hwnas.data import ImageSet, Splits
from hwnas.runs.learnt import blind_score
from hwnas.task.classification import CLASSIFICATION


def splits(task, train, validation):
    train, validation = (ImageSet(torch.zeros(len(y), 1, 2, 2, dtype=torch.uint8), y) for y in (train, validation))
    return Splits("by hand", ("a", "b", "c"), train, validation, validation, task)


def test_the_blind_answer_of_a_classifier_is_the_most_frequent_class_of_the_training():
    data = splits(CLASSIFICATION, torch.tensor([2, 2, 1, 0]), torch.tensor([1, 2, 1, 2, 2]))
    assert blind_score(data, 3) == (pytest.approx(60.0), pytest.approx(100 * math.sqrt(0.6 * 0.4 / 5)))
    assert blind_score(data, 3, images=2)[0] == pytest.approx(50.0)


def test_a_task_whose_outputs_are_not_its_targets_has_no_blind_answer():
    data = splits(CLASSIFICATION, torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0], [2.0]]))
    assert all(math.isnan(v) for v in blind_score(data, 2)), "such as a mean and its uncertainty for one value"


def test_a_supernet_that_has_learnt_is_searched_without_a_word(again, tiny_recipe, tmp_path):
    phase = {**tiny_recipe["train"]["phases"][1], "epochs": 8, "lr": 0.1, "teacher": "none"}
    data = {**tiny_recipe["data"], "max_images": 400}
    train = {**tiny_recipe["train"], "phases": [phase], "checkpoint_every_s": 100.0}
    run = again(tmp_path / "run", data=data, train=train, devices=["hexagon-dsp"])
    assert run.searched_device("hexagon-dsp").not_learnt == ""


@pytest.mark.parametrize("objectives", [["top1_percent", "latency_ms"], ["params", "latency_ms"]])
def test_a_supernet_that_has_learnt_nothing_is_named(again, tiny_recipe, tmp_path, objectives, hwnas_command):
    train = {**tiny_recipe["train"], "phases": [{**p, "lr": 1e-30} for p in tiny_recipe["train"]["phases"]]}
    search = {**tiny_recipe["search"], "algorithm": "nsga2"}
    run = again(tmp_path / "run", train=train, search=search, devices=["hexagon-dsp"], objectives=objectives)
    (device,) = map(run.searched_device, run.searched())
    if "top1_percent" not in objectives:  # by what needs no training: nothing is wrong then
        assert device.warnings == ()
        return
    assert "one answer for every image has" in device.not_learnt
    assert "epochs" in device.not_learnt
    assert device.warnings[0] == device.not_learnt
    code, out, err = hwnas_command("pareto", run.folder)
    assert code == 0
    assert f"warning: hexagon-dsp: {device.not_learnt}" in err
    code, out, err = hwnas_command("pareto", run.folder, "--json")
    assert json.loads(out)["warnings"] == {"hexagon-dsp": [device.not_learnt]}
    assert err == ""
    assert device.not_learnt in run.report().read_text(encoding="utf-8")
    assert replace(device, not_learnt="").warnings == device.warnings[1:]


def test_options_that_no_phase_has_trained_are_not_searched(again, tiny_recipe, tmp_path):
    phase = {"name": "kernels", "epochs": 1, "lr": 0.1, "elastic": {"kernel_size": "all"}}
    train = {**tiny_recipe["train"], "phases": [phase]}
    run = again(tmp_path / "run", train=train, devices=["hexagon-dsp"])
    with run.archive() as archive:
        archs = archive.requested([run.history("hexagon-dsp").last.search])
    assert len(archs) == 8
    assert {(a["stage1.depth"], a["stage2.depth"], a["stage1.block1"][1]) for a in archs} == {(2, 2, 2)}
    assert len({a["stage1.block1"] for a in archs}) == 2, "kernels differ"
    assert "stage1.block1, stage1.block2, stage1.depth and 3 more choices that no phase" in (
        run.history("hexagon-dsp").last.message
    )
    # A run goes on with what it knew: such archs are no start for a search that leaves them out.
    run.search(["hexagon-dsp"], evaluations=12)
    assert run.history("hexagon-dsp").last.known == 8
