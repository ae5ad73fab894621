"""Labels of any number a row: kept sparse, they are the table of 1, 0 and -1 that one would write down."""

from dataclasses import replace

import numpy as np
import pytest
from hand_tables import as_table
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from progressive_attention.data.manifest import labels_of
from progressive_attention.data.questions import Batch, Labels, QuestionSet, batches, make_batch
from progressive_attention.data.sources import in_words_of
from progressive_attention.data.table import SCHEMA

any_pace = settings(deadline=None)
NAMES = ("red", "old", "wet", "big")


@st.composite
def tables(draw, min_rows=0, values=(1, 0)):
    """The same labels twice: as Labels, and as a dense (R, A) table."""
    rows, unlisted = draw(st.integers(min_rows, 6)), draw(st.sampled_from([0, -1]))
    dense = np.full((rows, len(NAMES)), unlisted, np.int8)
    start, attribute, value = [0], [], []
    for row in range(rows):
        for one in draw(st.permutations(range(len(NAMES))))[: draw(st.integers(0, len(NAMES)))]:
            attribute.append(one)
            value.append(draw(st.sampled_from(values)))
            dense[row, one] = value[-1]
        start.append(len(attribute))
    ids = np.array(attribute, np.int64)
    return Labels(np.array(start), ids, np.array(value, np.int8), len(NAMES), unlisted), dense


def some_rows(draw, count, max_size=10):
    return np.array(draw(st.lists(st.integers(0, count - 1), max_size=max_size)) if count else [], np.int64)


def all_of(labels):
    return labels[np.arange(labels.shape[0])]


def questions(labels, query=None):
    """Rows about three tiny images."""
    count = labels.shape[0]
    query = np.arange(count) % 2 if query is None else query
    images = np.zeros((3, 2, 2, 3), np.uint8)
    return QuestionSet("q", images, np.arange(count) % 3, query, labels, ("car", "dog"), NAMES)


@any_pace
@given(tables(), st.data())
def test_any_rows_in_any_order(both, data):
    labels, dense = both
    rows = some_rows(data.draw, len(dense))
    assert labels.shape == dense.shape
    found = labels[rows]
    assert (found.dtype, found.shape) == (np.int8, (len(rows), len(NAMES)))
    assert_array_equal(found, dense[rows])
    assert_array_equal(labels.totals, [(dense == 1).sum(0), (dense >= 0).sum(0)])


@any_pace
@given(tables(), st.data())
def test_labels_of_some_rows(both, data):
    labels, dense = both
    first = some_rows(data.draw, len(dense))
    second = some_rows(data.draw, len(first))
    some = labels.rows(first)
    assert some.shape == (len(first), len(NAMES))
    assert len(some.attribute) == len(some.value) == some.start[-1]
    assert_array_equal(some[second], dense[first][second])
    assert_array_equal(all_of(some.rows(second)), dense[first][second])


@any_pace
@given(tables(), st.sets(st.integers(0, len(NAMES) - 1)))
def test_only_what_is_kept_of_what_is_known(both, dropped):
    labels, dense = both
    kept = labels.where(~np.isin(labels.attribute, list(dropped)))
    expected = dense.copy()
    expected[:, list(dropped)] = labels.unlisted
    assert kept.shape == labels.shape
    assert_array_equal(all_of(kept), expected)


@any_pace
@given(tables(), st.permutations(range(7)))
def test_other_ids(both, places):
    """Attribute i becomes one of seven, of which nothing is said about the others."""
    labels, dense = both
    table = np.array(places[: len(NAMES)])
    renamed = labels.in_ids(table, 7)
    expected = np.full((len(dense), 7), labels.unlisted)
    expected[:, table] = dense
    assert renamed.shape == (len(dense), 7)
    assert_array_equal(all_of(renamed), expected)


lists = st.lists(st.sampled_from(NAMES), unique=True)


