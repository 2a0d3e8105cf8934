"""Evaluations on many workers: the same archive as from one process, also where workers are lost."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

import hwnas
from hwnas.errors import PluginError, RecipeError, WorkerError
from hwnas.runs.evaluations import Candidate
from hwnas.runs.workers import Processes
from hwnas.testing.executor import ExecutorTests


class TestProcesses(ExecutorTests):
    shared = Processes(2)

    def make(self):
        return self.shared


@pytest.mark.slow
class TestRay(ExecutorTests):
    def make(self):
        pytest.importorskip("ray", reason="the extra ray is part of the dev extra")
        from hwnas.runs.workers import Ray

        return Ray()


def lost_once(item):
    """The worker of item 2 is killed, as by the system when memory is short; the second one is not."""
    folder, number = item
    if number == 2 and not (Path(folder) / "lost").exists():
        (Path(folder) / "lost").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def always_lost(item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_lost_worker_had_is_done_again(tmp_path):
    items = [(str(tmp_path), n) for n in range(5)]
    assert list(Processes(2).map(lost_once, items)) == [0, 1, 2, 3, 4]
    assert (tmp_path / "lost").exists()


def test_an_item_that_ends_its_workers_is_given_up():
    with pytest.raises(WorkerError, match="the worker of 'an arch' was lost 2 times; is there enough memory for it"):
        list(Processes(1).map(always_lost, ["an arch"]))


def gpu_seen(item):
    time.sleep(0.3)  # long enough that both workers get some
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_each_worker_sees_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,8")
    executor = Processes(gpus=2)
    assert executor.workers == 2
    assert set(executor.map(gpu_seen, range(12))) == {"4", "7"}
    assert set(Processes(1).map(gpu_seen, range(1))) == {"4,7,8"}


def archive_of(folder, device):
    run = hwnas.open_run(folder)
    with run.evaluations() as evaluations:
        weights = evaluations.weights.trained
        return {
            arch.key: evaluations.known(Candidate(arch, weights))
            for arch in evaluations.evaluated(weights, ["top1_percent"])
        }


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_a_search_on_workers_finds_the_same_archive(executor, copied, recipe_file, tmp_path):
    if executor == "ray":
        pytest.importorskip("ray", reason="the extra ray is part of the dev extra")
    found = []
    for name in ("this-process", executor):
        folder = tmp_path / name
        shutil.copytree(copied, folder)
        (folder / "archive.db").unlink()
        shutil.rmtree(folder / "devices")
        run = hwnas.open_run(folder, executor=name)
        (device,) = list(run.devices)[:1]
        run.search([device], evaluations=8)
        found.append(archive_of(folder, device))
    assert len(found[0]) >= 8
    assert found[0].keys() == found[1].keys()
    for key, values in found[0].items():
        assert found[1][key] == pytest.approx(values, rel=1e-6), key


def test_what_cannot_be_an_executor_is_named(copied):
    with pytest.raises(RecipeError, match="are of no executor; name it, such as --executor ray"):
        hwnas.open_run(copied, executor_options={"workers": 2})
    with pytest.raises(PluginError, match="has workers=-1, threads=1, gpus=0; give 0 or more, 1 or more"):
        Processes(-1)
    with pytest.raises(PluginError, match="cannot be made with"):
        hwnas.open_run(copied, executor="processes", executor_options={"speed": 3}).context.executor  # noqa: B018


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named():
    ray = pytest.importorskip("ray", reason="the extra ray is part of the dev extra")
    from hwnas.runs.workers import Ray

    ray.shutdown()  # what is joined already is used
    with pytest.raises(PluginError, match=r"there is no Ray cluster at '127\.0\.0\.1:1'"):
        Ray("127.0.0.1:1")
