"""pan reproduce as a user calls it: processes, kills, budgets of time, several calls at once, pages."""

import io
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_runs import fake_run
from rich.console import Console
from tiny_jobs import CPU, jobs, pretend

from progressive_attention.cli import main
from progressive_attention.files import read_json, write_json
from progressive_attention.reproduce import campaign
from progressive_attention.reproduce.campaign import add_to_table, check_end, in_processes, plan
from progressive_attention.reproduce.jobs import News, folder_of, is_done
from progressive_attention.reproduce.runs import cell_of, read_runs

MINE = """title = "Two small networks"

[[grid]]
models = ["san"]
datasets = ["mref"]
images = 30
epochs = 3
variant = "tiny"
recipe_changes = { batch = 8 }

[[grid]]
models = ["concat"]
datasets = ["mref"]
images = 30
epochs = 1
learning_rates = [0.001]
"""
RUN = [sys.executable, "-m", "progressive_attention"]
ASK = ["reproduce", "mine.toml", "--out", "state", "--device", "cpu"]


@pytest.fixture(autouse=True)
def place(tmp_path, tmp_path_factory, monkeypatch) -> Path:
    """A folder of its own with an experiment's file; scenes are rendered once for all of these tests."""
    monkeypatch.setenv("PAN_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(MINE)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The state that the whole command leaves."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "mine.toml").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAN_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))
        patch.chdir(folder)
        assert main([*ASK, "--processes", "1"]) == 0
    return folder / "state"


def mine():
    return plan("mine.toml", None, None)


