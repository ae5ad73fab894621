"""What pan reproduce shows while it works: time left, a live table, lines in a log file."""

import io
import math
import time

import pytest
from rich.console import Console
from tiny_jobs import jobs, pretend

from progressive_attention.progress import counting
from progressive_attention.reproduce.board import board, in_words, seconds_left, summary_of
from progressive_attention.reproduce.experiments import Grid
from progressive_attention.reproduce.jobs import Message


def quiet() -> Console:
    return Console(file=io.StringIO())


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def some_jobs():
    """Two data sets, two models, one of them twice as long."""
    short = Grid(("san", "han"), ("mref", "mbg"), images=100, epochs=1).jobs()
    return [*short, *Grid(("han",), ("mdist",), images=100, epochs=2).jobs()]


def test_time_left_by_hand():
    a, b, c, d, e = some_jobs()  # san mref, han mref, san mbg, han mbg, han mdist of two epochs
    assert math.isnan(seconds_left([a, b, c, d, e], {}, {}, 1))
    spent = {a: 10.0}
    assert seconds_left([a, b, c, d, e], spent, {}, 1) == pytest.approx(10 + 10 + 10 + 20)
    running = {b.name: Message(b.name, "training", 0.25, 30.0)}  # a run of han takes 40
    assert seconds_left([a, b, c, d, e], spent, running, 1) == pytest.approx(30 + 10 + 40 + 80)
    assert seconds_left([a, b, c, d, e], spent, running, 4) == pytest.approx(80)  # not less than the longest
    assert seconds_left([a, b, c, d, e], spent, {e.name: Message(e.name, "failed")}, 2) == pytest.approx(15)
    assert seconds_left([a, b], spent, {b.name: Message(b.name, "measuring", 0.5, 7.0)}, 2) == 7
    assert seconds_left([a], spent, {}, 1) == 0


def test_times_in_words():
    assert [in_words(s) for s in (1, 60, 61, 3599, 7790)] == ["1 min", "1 min", "2 min", "1 h 00 min", "2 h 10 min"]


def test_summary_counts_what_is_done(tmp_path):
    san, han = jobs("san", "han")
    assert summary_of([san, han], tmp_path, {}, 1) == "0 of 2 runs done"
    pretend(san, tmp_path, seconds=7790.0)
    assert summary_of([san, han], tmp_path, {}, 1) == "1 of 2 runs done, about 2 h 10 min left"
    pretend(han, tmp_path)
    assert summary_of([san, han], tmp_path, {}, 1) == "2 of 2 runs done"


def test_log_file_has_lines_only(tmp_path):
    console = quiet()
    (san,) = jobs("san")
    with board(console, [san], tmp_path, 1) as tell:
        tell(Message("", "waiting"))
        tell(Message(san.name, "training", 0.1, 90.0, "epoch 1/2"))
        tell(Message(san.name, "training", 0.5, 50.0, "epoch 1/2", "epoch 1/2, 9 s"))
        tell(Message(san.name, "failed", note="[Errno 28] no [room]"))
    with counting(console, "nothing to render", "scenes"):
        pass
    assert printed(console).splitlines() == [
        f"{san.name}: epoch 1/2, 9 s; 0 of 1 runs done, about 1 min left",
        f"{san.name}: failed: [Errno 28] no [room]; 0 of 1 runs done",
    ]
    with counting(console, "rendering", "scenes") as show:
        show(1, 2)
        show(2, 2)
    assert len(printed(console).splitlines()) == 3
    assert "rendering" in printed(console).splitlines()[-1]


def test_terminal_shows_a_table(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=150, _environ={"TERM": "xterm"})
    san, han = jobs("san", "han")
    with board(console, [san, han], tmp_path, 2) as tell:
        tell(Message(san.name, "training", 0.25, 150.0, "epoch 1/2 · loss 1.234"))
        tell(Message(han.name, "failed", note="[/bold]"))
        time.sleep(0.6)
    text = printed(console)
    for shown in ("training", "25%", "2:30", "epoch 1/2 · loss 1.234", "[/bold]", "about 3 min left"):
        assert shown in text
