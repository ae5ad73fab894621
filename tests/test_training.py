"""Training: schedules worked by hand, batches as promised, and runs that go on exactly wherever they were killed."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

from progressive_attention import training as module
from progressive_attention import weights
from progressive_attention.config import RECIPES, Recipe
from progressive_attention.data.questions import QuestionSet
from progressive_attention.files import read_json
from progressive_attention.models import build_model
from progressive_attention.training import answer_loss, fit, learning_rate, questions_in_epoch, read_log, training

COLOURS = np.array([[220, 30, 30], [30, 220, 30], [30, 30, 220]], dtype=np.uint8)
ROWS = Recipe("rows", "rmsprop", 0.003, "step", 4, 3, "rows", decay=0.5, decay_start=1, decay_every=2)
ALL = Recipe("all", "adamw", 0.01, "one-cycle", 3, 4, "all", weight_decay=0.01)


def squares(name: str, images: int, seed: int) -> QuestionSet:
    """14 px pictures with one square in each half; what colour is the left (0), the right (1) one? 1 or 2 questions."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 3, (images, 2))
    pixels = rng.integers(0, 40, (images, 14, 14, 3), dtype=np.uint8)
    rows = []
    for i in range(images):
        for side in range(2):
            pixels[i, 4:10, 1 + 7 * side : 6 + 7 * side] = COLOURS[colour[i, side]]
        rows += [(i, side, colour[i, side]) for side in rng.permutation(2)[: 1 + i % 2]]
    image, query, attribute = np.array(rows, dtype=np.int64).T
    return QuestionSet(name, pixels, image, query, attribute, ("left", "right"), ("red", "green", "blue"))


TRAIN, VALIDATION = squares("squares", 10, 0), squares("squares-validation", 6, 1)  # 15 and 9 questions


def network(seed: int = 0) -> nn.Module:
    """A PAN of two layers with dropout and batch norm: all that a resumed run must get right."""
    torch.manual_seed(seed)
    return build_model("pan-hard-ctx", num_queries=2, num_attributes=3, hidden=4, attend_at=(0, 1))


def about(model: nn.Module) -> dict:
    return weights.describe(model.config, TRAIN.query_names, TRAIN.attribute_names)


def start(out: Path, recipe: Recipe, model: nn.Module | None = None, **changes):
    model = network() if model is None else model
    return training(model, TRAIN, VALIDATION, recipe, out, about(model), **changes)


# --- schedules --------------------------------------------------------------------------------------------------------


def rate(name: str, epoch: int, step: int = 0) -> float:
    """The rate at a step of an epoch (from 0) of ten steps."""
    return learning_rate(RECIPES[name], 10 * epoch + step, 3000, 10)


@pytest.mark.parametrize(
    "name, epoch, expected",
    [
        # x 0.9 every 30 epochs after the 50th: first when 80 epochs are done
        *[("paper", epoch, 0.003) for epoch in (0, 50, 79)],
        *[("paper", epoch, 0.0027) for epoch in (80, 109)],
        *[("paper", epoch, 0.00243) for epoch in (110, 139)],
        ("paper", 140, 0.002187),
        # / 1.5 at epoch 31, counted from 0, and every 12 after
        *[("authors", epoch, 0.003) for epoch in (0, 30)],
        *[("authors", epoch, 0.002) for epoch in (31, 42)],
        *[("authors", epoch, 0.003 / 2.25) for epoch in (43, 54)],
        ("authors", 55, 0.003 / 3.375),
    ],
)
def test_step_schedules(name, epoch, expected):
    for step in (0, 9):
        assert rate(name, epoch, step) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "step, share",
    [(0, 0.5), (1, 1.0), (5, 0.5), (3, (1 + math.sqrt(0.5)) / 2), (7, (1 - math.sqrt(0.5)) / 2), (9, 0.0)],
)
def test_one_cycle_rises_for_a_fifth_and_falls_as_a_cosine(step, share):
    assert learning_rate(ALL, step, 10, 3) == pytest.approx(0.01 * share, abs=1e-15)


def test_the_rate_is_set_at_every_step(tmp_path, monkeypatch):
    rates, optimizers = [], []
    make = module.make_optimizer
    monkeypatch.setattr(module, "make_optimizer", lambda *args: optimizers.append(make(*args)) or optimizers[0])
    for _ in start(tmp_path, ROWS):
        rates.append(optimizers[0].param_groups[0]["lr"])
    assert rates == [0.003] * 5 + [0.0015] * 10 + [0.00075] * 5


