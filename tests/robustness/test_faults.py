"""Work goes on after a fault as if there had been none; tests/robustness/faults/run.py injects many more than these."""

import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))
import children
import run
from works import WORKS


@pytest.fixture
def bench(tmp_path: Path) -> run.Bench:
    return run.Bench(tmp_path)


@pytest.mark.parametrize(("name", "share"), [("importing", 0.5), ("rendering", 0.4), ("rendering", 0.8)])
def test_killed_work_goes_on(bench, name, share):
    assert bench.kill(WORKS[name], share) == ""


def write_slowly() -> int:
    """A file in its place from the start, as no work of ours writes it."""
    with open("result.json", "w") as file:
        for part in ("[1, ", "2]"):
            file.write(part)
            file.flush()
            time.sleep(0.3)
    return 0


SLOW = replace(WORKS["rendering"], name="slow", do=write_slowly, outcome=lambda folder: {"whole": True})


def test_a_torn_write_is_noticed(bench):
    assert "result.json is torn: Expecting value" in bench.kill(SLOW, 0.3)


def leave_another(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def write_another() -> int:
    """A result that tells a disturbed run from others, and something left beside it."""
    again = Path("begun").exists()
    Path("begun").touch()
    time.sleep(0.3)
    Path("result.json").write_text(json.dumps({"again": again}))
    if again:
        Path(".result.json.pan-1").touch()
    return 0


def test_another_outcome_and_what_is_left_over_are_noticed(bench):
    work = replace(SLOW, name="another", do=write_another, outcome=leave_another)
    assert bench.kill(work, 0.5) == "afterwards: .result.json.pan-1"
    (left,) = bench.folder.glob("trial-*/.result.json.pan-1")
    left.unlink()
    assert bench.recovered(replace(work, do=lambda: 0), left.parent) == "other than undisturbed: ['again']"


def test_what_is_no_one_line_message_is_noticed():
    told = children.Ended(2, "pan train: error: [Errno 28] No space left on device: 'a'\n", 1.0)
    assert run.refused(told) == ""
    for code, text in ((0, told.told), (2, told.told * 2), (2, "Traceback: " + told.told), (1, "OSError")):
        assert run.refused(children.Ended(code, text, 1.0)) != ""


def test_a_command_that_dies_of_ctrl_c_is_noticed(bench):
    def die() -> int:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        time.sleep(1)
        return 0

    bench.known["deaf"] = bench.folder, {}, 0.5
    assert "ended with -2" in bench.interrupt(replace(SLOW, name="deaf", do=die), 0.5, 1)
