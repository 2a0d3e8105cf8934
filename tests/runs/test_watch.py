"""What a run says while it works, and what another process learns from it."""

import json
import os
import time
from contextlib import suppress

import numpy as np
import pytest

import hwnas
from hwnas.objectives import Objective
from hwnas.runs.progress_log import WHOLE, ProgressLog, parse_line, read_progress
from hwnas.runs.watch import follow
from hwnas.search.limits import Limit
from hwnas.search.problem import Problem
from hwnas.search.standing import FEWEST, Standing
from hwnas.space import SearchSpace


class Enough(Exception):
    """Ends the watching."""


def watched(folder, *turns):
    """What a watcher sees when, between its looks at the file, these things happen."""
    found, left = [], iter(turns)

    def wait(seconds):
        turn = next(left, None)
        if turn is None:
            raise Enough
        turn()

    with suppress(Enough):
        found += ((line.kind, line.what, line.done) for line in follow(folder, wait=wait))
    return found


def failing(log):
    with log.of("search"):
        log("search", 1, 9)
        raise ValueError("no model is within the limits")


@pytest.fixture
def log(tmp_path):
    return ProgressLog(tmp_path / "progress.jsonl", lambda *_: None)


def said(path):
    return [(line.kind, line.what, line.done, line.note) for line in read_progress(path)]


def test_a_task_says_its_first_and_last_state_and_every_phase(log, tmp_path):
    with log.of("train"):
        for done in range(1, 7):
            log("train", done, 6, f"{'full' if done < 4 else 'small'}, loss {done}")
    assert said(tmp_path / "progress.jsonl") == [
        ("begin", "train", 0, ""),
        ("task", "train", 1, "full, loss 1"),
        ("task", "train", 3, "full, loss 3"),
        ("task", "train", 4, "small, loss 4"),
        ("task", "train", 6, "small, loss 6"),
        ("end", "train", 0, ""),
    ]


def test_what_is_told_once_only_waits_for_work(log, tmp_path):
    with log.of("search"):
        log("report", 1, 1, "report.html")
    assert not (tmp_path / "progress.jsonl").exists()
    with log.of("search"):
        log("budget", 1, 1, "40 evaluations")
        log("search", 1, 9)
    assert [(kind, what) for kind, what, *_ in said(tmp_path / "progress.jsonl")] == [
        ("begin", "search"), ("task", "budget"), ("task", "search"), ("end", "search"),
    ]  # fmt: skip


def test_others_are_told_of_everything(tmp_path):
    told = []
    log = ProgressLog(tmp_path / "none" / "progress.jsonl", lambda *a: told.append(a))  # it cannot be written
    with log.of("search"):
        log("search", 1, 9, "x")
        log("search", 2, 9, "x")
    assert told == [("search", 1, 9, "x"), ("search", 2, 9, "x")]


def test_a_verb_with_nothing_to_do_says_nothing_and_one_that_fails_says_why(log, tmp_path):
    with log.of("search"):
        pass
    assert not (tmp_path / "progress.jsonl").exists()
    with pytest.raises(ValueError, match="no model"):
        failing(log)
    assert said(tmp_path / "progress.jsonl")[-1] == ("end", "search", 0, "no model is within the limits")


