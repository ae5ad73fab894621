"""Areas under ROC curves, their intervals and thresholds, against scikit-learn, loops over all pairs, and hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from progressive_attention.metrics.detection import auroc, auroc_interval, keeping_threshold

SCORES = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12).map(np.array)  # few values, many ties


def beats(one: float, other: float) -> float:
    return 1.0 if one > other else 0.5 if one == other else 0.0


def delong(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """The slow twin: middle and standard error from every pair, as the paper of 1988 writes them."""
    of_positive = [sum(beats(x, y) for y in negative) / len(negative) for x in positive]
    of_negative = [sum(beats(x, y) for x in positive) / len(positive) for y in negative]
    area = sum(of_positive) / len(positive)
    s10 = sum((v - area) ** 2 for v in of_positive) / (len(positive) - 1)
    s01 = sum((v - area) ** 2 for v in of_negative) / (len(negative) - 1)
    return area, math.sqrt(s10 / len(positive) + s01 / len(negative))


@given(SCORES, SCORES)
def test_area_is_scikit_learns(positive, negative):
    truth = np.repeat([1, 0], [len(positive), len(negative)])
    assert auroc(positive, negative) == pytest.approx(roc_auc_score(truth, np.concatenate([positive, negative])))
    assert auroc(positive, negative) == pytest.approx(1 - auroc(negative, positive))


@given(SCORES, SCORES)
def test_interval_is_that_of_all_pairs(positive, negative):
    low, high = auroc_interval(positive, negative)
    if min(len(positive), len(negative)) == 1:
        assert (low, high) == (0, 1)
        return
    area, error = delong(positive, negative)
    assert low == pytest.approx(max(0, area - 1.96 * error), abs=1e-4)
    assert high == pytest.approx(min(1, area + 1.96 * error), abs=1e-4)


def test_by_hand():
    positive, negative = [3.0, 1.0], [2.0, 0.0, 1.0]  # 3 beats three; 1 beats 0 and ties with 1
    assert auroc(positive, negative) == pytest.approx(4.5 / 6)
    assert auroc([1, 2], [-1, 0]) == 1
    assert auroc_interval([1, 2], [-1, 0]) == (1, 1)
    assert auroc([0, 0], [0, 0, 0]) == 0.5


@given(SCORES, st.floats(0.01, 1))
def test_threshold_keeps_enough_and_no_higher_one_does(positive, keep):
    threshold = keeping_threshold(positive, keep)
    assert (positive >= threshold).mean() >= keep - 1e-9
    above = positive[positive > threshold]
    assert not len(above) or (positive >= above.min()).mean() < keep


@pytest.mark.parametrize("keep, threshold", [(0.95, 6), (0.951, 5), (1, 1), (0.07, 94), (1e-12, 100)])
def test_threshold_by_hand(keep, threshold):
    assert keeping_threshold(np.arange(1.0, 101), keep) == threshold


@pytest.mark.parametrize(
    "positive, negative, which",
    [
        ([], [1.0], "positive"),
        ([1.0], [0.0, math.nan], "negative"),
        ([2.0, None], [1.0], "positive"),  # JSON's null
        ([[1.0]], [1.0], "positive"),
    ],
)
def test_what_is_no_list_of_scores(positive, negative, which):
    with pytest.raises(ValueError, match=f"^{which} must be at least one score, none of them NaN, got array"):
        auroc(positive, negative)


@pytest.mark.parametrize("keep", [0, -1, 1.01, math.nan])
def test_what_is_no_share(keep):
    with pytest.raises(ValueError, match=r"keep must be a share in \(0, 1\]"):
        keeping_threshold(np.ones(3), keep)