def test_optimisers():
    parameters = [nn.Parameter(torch.zeros(2))]
    rmsprop, adamw = (module.make_optimizer(recipe, iter(parameters)) for recipe in (ROWS, ALL))
    assert isinstance(rmsprop, torch.optim.RMSprop)
    assert isinstance(adamw, torch.optim.AdamW)
    assert [group["weight_decay"] for group in rmsprop.param_groups + adamw.param_groups] == [0, 0.01]


# --- loss and batches -------------------------------------------------------------------------------------------------


def test_loss_is_the_mean_over_the_asked_rows():
    probability = torch.tensor([[[0.5, 0.5], [0.25, 0.75]], [[0.1, 0.9], [1.0, 1.0]]], dtype=torch.float64)
    attribute = torch.tensor([[0, 1], [1, -1]])
    expected = -(math.log(0.5) + math.log(0.75) + math.log(0.9)) / 3
    assert_close(answer_loss(probability.log(), attribute), torch.tensor(expected, dtype=torch.float64))
    assert gradcheck(lambda p: answer_loss(p, attribute), (probability.log().requires_grad_(),))
    assert answer_loss(probability.log().bfloat16(), attribute).dtype == torch.float32


@pytest.mark.parametrize("recipe", [ROWS, ALL, replace(ROWS, queries="one")], ids=["rows", "all", "one"])
@pytest.mark.parametrize("batch", [2, 3, 4, 7, 100])
def test_an_epoch_asks_every_row_once(recipe, batch):
    plan = questions_in_epoch(TRAIN, replace(recipe, batch=batch), 0, 0)
    rows = np.concatenate([group for groups in plan for group in groups])
    assert sorted(rows) == list(range(len(TRAIN)))
    sizes = [len(groups) for groups in plan]
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1
    for groups in plan:
        for group in groups:
            assert len(set(TRAIN.image[group])) == 1
    together = recipe.queries == "all"
    assert sum(sizes) == (10 if together else 15)
    assert all(len(group) == np.sum(TRAIN.image == TRAIN.image[group[0]]) for g in plan for group in g) or not together


def test_no_batch_of_one_lone_row():
    for rows in range(2, 60):
        for batch in range(3, 20):
            plan = questions_in_epoch(TRAIN.rows(np.arange(rows) % len(TRAIN)), replace(ROWS, batch=batch), 0, 0)
            assert min(len(groups) for groups in plan) >= 2, (rows, batch)


def order(seed: int, epoch: int) -> list[int]:
    return [int(group[0]) for groups in questions_in_epoch(TRAIN, ROWS, seed, epoch) for group in groups]


def test_the_order_is_a_function_of_seed_and_epoch():
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(5) for epoch in range(5)}) == 25


def test_progress_counts_steps_epochs_and_questions(tmp_path):
    seen = list(start(tmp_path, ALL))
    assert [progress.step for progress in seen] == list(range(1, 10))
    assert {progress.steps for progress in seen} == {9}
    assert [progress.epoch for progress in seen] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [progress.record is not None for progress in seen] == [False, False, True] * 3
    for epoch in range(3):
        assert sum(progress.questions for progress in seen[3 * epoch : 3 * epoch + 3]) == len(TRAIN)
    log = read_log(tmp_path / "log.jsonl")
    assert log == [progress.record for progress in seen if progress.record]
    assert [(line["epoch"], line["step"]) for line in log] == [(1, 3), (2, 6), (3, 9)]
    assert [seen[i].loss for i in (2, 5, 8)] == [line["loss"] for line in log]


