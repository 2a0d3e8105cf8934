"""A model of a run is trained on, into a bundle of its own."""

import hashlib
import math
import shutil

import pytest
import torch
from run_files import Stop, rows_of

import hwnas
from hwnas.errors import ResumeError
from hwnas.export.bundle import Bundle
from hwnas.runs.analysis.stages import stages_of
from hwnas.runs.start import open_run


def digests(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def fronts(folder):
    return {p.parent.name: p.read_bytes() for p in folder.glob("devices/*/front.csv")}


def test_a_model_is_fine_tuned_into_a_new_bundle(copied):
    opened = open_run(copied)
    model = opened.front("myriad-vpu")[0]
    before = digests(copied)
    result, bundle = opened.finetune(model.key[:8], copied / "finetuned" / "x", device="myriad-vpu")
    metrics = bundle.metrics
    assert metrics["key"] == model.key
    assert metrics["top1_before_percent"] == pytest.approx(model.values["top1_percent"], rel=1e-5)
    assert metrics["top1_percent"] == pytest.approx(result.score)
    assert metrics["top1_percent"] >= metrics["top1_before_percent"]
    assert metrics["latency_ms"] == pytest.approx(model.values["latency_ms"], rel=1e-5)
    assert metrics["device"] == "myriad-vpu"
    assert math.isfinite(metrics["test_top1_percent"])
    net = hwnas.load_model(bundle.folder)
    with opened.archive() as archive:
        x = opened.context.trained_evaluator.inputs(opened.splits.validation, archive.find(model.key))
    with torch.no_grad():
        assert torch.equal(net(x), result.network(x))
    after = {k: v for k, v in digests(copied).items() if not k.startswith("finetuned")}
    # The model stands on the fronts where it is better, and the page shows it at once.
    shown = ("archive.db", "report.html", "fronts.png", "progress.jsonl", "devices/", "finished/")
    assert {k: v for k, v in after.items() if not k.startswith(shown)} == {
        k: v for k, v in before.items() if not k.startswith(shown)
    }
    with pytest.raises(ResumeError, match=r"no single model 'zzz' in .*; keys of its fronts are"):
        opened.finetune("zzz", copied / "finetuned" / "y")


def test_a_model_that_became_better_stands_on_the_front_with_its_parent(copied):
    opened = open_run(copied)
    before, model = fronts(copied), opened.front("myriad-vpu")[0]
    result, bundle = opened.finetune(model.key, device="myriad-vpu", epochs=12, lr=0.05)
    assert result.best_epoch > 0, "twelve epochs make any of these models better"
    version = bundle.metrics["weights_version"]
    (row,) = [r for r in rows_of(copied, "myriad-vpu") if r["key"] == model.key]
    assert row["weights_version"] == version
    assert float(row["top1_percent"]) == pytest.approx(result.score, rel=1e-5)
    assert float(row["top1_inherited_percent"]) == pytest.approx(result.score_before, rel=1e-5)
    again = open_run(copied)
    kept = again.weights.finished.by_version[version]
    assert (kept.parent, kept.finetuned) == (opened.weights.trained, True)
    exported = Bundle(again.front("myriad-vpu").select(model.key[:8])[0].folder)
    assert exported.metrics["weights_version"] == version
    assert exported.metrics["test_top1_percent"] == bundle.metrics["test_top1_percent"]
    assert fronts(copied) != before
    assert not list(copied.rglob("checkpoint*.safetensors")), "nothing of the training is left"
    # The same command as ever changes nothing, and a second fine-tuning begins with the first.
    standing = fronts(copied)
    again.search()
    assert fronts(copied) == standing
    second, _ = open_run(copied).finetune(model.key, device="myriad-vpu", epochs=2, lr=0.01)
    assert second.score_before == pytest.approx(result.score)
    page = (copied / "report.html").read_text()
    assert "fine-tuned" in page
    with open_run(copied).evaluations() as evaluations:
        front = open_run(copied).front("myriad-vpu")
        names = [s.name for s in stages_of(evaluations, front.select(model.key[:8])[0])]
    assert names[:2] == ["as the supernet gave it", "fine-tuned"]


def test_a_model_that_no_epoch_made_better_leaves_the_run_as_it_was(copied):
    opened = open_run(copied)
    before, model = fronts(copied), opened.front("myriad-vpu")[-1]
    result, bundle = opened.finetune(model.key, device="myriad-vpu", epochs=1, lr=1e-30)
    assert result.best_epoch == 0
    assert "weights_version" not in bundle.metrics
    assert fronts(copied) == before
    assert not list(copied.glob("finished/*"))


def test_a_fine_tuning_that_was_stopped_goes_on(copied, tmp_path):
    other = shutil.copytree(copied, tmp_path / "other")
    key = open_run(copied).front("myriad-vpu")[0].key
    whole, _ = open_run(copied).finetune(key, device="myriad-vpu", epochs=8, lr=0.05)
    told = []

    def stop(task, done, total, note=""):
        if task == "finetune":
            told.append(done)
            if len(told) == 9:
                raise Stop

    config = open_run(other).recipe.finetune.model_copy(update={"checkpoint_every_s": 1e-9})
    with pytest.raises(Stop):
        open_run(other, stop).finetune(key, config=config, device="myriad-vpu", epochs=8, lr=0.05)
    steps = []
    again, _ = open_run(other, lambda task, done, *_: task == "finetune" and steps.append(done)).finetune(
        key, config=config, device="myriad-vpu", epochs=8, lr=0.05
    )
    assert steps[0] > told[-1] - 2, "it did not begin anew"
    assert again.score == whole.score
    continued = again.network.state_dict()
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, continued[name]), name