def test_only_the_first_of_several_ranks_writes(log, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with log.of("train"):
        log("train", 1, 1)
    assert not (tmp_path / "progress.jsonl").exists()


def test_a_task_says_how_long_it_takes(log, tmp_path):
    with log.of("train"):
        log("train", 1, 100, "a")
        time.sleep(0.02)
        log("train", 50, 100, "b")
    last = [line for line in read_progress(tmp_path / "progress.jsonl") if line.kind == "task"][-1]
    assert last.left_s == pytest.approx((last.at - last.started) * 50 / 49), "the first was there when it began"


def test_work_with_a_time_budget_says_how_much_of_it_is_used(tmp_path, monkeypatch):
    clock, told = [1000.0], []
    monkeypatch.setattr("hwnas.runs.progress_log.time.time", lambda: clock[0])
    path = tmp_path / "progress.jsonl"

    def work(*seconds):
        log = ProgressLog(path, lambda *a: told.append(a))
        with log.of("run", budget_s=60):
            for done, s in enumerate(seconds):
                clock[0] += s
                log("train", done, 9)

    work(10, 1, 20)
    whole = [line for line in told if line[0] == WHOLE]
    assert whole == [(WHOLE, 10, 60, "train"), (WHOLE, 31, 60, "train"), (WHOLE, 31, 31, "")]
    told.clear()
    clock[0] += 500  # nobody worked
    with ProgressLog(path, lambda *_: None).of("report"):
        clock[0] += 500
    work(9, 30)  # 31 s were used before
    whole = [line for line in told if line[0] == WHOLE]
    assert whole == [(WHOLE, 40, 60, "train"), (WHOLE, 70, 71, "train, over the budget of 60 s"), (WHOLE, 70, 70, "")]
    last = [line for line in read_progress(path) if line.what == WHOLE][-2]
    assert last.left_s is None, "nobody knows"
    told.clear()
    with suppress(ValueError):
        failing(ProgressLog(path, lambda *a: told.append(a)))
    assert told == [("search", 1, 9, "")]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"at": 1}', '{"at": 1, "kind": "x", "what": ""}', "\x00", "[" * 9000])
def test_a_damaged_line_is_left_out(log, tmp_path, text):
    assert parse_line(text) is None
    path = tmp_path / "progress.jsonl"
    with log.of("train"):
        log("train", 1, 2)
    path.write_text(f"{text}\n{path.read_text()}")
    assert [line.kind for line in read_progress(path)] == ["begin", "task", "end"]


def test_a_file_that_grew_too_large_is_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("hwnas.runs.progress_log.LARGEST_BYTES", 400)
    path = tmp_path / "progress.jsonl"
    for verb in ("train", "search"):
        log = ProgressLog(path, lambda *_: None)
        with log.of(verb):
            log(verb, 1, 2, "x" * 300)
    assert {line.what for line in read_progress(path)} == {"search"}


def test_a_watcher_sees_a_run_begin_end_and_begin_again(tmp_path):
    folder = tmp_path / "run"

    def session(verb):
        folder.mkdir(exist_ok=True)
        log = ProgressLog(folder / "progress.jsonl", lambda *_: None)
        with log.of(verb):
            for done in (1, 2, 3):
                log(verb, done, 3, "one phase")

    def nothing():
        pass

    assert watched(folder, nothing, lambda: session("train"), nothing, lambda: session("search")) == [
        (kind, verb, done)
        for verb in ("train", "search")
        for kind, done in (("begin", 0), ("task", 1), ("task", 3), ("end", 0))
    ]


def test_a_watcher_waits_for_the_rest_of_a_line(tmp_path):
    path = tmp_path / "progress.jsonl"
    whole = '{"at": 5.0, "kind": "task", "what": "train", "done": 1, "total": 2, "started": 5.0}\n'
    path.write_text(whole[:30])

    def the_rest():
        path.write_text(whole)

    assert watched(tmp_path) == []
    assert watched(tmp_path, the_rest) == [("task", "train", 1)]


def test_a_watcher_begins_anew_with_a_file_that_did(tmp_path):
    path = tmp_path / "progress.jsonl"
    line = '{"at": 5.0, "kind": "begin", "what": "%s"}\n'
    path.write_text(line % "train" + line % "search")
    assert watched(tmp_path, lambda: path.write_text(line % "a")) == [
        ("begin", "train", 0), ("begin", "search", 0), ("begin", "a", 0),
    ]  # fmt: skip


def test_the_state_of_a_run(tmp_path, finished_run):
    assert hwnas.run_state(tmp_path / "none").state == "not begun"
    state = hwnas.run_state(finished_run)
    assert state.state == "waiting"
    assert {front.device for front in state.fronts} == {"hexagon-dsp", "myriad-vpu"}
    assert all(front.models > 0 and 0 <= front.best_score <= 100 for front in state.fronts)
    assert state.score == "top1_percent"
    json.dumps(state.as_dict(), allow_nan=False)


