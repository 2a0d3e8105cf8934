"""What the terminal shows of long work: plain lines where there is no terminal."""

import pytest

from hwnas.cli import progress as module
from hwnas.cli.progress import LINE_EVERY_S, TerminalProgress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("first", "left"), [(1, 60), (401, 20)], ids=["from the beginning", "after a restart"])
def test_the_time_left_follows_from_what_was_done_now(clock, capsys, first, left):
    """Steps of an earlier start took no time; here one takes a tenth of a second."""
    told = TerminalProgress()
    total = first + 100 + 10 * left
    told("train", first, total)
    clock[0] += LINE_EVERY_S
    told("train", first + 100, total)
    told("train", total, total, "phase full")
    begun, going, done = capsys.readouterr().err.splitlines()
    assert begun == f"train: {first}/{total}"
    assert going == f"train: {first + 100}/{total}, {left} s left"
    assert done == f"train: {total}/{total} (phase full)"


def test_what_stands_still_has_no_time_left(clock, capsys):
    told = TerminalProgress()
    told("wait", 3, 10)
    clock[0] += LINE_EVERY_S
    told("wait", 3, 10)
    assert capsys.readouterr().err.splitlines() == ["wait: 3/10", "wait: 3/10"]
