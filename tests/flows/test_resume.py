"""Runs go on exactly wherever they were stopped, and reject what is not theirs."""

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import asdict, replace
from pathlib import Path

import in_processes
import pytest
import torch
from in_processes import LONG
from rich.console import Console
from safetensors.torch import save_file
from tiny_runs import ALL, MUON, ROWS, RUNS, TRAIN, VALIDATION, ByHalves, about, network, results, start

from progressive_attention.commands.train import watch
from progressive_attention.files import read_tensors, write_tensors
from progressive_attention.network.build import build_model
from progressive_attention.training import loop as module
from progressive_attention.training.checkpoints import State
from progressive_attention.training.loop import fit, read_log, training
from progressive_attention.training.objectives import answers_only


def finish(recipe, out: Path, weights: int = 99, **options) -> None:
    """Train, or go on, to the end; from other initial weights, since all must come from the checkpoint."""
    fit(network(weights), TRAIN, VALIDATION, recipe, out, about(network()), **options)


@pytest.fixture(scope="module", params=RUNS.values(), ids=RUNS)
def whole(request, tmp_path_factory):
    """A recipe and what an uninterrupted run of it leaves."""
    out = tmp_path_factory.mktemp("whole")
    finish(request.param, out, weights=0)
    return request.param, results(out)


def kill(run):
    """End a run where it stands, as a crash would: it can save nothing more."""
    with pytest.raises(ZeroDivisionError):
        run.throw(ZeroDivisionError)


def begun(out: Path, recipe, steps: int, **options):
    """A run after so many steps."""
    run = start(out, recipe, **options)
    for _ in range(steps):
        next(run)
    return run


# --- it goes on exactly -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [[5], [3, 3, 2], [1] * 30], ids=str)
@pytest.mark.parametrize("every, end", [(60.0, Generator.close), (-1.0, kill)], ids=["closed", "killed"])
def test_an_interrupted_run_goes_on_exactly(whole, stops, every, end, tmp_path, monkeypatch):
    recipe, expected = whole
    monkeypatch.setattr(module, "SAVE_EVERY", every)  # -1: at every step
    reached = 0
    for i, steps in enumerate(stops):
        run = start(tmp_path, recipe, network(seed=i))
        for _, progress in zip(range(steps), run, strict=False):
            torch.rand(i)  # and other draws in between
            assert progress.step == reached + 1  # nothing is done twice
            reached = progress.step
        end(run)
    finish(recipe, tmp_path)
    assert results(tmp_path) == expected
    assert not list(tmp_path.glob(".*"))


def test_what_was_not_saved_is_done_again_and_kept_epochs_with_it(whole, tmp_path):
    recipe, expected = whole  # here checkpoints come at the ends of epochs only
    kill(begun(tmp_path / "killed", recipe, 7, keep_epochs=[1, 2]))
    steps = []
    finish(recipe, tmp_path / "killed", keep_epochs=[1, 2], watch=steps.append)
    assert steps[0].step == (6 if recipe is ROWS else 7)
    finish(recipe, tmp_path / "whole", weights=0, keep_epochs=[1, 2])
    assert results(tmp_path / "killed") == results(tmp_path / "whole") == expected
    for epoch in "12":
        killed, kept = (tmp_path / name / "epochs" / epoch / "weights.safetensors" for name in ("killed", "whole"))
        assert killed.read_bytes() == kept.read_bytes()


def test_a_run_that_goes_on_keeps_what_is_still_to_come(tmp_path):
    begun(tmp_path, ROWS, 7).close()
    finish(ROWS, tmp_path, keep_epochs=[1, 3])
    assert [path.name for path in (tmp_path / "epochs").iterdir()] == ["3"]


def test_closing_a_run_that_made_no_step_leaves_nothing(tmp_path):
    start(tmp_path, ALL).close()
    assert not list(tmp_path.iterdir())


def test_ctrl_c_within_a_step_loses_nothing(whole, tmp_path):
    recipe, expected = whole
    losses = []

    def loss(*arguments):
        losses.append(answers_only(*arguments))
        if len(losses) == 2:
            signal.raise_signal(signal.SIGINT)
        return losses[-1]

    with pytest.raises(KeyboardInterrupt):
        watch(start(tmp_path, recipe, loss=loss), "squares", recipe.epochs, Console(file=io.StringIO()))
    steps = []
    finish(recipe, tmp_path, watch=steps.append)
    assert steps[0].step == 3
    assert results(tmp_path) == expected


