"""A training's points for TensorBoard, as TensorBoard shows them: each once, whatever interrupts it; and pictures."""

import builtins
import io
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import ALL, TRAIN, VALIDATION, about, network, start

from progressive_attention.cli import main
from progressive_attention.pages.answer_plots import attention_pictures
from progressive_attention.training import loop as module
from progressive_attention.training.loop import fit, read_log
from progressive_attention.training.optimizers import learning_rate
from progressive_attention.training.tensorboard_log import TensorBoardLog

SPEED = "train/questions_per_second"


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, by tag: (step, value); of a picture its height."""
    shown = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    shown.Reload()
    curves = {tag: [(one.step, one.value) for one in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}
    for tag in shown.Tags()["images"]:
        curves[tag] = [(one.step, Image.open(io.BytesIO(one.encoded_image_string)).height) for one in shown.Images(tag)]
    return curves


def timeless(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Those that don't depend on the machine's speed."""
    return {tag: values for tag, values in curves(folder).items() if tag != SPEED}


def log_of(out: Path) -> TensorBoardLog:
    return TensorBoardLog(out / "tensorboard", attention_pictures(out, VALIDATION, 1))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run: 3 epochs of 3 steps."""
    out = tmp_path_factory.mktemp("whole")
    with log_of(out) as log:
        fit(network(), TRAIN, VALIDATION, ALL, out, about(network()), watch=log)
    return out


def test_what_is_written(whole: Path) -> None:
    shown, log = curves(whole / "tensorboard"), read_log(whole / "log.jsonl")
    losses = dict(shown["train/loss"])
    assert [*losses] == list(range(1, 10))
    assert [step for step, _ in shown["epoch/loss"]] == [3, 6, 9] == [line["step"] for line in log]
    for (end, mean), line in zip(shown["epoch/loss"], log, strict=True):
        assert mean == pytest.approx(line["loss"])
        assert mean == pytest.approx(sum(losses[step] for step in range(end - 2, end + 1)) / 3)
    scores = [line["validation_accuracy"] for line in log]
    assert [value for _, value in shown["epoch/validation_accuracy"]] == pytest.approx(scores)
    rates = [learning_rate(ALL, step, 9, 3) for step in range(9)]
    assert [value for _, value in shown["train/learning_rate"]] == pytest.approx(rates)
    assert [step for step, _ in shown[SPEED]] == [2, 3, 5, 6, 8, 9]  # none for a step that a validation came before
    assert all(value > 0 for _, value in shown[SPEED])
    best = [line["step"] for i, line in enumerate(log) if scores[i] > max(scores[:i], default=-1)]
    assert [step for step, _ in shown["attention/1"]] == best
    assert all(height > 300 for _, height in shown["attention/1"])
    assert len(shown) == 6


@pytest.mark.parametrize("stop", [1, 3, 7])
@pytest.mark.parametrize("lost", [0, 2])
def test_a_resumed_run_shows_no_point_twice(whole: Path, tmp_path: Path, monkeypatch, stop: int, lost: int) -> None:
    """The run stops at a step, having written ``lost`` more steps than its checkpoint knows of: they are done again."""
    monkeypatch.setattr(module, "SAVE_EVERY", -1.0)  # at every step
    out = tmp_path / "run"
    run = start(out, ALL)
    with log_of(out) as log:
        for at in range(1, stop + lost + 1):
            if at == stop + 1:
                shutil.copy(out / "checkpoint.safetensors", tmp_path / "old")
            if progress := next(run, None):
                log(progress)
    run.close()
    if lost:
        shutil.copy(tmp_path / "old", out / "checkpoint.safetensors")
    time.sleep(1.1)  # TensorBoard orders files by the second in which they were opened
    with log_of(out) as log:
        fit(network(seed=9), TRAIN, VALIDATION, ALL, out, about(network()), watch=log)
    assert timeless(out / "tensorboard") == timeless(whole / "tensorboard")


def test_a_training_that_is_rejected_leaves_nothing(tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path / "tensorboard") as log, pytest.raises(ValueError, match="holds no questions"):
        fit(network(), TRAIN.rows([]), VALIDATION, ALL, tmp_path, about(network()), watch=log)
    assert not list(tmp_path.iterdir())


# --- the command ------------------------------------------------------------------------------------------------------

DATA = ["--data", "mref", "--images", "32", "--epochs", "1", "--batch", "8"]
COMMAND = ["train", *DATA, "--device", "cpu", "--out", "r"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_command_writes_them_on_demand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--tensorboard"]) == 0
    assert "curves: tensorboard --logdir r/tensorboard" in capsys.readouterr().out
    shown = curves(folder / "r/tensorboard")
    assert [step for step, _ in shown["train/loss"]] == [1, 2, 3, 4]
    assert {"attention/1", "attention/2", "attention/3", "epoch/validation_accuracy"} <= set(shown)


def test_what_is_missing_is_reported_at_once(folder: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError("No module named 'tensorboard'", name="tensorboard")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main([*COMMAND, "--tensorboard"]) == 2
    assert "pip install 'progressive-attention[tensorboard]'" in capsys.readouterr().err
    assert main([*COMMAND, "--trackio", "project"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--tensorboard" in error
    assert "log.jsonl" in error
    assert not list(folder.iterdir())
