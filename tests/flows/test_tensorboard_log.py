"""A training's points for TensorBoard: all of them, each once, whatever interrupts it; and attention pictures."""

import builtins
import io
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tiny_runs import ALL, TRAIN, VALIDATION, about, network, start

from progressive_attention.cli import main
from progressive_attention.config import Recipe
from progressive_attention.training import loop as module
from progressive_attention.training.loop import fit, read_log
from progressive_attention.training.tensorboard_log import TensorBoardLog, attention_pictures

SPEED = "train/questions_per_second"


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All that the files hold, by tag: (step, value), in the order of the files; of a picture its height."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                told = value.tensor.float_val
                number = told[0] if told else Image.open(io.BytesIO(value.tensor.string_val[2])).height
                found.setdefault(value.tag, []).append((event.step, number))
    return found


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Those that don't depend on the machine's speed."""
    return {tag: sorted(values) for tag, values in points(folder).items() if tag != SPEED}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run: 3 epochs of 3 steps."""
    out = tmp_path_factory.mktemp("whole")
    with TensorBoardLog(out / "tensorboard", attention_pictures(out, VALIDATION, 1)) as log:
        fit(network(), TRAIN, VALIDATION, ALL, out, about(network()), watch=log)
    return out


def test_what_is_written(whole: Path) -> None:
    found, log = points(whole / "tensorboard"), read_log(whole / "log.jsonl")
    losses = dict(found["train/loss"])
    assert [*losses] == list(range(1, 10))
    assert [step for step, _ in found["epoch/loss"]] == [3, 6, 9] == [line["step"] for line in log]
    for (end, mean), line in zip(found["epoch/loss"], log, strict=True):
        assert mean == pytest.approx(line["loss"])
        assert mean == pytest.approx(sum(losses[step] for step in range(end - 2, end + 1)) / 3)
    scores = [value for _, value in found["epoch/validation_accuracy"]]
    assert scores == pytest.approx([line["validation_accuracy"] for line in log])
    rates = [module.learning_rate(ALL, step, 9, 3) for step in range(9)]
    assert [value for _, value in found["train/learning_rate"]] == pytest.approx(rates)
    assert [step for step, _ in found[SPEED]] == [2, 3, 5, 6, 8, 9]  # none for a step that a validation came before
    assert all(value > 0 for _, value in found[SPEED])
    assert set(found) == {
        *("train/loss", "train/learning_rate", SPEED),
        *("epoch/loss", "epoch/validation_accuracy", "attention/1"),
    }


def test_pictures_are_of_the_epochs_that_were_best(whole: Path) -> None:
    found, best, steps = points(whole / "tensorboard"), -1.0, []
    for line in read_log(whole / "log.jsonl"):
        if line["validation_accuracy"] > best:
            best = line["validation_accuracy"]
            steps.append(line["step"])
    assert [step for step, _ in found["attention/1"]] == steps
    assert all(height > 300 for _, height in found["attention/1"])


@pytest.mark.parametrize("stop", [1, 3, 7])
@pytest.mark.parametrize("lost", [0, 2])
def test_a_resumed_run_writes_no_point_twice(whole: Path, tmp_path: Path, monkeypatch, stop: int, lost: int) -> None:
    """The run stops at a step, having written ``lost`` more steps than its checkpoint knows of: they are done again."""
    monkeypatch.setattr(module, "SAVE_EVERY", -1.0)  # at every step
    out = tmp_path / "run"
    run = start(out, ALL)
    with TensorBoardLog(out / "tensorboard", attention_pictures(out, VALIDATION, 1)) as log:
        for at in range(1, stop + lost + 1):
            if at == stop + 1:
                shutil.copy(out / "checkpoint.safetensors", tmp_path / "old")
            if progress := next(run, None):
                log(progress)
    run.close()
    if lost:
        shutil.copy(tmp_path / "old", out / "checkpoint.safetensors")
    with TensorBoardLog(out / "tensorboard", attention_pictures(out, VALIDATION, 1)) as log:
        fit(network(seed=9), TRAIN, VALIDATION, ALL, out, about(network()), watch=log)
    assert curves(out / "tensorboard") == curves(whole / "tensorboard")


def test_a_run_that_starts_anew_takes_the_old_points_away(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run/checkpoint.safetensors").unlink()
    recipe = Recipe("other", "adamw", 0.02, "one-cycle", 1, 4, "all")
    with TensorBoardLog(tmp_path / "run/tensorboard") as log:
        fit(network(), TRAIN, VALIDATION, recipe, tmp_path / "run", about(network()), watch=log)
    assert [step for step, _ in points(tmp_path / "run/tensorboard")["train/loss"]] == [1, 2, 3]


def test_a_training_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path / "tensorboard") as log, pytest.raises(ValueError, match="holds no questions"):
        fit(network(), TRAIN.rows([]), VALIDATION, ALL, tmp_path, about(network()), watch=log)
    assert not list(tmp_path.iterdir())


# --- the command ------------------------------------------------------------------------------------------------------

COMMAND = [
    "train",
    "--data",
    "mref",
    "--images",
    "32",
    "--epochs",
    "1",
    "--batch",
    "8",
    "--device",
    "cpu",
    "--out",
    "r",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAN_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_command_writes_them_on_demand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--tensorboard"]) == 0
    assert "curves: tensorboard --logdir r/tensorboard" in capsys.readouterr().out
    found = points(folder / "r/tensorboard")
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3, 4]
    assert {"attention/1", "attention/2", "attention/3", "epoch/validation_accuracy"} <= set(found)


def test_without_the_package_a_line_says_so(folder: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError("No module named 'tensorboard'", name="tensorboard")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main([*COMMAND, "--tensorboard"]) == 2
    assert capsys.readouterr().err == (
        "pan train: error: tensorboard is not installed; pip install 'progressive-attention[tensorboard]'\n"
    )
    assert not list(folder.iterdir())
