"""Question sets: groups, batches and masks keep every question, on its own image, exactly once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from progressive_attention.data.questions import Labels, OwnerMasks, QuestionSet, batches, fingerprint_of

any_pace = settings(deadline=None)


def question_set(image, images=5, side=4, **extra):
    """Questions about images whose every pixel is the image's number; query = row % 3, attribute = row % 2."""
    rows = np.arange(len(image))
    pixels = np.broadcast_to(np.arange(images, dtype=np.uint8)[:, None, None, None], (images, side, side, 3))
    names = ("car", "dog", "cup"), ("red", "old")
    return QuestionSet("some/test", pixels, np.array(image, np.int64), rows % 3, rows % 2, *names, **extra)


def owner_masks(image, side=4, seed=0):
    rng = np.random.default_rng(seed)
    return OwnerMasks(rng.integers(0, 3, (5, side, side), np.uint8), np.array(image), rng.integers(1, 3, len(image)))


def owned(masks, row):
    """One row's mask by the definition."""
    owner = masks.owner[masks.image[row]]
    return np.array([[pixel == masks.label[row] for pixel in line] for line in owner])


some_images = st.lists(st.integers(0, 4), min_size=1, max_size=20)


@any_pace
@given(some_images, st.booleans())
def test_groups_hold_each_row_once(image, together):
    questions = question_set(image)
    groups = questions.groups(together)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(image)))
    if not together:
        assert [group.tolist() for group in groups] == [[row] for row in range(len(image))]
        return
    assert [set(questions.image[group]) for group in groups] == [{i} for i in sorted(set(image))]
    assert all((np.diff(group) > 0).all() for group in groups)


@any_pace
@given(some_images, st.booleans(), st.integers(1, 6), st.randoms(use_true_random=False))
def test_batches_hold_each_row_once_on_its_image(image, together, size, random):
    questions = question_set(image)
    groups = questions.groups(together)
    order = np.array(random.sample(range(len(groups)), len(groups)))
    asked = list(batches(questions, groups, order, size))
    assert [len(batch.image) for batch in asked[:-1]] == [size] * (len(asked) - 1)
    assert sum(len(batch.image) for batch in asked) == len(groups)
    seen = []
    for batch in asked:
        assert batch.row.shape == batch.query.shape == batch.attribute.shape
        assert batch.image.shape == (len(batch.row),)
        for number, rows, queries, attributes in zip(batch.image, batch.row, batch.query, batch.attribute, strict=True):
            real = rows[rows >= 0]
            seen.append(real.tolist())
            assert rows[0] >= 0
            assert_array_equal(rows[len(real) :], -1)  # what is missing stands behind
            assert_array_equal(queries, np.where(rows >= 0, rows % 3, -1))
            assert_array_equal(attributes, np.where(rows >= 0, rows % 2, -1))
            assert_array_equal(questions.image[real], number)
        assert (batch.row >= 0).sum(1).max() == batch.row.shape[1]  # no wider than its longest group
    assert seen == [groups[i].tolist() for i in order]


@any_pace
@given(some_images, st.data())
def test_owner_masks_are_the_loop(image, data):
    masks = owner_masks(image)
    rows = np.array(data.draw(st.lists(st.integers(0, len(image) - 1), max_size=8)), np.int64)
    got = masks[rows]
    assert got.dtype == bool
    assert_array_equal(got, np.array([owned(masks, row) for row in rows]).reshape(-1, 4, 4))


@any_pace
@given(some_images, st.data())
def test_rows_keep_all_that_is_known(image, data):
    count = len(image)
    masks, box = owner_masks(image), np.arange(count * 4).reshape(count, 4)
    questions = question_set(image, scale=np.arange(count) / 2, box=box, masks=masks)
    first = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=10)))
    second = np.array(data.draw(st.lists(st.booleans(), min_size=len(first), max_size=len(first))), bool)
    some = questions.rows(first).rows(second)
    kept = first[second]
    assert (some.name, some.query_names, some.attribute_names) == ("some/test", ("car", "dog", "cup"), ("red", "old"))
    assert some.images is questions.images
    for column in ("image", "query", "attribute", "scale", "box"):
        assert_array_equal(getattr(some, column), getattr(questions, column)[kept])
    assert_array_equal(some.masks[np.arange(len(kept))], masks[kept])
    assert_array_equal(some.masks[np.arange(len(kept))[::-1]], masks[kept[::-1]])


class Named(tuple):
    """Images in files, as far as their names."""

    dtype = np.dtype(np.uint8)
    paths = property(tuple)
    shape = property(lambda self: (len(self), 4, 4, 3))


def test_fingerprint():
    """Equal for equal questions, wherever and whenever; another one for whatever else is learnt."""
    given = question_set([2, 0, 2], images=40)
    pixels = given.images.copy()
    labels = Labels(np.array([0, 1, 1, 2]), np.array([1, 0]), np.array([1, 0], np.int8), 2)
    others = {
        "image": replace(given, image=np.array([2, 0, 1])),
        "query": replace(given, query=np.array([0, 1, 1])),
        "answer": replace(given, attribute=np.array([0, 1, 1])),
        "words": replace(given, attribute_names=("old", "red")),
        "query words": replace(given, query_names=("car", "cup", "dog")),
        "scale": replace(given, scale=np.array([0.5, 1.0, np.nan])),
        "pixels": replace(given, images=255 - pixels),
        "names": replace(given, images=Named(("a.png", "b.png", "c.png"))),
        "other names": replace(given, images=Named(("a.png", "b.png", "d.png"))),
        "labels": replace(given, attribute=labels),
        "other labels": replace(given, attribute=replace(labels, value=1 - labels.value)),
    }
    prints = {name: fingerprint_of(other) for name, other in others.items()}
    assert len({*prints.values(), fingerprint_of(given)}) == len(others) + 1
    assert fingerprint_of(replace(given, images=pixels)) == fingerprint_of(given)
    assert prints["names"][:12] == "ee8b1cd484a6"  # checkpoints hold it


WRONG = [
    ({"images": np.zeros((5, 4, 4, 3))}, r"images must be \(N, H, W, 3\) uint8, got \(5, 4, 4, 3\) float64"),
    ({"image": np.array([0, 5])}, r"image ids must be in 0\.\.4, got 0\.\.5"),
    ({"query": np.array([3, 1])}, r"query ids must be in 0\.\.2, got 1\.\.3"),
    ({"attribute": np.array([0, -1])}, r"attribute ids must be in 0\.\.1, got -1\.\.0"),
    ({"attribute": np.array([0])}, r"attribute must be \(2,\), got \(1,\)"),
    ({"image": np.array([[0], [1]])}, r"image must be \(2,\), got \(2, 1\)"),
]


@pytest.mark.parametrize("change, message", WRONG)
def test_wrong_columns(change, message):
    good = question_set([0, 4])
    with pytest.raises(ValueError, match="^some/test: " + message):
        QuestionSet(**{**vars(good), **change})
