"""VOC's AP by hand, against the kit's loops and libraries; batches against the whole."""

import gc
import json
import tempfile
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import average_precision_score

from progressive_attention.metrics import ranking
from progressive_attention.metrics.ranking import RankingScores, mean_over_attributes, precision_recall
from progressive_attention.metrics.vaw import label_counts

any_pace = settings(deadline=None)
label_values = st.sampled_from([1, 0, -1])
rows_of_one = st.lists(st.tuples(st.integers(-4, 4), label_values), min_size=1, max_size=30)


def ap_of(score, label):
    """The three APs."""
    found = precision_recall(np.array(score, float), np.array(label))
    return np.array([found.eleven_point_ap, found.all_point_ap, found.average_precision])


def devkit_ap(score, label):
    """VOC's two APs as its development kits compute them: item by item down the list, equal scores as they lie."""
    order = sorted(range(len(score)), key=lambda row: -score[row])  # stable, as MATLAB's sort
    tp = fp = 0
    recall, precision = [], []
    for row in order:
        tp += label[row] == 1
        fp += label[row] == 0
        recall.append(tp / sum(value == 1 for value in label))
        precision.append(tp / (tp + fp) if tp + fp else 0.0)
    eleven = 0.0
    for k in range(11):  # VOC 2007
        eleven += max((p for p, r in zip(precision, recall, strict=True) if r >= k / 10), default=0.0) / 11
    recall, precision = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(precision) - 2, -1, -1):  # VOC 2010
        precision[i] = max(precision[i], precision[i + 1])
    every = 0.0
    for i in range(1, len(recall)):
        if recall[i] != recall[i - 1]:
            every += (recall[i] - recall[i - 1]) * precision[i]
    return eleven, every


def test_by_hand():
    """Ranks + - + ? - +: precision 1 at recall 1/3, 2/3 at 2/3, 3/5 at 1."""
    label = [1, 0, 1, -1, 0, 1]
    assert_allclose(
        ap_of([6, 5, 4, 3, 2, 1], label), [(4 + 3 * 2 / 3 + 4 * 3 / 5) / 11, *[(1 + 2 / 3 + 3 / 5) / 3] * 2]
    )
    assert_allclose(ap_of([3, 2, 1], [0, 1, 1]), [2 / 3, 2 / 3, (1 / 2 + 2 / 3) / 2])  # - + +: interpolation lifts 1/2
    assert_array_equal(ap_of([1, 2], [1, 1]), [1, 1, 1])
    found = precision_recall(np.array([3.0, 1, 2, 2, 0]), np.array([1, 1, 0, 1, 0]))
    assert_array_equal(found.true_positive, [1, 2, 3])
    assert_array_equal(found.false_positive, [0, 1, 1])


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_recall_of_exactly_k_tenths_is_reached(tenth):
    """k of 10 positives, then negatives, then the rest: precision 1 up to recall k / 10 and 1/2 at 1, within floats."""
    label = [1] * tenth + [0] * 10 + [1] * (10 - tenth)
    ours = ap_of(range(20, 0, -1), label)[0]
    assert ours == pytest.approx((tenth + 1 + (10 - tenth) / 2) / 11, rel=1e-15)
    recall = np.cumsum(np.array(label) == 1) / 10
    precision = np.cumsum(np.array(label) == 1) / np.arange(1, 21)
    trapped = np.mean([precision[recall >= t].max() for t in np.arange(0, 1.05, 0.1)])
    assert (trapped < ours) == (tenth in (3, 6, 7))  # where k * 0.1 > k / 10


@any_pace
@given(rows_of_one, st.randoms(use_true_random=False))
def test_equal_scores_win_nothing(rows, random):
    """The kit's AP depends on the order of equal scores; ours is its lowest, that of negatives first."""
    assume(any(label == 1 for _, label in rows))
    lowest = devkit_ap(*zip(*sorted(rows, key=lambda row: row[1] == 1), strict=True))
    random.shuffle(rows)
    any_order = devkit_ap(*zip(*rows, strict=True))
    ours = ap_of(*zip(*rows, strict=True))[:2]
    assert_allclose(ours, lowest, rtol=1e-13)
    assert (ours <= np.array(any_order) + 1e-13).all()


@any_pace
@given(rows_of_one)
def test_average_precision_is_scikit_learns(rows):
    score, label = np.array(rows).T
    assume(1 in label)
    known = label != -1
    assert ap_of(score, label)[2] == pytest.approx(average_precision_score(label[known], score[known]), rel=1e-12)


def test_mean_over_attributes():
    ap = np.array([0.5, np.nan, 1, 0.2])
    assert mean_over_attributes(ap) == pytest.approx(1.7 / 3, rel=1e-15)
    assert mean_over_attributes(ap, np.array([1, 0, 3, 6])) == pytest.approx((0.5 + 3 + 1.2) / 10, rel=1e-15)
    assert mean_over_attributes(ap, np.array([1, 9, 3, 6])) == pytest.approx((0.5 + 3 + 1.2) / 10, rel=1e-15)
    assert np.isnan([mean_over_attributes(np.array(nothing)) for nothing in ([], [np.nan, np.nan])]).all()
    assert np.isnan(mean_over_attributes(np.array([0.5]), np.array([0])))
    assert mean_over_attributes(np.array([0.5, None, 1])) == 0.75  # as in a summary
    with pytest.raises(ValueError, match=r"one shape \(A,\), got \(4,\) and \(3,\)"):
        mean_over_attributes(ap, np.zeros(3))
    with pytest.raises(ValueError, match="counts >= 0, got values from -1.0 to 1.0"):
        mean_over_attributes(ap, np.array([1, -1, 0, 0]))


