"""Training on pictures in files: labels, augmentation, frozen stages and broken files, and runs that go on exactly."""

from collections.abc import Generator
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_photographs import FROZEN, RECIPE, SIDE, about, finish, network, photographs, run, write_photographs
from tiny_runs import TRAIN as IN_MEMORY
from tiny_runs import questions_in_epoch, results
from torch.testing import assert_close

from progressive_attention.data import images
from progressive_attention.data.questions import make_batch
from progressive_attention.evaluation import ask
from progressive_attention.evaluation.evaluate import evaluate_with_rows, validation_score
from progressive_attention.network.build import build_model
from progressive_attention.saved import load
from progressive_attention.training import loop as module
from progressive_attention.training.loop import fit, masks_of, moved, training
from progressive_attention.training.objectives import answers_only
from progressive_attention.training.setup import prepared

CPU = torch.device("cpu")
CROPPED = replace(RECIPE, augment="crop")
RECIPES = {
    "crop": CROPPED,
    "frozen": FROZEN,
    "frozen, flip": replace(FROZEN, augment="flip"),
    "frozen, each row": replace(FROZEN, queries="rows"),
}


# --- that it learns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [True, False])
def test_colours_are_learnt(tmp_path, many):
    """From labels, above what the query alone tells; from one colour a question, above chance."""
    write_photographs(tmp_path / "set", images=24, many=many)
    train, _ = photographs(tmp_path / "set")
    recipe = replace(RECIPE, schedule="one-cycle", epochs=20, batch=6)
    names = {"data": "set", "protocol": "paper", "seed": 0, "device": CPU}
    changes = {"hidden": 4, "attend_at": (0, 1)}
    steps = prepared("pan-soft-ctx", train, train, recipe, tmp_path / "run", changes=changes, **names)
    records = [progress.record for progress in steps if progress.record]
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    trained = load(tmp_path / "run")
    assert trained.model.config.likelihood == ("bernoulli" if many else "softmax")
    if many:
        found, _ = evaluate_with_rows(trained, train, CPU, train)
        assert found["weighted_mean_ap"] > found["query_prior_weighted_mean_ap"] + 0.2
        assert found["weighted_mean_ap"] == pytest.approx(trained.about["best"]["validation_weighted_mean_ap"])
    else:
        assert trained.about["best"]["validation_accuracy"] > 0.6


# --- runs go on exactly -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=RECIPES.values(), ids=RECIPES)
def whole(request, photograph_folder, tmp_path_factory):
    """A recipe and what an uninterrupted run of it leaves."""
    out = tmp_path_factory.mktemp("whole")
    finish(photograph_folder, request.param, out)
    return request.param, results(out)


def kill(run):
    """End a run where it stands, as a crash would."""
    with pytest.raises(ZeroDivisionError):
        run.throw(ZeroDivisionError)


@pytest.mark.parametrize("stops", [[2, 1, 3], [1] * 9], ids=str)
@pytest.mark.parametrize("every, end", [(60.0, Generator.close), (-1.0, kill)], ids=["closed", "killed"])
def test_an_interrupted_run_goes_on_exactly(whole, photograph_folder, stops, every, end, tmp_path, monkeypatch):
    recipe, expected = whole
    monkeypatch.setattr(module, "SAVE_EVERY", every)  # -1: at every step
    reached = 0
    for i, steps in enumerate(stops):
        part = run(photograph_folder, recipe, tmp_path, seed=i)  # other weights: all must come from the checkpoint
        for _, progress in zip(range(steps), part, strict=False):
            assert progress.step == reached + 1
            reached = progress.step
        end(part)
    finish(photograph_folder, recipe, tmp_path, seed=99)
    assert results(tmp_path) == expected


def test_who_reads_the_images_changes_nothing(whole, photograph_folder, tmp_path, monkeypatch):
    """Neither how many threads decode, nor whether pixels are kept, nor reading ahead."""
    recipe, expected = whole
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("progressive_attention.data.images.KEEP_BYTES", 0)
    monkeypatch.setattr(ask, "ahead", iter)
    finish(photograph_folder, recipe, tmp_path)
    assert results(tmp_path) == expected


# --- augmentation -----------------------------------------------------------------------------------------------------


def test_images_in_memory_are_not_moved(tmp_path):
    recipe = replace(RECIPE, augment="flip")
    model = build_model("pan-hard-ctx", num_queries=2, num_attributes=3, hidden=4, attend_at=(0, 1))
    with pytest.raises(ValueError, match="augment='flip' needs images in files; for squares set it to 'none'"):
        next(training(model, IN_MEMORY, IN_MEMORY, recipe, tmp_path, {}))
    assert not list(tmp_path.iterdir())


def test_each_epoch_sees_the_images_elsewhere_but_validation_never(photograph_sets, tmp_path, monkeypatch):
    train, validation = photograph_sets
    groups = questions_in_epoch(train, CROPPED, 0, 0)[0]
    assert moved(train, groups, RECIPE, 0, 0).place is None
    seen = set()
    for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        batch = moved(train, groups, CROPPED, seed, epoch)
        assert batch.place == train.images.places(batch.image, "crop", seed, epoch)
        assert (batch.row == make_batch(train, groups).row).all()
        seen.add(batch.place)
    assert len(seen) == 4
    monkeypatch.setattr(validation.images, "places", lambda *_: pytest.fail("they were moved"))
    fit(network(train), train, validation, replace(CROPPED, epochs=1), tmp_path, {})