def test_the_logged_loss_is_the_mean_over_the_epoch(tmp_path):
    values = []

    def loss(logit, attribute):
        values.append(answer_loss(logit, attribute))
        return values[-1]

    means = [progress.loss for progress in start(tmp_path, ALL, loss=loss)]
    for step in range(9):
        so_far = [value.item() for value in values[step // 3 * 3 : step + 1]]
        assert means[step] == pytest.approx(sum(so_far) / len(so_far), rel=1e-12)


# --- a run that is interrupted ----------------------------------------------------------------------------------------


def results(out: Path) -> tuple[bytes, dict, list[dict], dict]:
    """All that a run leaves, but for the seconds that it took: best weights, last state, log, config."""

    def timeless(record: dict) -> dict:
        return {key: value for key, value in record.items() if not key.endswith("seconds")}

    config = read_json(out / "config.json")
    config["best"] = timeless(config["best"])
    state = {key: value.numpy().tobytes() for key, value in load_file(out / "checkpoint.safetensors").items()}
    return (out / "weights.safetensors").read_bytes(), state, [*map(timeless, read_log(out / "log.jsonl"))], config


@pytest.fixture(scope="module", params=[ROWS, ALL], ids=["rmsprop, rows", "adamw, all"])
def whole(request, tmp_path_factory):
    """A recipe and what an uninterrupted run of it leaves."""
    out = tmp_path_factory.mktemp("whole")
    fit(network(), TRAIN, VALIDATION, request.param, out, about(network()))
    return request.param, results(out)


@pytest.mark.parametrize("stops", [[1], [4], [5], [3, 3, 2], [1] * 30], ids=str)
def test_an_interrupted_run_goes_on_exactly(whole, stops, tmp_path, monkeypatch):
    recipe, expected = whole
    monkeypatch.setattr(module, "SAVE_EVERY", -1.0)  # at every step
    for i, steps in enumerate(stops):
        run = start(tmp_path, recipe, network(seed=i))  # other initial weights: all must come from the checkpoint
        for _, _ in zip(range(steps), run, strict=False):
            torch.rand(i)  # and other draws in between
        run.close()
    fit(network(seed=99), TRAIN, VALIDATION, recipe, tmp_path, about(network()))
    assert results(tmp_path) == expected
    assert not list(tmp_path.glob(".*"))


def test_what_was_not_saved_is_done_again(whole, tmp_path):
    recipe, expected = whole  # here checkpoints come at the ends of epochs only
    run = start(tmp_path, recipe)
    for _ in range(7):
        next(run)
    run.close()
    assert next(start(tmp_path, recipe)).step == (6 if recipe is ROWS else 7)
    fit(network(seed=1), TRAIN, VALIDATION, recipe, tmp_path, about(network()))
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
import test_training as here
here.module.SAVE_EVERY = -1.0
for progress in here.start(Path(sys.argv[1]), here.LONG):
    print(progress.step, flush=True)
"""
LONG = replace(ROWS, epochs=30)


def test_a_killed_process_goes_on_exactly(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(killed), str(torch.get_num_threads()), str(Path(__file__).parent)]
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


# --- the best epoch ---------------------------------------------------------------------------------------------------


def scripted(monkeypatch, accuracies: list[float]) -> list[dict]:
    """Let validation give these accuracies; returns the weights as they were at each."""
    seen = []

    def accuracy(model, *_, **__):
        seen.append({key: value.clone() for key, value in model.state_dict().items()})
        return accuracies[len(seen) - 1]

    monkeypatch.setattr(module, "accuracy", accuracy)
    return seen


def test_the_best_epochs_weights_are_kept(tmp_path, monkeypatch):
    seen = scripted(monkeypatch, [0.2, 0.8, 0.5, 0.8])
    config = fit(network(), TRAIN, VALIDATION, ROWS, tmp_path, about(network()))
    assert (config["best"]["epoch"], config["best"]["validation_accuracy"]) == (2, 0.8)  # the first of equals
    assert_close(load_file(tmp_path / "weights.safetensors"), seen[1], rtol=0, atol=0)
    assert [line["validation_accuracy"] for line in read_log(tmp_path / "log.jsonl")] == [0.2, 0.8, 0.5, 0.8]
    assert config["recipe"] == json.loads(json.dumps(ROWS.__dict__))
    assert_close(weights.load(tmp_path).model.state_dict(), seen[1], rtol=0, atol=0)


@pytest.mark.parametrize("patience, epochs", [(0, 8), (1, 2), (2, 5), (3, 8), (100, 8)])
def test_patience_stops_a_run(tmp_path, monkeypatch, patience, epochs):
    accuracies = [0.5, 0.4, 0.6, 0.6, 0.1, 0.7, 0.1, 0.1]  # one, then two epochs without a better one
    seen = scripted(monkeypatch, accuracies)
    recipe = replace(ROWS, epochs=8, patience=patience)
    config = fit(network(), TRAIN, VALIDATION, recipe, tmp_path, about(network()))
    assert len(seen) == len(read_log(tmp_path / "log.jsonl")) == epochs
    assert config["best"]["validation_accuracy"] == max(accuracies[:epochs])
    assert list(start(tmp_path, recipe)) == []  # stopped for good
    assert fit(network(), TRAIN, VALIDATION, recipe, about=about(network()), out=tmp_path) == config


def test_a_run_that_is_done_is_left_alone(whole, tmp_path):
    recipe, _ = whole
    config = fit(network(), TRAIN, VALIDATION, recipe, tmp_path, about(network()))
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    watched = []
    again = fit(network(seed=1), TRAIN, VALIDATION, recipe, tmp_path, about(network()), watch=watched.append)
    assert again == config
    assert watched == []
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


# --- errors -----------------------------------------------------------------------------------------------------------


OTHERS = {
    "learning_rate 0.003 there, 0.002 now": lambda out: start(out, replace(ROWS, learning_rate=0.002)),
    "seed 0 there, 1 now": lambda out: start(out, ROWS, seed=1),
    "data squares there, squares-validation now, questions 15 there, 9 now": lambda out: training(
        network(), VALIDATION, TRAIN, ROWS, out, about(network())
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


def to_nan(logit, attribute):
    return answer_loss(logit, attribute) * math.nan


def to_infinite_gradient(logit, attribute):
    return answer_loss(logit, attribute) + (0 * logit).sum().abs().sqrt()


@pytest.mark.parametrize(
    "broken, what", [(to_nan, "the loss is nan"), (to_infinite_gradient, "the gradient's norm is nan")]
)
@pytest.mark.parametrize("step", [7, 9])  # amid an epoch, and its last
def test_divergence_is_told_and_harms_nothing(tmp_path, monkeypatch, broken, what, step):
    monkeypatch.setattr(module, "SAVE_EVERY", -1.0)
    model, calls, before = network(), [], {}

    def loss(logit, attribute):
        calls.append(1)
        if len(calls) == step + 1:
            before.update({path: path.read_bytes() for path in tmp_path.iterdir()})
            before["model"] = {key: value.clone() for key, value in model.named_parameters()}
            return broken(logit, attribute)
        return answer_loss(logit, attribute)

    with pytest.raises(ValueError, match=f"{what} at step {step}: .*try a lower learning rate.*is unharmed"):
        list(start(tmp_path, ROWS, model, loss=loss))
    assert_close(dict(model.named_parameters()), before.pop("model"), rtol=0, atol=0)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    names = ["checkpoint.safetensors", "config.json", "log.jsonl", "weights.safetensors"]
    assert sorted(path.name for path in before) == names


@pytest.mark.parametrize("which", ["train", "validation"])
def test_nothing_to_ask(tmp_path, which):
    empty = replace(TRAIN.rows(np.array([], dtype=np.int64)), name="nothing")
    sets = {"train": TRAIN, "validation": VALIDATION, which: empty}
    with pytest.raises(ValueError, match="nothing holds no questions; training needs some"):
        next(training(network(), sets["train"], sets["validation"], ROWS, tmp_path, about(network())))
    assert not list(tmp_path.iterdir())


# --- any network ------------------------------------------------------------------------------------------------------


class ByHalves(nn.Module):
    """Linear in each half's mean colour: no attention, no convolution, no config."""

    def __init__(self, attributes: int = 3) -> None:
        super().__init__()
        self.answer = nn.Linear(3, attributes)

    def forward(self, image: torch.Tensor, query: torch.Tensor) -> SimpleNamespace:
        halves = torch.stack([image[..., :7].mean((2, 3)), image[..., 7:].mean((2, 3))], 1)  # (B, 2, 3)
        chosen = halves[torch.arange(len(image))[:, None], query.clamp(min=0)]
        return SimpleNamespace(logit=self.answer(chosen).log_softmax(-1))


def test_any_network_that_answers_can_be_trained(tmp_path):
    torch.manual_seed(0)
    model = ByHalves()
    recipe = replace(ALL, learning_rate=0.3, epochs=60)
    config = fit(model, TRAIN, VALIDATION, recipe, tmp_path, {"what": "no attention"})
    assert config["what"] == "no attention"
    assert config["best"]["validation_accuracy"] == 1.0
    log = read_log(tmp_path / "log.jsonl")
    assert log[-1]["loss"] < 0.1 < log[0]["loss"]
    model.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert module.accuracy(model, VALIDATION, torch.device("cpu")) == 1.0
