"""VAW's metrics by hand, against loops over its definitions and libraries, and what must always hold."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, recall_score

from progressive_attention.metrics.ranking import RankingScores, precision_recall
from progressive_attention.metrics.vaw import TOP, among_top, frequency_groups, label_counts

any_pace = settings(deadline=None)
A = 18  # attributes: three of each row stay below the top 15
shapes = st.tuples(st.integers(1, 6), st.just(A))
tied = shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=st.integers(-4, 4).map(float)))


@st.composite
def examples(draw, scores=tied):
    score = draw(scores)
    return score, draw(arrays(np.int8, score.shape, elements=st.sampled_from([1, 0, -1])))


def distinct_rows(count, seed, attributes=A):
    """Scores without ties in a row, none 0, with labels."""
    rng = np.random.default_rng(seed)
    score = rng.permuted(np.tile(np.arange(attributes) - attributes / 2 + 0.25, (count, 1)), axis=1)
    return score, rng.choice([1, 0, -1], score.shape, p=[0.3, 0.4, 0.3])


def summary_of(score, label, train_count=None):
    scores = RankingScores(score.shape[1])
    scores.add(score, label)
    return scores.summary(train_count)


def test_by_hand():
    """Two rows of 17 attributes, the scores falling from the first: the last two are not among the top 15."""
    score = np.array([np.linspace(8, -8, 17)] * 2)  # > 0 for the first eight
    label = np.full((2, 17), -1)
    label[:, 0] = 1, 0  # likely, top: half right
    label[:, 10] = 0, 1  # unlikely, top
    label[:, 16] = 1, 0  # unlikely, not top
    label[:, 1], label[:, 15] = 1, 0  # one without negatives, one without positives
    counts, none = label_counts(score, label), RankingScores(17).per_attribute().counts
    assert {cells.dtype for cells in (*counts, *none)} == {np.dtype(np.int64)}
    assert_array_equal(counts.balanced_accuracy[[0, 10, 16]], [1 / 2, 1 / 2, 1 / 2])
    assert_array_equal(counts.recall_at_15[[0, 1, 10, 16]], [1, 1, 1, 0])
    assert np.isnan(np.delete(counts.balanced_accuracy, [0, 10, 16])).all()
    assert np.isnan(np.delete(counts.recall_at_15, [0, 1, 10, 16])).all()
    found, wrong, positive = 4, 2, 5
    precision, recall = found / (found + wrong), found / positive
    assert counts.f1_at_15 == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-15)
    summary = summary_of(score, label)
    assert (summary["vaw_ma"], summary["vaw_mr15"]) == (1 / 2, 3 / 4)
    assert (summary["attributes_without_positives"], summary["attributes_without_negatives"]) == (13, 13)


def test_balanced_accuracy_by_hand():
    label = np.array([[1], [1], [1], [0], [0], [-1]])
    counts = label_counts(np.array([[3.0], [1], [-1], [2], [-2], [9]]), label)
    assert counts.balanced_accuracy == (2 / 3 + 1 / 2) / 2
    at_half = label_counts(np.zeros((6, 1)), label)  # log-odds 0: probability 0.5 is no positive
    assert at_half.balanced_accuracy == 1 / 2
    assert (at_half.true_positive, at_half.true_negative) == (0, 2)


def test_top_by_hand():
    score = np.arange(20.0)[None]
    assert_array_equal(among_top(score), score >= 5)
    score[0, 3:6] = 5  # three tie for the last place: none is in
    assert_array_equal(among_top(score), score >= 6)
    score[0, 3:5] = 4
    assert_array_equal(among_top(score), score >= 5)
    many = np.random.default_rng(0).permutation(5000)[None]
    assert_array_equal(among_top(many), many >= 4985)
    assert not among_top(np.zeros((2, 16))).any()
    for few in (1, 15):
        assert among_top(np.zeros((2, few))).all()
    assert among_top(np.zeros((0, 20))).shape == (0, 20)
    assert_array_equal(among_top(np.array([[np.inf] * 3 + [-np.inf] * 15])), [[True] * 3 + [False] * 15])


@any_pace
@given(tied)
def test_top_is_the_rank(score):
    rank = (score[:, None, :] >= score[:, :, None]).sum(2)  # how many score as high, itself included
    assert_array_equal(among_top(score), rank <= TOP)


@settings(deadline=None, max_examples=40)
@given(examples())
def test_metrics_are_scikit_learns(example):
    score, label = example
    counts, top = label_counts(score, label), among_top(score)
    for a in range(A):
        known = label[:, a] != -1
        if {0, 1} <= set(label[:, a]):
            expected = balanced_accuracy_score(label[known, a], score[known, a] > 0)
            assert counts.balanced_accuracy[a] == pytest.approx(expected, rel=1e-14)
        if 1 in label[:, a]:
            assert counts.recall_at_15[a] == pytest.approx(recall_score(label[known, a], top[known, a]), rel=1e-14)
    known = label != -1
    if (label == 1).any():
        assert counts.f1_at_15 == pytest.approx(f1_score(label[known], top[known], zero_division=0), rel=1e-14)
    else:
        assert np.isnan(counts.f1_at_15)


def test_groups_by_frequency():
    groups = frequency_groups(np.array([0, 25, 26, 100, 101, 10**6]))
    assert {name: group.astype(int).tolist() for name, group in groups.items()} == {
        "head": [0, 0, 0, 0, 1, 1],
        "medium": [0, 0, 1, 1, 0, 0],
        "tail": [1, 1, 0, 0, 0, 0],
    }
    assert all(group.shape == (0,) for group in frequency_groups(np.zeros(0)).values())


@pytest.mark.parametrize(
    "wrong, told",
    [([[5, 7]], "(1, 2), least 5"), (np.zeros((0, 2)), "(0, 2), least none"), ([3, -1], "(2,), least -1")],
)
def test_wrong_frequencies(wrong, told):
    with pytest.raises(ValueError, match=rf"^train_count must be \(A,\) counts >= 0, got shape {re.escape(told)}$"):
        frequency_groups(wrong)
    with pytest.raises(ValueError, match="least nan$"):
        frequency_groups([np.nan])


def test_summary_by_group():
    """Each group's figures are those of its attributes alone; the top 15 are of all attributes."""
    score, label = distinct_rows(60, 3, attributes=40)
    train_count = np.arange(40) * 5
    summary, counts = summary_of(score, label, train_count), label_counts(score, label)
    plain = summary_of(score, label)
    assert plain == {key: value for key, value in summary.items() if key in plain}
    assert len(summary) == len(plain) + 3 * 4
    groups = {"": slice(None), "_tail": slice(0, 6), "_medium": slice(6, 21), "_head": slice(21, None)}
    for name, group in groups.items():
        ap = [
            average_precision_score(values[values != -1], scores[values != -1])
            for scores, values in zip(score.T[group], label.T[group], strict=True)
        ]
        assert summary[f"vaw_map{name}"] == pytest.approx(np.mean(ap), rel=1e-12)
        assert summary[f"vaw_ma{name}"] == pytest.approx(counts.balanced_accuracy[group].mean(), rel=1e-14)
        assert summary[f"vaw_mr15{name}"] == pytest.approx(counts.recall_at_15[group].mean(), rel=1e-14)
        known, top = label[:, group] != -1, among_top(score)[:, group]
        assert summary[f"vaw_f1_15{name}"] == pytest.approx(f1_score(label[:, group][known], top[known]), rel=1e-14)
    no_tail = summary_of(score, label, train_count + 26)
    assert [no_tail[f"vaw_{name}_tail"] for name in ("map", "ma", "mr15", "f1_15")] == [None] * 4


@pytest.mark.parametrize(
    ("score", "label", "message"),
    [
        (np.zeros(3), np.zeros(2), r"one shape \(R.*\), got \(3,\) and \(2,\)"),
        (np.zeros((1, 3)), np.array([[1, 0, 2]]), "label must be 1 .*2 in VAW's own files.*, got 2"),
        (np.zeros((1, 3)), np.array([[1, 0, "1"]]), "label must be 1"),
        (np.array([[0, np.nan, np.nan]]), np.array([[1, 0, -1]]), "must be numbers, got 2 NaN of 3; did the training"),
    ],
)
def test_wrong_scores_and_labels(score, label, message):
    for function in (label_counts, RankingScores(3).add):
        with pytest.raises(ValueError, match=message):
            function(score, label)
    with pytest.raises(ValueError, match=r"one shape|" + message):
        precision_recall(score.reshape(-1), label.reshape(-1))
