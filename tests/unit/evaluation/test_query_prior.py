"""What the query alone predicts, from the training labels."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.evaluation.answers import label_counts, query_prior


def labels_of(dense, unlisted):
    row, attribute = np.nonzero(dense != unlisted)
    start = np.concatenate([[0], np.bincount(row, minlength=len(dense)).cumsum()])
    return Labels(start, attribute, dense[row, attribute].astype(np.int8), dense.shape[1], unlisted)


def questions_of(query, dense, unlisted=0):
    words = tuple("abc"[: dense.shape[1]])
    images = np.zeros((1, 2, 2, 3), np.uint8)
    image = np.zeros(len(query), np.int64)
    return QuestionSet("q", images, image, np.array(query, np.int64), labels_of(dense, unlisted), ("car", "dog"), words)


def test_query_prior_by_hand():
    """Three cars, two of them a; one dog, which is b."""
    train = questions_of([0, 0, 1, 0], np.array([[1, 0], [1, 1], [0, 1], [0, 0]]))
    holds, known = label_counts(train)
    assert_array_equal(holds, [[2, 1], [0, 1]])
    assert_array_equal(known, [[3, 3], [1, 1]])
    overall = 2.5 / 5  # of both attributes: two of four hold, and half a row of each kind
    car, dog = [(2 + overall) / 4, (1 + overall) / 4], [(0 + overall) / 2, (1 + overall) / 2]
    expected = [[math.log(p / (1 - p)) for p in row] for row in (car, dog)]
    assert_allclose(query_prior(train), expected)


@settings(deadline=None)
@given(st.data(), st.sampled_from([0, -1]))
def test_label_counts_are_the_loop(data, unlisted):
    count = data.draw(st.integers(1, 8))
    query = [data.draw(st.integers(0, 1)) for _ in range(count)]
    values = st.sampled_from([1, 0] if unlisted == 0 else [1, 0, -1])
    dense = np.array([[data.draw(values) for _ in "abc"] for _ in query])
    holds, known = label_counts(questions_of(query, dense, unlisted))
    for q, a in np.ndindex(2, 3):
        labels = [dense[row, a] for row in range(count) if query[row] == q]
        assert holds[q, a] == labels.count(1)
        assert known[q, a] == labels.count(1) + labels.count(0)
    prior = query_prior(questions_of(query, dense, unlisted))
    assert np.isfinite(prior).all()