@pytest.mark.parametrize("augment", ["none", "flip", "crop"])
def test_masks_lie_where_their_images_do(photograph_sets, augment):
    train, _ = photograph_sets
    batch = moved(train, train.groups(together=True), replace(RECIPE, augment=augment), 0, 3)
    masks = masks_of(train, batch, CPU)
    pixels = train.images.read(batch.image, batch.place or [train.images.fits[i] for i in batch.image])
    for b, k in np.ndindex(*batch.row.shape):
        expected = np.zeros((SIDE, SIDE), bool)
        if batch.row[b, k] >= 0:
            place = batch.place[b] if batch.place else train.images.fits[batch.image[b]]
            expected = train.masks.read(batch.row[b, k : k + 1], [place])[0]
            assert pixels[b][expected].max(1).mean() > 150  # bright squares on black
        assert (masks[b, k].numpy() == expected).all()


# --- broken files -----------------------------------------------------------------------------------------------------


def steps_of(folder, recipe, out):
    """The set, and of each step: the labels that the loss was given, the number of questions, the weights after it."""
    given = []

    def loss(prediction, attribute, mask):
        given.append(attribute)
        return answers_only(prediction, attribute)

    train, validation = photographs(folder)
    model, steps = network(train), []
    for progress in training(model, train, validation, recipe, out, about(model, train), loss=loss):
        state = {key: value.clone() for key, value in model.state_dict().items()}
        steps.append((given.pop() if given else None, progress.questions, state))
        assert not given
    return train, steps


def test_nothing_is_learnt_from_what_cannot_be_read(tmp_path):
    write_photographs(tmp_path / "set", images=36, broken=(5,))
    train, steps = steps_of(tmp_path / "set", replace(RECIPE, epochs=2, augment="flip"), tmp_path / "run")
    rows = int((train.image != 5).sum())
    assert rows < len(train)
    for epoch in (steps[:8], steps[8:]):
        assert sum(asked for _, asked, _ in epoch) == rows
        assert sum(int((labels >= 0).any(-1).sum()) for labels, _, _ in epoch) == rows
    assert list(train.images.unreadable) == [5]


@pytest.mark.parametrize("batch", [1, 2])
def test_batches_without_enough_to_learn_from_are_passed_over(tmp_path, batch):
    """None of its images can be read, or only one question is left: too little for a batch norm."""
    write_photographs(tmp_path / "set", images=36, broken=(5,))
    recipe = replace(RECIPE, epochs=1, batch=batch, queries="one")
    train, steps = steps_of(tmp_path / "set", recipe, tmp_path / "run")
    plan = questions_in_epoch(train, recipe, 0, 0)
    assert len(steps) == len(plan)
    before = network(train).state_dict()
    lost = 0
    for groups, (labels, asked, state) in zip(plan, steps, strict=True):
        readable = [group for group in groups if train.image[group[0]] != 5]
        assert asked == len(readable)
        if len(readable) < len(groups):
            lost += 1
            assert labels is None
            assert_close(state, before, rtol=0, atol=0)
        else:
            assert labels is not None
            assert any(not torch.equal(state[key], before[key]) for key in state)
        before = state
    assert 0 < lost < len(plan)


@pytest.mark.parametrize("recipe", [replace(RECIPE, augment="crop"), FROZEN, replace(RECIPE, batch=1)])
def test_a_run_over_broken_files_goes_on_exactly(tmp_path, recipe, monkeypatch):
    monkeypatch.setattr(module, "SAVE_EVERY", -1.0)
    write_photographs(tmp_path / "set", images=36, broken=(5,))
    recipe = replace(recipe, epochs=1)
    finish(tmp_path / "set", recipe, tmp_path / "whole")
    for i in range(4):
        part = run(tmp_path / "set", recipe, tmp_path / "parts", seed=i)
        for _ in zip(range(5), part, strict=False):
            pass
        kill(part)
    finish(tmp_path / "set", recipe, tmp_path / "parts")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_files_that_another_process_could_not_read_count(tmp_path, monkeypatch):
    """One of 24 is allowed, but each of two processes found one; of the 12 for validation another one is too many."""
    write_photographs(tmp_path / "set", images=36, broken=(0,))
    train, validation = photographs(tmp_path / "set")
    there = {True: {3: "27.png can't be read"}}
    monkeypatch.setattr(images, "gathered", lambda mine: [mine, there.get(mine is validation.images.unreadable, {})])
    with pytest.raises(ValueError, match=r"1 of 12 images can't be used, more than 5%; the first: 27\.png can't"):
        validation_score(network(validation), validation, CPU)
    there[False] = {1: "1.png can't be read"}
    model = network(train)
    with pytest.raises(ValueError, match=r"2 of 24 images can't be used, more than 5%; the first: 0\.png can't"):
        list(training(model, train, validation, RECIPE, tmp_path / "run", about(model, train)))