def test_a_kill_between_log_and_checkpoint(whole, tmp_path, monkeypatch):
    recipe, expected = whole
    with monkeypatch.context() as patch:
        saves = []

        def save(*args):
            saves.append(save_checkpoint(*args) if len(saves) < 1 else 1 / 0)

        save_checkpoint = module.save_checkpoint
        patch.setattr(module, "save_checkpoint", save)
        with pytest.raises(ZeroDivisionError):
            list(start(tmp_path, recipe))
    assert [line["epoch"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2]
    finish(recipe, tmp_path)
    assert results(tmp_path) == expected


def test_a_killed_process_goes_on_exactly(tmp_path):
    command = [sys.executable, in_processes.__file__, "printed", str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) == 13:
                process.kill()  # SIGKILL, wherever it is by now
        process.wait()
    assert process.returncode == -signal.SIGKILL
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    steps = []
    finish(LONG, tmp_path / "killed" / "run", watch=steps.append)
    assert 13 < steps[0].step < steps[0].steps
    finish(LONG, tmp_path / "whole", weights=0)
    torch.set_num_threads(threads)
    assert results(tmp_path / "killed" / "run") == results(tmp_path / "whole")


# --- what is not its own ----------------------------------------------------------------------------------------------

OTHERS = {
    "learning_rate 0.003 there, 0.002 now": lambda out: start(out, replace(ROWS, learning_rate=0.002)),
    "data squares there, squares-validation now, questions 15 there, 9 now": lambda out: training(
        network(), VALIDATION, VALIDATION, ROWS, out, about(network())
    ),
    "rows, words or pictures of the data differ": lambda out: training(
        network(), replace(TRAIN, attribute_names=("blue", "green", "red")), VALIDATION, ROWS, out, about(network())
    ),
    "pooling hard there, soft now": lambda out: start(
        out, ROWS, build_model("pan-soft-ctx", num_queries=2, num_attributes=3, hidden=4, attend_at=(0, 1))
    ),
}


@pytest.mark.parametrize("difference", OTHERS)
def test_another_runs_folder_is_rejected(tmp_path, difference):
    begun(tmp_path, ROWS, 5)
    with pytest.raises(ValueError, match=rf"holds another run \({difference}\); choose another --out, or delete it"):
        next(OTHERS[difference](tmp_path))


def test_another_networks_folder_is_rejected_though_it_is_not_described(tmp_path):
    list(training(ByHalves(), TRAIN, VALIDATION, ALL, tmp_path, {}))
    with pytest.raises(ValueError, match=r"holds another network's run \(size mismatch for answer.bias"):
        next(training(ByHalves(attributes=4), TRAIN, VALIDATION, ALL, tmp_path, {}))


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_checkpoint_is_rejected(tmp_path, keep):
    begun(tmp_path, ROWS, 5)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"checkpoint.safetensors can't be read .*delete it to start over"):
        next(start(tmp_path, ROWS))


@pytest.mark.parametrize(
    "notes",
    [
        {},
        {"run": "[" * 100_000, "state": "{}"},
        {"run": "{}", "state": '[{"step": 1}]'},
        {"run": "{}", "state": json.dumps({**asdict(State()), "step": "3"})},
    ],
)
def test_a_checkpoint_of_something_else_is_rejected(tmp_path, notes):
    save_file({"a": torch.zeros(1)}, tmp_path / "checkpoint.safetensors", notes)
    with pytest.raises(ValueError, match="checkpoint.safetensors is no checkpoint of a training .*another --out"):
        next(start(tmp_path, ROWS))


def test_an_optimisers_tensor_of_another_shape_is_rejected(tmp_path):
    recipe = MUON
    begun(tmp_path, recipe, 1).close()
    path = tmp_path / "checkpoint.safetensors"
    tensors, notes = read_tensors(path)
    names = [name for name in tensors if name.startswith("optimizer/")]
    assert names
    for name in names:
        other = torch.zeros(*tensors[name].shape, 1) if name.endswith("/step") else tensors[name][:0]
        write_tensors(path, {**tensors, name: other}, notes)
        shapes = rf"{re.escape(str(tuple(other.shape)))}, expected {re.escape(str(tuple(tensors[name].shape)))}"
        with pytest.raises(ValueError, match=rf"holds {name} of shape {shapes}"):
            next(start(tmp_path, recipe))
    write_tensors(path, tensors, notes)
    next(start(tmp_path, recipe))