def started(*more: str, **options) -> subprocess.Popen:
    return subprocess.Popen([*RUN, *ASK, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def wait_until(true, seconds=120.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def outcome(out: Path) -> list[dict]:
    """table1.json but for what no two runs have in common."""
    runs = read_runs(out / "table1.json")
    return [{key: value for key, value in run.items() if key not in ("seconds", "commit")} for run in runs]


def test_all_is_there_afterwards(finished):
    concat, san = outcome(finished)  # plain runs before variants
    assert [(run["model"], run["variant"]) for run in (concat, san)] == [("concat", ""), ("san", "tiny")]
    assert san["command"] == "pan reproduce mine.toml --out state --device cpu --processes 1"
    assert concat["learning_rate"] == 0.001
    assert san["precision_recall"]["last"]["best_iou"] == san["iou_last"]
    assert "precision_recall" not in read_json(finished / "table1.json")[1]
    assert [path.stem for path in (finished / "curves").iterdir()] == [mine()[0].name]
    assert {"README.md", "figures", "runs"} <= {path.name for path in finished.iterdir()}
    assert len(list((finished / "figures").glob("*.png"))) >= 2


def test_a_row_of_the_table_counts_as_done(finished, capsys):
    """Of all state, the table is enough, also one with the curves inside; its pages are drawn again."""
    Path("state").mkdir()
    write_json(Path("state/table1.json"), read_runs(finished / "table1.json"))
    assert main([*ASK, "--plan"]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["done", "done"]
    assert main(ASK) == 0
    assert "runs to do" not in capsys.readouterr().err
    assert not Path("state/runs").exists()
    assert Path("state/README.md").read_bytes() == (finished / "README.md").read_bytes()
    Path("mine.toml").write_text(MINE.replace("epochs = 1", "epochs = 2"))
    assert main([*ASK, "--plan"]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["done", "do"]


def test_killed_outright_it_goes_on_by_the_same_command(finished, place):
    (san, _) = mine()
    process = started("--processes", "1")
    log = folder_of(san, place / "state") / "log.jsonl"
    wait_until(lambda: log.exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not is_done(san, place / "state")
    assert not (place / "state" / "table1.json").exists()
    assert main([*ASK, "--processes", "1"]) == 0
    assert outcome(place / "state") == outcome(finished)


def test_two_calls_of_several_processes_share_the_work(place, finished):
    calls = [started("--processes", "2"), started("--processes", "1")]
    texts = [call.communicate(timeout=200)[0] for call in calls]
    assert [call.returncode for call in calls] == [0, 0], texts
    for job in mine():
        assert sum(text.count(f"{job.name}: finished") for text in texts) == 1
        epochs = job.recipe.epochs
        assert sum(text.count(f"{job.name}: epoch {epochs}/{epochs}, validation") for text in texts) == 1
    got, wanted = outcome(place / "state"), outcome(finished)
    assert [run["accuracy"] for run in got] == [run["accuracy"] for run in wanted]


def test_worker_killed_outright_loses_nothing(place):
    """Two processes; the other one takes over."""
    some = jobs("san", "han")

    def kill_one():
        wait_until(lambda: list((place / "runs").glob("*/log.jsonl")))
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert in_processes(2, some, place, CPU, math.inf, "pan") == [-signal.SIGKILL]
    killer.join()
    assert all(is_done(job, place) for job in some)


def test_workers_that_die_are_reported_if_they_leave_work(place):
    some = jobs("san", "han")
    pretend(some[0], place)
    assert check_end(some[:1], place, [-9])
    with pytest.raises(OSError, match=r"2 workers died \(exit code -9, -9; .*the same command goes on"):
        check_end(some, place, [-9, -9])


def test_one_process_shows_a_bar_on_a_terminal_and_lines_elsewhere():
    for terminal in (True, False):
        text = io.StringIO()
        console = Console(file=text, force_terminal=terminal, width=150, _environ={"TERM": "xterm"})
        with campaign.bar(console) as report:
            report(News("mref-san", "training", 0.25, "epoch 1/2 · loss 1.234"))
            time.sleep(0.3)
            report(News("mref-san", "failed", line="failed: [Errno 28] no [room]"))
        assert "mref-san: failed: [Errno 28] no [room]" in text.getvalue()
        for shown in ("mref-san: training", "25%", "epoch 1/2 · loss 1.234"):
            assert (shown in text.getvalue()) == terminal


def test_time_is_up_before_anything_began(capsys, monkeypatch):
    monkeypatch.setenv("PAN_CACHE", "empty")
    assert main([*ASK, "--time-budget", "0.001s", "--images", "480"]) == 0
    assert "time is up" in capsys.readouterr().out
    assert not Path("state/table1.json").exists()


def test_failed_run_is_reported_while_others_finish(place, capsys):
    fast = 'variant = "tiny"\nlearning_rates = [1e30]'
    (place / "mine.toml").write_text(MINE.replace('variant = "tiny"', fast).replace("epochs = 3", "epochs = 1"))
    assert main([*ASK, "--processes", "1"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("pan reproduce: error: mref-san-tiny-")
    assert "failed: the loss is" in last or "failed: the gradient" in last
    assert [run["model"] for run in outcome(place / "state")] == ["concat"]
    assert main([*ASK, "--plan"]) == 0
    failed, done = capsys.readouterr().out.splitlines()
    assert "training diverged" in failed
    assert done.endswith("done")


def test_what_would_take_the_place_of_another_run_is_rejected_before_training(finished, place, capsys):
    shutil.copytree(finished, "state")
    before = Path("state/table1.json").read_bytes()
    (place / "mine.toml").write_text(MINE.replace("batch = 8", "batch = 4"))
    assert main(ASK) == 2
    error = capsys.readouterr().err
    assert "runs to do" not in error
    assert re.search(
        "state holds a run of san on mref, seed 0, with batch 8, and mref-san-tiny-.* has 4; choose", error
    )
    assert Path("state/table1.json").read_bytes() == before


def test_table_keeps_what_other_calls_left_in_one_order(place):
    table = place / "table1.json"
    others = [fake_run("film"), fake_run("san", variant="tiny", images=30, epochs=2, accuracy=0.111)]
    new = [fake_run(model, variant="tiny", images=30, epochs=2, accuracy=0.5) for model in ("san", "han")]
    add_to_table(others, table)
    add_to_table(new, table)
    runs = {cell_of(run): run["accuracy"] for run in read_runs(table)}
    assert runs == {cell_of(new[0]): 0.5, cell_of(new[1]): 0.5, cell_of(others[0]): others[0]["accuracy"]}
    assert [*runs] == sorted(runs)


def test_plan_lists_runs_in_order_and_makes_nothing(place, capsys):
    assert main([*ASK, "--plan"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{job.name} to do" for job in mine()]
    assert not (place / "state").exists()
    assert main(["reproduce", "table1", "--plan", "--out", "x", "--models", "hattnet", "--seeds", "0,1"]) == 0
    assert [line.split("-paper")[0] for line in capsys.readouterr().out.splitlines()] == [
        f"{data}-pan-soft" for _ in range(2) for data in ("mref", "mdist", "mbg")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table9", "--out", "x"], "expected one of table1, scale-table"),
        (["nowhere.toml", "--out", "x"], "nowhere.toml does not exist"),
        (["figure6", "--out", "x", "--models", "stn-s"], "unknown model with attention maps 'stn-s'"),
        (["table1", "--out", "x", "--images", "9"], "images: Expected `int` >= 30"),
        (["table1", "--out", "broken"], "table1.json must hold a list"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, arguments, message):
    Path("broken").mkdir()
    Path("broken/table1.json").write_text("3")
    try:
        code = main(["reproduce", *arguments])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err.strip()
    assert code == 2
    assert message in error
    assert "\n" not in error


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
@pytest.mark.parametrize("whom", ["the group", "the parent"])
def test_interruption_ends_all_workers(place, whom):
    """Ctrl-C reaches every process, SIGKILL the parent alone: the workers save and end by themselves either way."""
    (place / "mine.toml").write_text(MINE.replace("epochs = 3", "epochs = 500"))
    listening = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 (a background shell job ignores it)
    process = started("--processes", "2", start_new_session=True, preexec_fn=listening)
    san = folder_of(mine()[0], place / "state")
    wait_until(lambda: (san / "log.jsonl").exists())
    if whom == "the group":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGKILL)
    text, _ = process.communicate(timeout=60)  # its end comes when no worker holds the pipe
    assert "Traceback" not in text
    assert process.returncode == (130 if whom == "the group" else -signal.SIGKILL)
    saved = (san / "checkpoint.safetensors").stat().st_mtime_ns
    time.sleep(3)
    assert (san / "checkpoint.safetensors").stat().st_mtime_ns == saved


@pytest.mark.slow
def test_budget_of_time_is_kept(place, capsys):
    (place / "mine.toml").write_text(MINE.replace("epochs = 3", "epochs = 5000"))
    start = time.monotonic()
    assert main([*ASK, "--time-budget", "60s"]) == 0
    assert time.monotonic() - start < 60
    assert "time is up" in capsys.readouterr().out
    assert [run["model"] for run in outcome(place / "state")] == ["concat"]
