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
from hwnas.train import scores


@pytest.fixture(scope="module")
def folder(finished_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("quality") / "run"
    shutil.copytree(finished_run, path)
    return path


@pytest.fixture(scope="module")
def found(folder):
    return open_run(folder).supernet_quality(3, 0.5)


def test_inherited_accuracies_are_those_of_calibrated_subnets(folder, found):
    run = open_run(folder)
    for one, arch in zip(found.subnets, quality.draw(run.context, 3, 0), strict=True):
        x = as_input(run.splits.test.images, arch["resolution"], *run.splits.mean_std)
        net = run.context.trained_evaluator.subnet(arch)
        assert one.key == arch.key
        assert one.resolution_px == arch["resolution"]
        wanted = scores(net, x, run.splits.test.labels, run.splits.task)
        assert (one.inherited, one.inherited_stderr) == (wanted["top1_percent"], wanted["top1_stderr_percent"])
        assert one.params == sum(p.numel() for p in net.parameters())


def test_gap_and_rank_by_hand(found):
    inherited, alone = (np.array([getattr(q, k) for q in found.subnets]) for k in ("inherited", "alone"))
    assert found.mean_gap == pytest.approx(np.mean(alone - inherited))
    assert found.kendall_tau == pytest.approx(kendalltau(inherited, alone).statistic, nan_ok=True)


def test_networks_trained_alone_are_kept_by_their_settings(folder, found, monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError("trained again")

    monkeypatch.setattr(quality, "finetune", refuse)
    run = open_run(folder)
    assert run.supernet_quality(3, 0.5) == found
    assert run.supernet_quality(2, 0.5).subnets == found.subnets[:2], "fewer are the first of more"
    with pytest.raises(AssertionError, match="trained again"):
        run.supernet_quality(1, 0.7)


def test_the_command_prints_what_was_found(folder, found):
    arguments = ["bench", "supernet", str(folder), "--subnets", "3", "--epochs", "0.5"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(done.stdout) == json.loads(json.dumps(found.as_dict(), allow_nan=False))
    text = CliRunner().invoke(app, arguments).stdout
    assert found.subnets[0].key in text
    assert f"mean gap {found.mean_gap:+.3f} %" in text


def test_ranks_are_compared_among_subnets_of_equal_latency():
    a, b = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([1.0, 3.0, 2.0, 5.0, 4.0])
    assert quality.tau_in_bands(a, b) == pytest.approx(kendalltau(a, b).statistic)
    ms = np.array([1.0, 1.05, 1.08, 2.0, 2.1])  # pairs 12, 13, 23 and 45: two in order, two not
    assert quality.tau_in_bands(a, b, ms) == pytest.approx(0.0)
    assert np.isnan(quality.tau_in_bands(a, b, np.array([1.0, 2.0, 4.0, 8.0, 16.0])))
    tied = np.array([1.0, 1.0, 2.0, 2.0, 3.0])
    assert quality.tau_in_bands(tied, b) == pytest.approx(kendalltau(tied, b).statistic)


def test_finished_subnets_are_ranked_too(folder):
    run = open_run(folder)
    found = run.supernet_quality(3, 0.5, finish_epochs=0.5, device="hexagon-dsp")
    finished = np.array([q.finished for q in found.subnets])
    alone = np.array([q.alone for q in found.subnets])
    assert found.ranking.finished_tau == pytest.approx(kendalltau(finished, alone).statistic, nan_ok=True)
    assert found.ranking.device == "hexagon-dsp"
    assert 0 <= found.ranking.n_pairs <= 3
    again = open_run(folder).supernet_quality(3, 0.5, finish_epochs=0.5, device="hexagon-dsp")
    assert again.as_dict() == found.as_dict()
    text = (
        CliRunner()
        .invoke(app, ["bench", "supernet", str(folder), "--subnets", "3", "--epochs", "0.5", "--finish-epochs", "0.5"])
        .stdout
    )
    assert "Kendall's tau of finished subnets" in text
