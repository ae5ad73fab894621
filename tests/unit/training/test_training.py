"""Training: schedules worked by hand, batches as promised, and runs that go on exactly wherever they were killed."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import ALL, MUON, ROWS, RUNS, TRAIN, VALIDATION, ByHalves, about, network, questions_in_epoch, start
from torch import nn
from torch.testing import assert_close

from progressive_attention.config import RECIPES
from progressive_attention.data.questions import make_batch
from progressive_attention.evaluation.evaluate import validation_score
from progressive_attention.saved import weights
from progressive_attention.training import loop as module
from progressive_attention.training.loop import fit, learning_rate, masks_of, read_log, training
from progressive_attention.training.objectives import answers_only
from progressive_attention.training.optimizers import Muon

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


def test_a_single_step_takes_the_whole_rate():
    """Else it would be the last, which has none."""
    assert learning_rate(ALL, 0, 1, 1) == 0.01


def test_the_rate_is_set_at_every_step(tmp_path, monkeypatch):
    rates, optimizers = [], []
    make = module.make_optimizer
    monkeypatch.setattr(module, "make_optimizer", lambda *args: optimizers.append(make(*args)) or optimizers[0])
    for _ in start(tmp_path, ROWS):
        rates.append(optimizers[0].param_groups[0]["lr"])
    assert rates == [0.003] * 5 + [0.0015] * 10 + [0.00075] * 5


def test_optimisers():
    parameters = [nn.Parameter(torch.zeros(2))]
    made = [module.make_optimizer(recipe, iter(parameters)) for recipe in (ROWS, ALL, MUON)]
    assert [type(optimizer) for optimizer in made] == [torch.optim.RMSprop, torch.optim.AdamW, Muon]
    assert [optimizer.param_groups[0]["weight_decay"] for optimizer in made] == [0, 0.01, 0.01]
    assert [optimizer.param_groups[0]["lr"] for optimizer in made] == [0.003, 0.01, 0.01]


# --- batches and what the loss is told --------------------------------------------------------------------------------


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


def test_the_order_is_the_same_in_every_release():
    """Groups sorted by the raw integers of PCG64([seed, epoch]), a stream that NumPy keeps (NEP 19)."""
    steps = [step.tolist() for step in module.order_in_epoch(12, replace(ROWS, batch=5), 7, 2)]
    assert steps == [[10, 8, 6, 11], [4, 0, 5, 7], [1, 3, 9, 2]]
    bits = np.random.PCG64([7, 2])
    keys = [bits.random_raw() for _ in range(12)]
    assert keys[0] == 5127646655721812508
    assert [group for step in steps for group in step] == sorted(range(12), key=keys.__getitem__)


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

    def loss(prediction, attribute, mask):
        values.append(answers_only(prediction, attribute))
        return values[-1]

    means = [progress.loss for progress in start(tmp_path, ALL, loss=loss)]
    for step in range(9):
        so_far = [value.item() for value in values[step // 3 * 3 : step + 1]]
        assert means[step] == pytest.approx(sum(so_far) / len(so_far), rel=1e-12)


def test_masks_of_a_batch_are_the_loop():
    groups = list(TRAIN.groups(together=True))[3:7]
    batch = make_batch(TRAIN, groups)
    masks = masks_of(TRAIN, batch, torch.device("cpu"))
    assert masks.shape == (4, 2, 14, 14)
    assert masks.dtype == torch.bool
    assert {len(group) for group in groups} == {1, 2}
    for b in range(4):
        for k in range(2):
            expected = torch.zeros(14, 14, dtype=torch.bool)
            if k < len(groups[b]):
                side = TRAIN.query[groups[b][k]]
                expected[4:10, 1 + 7 * side : 6 + 7 * side] = True
            assert torch.equal(masks[b, k], expected), (b, k)
    assert masks_of(replace(TRAIN, masks=None), batch, torch.device("cpu")) is None


@pytest.mark.parametrize("price", [0.0, 1.0])
def test_the_loss_is_told_what_was_asked_and_of_masks_only_where_they_count(tmp_path, price):
    told = []

    def loss(prediction, attribute, mask):
        told.append((attribute, mask))
        return answers_only(prediction, attribute)

    next(start(tmp_path, replace(ALL, mask_price=price), loss=loss))
    batch = make_batch(TRAIN, questions_in_epoch(TRAIN, ALL, 0, 0)[0])
    assert_close(told[0][0], torch.from_numpy(batch.attribute))
    expected = masks_of(TRAIN, batch, torch.device("cpu")) if price else None
    assert (told[0][1] is None) if expected is None else torch.equal(told[0][1], expected)


# --- the best epoch ---------------------------------------------------------------------------------------------------


def scripted(monkeypatch, accuracies: list[float]) -> list[dict]:
    """Let validation give these accuracies; returns the weights as they were at each."""
    seen = []

    def accuracy(model, *_, **__):
        seen.append({key: value.clone() for key, value in model.state_dict().items()})
        return "validation_accuracy", accuracies[len(seen) - 1]

    monkeypatch.setattr(module, "validation_score", accuracy)
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


@pytest.mark.parametrize("recipe", RUNS.values(), ids=RUNS)
def test_a_run_that_is_done_is_left_alone(recipe, tmp_path):
    config = fit(network(), TRAIN, VALIDATION, recipe, tmp_path, about(network()))
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    watched = []
    again = fit(network(seed=1), TRAIN, VALIDATION, recipe, tmp_path, about(network()), watch=watched.append)
    assert again == config
    assert watched == []
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_kept_epochs_hold_the_weights_of_their_time(tmp_path):
    for progress in start(tmp_path, ROWS, keep_epochs=[2, 3]):
        if progress.record and progress.epoch in (2, 3):
            state = load_file(tmp_path / "checkpoint.safetensors")
            kept = load_file(tmp_path / f"epochs/{progress.epoch}/weights.safetensors")
            assert_close(kept, {name: state[f"model/{name}"] for name in kept}, rtol=0, atol=0)
    assert sorted(path.name for path in (tmp_path / "epochs").iterdir()) == ["2", "3"]
    for epoch in (2, 3):
        trained = weights.load(tmp_path / f"epochs/{epoch}")
        assert trained.about["epoch"] == read_log(tmp_path / "log.jsonl")[epoch - 1]
        _, score = validation_score(trained.model, VALIDATION, torch.device("cpu"))
        assert score == trained.about["epoch"]["validation_accuracy"]


# --- errors -----------------------------------------------------------------------------------------------------------


def to_nan(prediction, attribute):
    return answers_only(prediction, attribute) * math.nan


def to_infinity(prediction, attribute):
    return answers_only(prediction, attribute) + math.inf


def to_infinite_gradient(prediction, attribute):
    return answers_only(prediction, attribute) + (0 * prediction.logit).sum().abs().sqrt()


@pytest.mark.parametrize(
    "broken, what",
    [(to_nan, "loss is nan"), (to_infinity, "loss is inf"), (to_infinite_gradient, "gradient's norm is nan")],
)
@pytest.mark.parametrize("step", [7, 9])  # amid an epoch, and its last
def test_divergence_is_told_and_harms_nothing(tmp_path, monkeypatch, broken, what, step):
    monkeypatch.setattr(module, "SAVE_EVERY", -1.0)
    model, calls, before = network(), [], {}

    def loss(prediction, attribute, mask):
        calls.append(1)
        if len(calls) == step + 1:
            before.update({path: path.read_bytes() for path in tmp_path.iterdir()})
            before["model"] = {key: value.clone() for key, value in model.named_parameters()}
            return broken(prediction, attribute)
        return answers_only(prediction, attribute)

    with pytest.raises(ValueError, match=f"the {what} at step {step}: .*try a lower learning rate.*is unharmed"):
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
    assert validation_score(model, VALIDATION, torch.device("cpu"))[1] == 1.0
