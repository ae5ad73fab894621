"""Overlap at thresholds and pointing game: by hand, against loops and scikit-learn, and what must always hold."""

import json
import math

import numpy as np
import pytest
from hand_maps import ATTENTION, MASK, examples, whole_maps
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from progressive_attention.metrics.attention import THRESHOLDS, OverlapCurves, dilated, overlap, pointing_game

any_pace = settings(deadline=None)


def test_overlap_by_hand():
    """Shares 1/4, 1/2, 3/4 and 1 of the maximum; the target holds the second and the fourth."""
    found = overlap(ATTENTION[:1], MASK[:1])
    assert (found.marked.dtype, found.hit.dtype) == (np.int64, np.int64)
    at = [0, 25, 26, 50, 51, 75, 76, 100]
    assert_array_equal(found.marked[0, at], [4, 4, 3, 3, 2, 2, 1, 1])
    assert_array_equal(found.hit[0, at], [2, 2, 2, 2, 1, 1, 1, 1])
    assert_allclose(found.precision[0, at], [1 / 2, 1 / 2, 2 / 3, 2 / 3, 1 / 2, 1 / 2, 1, 1], rtol=1e-15)
    assert_allclose(found.recall[0, at], [1, 1, 1, 1, 1 / 2, 1 / 2, 1 / 2, 1 / 2], rtol=1e-15)
    assert_allclose(found.iou[0, at], [1 / 2, 1 / 2, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2], rtol=1e-15)


def test_overlap_of_nothing():
    found = overlap(ATTENTION[3:], MASK[3:])  # an empty mask, then a map of zeros
    for share in (found.precision, found.recall, found.iou):
        assert share.dtype == np.float64
        assert_array_equal(share, [[np.nan] * len(THRESHOLDS), [0] * len(THRESHOLDS)])
    assert overlap(np.zeros((0, 2, 2)), np.zeros((0, 2, 2), bool)).iou.shape == (0, len(THRESHOLDS))
    assert OverlapCurves().summary() == curves_of(ATTENTION[3:4], MASK[3:4], 1).summary() == {}


@pytest.mark.parametrize("factor", [1, 3, 1 / 3, 0.29, 1e-300, 1e300])
def test_a_value_at_a_threshold_reaches_it(factor):
    levels = np.array([k / 100 for k in range(101)])
    assert_array_equal(THRESHOLDS, levels)
    found = overlap((levels * factor)[None, None], np.ones((1, 1, 101), bool))
    assert_array_equal(found.marked[0], 101 - np.arange(101))
    just_below = overlap((np.append(levels[1:-1] - 1e-5, 1) * factor)[None, None], np.ones((1, 1, 100), bool))
    assert_array_equal(just_below.marked[0, 1:], [*range(99, 0, -1), 1])


@any_pace
@given(examples(whole_maps))
def test_overlap_is_the_loop(example):
    for attention, mask, marked, hit in zip(*example, *overlap(*example)[:2], strict=True):
        peak = int(attention.max())
        for k in range(101):  # in whole numbers: value / peak >= k / 100
            reaching = [peak > 0 and 100 * int(value) >= k * peak for value in attention.flat]
            assert (marked[k], hit[k]) == (
                sum(reaching),
                sum(r and m for r, m in zip(reaching, mask.flat, strict=True)),
            )


@any_pace
@given(examples(whole_maps), st.integers(0, 2**32 - 1))
def test_void_pixels_might_as_well_not_be_there(example, seed):
    void = np.random.default_rng(seed).random(example[1].shape) < 0.3
    found = overlap(*example, void)
    for row, (attention, mask) in enumerate(zip(*example, strict=True)):
        rest = [values[~void[row]][None, None] for values in (attention, mask)]
        for ours, without in zip(found, overlap(*rest), strict=True):
            assert_array_equal(ours[row], without[0])


def curves_of(attention, mask, batch):
    curves = OverlapCurves()
    for start in range(0, len(attention), batch):
        curves.add("last", attention[start : start + batch], mask[start : start + batch])
    return curves


def test_curves_are_means_over_examples():
    rng = np.random.default_rng(0)
    attention, mask = rng.random((7, 5, 6)) ** 4, rng.random((7, 5, 6)) < 0.3
    mask[2], attention[4] = False, 0  # left out, and a miss
    found, known = overlap(attention, mask), [0, 1, 3, 4, 5, 6]
    for batch in (1, 3, 7):
        summary = curves_of(attention, mask, batch).summary()["last"]
        assert summary["count"] == 6
        assert summary["threshold"] == THRESHOLDS.tolist()
        for name in ("precision", "recall", "iou"):
            assert_allclose(summary[name], getattr(found, name)[known].mean(0), rtol=1e-12)
        assert summary["best_iou"] == max(summary["iou"])
        assert summary["iou"][round(100 * summary["best_threshold"])] == summary["best_iou"]
    assert summary["recall"][0] == pytest.approx(5 / 6)
    json.dumps(summary, allow_nan=False)


