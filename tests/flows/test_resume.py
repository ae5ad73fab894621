"""Runs go on exactly wherever they were stopped, and refuse what is not theirs."""

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from tiny_runs import ALL, ROWS, RUNS, TRAIN, VALIDATION, ByHalves, about, network, results, start

from progressive_attention.commands.train import watch
from progressive_attention.files import read_tensors, write_tensors
from progressive_attention.network.build import build_model
from progressive_attention.training import checkpoints
from progressive_attention.training import loop as module
from progressive_attention.training.loop import fit, read_log, training
from progressive_attention.training.objectives import answers_only


@pytest.fixture(scope="module", params=RUNS.values(), ids=RUNS)
def whole(request, tmp_path_factory):
    """A recipe and what an uninterrupted run of it leaves."""
    out = tmp_path_factory.mktemp("whole")
    fit(network(), TRAIN, VALIDATION, request.param, out, about(network()))
    return request.param, results(out)


def kill(run):
    """End a run where it stands, as a crash would: it can save nothing more."""
    with pytest.raises(ZeroDivisionError):
        run.throw(ZeroDivisionError)


@pytest.mark.parametrize("stops", [[1], [4], [5], [3, 3, 2], [1] * 30], ids=str)
@pytest.mark.parametrize("every, end", [(60.0, Generator.close), (-1.0, kill)], ids=["closed", "killed"])
def test_an_interrupted_run_goes_on_exactly(whole, stops, every, end, tmp_path, monkeypatch):
    recipe, expected = whole
    monkeypatch.setattr(module, "SAVE_EVERY", every)  # -1: at every step
    reached = 0
    for i, steps in enumerate(stops):
        run = start(tmp_path, recipe, network(seed=i))  # other initial weights: all must come from the checkpoint
        for _, progress in zip(range(steps), run, strict=False):
            torch.rand(i)  # and other draws in between
            assert progress.step == reached + 1  # nothing is done twice
            reached = progress.step
        end(run)
    fit(network(seed=99), TRAIN, VALIDATION, recipe, tmp_path, about(network()))
    assert results(tmp_path) == expected
    assert not list(tmp_path.glob(".*"))


def test_what_was_not_saved_is_done_again(whole, tmp_path):
    recipe, expected = whole  # here checkpoints come at the ends of epochs only
    run = start(tmp_path, recipe)
    for _ in range(7):
        next(run)
    kill(run)
    assert next(start(tmp_path, recipe)).step == (6 if recipe is ROWS else 7)
    fit(network(seed=1), TRAIN, VALIDATION, recipe, tmp_path, about(network()))
    assert results(tmp_path) == expected


def test_kept_epochs_are_those_of_an_uninterrupted_run(whole, tmp_path):
    recipe, expected = whole
    fit(network(), TRAIN, VALIDATION, recipe, tmp_path / "whole", about(network()), keep_epochs=[1, 2])
    run = start(tmp_path / "killed", recipe, keep_epochs=[1, 2])
    for _ in range(7):
        next(run)
    kill(run)
    fit(network(seed=1), TRAIN, VALIDATION, recipe, tmp_path / "killed", about(network()), keep_epochs=[1, 2])
    assert results(tmp_path / "killed") == results(tmp_path / "whole") == expected
    for epoch in "12":
        killed, kept = (tmp_path / name / "epochs" / epoch / "weights.safetensors" for name in ("killed", "whole"))
        assert killed.read_bytes() == kept.read_bytes()


def test_a_run_that_goes_on_keeps_what_is_still_to_come(tmp_path):
    run = start(tmp_path, ROWS)
    for _ in range(7):
        next(run)
    run.close()
    fit(network(seed=1), TRAIN, VALIDATION, ROWS, tmp_path, about(network()), keep_epochs=[1, 3])
    assert [path.name for path in (tmp_path / "epochs").iterdir()] == ["3"]


def test_closing_a_run_that_made_no_step_leaves_nothing(tmp_path):
    start(tmp_path, ALL).close()
    assert not list(tmp_path.iterdir())


