"""Supernet quality: inherited against alone, by hand; what was trained is not trained again."""

import json
import shutil

import numpy as np
import pytest
from scipy.stats import kendalltau
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.data import as_input
from hwnas.runs.analysis import quality
from hwnas.runs.start import open_run
from hwnas.train import top1_percent


@pytest.fixture(scope="module")
def folder(finished_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("quality") / "run"
    shutil.copytree(finished_run, path)
    return path


@pytest.fixture(scope="module")
def found(folder):
    return quality.supernet_quality(open_run(folder), 3, 0.5)


def test_inherited_accuracies_are_those_of_calibrated_subnets(folder, found):
    run = open_run(folder)
    for one, arch in zip(found.subnets, quality.draw(run, 3, 0), strict=True):
        x = as_input(run.splits.test.images, arch["resolution"], *run.splits.mean_std)
        net = run.evaluator.subnet(arch)
        assert one.key == arch.key
        assert one.resolution_px == arch["resolution"]
        assert one.inherited_percent == top1_percent(net, x, run.splits.test.labels)
        assert one.params == sum(p.numel() for p in net.parameters())


def test_gap_and_rank_by_hand(found):
    inherited, alone = (np.array([getattr(q, f"{k}_percent") for q in found.subnets]) for k in ("inherited", "alone"))
    assert found.mean_gap_percent == pytest.approx(np.mean(alone - inherited))
    assert found.kendall_tau == pytest.approx(kendalltau(inherited, alone).statistic, nan_ok=True)


def test_networks_trained_alone_are_kept_by_their_settings(folder, found, monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError("trained again")

    monkeypatch.setattr(quality, "finetune", refuse)
    run = open_run(folder)
    assert quality.supernet_quality(run, 3, 0.5) == found
    assert quality.supernet_quality(run, 2, 0.5).subnets == found.subnets[:2], "fewer are the first of more"
    with pytest.raises(AssertionError, match="trained again"):
        quality.supernet_quality(run, 1, 0.7)


def test_the_command_prints_what_was_found(folder, found):
    arguments = ["bench", "supernet", str(folder), "--subnets", "3", "--epochs", "0.5"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(done.stdout) == json.loads(json.dumps(quality.as_json(found)))
    text = CliRunner().invoke(app, arguments).stdout
    assert found.subnets[0].key in text
    assert f"mean gap {found.mean_gap_percent:+.3f} points" in text