def test_curves_merge():
    rng = np.random.default_rng(1)
    attention, mask = rng.random((5, 4, 4)), rng.random((5, 4, 4)) < 0.5
    first, second = curves_of(attention[:2], mask[:2], 2), curves_of(attention[2:], mask[2:], 3)
    second.add("other", attention, mask)
    first.merge(second)
    assert list(first.summary()) == ["last", "other"]
    for curves in first.summary().values():
        assert curves["count"] == 5
        assert_allclose(curves["iou"], overlap(attention, mask).iou.mean(0), rtol=1e-12)
    assert second.summary()["last"]["count"] == 3  # as it was
    assert_allclose(second.summary()["last"]["iou"], overlap(attention[2:], mask[2:]).iou.mean(0), rtol=1e-12)


def test_best_threshold_is_one_for_all_and_the_lowest():
    """The first map is best above 0.5, the second at 0.5 or below: together (1 + 1/2) / 2 above 0.2 and up to 0.5."""
    attention = np.array([[[10, 2, 0, 0]], [[10, 5, 5, 5]]])
    mask = np.array([[[1, 0, 0, 0]], [[1, 1, 0, 0]]], bool)
    summary = curves_of(attention, mask, 2).summary()["last"]
    assert (summary["best_iou"], summary["best_threshold"]) == (0.75, 0.21)
    assert curves_of(np.ones((1, 2, 2)), mask[1].reshape(1, 2, 2), 1).summary()["last"]["best_threshold"] == 0


def distance_to_target(mask, row, column):
    """The nearest target pixel's, by looking at all."""
    return min((math.hypot(y - row, x - column) for y, x in np.argwhere(mask)), default=math.inf)


def test_pointing_by_hand():
    assert_allclose(pointing_game(ATTENTION, MASK), [1, 0, 1, np.nan, 0], rtol=0)
    assert_allclose(pointing_game(ATTENTION, MASK, 1), [1, 1, 1, np.nan, 0], rtol=0)
    plateau = np.array([[[3, 3, 1], [3 - 1e-12, 0, 2.99]]])  # rounding does not choose among equals
    assert_allclose(pointing_game(plateau, np.array([[[1, 0, 1], [0, 1, 1]]], bool)), [1 / 3], rtol=1e-15)


def test_pointing_tolerance_is_a_disc():
    attention, mask = np.zeros((4, 9, 9)), np.zeros((4, 9, 9), bool)
    attention[:, 1, 1] = 2
    for row, (y, x) in enumerate([(4, 5), (5, 5), (1, 6), (1, 7)]):  # 3-4-5; the square of side 5 without the disc
        mask[row, y, x] = True
    assert_array_equal(pointing_game(attention, mask, 5), [1, 0, 1, 0])
    assert_array_equal(pointing_game(attention, mask, 4.9), [0, 0, 0, 0])
    assert_array_equal(pointing_game(attention, mask, 5.7), [1, 1, 1, 0])


@pytest.mark.parametrize("tolerance", [-1, np.nan, np.inf])
def test_tolerance_must_be_a_distance(tolerance):
    with pytest.raises(ValueError, match=f"tolerance must be >= 0 pixels and finite, got {tolerance}; 0 means"):
        pointing_game(ATTENTION, MASK, tolerance)


@any_pace
@given(examples(whole_maps), st.sampled_from([0, 0.5, 1, math.sqrt(2), 2, 2.5, 5, 40]))
def test_pointing_is_the_loop(example, tolerance):
    grown = dilated(example[1], tolerance)
    for row, (attention, mask) in enumerate(zip(*example, strict=True)):
        near = [distance_to_target(mask, *pixel) <= tolerance for pixel in np.ndindex(mask.shape)]
        assert_array_equal(grown[row].ravel(), near)
        hits = [hit for hit, value in zip(near, attention.flat, strict=True) if value == attention.max()]
        expected = np.mean(hits) if attention.any() else 0
        ours = pointing_game(attention[None], mask[None], tolerance)[0]
        assert_allclose(ours, expected if mask.any() else np.nan, rtol=1e-15)