def test_a_watcher_that_fails_costs_no_step(whole, tmp_path):
    recipe, expected = whole

    def watch(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as held:
        fit(network(), TRAIN, VALIDATION, recipe, tmp_path, about(network()), watch=watch)
    fit(network(seed=1), TRAIN, VALIDATION, recipe, tmp_path, about(network()), watch=(steps := []).append)
    assert [progress.step for progress in steps][:2] == [5, 6]
    del held  # whose traceback kept all that was alive
    assert results(tmp_path) == expected


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
    fit(network(seed=1), TRAIN, VALIDATION, recipe, tmp_path, about(network()), watch=(steps := []).append)
    assert steps[0].step == 3
    assert results(tmp_path) == expected


def test_a_kill_between_log_and_checkpoint(whole, tmp_path, monkeypatch):
    recipe, expected = whole
    run = start(tmp_path, recipe)
    with monkeypatch.context() as patch:
        saves = []

        def save(*args):
            saves.append(save_checkpoint(*args) if len(saves) < 1 else 1 / 0)

        save_checkpoint = module.save_checkpoint
        patch.setattr(module, "save_checkpoint", save)
        with pytest.raises(ZeroDivisionError):
            list(run)
    assert [line["epoch"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2]
    fit(network(seed=1), TRAIN, VALIDATION, recipe, tmp_path, about(network()))
    assert results(tmp_path) == expected


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[2]))
sys.path.insert(0, sys.argv[3])
import test_resume as here
here.module.SAVE_EVERY = -1.0
for progress in here.start(Path(sys.argv[1]), here.LONG):
    print(progress.step, flush=True)
