"""Training: schedules worked by hand, batches as promised, the best epoch kept, and no harm done by what goes wrong."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import ALL, ROWS, RUNS, TRAIN, VALIDATION, ByHalves, about, network, questions_in_epoch, start
from torch.testing import assert_close

from progressive_attention.config import RECIPES
from progressive_attention.data.questions import make_batch
from progressive_attention.evaluation.evaluate import validation_score
from progressive_attention.saved import load
from progressive_attention.training import learner
from progressive_attention.training import loop as module
from progressive_attention.training.loop import fit, masks_of, order_in_epoch, read_log, training
from progressive_attention.training.objectives import answers_only
from progressive_attention.training.optimizers import learning_rate

CPU = torch.device("cpu")

# --- schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, epochs, expected",
    [
        # x 0.9 every 30 epochs after the 50th: first when 80 epochs are done
        ("paper", (0, 50, 79), 0.003),
        ("paper", (80, 109), 0.0027),
        ("paper", (110, 139), 0.00243),
        ("paper", (140,), 0.002187),
        # / 1.5 at epoch 31, counted from 0, and every 12 after
        ("authors", (0, 30), 0.003),
        ("authors", (31, 42), 0.002),
        ("authors", (43, 54), 0.003 / 2.25),
        ("authors", (55,), 0.003 / 3.375),
    ],
)
def test_step_schedules(name, epochs, expected):
    for epoch in epochs:
        for step in (0, 9):  # of ten
            assert learning_rate(RECIPES[name], 10 * epoch + step, 3000, 10) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "step, share",
    [(0, 0.5), (1, 1.0), (5, 0.5), (3, (1 + math.sqrt(0.5)) / 2), (7, (1 - math.sqrt(0.5)) / 2), (9, 0.0)],
)
def test_one_cycle_rises_for_a_fifth_and_falls_as_a_cosine(step, share):
    assert learning_rate(ALL, step, 10, 3) == pytest.approx(0.01 * share, abs=1e-15)


def test_a_single_step_takes_the_whole_rate():
    """Otherwise it would be the last, which has none."""
    assert learning_rate(ALL, 0, 1, 1) == 0.01


# --- batches and what the loss is given -------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [ROWS, ALL, replace(ROWS, queries="one")], ids=["rows", "all", "one"])
@pytest.mark.parametrize("batch", [2, 4, 7, 100])
def test_an_epoch_asks_every_row_once(recipe, batch):
    plan = questions_in_epoch(TRAIN, replace(recipe, batch=batch), 0, 0)
    rows = np.concatenate([group for groups in plan for group in groups])
    assert sorted(rows) == list(range(len(TRAIN)))
    sizes = [len(groups) for groups in plan]
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1
    together = recipe.queries == "all"
    assert sum(sizes) == (10 if together else 15)
    for group in (group for groups in plan for group in groups):
        assert len(set(TRAIN.image[group])) == 1
        assert len(group) == np.sum(TRAIN.image == TRAIN.image[group[0]]) or not together


def test_the_order_is_the_same_in_every_release_and_another_in_each_epoch_and_seed():
    """Groups sorted by the raw integers of PCG64([seed, epoch]), a stream that NumPy keeps (NEP 19)."""
    steps = [step.tolist() for step in order_in_epoch(12, replace(ROWS, batch=5), 7, 2)]
    assert steps == [[10, 8, 6, 11], [4, 0, 5, 7], [1, 3, 9, 2]]
    bits = np.random.PCG64([7, 2])
    keys = [bits.random_raw() for _ in range(12)]
    assert keys[0] == 5127646655721812508
    assert [group for step in steps for group in step] == sorted(range(12), key=keys.__getitem__)
    orders = [np.concatenate(order_in_epoch(15, ROWS, seed, epoch)) for seed in range(5) for epoch in range(5)]
    assert len({tuple(order) for order in orders}) == 25


def test_progress_counts_steps_epochs_questions_and_the_mean_loss(tmp_path):
    values = []

    def loss(prediction, attribute, mask):
        values.append(answers_only(prediction, attribute))
        return values[-1]

    seen = list(start(tmp_path, ALL, loss=loss))
    assert [progress.step for progress in seen] == list(range(1, 10))
    assert {progress.steps for progress in seen} == {9}
    assert [progress.epoch for progress in seen] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [progress.record is not None for progress in seen] == [False, False, True] * 3
    for epoch in range(3):
        assert sum(progress.questions for progress in seen[3 * epoch : 3 * epoch + 3]) == len(TRAIN)
    for step in range(9):
        so_far = [value.item() for value in values[step // 3 * 3 : step + 1]]
        assert seen[step].loss == pytest.approx(sum(so_far) / len(so_far), rel=1e-12)
    log = read_log(tmp_path / "log.jsonl")
    assert log == [progress.record for progress in seen if progress.record]
    assert [(line["epoch"], line["step"]) for line in log] == [(1, 3), (2, 6), (3, 9)]
    assert [seen[i].loss for i in (2, 5, 8)] == [line["loss"] for line in log]


@pytest.mark.parametrize("price", [0.0, 1.0])
def test_the_loss_is_given_what_was_asked_and_masks_only_where_they_count(tmp_path, price):
    given = []

    def loss(prediction, attribute, mask):
        given.append((attribute, mask))
        return answers_only(prediction, attribute)

    next(start(tmp_path, replace(ALL, mask_price=price), loss=loss))
    batch = make_batch(TRAIN, questions_in_epoch(TRAIN, ALL, 0, 0)[0])
    (attribute, mask) = given[0]
    assert_close(attribute, torch.from_numpy(batch.attribute))
    assert torch.equal(mask, masks_of(TRAIN, batch, CPU)) if price else mask is None


# --- the best epoch ---------------------------------------------------------------------------------------------------


def scripted(monkeypatch, accuracies: list[float]) -> list[dict]:
    """Let validation give these accuracies; returns the weights as they were at each."""
    seen = []

    def score(model, *_, **__):
        seen.append({key: value.clone() for key, value in model.state_dict().items()})
        return "validation_accuracy", accuracies[len(seen) - 1]

    monkeypatch.setattr(module, "validation_score", score)
    return seen


def test_the_best_epochs_weights_are_kept(tmp_path, monkeypatch):
    seen = scripted(monkeypatch, [0.2, 0.8, 0.5, 0.8])
    config = fit(network(), TRAIN, VALIDATION, ROWS, tmp_path, about(network()))
    assert (config["best"]["epoch"], config["best"]["validation_accuracy"]) == (2, 0.8)  # the first of equals
    assert_close(load_file(tmp_path / "weights.safetensors"), seen[1], rtol=0, atol=0)
    assert [line["validation_accuracy"] for line in read_log(tmp_path / "log.jsonl")] == [0.2, 0.8, 0.5, 0.8]
    assert config["recipe"] == json.loads(json.dumps(ROWS.__dict__))
    assert_close(load(tmp_path).model.state_dict(), seen[1], rtol=0, atol=0)


@pytest.mark.parametrize("patience, epochs", [(0, 8), (1, 2), (2, 5), (3, 8)])
def test_patience_stops_a_run(tmp_path, monkeypatch, patience, epochs):
    accuracies = [0.5, 0.4, 0.6, 0.6, 0.1, 0.7, 0.1, 0.1]  # one, then two epochs without a better one
    seen = scripted(monkeypatch, accuracies)
    recipe = replace(ROWS, epochs=8, patience=patience)
    config = fit(network(), TRAIN, VALIDATION, recipe, tmp_path, about(network()))
    assert len(seen) == len(read_log(tmp_path / "log.jsonl")) == epochs
    assert config["best"]["validation_accuracy"] == max(accuracies[:epochs])
    assert list(start(tmp_path, recipe)) == []  # stopped for good


@pytest.mark.parametrize("recipe", RUNS.values(), ids=RUNS)
def test_a_run_that_is_done_is_left_alone(recipe, tmp_path):
    config = fit(network(), TRAIN, VALIDATION, recipe, tmp_path, about(network()))
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    again = fit(network(seed=1), TRAIN, VALIDATION, recipe, tmp_path, about(network()), watch=(watched := []).append)
    assert (again, watched) == (config, [])
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_kept_epochs_hold_the_weights_of_their_time(tmp_path):
    for progress in start(tmp_path, ROWS, keep_epochs=[2, 3]):
        if progress.record and progress.epoch in (2, 3):
            state = load_file(tmp_path / "checkpoint.safetensors")
            kept = load_file(tmp_path / f"epochs/{progress.epoch}/weights.safetensors")
            assert_close(kept, {name: state[f"model/{name}"] for name in kept}, rtol=0, atol=0)
    assert sorted(path.name for path in (tmp_path / "epochs").iterdir()) == ["2", "3"]
    for epoch in (2, 3):
        trained = load(tmp_path / f"epochs/{epoch}")
        assert trained.about["epoch"] == read_log(tmp_path / "log.jsonl")[epoch - 1]
        _, score = validation_score(trained.model, VALIDATION, CPU)
        assert score == trained.about["epoch"]["validation_accuracy"]
    with pytest.raises(ValueError, match="epochs to keep must be among the 4 of the training, got 5"):
        next(start(tmp_path / "other", ROWS, keep_epochs=[1, 5]))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken, cause",
    [
        (lambda value, logit: value * math.nan, "loss is nan"),
        (lambda value, logit: value + math.inf, "loss is inf"),
        (lambda value, logit: value + (0 * logit).sum().abs().sqrt(), "gradient's norm is nan"),
    ],
)
@pytest.mark.parametrize("step", [7, 9])  # amid an epoch, and its last
def test_divergence_is_reported_and_harms_nothing(tmp_path, monkeypatch, broken, cause, step):
    monkeypatch.setattr(module, "SAVE_EVERY", -1.0)
    model, calls, before = network(), [], {}

    def loss(prediction, attribute, mask):
        calls.append(1)
        value = answers_only(prediction, attribute)
        if len(calls) <= step:
            return value
        before.update({path: path.read_bytes() for path in tmp_path.iterdir()})
        before["model"] = {key: value.clone() for key, value in model.named_parameters()}
        return broken(value, prediction.logit)

    with pytest.raises(learner.Diverged, match=f"the {cause} at step {step}: .*try a lower learning rate"):
        list(start(tmp_path, ROWS, model, loss=loss))
    assert_close(dict(model.named_parameters()), before.pop("model"), rtol=0, atol=0)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    names = ["checkpoint.safetensors", "config.json", "log.jsonl", "weights.safetensors"]
    assert sorted(path.name for path in before) == names


@pytest.mark.parametrize("which", ["train", "validation"])
def test_nothing_to_ask(tmp_path, which):
    empty = replace(TRAIN.rows(np.array([], dtype=np.int64)), name="nothing")
    sets = {"train": TRAIN, "validation": VALIDATION, which: empty}
    with pytest.raises(ValueError, match="nothing holds no questions"):
        next(training(network(), sets["train"], sets["validation"], ROWS, tmp_path, about(network())))
    assert not list(tmp_path.iterdir())


# --- any network ------------------------------------------------------------------------------------------------------


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
    assert validation_score(model, VALIDATION, CPU)[1] == 1.0
