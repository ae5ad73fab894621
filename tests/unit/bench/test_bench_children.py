"""A fresh process that `pan bench` measures: its output, seconds and memory, and that none is left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from progressive_attention.bench.children import run_child

MEBIBYTE = 2**20


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_a_child_tells_what_it_printed_and_its_seconds():
    code = "import os, sys, time; time.sleep(0.1); print('one\\n'); print(os.environ['OMP_NUM_THREADS'], sys.argv[1:])"
    child = run_child(python(code, "a b", "--json"), 3)
    assert child.output.rstrip("\n") == "one\n\n3 ['a b', '--json']"
    assert child.seconds >= 0.1


def test_a_child_may_print_nothing_or_no_last_line_break():
    assert run_child(python("pass"), 1).output == ""
    assert run_child(python("print('x', end='')"), 1).output == "x"


def test_a_child_is_given_its_own_environment():
    code = "import os; print(os.environ['PAN_ONE'], os.environ['PATH'])"
    output = run_child(python(code), 1, {"PAN_ONE": "1"}).output
    assert output.split() == ["1", *os.environ["PATH"].split()]


def test_largest_memory_is_the_childs_own():
    filled = bytearray(b"x") * (300 * MEBIBYTE)  # of ours; the system would count it as the child's
    small, large = (run_child(python(f"x = bytearray(b'x') * ({n} * 2**20)"), 1).peak for n in (0, 200))
    assert small < 100 * MEBIBYTE < len(filled)
    assert large - small == pytest.approx(200 * MEBIBYTE, rel=0.05)


def test_largest_memory_of_a_childs_child_counts():
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytes({200 * MEBIBYTE}).upper()'])"
    assert run_child(python(code), 1).peak > 200 * MEBIBYTE


@pytest.mark.parametrize(
    "code, message",
    [
        ("import sys; print('told', file=sys.stderr); sys.exit(3)", "ended with code 3: told"),
        ("raise SystemExit(1)", "ended with code 1: it said nothing"),
        ("1 / 0", "ended with code 1: ZeroDivisionError: division by zero"),
        ("import os; os.kill(os.getpid(), 9)", "ended with code 137: it said nothing"),
    ],
)
def test_a_child_that_fails_says_why(code, message):
    with pytest.raises(ChildProcessError, match=message):
        run_child(python(code), 1)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_bench_leaves_no_child(tmp_path, sent):
    told = tmp_path / "pid"
    slow = f"import os, pathlib, time; pathlib.Path({str(told)!r}).write_text(str(os.getpid())); time.sleep(600)"
    code = f"""
from progressive_attention.bench import command
from progressive_attention.bench.children import run_child
from progressive_attention.cli import main
command.RECORDS["load"] = (lambda *_: run_child({python(slow)!r}, 1),)
raise SystemExit(main(["bench", "--suite", "load", "--json", {str(tmp_path / "bench.json")!r}]))
"""
    parent = subprocess.Popen(python(code), stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: told.exists() and told.read_text())
        parent.send_signal(sent)
        assert parent.wait(60) != 0
    finally:
        parent.kill()
    child = int(told.read_text())
    wait_for(lambda: not runs(child))


def wait_for(ready) -> None:
    for _ in range(600):
        if ready():
            return
        time.sleep(0.1)
    raise AssertionError("waited for a minute")


def runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
