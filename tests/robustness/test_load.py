"""The load of tests/robustness/load/run.py, small, and that it notices what it is there to notice."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the demo page needs Gradio: pip install -e '.[dev]'")
pytest.importorskip("psutil", reason="the server's memory is watched by it: pip install -e '.[dev]'")
sys.path.insert(0, str(Path(__file__).parent))
from load.bad import BAD, wrong
from load.run import SECRET, guarded, held_too_long, log_faults, main, planned
from load.visitor import Reply


@pytest.mark.slow
def test_a_small_load(capsys):
    assert main(["--clients", "8", "--requests", "200"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert " 0 failed; " in told[-1]
    assert "0 not refused in words; 0 other faults" in told[-1]


@pytest.mark.parametrize(
    "reply, told",
    [
        (Reply(403, b'{"detail":"File not allowed"}'), ""),
        (Reply(200, b'{"event": "error", "data": {"error": "no picture"}}'), ""),
        (Reply(200, b'{"msg": "process_completed", "success": false, "output": {"error": "no"}}'), ""),
        (Reply(200, b'{"success": true, "output": {"data": ["<p class=\'notice\'>no", ""]}}'), ""),
        (Reply(0, b""), "closed without a word"),
        (Reply(500, b""), "500 without words"),
        (Reply(500, b"Traceback (most recent call last)"), "a traceback"),
        (Reply(200, b"<html>"), "200 for a bad request"),
        (Reply(200, b"[]"), "200 for a bad request"),
        (Reply(200, b'{"event": "error", "data": {"error": null}}'), "no words"),
        (Reply(200, b'{"event": "complete", "data": [{"attribute": "red"}]}'), "no words"),
        (Reply(200, b'{"success": false, "output": {"error": null}}'), "no words"),
        (Reply(200, b'{"success": true, "output": {"data": ["<div>red</div>", ""]}}'), "no words"),
    ],
)
def test_only_words_refuse(reply, told):
    assert wrong(reply).startswith(told)
    assert bool(wrong(reply)) == bool(told)


def test_the_secret_is_seen_wherever_it_is():
    assert guarded(Reply(200, b"x")) == (200, b"x")
    with pytest.raises(Exception, match="a file outside of the folder was read"):
        guarded(Reply(404, json.dumps({"detail": SECRET}).encode()))


def test_a_noisy_log_and_patience_are_noticed():
    assert log_faults("refused a\nrefused b\n", bad=2) == []
    assert log_faults("refused a\nrefused b\n", bad=1) == ["2 lines in the log of 1 bad requests"]
    (fault,) = log_faults("Traceback (most recent call last)\nKeyError", bad=9)
    assert fault.startswith("1 tracebacks in the log")
    assert held_too_long({"idle": 11.0, "heartbeat": 1e9}) == []
    assert held_too_long({"slow_body": 80.0}) == ["slow_body was held for 80 s, expected 60"]


def test_one_seed_gives_one_load_of_all_kinds():
    from random import Random

    plans = list(planned(300, Random(3)))
    assert plans == list(planned(300, Random(3))) != list(planned(300, Random(4)))
    assert {plan.kind for plan in plans if not plan.good} == set(BAD)
    assert 0.5 < sum(plan.good for plan in plans) / 300 < 0.7