@any_pace
@given(st.lists(st.tuples(lists, st.none() | lists), min_size=1, max_size=6), st.booleans(), st.permutations(NAMES))
def test_lists_become_labels(rows, with_absent, names):
    """Unlisted is absent, or unknown where absent ones are listed."""
    rows = [(held, absent and [word for word in absent if word not in held]) for held, absent in rows]
    columns = {"attributes": [held for held, _ in rows]}
    if with_absent:
        columns["absent"] = [absent for _, absent in rows]
    expected = np.full((len(rows), len(names)), -1 if with_absent else 0)
    for row, (held, absent) in enumerate(rows):
        for word in (absent or []) if with_absent else []:
            expected[row, names.index(word)] = 0
        for word in held:
            expected[row, names.index(word)] = 1
    labels = labels_of(as_table(columns, SCHEMA), tuple(names))
    assert_array_equal(all_of(labels), expected)
    assert_array_equal(labels.totals, [(expected == 1).sum(0), (expected >= 0).sum(0)])
    assert len(labels.attribute) == len(labels.value) == (expected != labels.unlisted).sum()
    assert all(np.diff(row).min(initial=1) > 0 for row in np.split(labels.attribute, labels.start[1:-1]))


def test_words_of_a_row():
    held = questions(Labels(np.array([0, 2, 2, 3]), np.array([3, 0, 1]), np.array([1, 1, 0], np.int8), 4))
    assert held.likelihood == "bernoulli"
    assert [held.rows(np.array([2, 0])).words(row) for row in range(2)] == [("car", []), ("car", ["red", "big"])]
    one = replace(held, attribute=np.array([3, 0, 0]))
    assert one.likelihood == "softmax"
    assert [one.words(row) for row in range(2)] == [("car", ["big"]), ("dog", ["red"])]


@any_pace
@given(tables(min_rows=1), st.booleans(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_batches_hold_the_labels_of_their_rows(both, together, size, random):
    labels, dense = both
    some = questions(labels)
    groups = some.groups(together)
    order = np.array(random.sample(range(len(groups)), len(groups)))
    seen = []
    for batch in batches(some, groups, order, size):
        assert batch.attribute.shape == (*batch.row.shape, len(NAMES))
        assert batch.attribute.dtype == np.int8
        asked = batch.row >= 0
        assert_array_equal(batch.attribute[asked], dense[batch.row[asked]])
        assert (batch.attribute[~asked] == -1).all()
        assert (batch.query[~asked] == -1).all()
        seen += batch.row[asked].tolist()
    assert sorted(seen) == list(range(len(dense)))


@pytest.mark.parametrize("gone", [[], [1, 2]])
@pytest.mark.parametrize("many", [False, True])
def test_nothing_is_asked_about_some_images(gone, many):
    labels = Labels(np.arange(6), np.arange(5) % 4, np.ones(5, np.int8), 4)
    some = questions(labels) if many else replace(questions(labels), attribute=np.arange(5) % 4)
    batch = make_batch(some, some.groups(together=True))
    before = {name: getattr(batch, name).copy() for name in ("image", "query", "attribute", "row")}
    left = batch.without(np.isin(np.arange(3), gone))
    assert isinstance(left, Batch)
    for name, values in before.items():
        assert_array_equal(getattr(batch, name), values)  # the batch itself stays
        expected = values.copy()
        if name != "image":
            expected[gone] = -1
        assert_array_equal(getattr(left, name), expected)
    assert left.place is batch.place


def test_labels_of_another_shape():
    labels = Labels(np.zeros(4, int), np.array([], int), np.array([], np.int8), 5)
    with pytest.raises(ValueError, match=r"^q: attribute must be \(3, 4\), got \(3, 5\)"):
        questions(labels)
    with pytest.raises(ValueError, match=r"^q: attribute must be \(2, 4\), got \(3, 4\)"):
        replace(questions(replace(labels, num_attributes=4)), image=np.zeros(2, int), query=np.zeros(2, int))


@any_pace
@given(tables(min_rows=1), st.permutations([*NAMES, "new", "odd"]), st.permutations(["dog", "cup", "car"]), st.data())
def test_same_words_in_other_ids(both, attributes, queries, data):
    labels, dense = both
    some = questions(labels)
    used = {NAMES[i] for i in labels.attribute}
    known = tuple(word for word in attributes if word in used or data.draw(st.booleans()))
    mapped = in_words_of(some, tuple(queries), known)
    assert (mapped.query_names, mapped.attribute_names) == (tuple(queries), known)
    for row in range(len(dense)):
        query, held = mapped.words(row)
        assert (query, set(held)) == (some.words(row)[0], set(some.words(row)[1]))
    expected = np.full((len(dense), len(known)), labels.unlisted)
    for new, word in enumerate(known):
        if word in NAMES:
            expected[:, new] = dense[:, NAMES.index(word)]
    assert_array_equal(all_of(mapped.attribute), expected)