"""
LONG = replace(ROWS, epochs=30)


def test_a_killed_process_goes_on_exactly(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(killed),
        str(torch.get_num_threads()),
        str(Path(__file__).parents[1] / "support"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) == 13:
                process.kill()  # SIGKILL, wherever it is by now
        process.wait()
    assert process.returncode == -signal.SIGKILL
    run = start(killed, LONG, network(seed=1))
    first = next(run)
    assert 13 < first.step < first.steps
    run.close()
    fit(network(seed=2), TRAIN, VALIDATION, LONG, killed, about(network()))
    fit(network(), TRAIN, VALIDATION, LONG, whole, about(network()))
    assert results(killed) == results(whole)


def test_the_seed_decides_the_run(tmp_path, whole):
    recipe, expected = whole
    for name, seed in {"same": 0, "other": 1}.items():
        fit(network(), TRAIN, VALIDATION, recipe, tmp_path / name, about(network()), seed=seed)
    assert results(tmp_path / "same") == expected
    assert results(tmp_path / "other")[0] != expected[0]


OTHERS = {
    "learning_rate 0.003 there, 0.002 now": lambda out: start(out, replace(ROWS, learning_rate=0.002)),
    "seed 0 there, 1 now": lambda out: start(out, ROWS, seed=1),
    "data squares there, squares-validation now, questions 15 there, 9 now": lambda out: training(
        network(), VALIDATION, VALIDATION, ROWS, out, about(network())
    ),
    "validation questions 9 there, 15 now": lambda out: training(network(), TRAIN, TRAIN, ROWS, out, about(network())),
    "content .{25} there, .{25} now: rows, words or pictures of the data differ": lambda out: training(
        network(), replace(TRAIN, attribute_names=("blue", "green", "red")), VALIDATION, ROWS, out, about(network())
    ),
    "pooling hard there, soft now": lambda out: start(
        out, ROWS, build_model("pan-soft-ctx", num_queries=2, num_attributes=3, hidden=4, attend_at=(0, 1))
    ),
}


@pytest.mark.parametrize("difference", OTHERS)
def test_another_runs_folder_is_refused(tmp_path, difference):
    for _, _ in zip(range(5), start(tmp_path, ROWS), strict=False):
        pass
    expected = rf"holds another run \({difference}\); choose another --out, or delete it"
    with pytest.raises(ValueError, match=expected):
        next(OTHERS[difference](tmp_path))


def test_a_checkpoint_that_does_not_note_its_content_is_gone_on_with(tmp_path):
    """As those of earlier versions."""
    run = start(tmp_path, ROWS)
    next(run)
    run.close()
    path = tmp_path / "checkpoint.safetensors"
    tensors, notes = read_tensors(path)
    earlier = json.loads(notes["run"])
    del earlier["content"]
    write_tensors(path, tensors, {"state": notes["state"], "run": json.dumps(earlier)})
    assert next(start(tmp_path, ROWS)).step == 2


def test_another_networks_folder_is_refused_though_it_is_not_described(tmp_path):
    list(training(ByHalves(), TRAIN, VALIDATION, ALL, tmp_path, {}))
    with pytest.raises(ValueError, match=r"holds another network's run \(size mismatch for answer.bias.*delete it"):
        next(training(ByHalves(attributes=4), TRAIN, VALIDATION, ALL, tmp_path, {}))


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, keep):
    for _, _ in zip(range(5), start(tmp_path, ROWS), strict=False):
        pass
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"checkpoint.safetensors can't be read .*delete it to start over, or choose"):
        next(start(tmp_path, ROWS))


def test_a_foreign_checkpoint_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "checkpoint.safetensors")
    with pytest.raises(ValueError, match="checkpoint.safetensors is no checkpoint of a training; choose another --out"):
        next(start(tmp_path, ROWS))


@pytest.mark.parametrize(
    "notes",
    [
        {"run": "{}"},
        {"run": "[" * 100_000, "state": "{}"},
        {"run": "[]", "state": "{}"},
        {"run": "{}", "state": '[{"step": 1}]'},
        {"run": "{", "state": "{}"},
        {"run": "{}", "state": json.dumps({**asdict(checkpoints.State()), "step": "3"})},
        {"run": "{}", "state": json.dumps({**asdict(checkpoints.State()), "stopped": 255})},
    ],
)
def test_a_checkpoint_with_broken_notes_is_refused(tmp_path, notes):
    save_file({"a": torch.zeros(1)}, tmp_path / "checkpoint.safetensors", notes)
    with pytest.raises(ValueError, match="checkpoint.safetensors (is no checkpoint|has a broken note|must be)"):
        next(start(tmp_path, ROWS))


@pytest.mark.parametrize("recipe", RUNS.values(), ids=RUNS)
def test_an_optimisers_tensor_of_another_shape_is_refused(recipe, tmp_path):
    run = start(tmp_path, recipe)
    next(run)
    run.close()
    path = tmp_path / "checkpoint.safetensors"
    tensors, notes = read_tensors(path)
    whole = [name for name in tensors if name.startswith("optimizer/")]
    assert whole
    for name in whole:
        other = torch.zeros(*tensors[name].shape, 1) if name.endswith("/step") else tensors[name][:0]
        write_tensors(path, {**tensors, name: other}, {key: notes[key] for key in ("state", "run")})
        shapes = rf"{re.escape(str(tuple(other.shape)))}, expected {re.escape(str(tuple(tensors[name].shape)))}"
        with pytest.raises(ValueError, match=rf"safetensors holds {name} of shape {shapes}; choose another --out"):
            next(start(tmp_path, recipe))
    write_tensors(path, tensors, {key: notes[key] for key in ("state", "run")})
    next(start(tmp_path, recipe))


def test_another_versions_checkpoint_is_refused(tmp_path, monkeypatch):
    """Versions before this one counted ``best_accuracy``."""

    @dataclass
    class Before(checkpoints.State):
        best_accuracy: float = -1.0

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "State", Before)
        run = start(tmp_path, ROWS)
        next(run)
        run.close()
    with pytest.raises(ValueError, match=r"is of another version .*best_accuracy\); go on with that version"):
        next(start(tmp_path, ROWS))