@pytest.mark.parametrize(("process", "state"), [(None, "running"), (2**22 + 1, "stopped")], ids=["here", "gone"])
def test_a_run_whose_process_is_gone_is_stopped(tmp_path, process, state):
    process = process or os.getpid()
    path = tmp_path / "progress.jsonl"
    log = ProgressLog(path, lambda *_: None)
    with log.of("train"):
        log("train", 1, 2, "full, loss 3")
        here = path.read_text().splitlines()[0]
    values = {**json.loads(here), "process": process}
    path.write_text(json.dumps(values) + "\n" + path.read_text().splitlines()[1] + "\n")
    found = hwnas.run_state(tmp_path)
    assert (found.state, [(t.what, t.done) for t in found.tasks]) == (state, [("train", 1)])


def test_a_run_writes_every_generation(finished_run):
    lines = [line for line in read_progress(finished_run / "progress.jsonl") if line.what == "search for hexagon-dsp"]
    assert lines[-1].done == lines[-1].total == 8
    assert "best " in lines[-1].note
    assert "hypervolume " in lines[-1].note
    assert len({line.step for line in lines}) > 2
    verbs = [line.what for line in read_progress(finished_run / "progress.jsonl") if line.kind == "begin"]
    assert verbs[0] == "run"


def test_watch_once_is_text_or_json(finished_run, hwnas_command, tmp_path):
    code, out, _ = hwnas_command("watch", finished_run, "--once")
    assert code == 0
    assert out.startswith(f"{finished_run}: run is done, and no command is at work on it\n")
    assert "hexagon-dsp" in out
    code, out, _ = hwnas_command("watch", finished_run, "--json")
    assert code == 0
    assert json.loads(out)["fronts"][0]["models"] > 0
    code, out, _ = hwnas_command("watch", tmp_path / "later", "--once")
    assert code == 0
    assert "not begun" in out


SPACE = SearchSpace.of_choices({"x": range(40)})


def problem_of(*limits):
    def nothing(archs):
        raise AssertionError

    up, down = Objective("score", "max", nothing), Objective("ms", "min", nothing)
    return Problem(SPACE, (up, down), tuple(map(Limit.parse, limits)))


def test_the_hypervolume_of_a_search_is_that_of_its_box():
    standing = Standing(problem_of(), "score", "%")
    corners = np.array([[0.0, 10.0]] * (FEWEST - 1) + [[100.0, 0.0]])
    standing.add(corners[:3])
    assert standing.hypervolume == 0
    assert "hypervolume" not in standing.note("nsga2")
    standing.add(corners[3:])
    assert standing.hypervolume == pytest.approx(1.0)
    assert standing.note("nsga2") == "nsga2 generation 2, best 100.00 %, hypervolume 1.000"
    standing.add(np.array([[150.0, 0.0]]))
    assert standing.hypervolume == pytest.approx(1.5)
    standing.add(np.array([[90.0, 5.0], [np.nan, 1.0]]))  # dominated, failed
    assert standing.hypervolume == pytest.approx(1.5)


def test_what_breaks_a_limit_counts_for_nothing():
    standing = Standing(problem_of("ms<=4"), "score", "%")
    standing.add(np.array([[50.0, 8.0], [40.0, 3.0], [0.0, 10.0], *[[1.0, 9.0]] * 6]))
    assert standing.best == 40
    assert "1 of 9 within the limits" in standing.note("x")
    assert standing.hypervolume == pytest.approx(0.8)


def test_a_smaller_score_may_be_better():
    problem = problem_of()
    standing = Standing(problem, "ms", "ms")
    standing.add(np.array([[1.0, 8.0], [1.0, 3.0]]))
    assert standing.best == 3


def test_who_stops_watching_stops_nothing_else(hwnas_command, finished_run, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hwnas.runs.watch.follow", stopped)
    assert hwnas_command("watch", finished_run) == (0, "", "no longer watching; the run goes on\n")
