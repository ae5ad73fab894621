"""A training's points for trackio: all of them, each once, whatever interrupts it."""

import builtins
from pathlib import Path

import pytest
from test_tensorboard_log import COMMAND
from tiny_runs import ALL, TRAIN, VALIDATION, about, network, start
from trackio.sqlite_storage import SQLiteStorage

from progressive_attention.cli import main
from progressive_attention.training import loop as module
from progressive_attention.training.loop import fit, read_log
from progressive_attention.training.trackio_log import TrackioLog

PROJECT = "pan"


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of trackio's own."""
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def points(name: str) -> list[tuple[int, str, float]]:
    """Every point of a run but those of the machine's speed: step, tag, value, sorted."""
    found = []
    for line in SQLiteStorage.get_logs(PROJECT, name):
        tags = [tag for tag in line if "/" in tag and tag != "train/questions_per_second"]
        found += [(line["step"], tag, line[tag]) for tag in tags]
    return sorted(found)


def test_every_step_and_epoch_is_there_once(kept: Path) -> None:
    with TrackioLog(PROJECT, "whole") as log:
        fit(network(), TRAIN, VALIDATION, ALL, kept / "run", about(network()), watch=log)
    found = points("whole")
    assert [step for step, tag, _ in found if tag == "train/loss"] == list(range(1, 10))
    scores = [value for _, tag, value in found if tag == "epoch/validation_accuracy"]
    assert scores == pytest.approx([line["validation_accuracy"] for line in read_log(kept / "run/log.jsonl")])


def test_a_resumed_run_writes_no_point_twice_and_one_begun_anew_takes_the_old_away(kept: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", -1.0)  # at every step
    with TrackioLog(PROJECT, "whole") as log:
        fit(network(), TRAIN, VALIDATION, ALL, kept / "whole", about(network()), watch=log)
    run = start(kept / "run", ALL)
    with TrackioLog(PROJECT, "run") as log:
        for _ in range(4):
            log(next(run))
        next(run)  # a step that was saved and not told: it is lost
    run.close()
    with TrackioLog(PROJECT, "run") as log:
        fit(network(seed=9), TRAIN, VALIDATION, ALL, kept / "run", about(network()), watch=log)
    assert points("run") == [point for point in points("whole") if point[0] != 5]
    with TrackioLog(PROJECT, "run") as log:
        fit(network(), TRAIN, VALIDATION, ALL, kept / "anew", about(network()), watch=log)
    assert points("run") == points("whole")


def test_a_training_that_is_refused_leaves_nothing(kept: Path) -> None:
    with TrackioLog(PROJECT, "refused") as log, pytest.raises(ValueError, match="holds no questions"):
        fit(network(), TRAIN.rows([]), VALIDATION, ALL, kept, about(network()), watch=log)
    assert SQLiteStorage.get_runs(PROJECT) == []


def test_the_command(kept: Path) -> None:
    assert main([*COMMAND, "--trackio", PROJECT]) == 0
    assert [step for step, tag, _ in points("r") if tag == "train/loss"] == [1, 2, 3, 4]


def test_without_the_package_a_line_says_so(kept: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "trackio":
            raise ImportError("No module named 'trackio'", name="trackio")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main([*COMMAND, "--trackio", PROJECT]) == 2
    assert capsys.readouterr().err == (
        "pan train: error: trackio is not installed; pip install 'progressive-attention[trackio]'\n"
    )
    assert not list(kept.iterdir())