@pytest.fixture(params=["memory", "file"])
def kept(request, monkeypatch):
    """Scores stay in memory or go to the disk at once."""
    monkeypatch.setattr(ranking, "MEMORY", 1 if request.param == "file" else 2**20)


def some_rows(count=37, attributes=18, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.integers(-6, 6, (count, attributes)) / 2.0  # many ties
    label = rng.choice([1, 0, -1], (count, attributes), p=[0.2, 0.5, 0.3]).astype(np.int8)
    label[:, 2], label[:, 3] = np.minimum(label[:, 2], 0), np.abs(label[:, 3]) > 2
    label[:, 4] = -1
    return score, label


def filled(score, label, batch=5):
    scores = RankingScores(score.shape[1])
    for start in range(0, len(score), batch):
        scores.add(score[start : start + batch], label[start : start + batch])
    return scores


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("batch", [1, 3, 4, 11, 37])
def test_batches_are_the_whole(batch):
    score, label = some_rows()
    found = filled(score, label, batch).per_attribute()
    expected = np.array([ap_of(score[:, a], label[:, a]) for a in range(18)])
    assert_array_equal(np.transpose(found[:3]), expected)
    assert_array_equal(found.counts, label_counts(score, label))
    assert np.isnan(expected).all(1).tolist() == [a in (2, 3, 4) for a in range(18)]


@pytest.mark.usefixtures("kept")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_merged_in_any_order_is_the_whole(sizes, random):
    score, label = some_rows(sum(sizes))
    expected = filled(score, label).summary(np.arange(18) * 10)
    rows = np.array(random.sample(range(sum(sizes)), sum(sizes)), int)
    parts = [filled(score[of], label[of], 3) for of in np.split(rows, np.cumsum(sizes)[:-1])]
    random.shuffle(parts)
    whole = parts.pop()
    for part in parts:
        before = part.summary()
        whole.merge(part)
        assert part.summary() == before
    assert whole.summary(np.arange(18) * 10) == expected


def test_summary_is_the_means():
    score, label = some_rows()
    scores = filled(score, label)
    found, summary = scores.per_attribute(), scores.summary()
    weight = (label == 1).sum(0)
    known = weight > 0
    for name, ap in (("mean_ap", found.eleven_point_ap), ("mean_ap_all_point", found.all_point_ap)):
        assert summary[name] == pytest.approx(ap[known].mean(), rel=1e-14)
        weighted = sum(n * x for n, x in zip(weight[known], ap[known], strict=True)) / weight.sum()
        assert summary[f"weighted_{name}"] == pytest.approx(weighted, rel=1e-14)
    assert summary["attributes_without_positives"] == 3
    assert summary["attributes_without_negatives"] == 1
    assert scores.summary() == summary
    assert list(summary) == list(json.loads(json.dumps(summary, allow_nan=False)))


def test_nothing_to_average_is_none():
    empty = RankingScores(3).summary([0, 50, 500])
    assert len(empty) == 4 + 4 * 4 + 2
    assert {value for name, value in empty.items() if not name.startswith("attributes_without")} == {None}
    assert empty["attributes_without_positives"] == empty["attributes_without_negatives"] == 3
    scores = RankingScores(3)
    scores.add(np.zeros((0, 3)), np.zeros((0, 3)))
    assert scores.summary([0, 50, 500]) == empty


def test_other_numbers_of_attributes():
    with pytest.raises(ValueError, match="score must have 3 attributes, got 2"):
        RankingScores(3).add(np.zeros((1, 2)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="both must have 3 attributes, got 2"):
        RankingScores(3).merge(RankingScores(2))
    with pytest.raises(ValueError, match=r"train_count must have shape \(3,\), got \(2,\)"):
        RankingScores(3).summary(np.zeros(2))


def test_the_file_goes_with_the_object(monkeypatch):
    monkeypatch.setattr(ranking, "MEMORY", 1)
    scores = filled(*some_rows())
    scores.summary()
    file = scores.file
    assert file._rolled  # on the disk; asking for its number would put it there
    gc.collect()  # what earlier tests have left
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del scores
        gc.collect()
    assert file.closed
    assert not caught


def test_a_full_disk_names_the_folder_and_loses_nothing(monkeypatch):
    score, label = some_rows()
    scores = filled(score[:20], label[:20])
    with monkeypatch.context() as full:
        full.setattr(scores.file, "write", lambda _: (_ for _ in ()).throw(OSError("No space left on device")))
        with pytest.raises(OSError, match=rf"{tempfile.gettempdir()} can't hold the scores \(No space left.*TMPDIR"):
            scores.add(score[20:], label[20:])
    scores.add(score[20:], label[20:])
    assert scores.summary() == filled(score, label).summary()
