"""A model of a run is trained on, into a bundle of its own."""

import hashlib
import math

import pytest
import torch

import hwnas
from hwnas.errors import ResumeError
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
    shown = ("archive.db", "report.html", "fronts.png", "progress.jsonl")  # the page shows the model at once
    assert {k: v for k, v in after.items() if not k.startswith(shown)} == {
        k: v for k, v in before.items() if not k.startswith(shown)
    }
    with pytest.raises(ResumeError, match=r"no single model 'zzz' in .*; keys of its fronts are"):
        opened.finetune("zzz", copied / "finetuned" / "y")
