"""True-positive ratio and Wilson's interval: by hand, against loops, and what must always hold."""

import numpy as np
import pytest
from hand_maps import ATTENTION, MASK, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binomtest

from progressive_attention.metrics.attention import overlap, pointing_game, true_positive_ratio, wilson_interval

any_pace = settings(deadline=None)


def loop(attention, mask, outside=0.0):
    """The definition, pixel by pixel."""
    inside, total = 0.0, outside
    for value, hit in zip(attention.flat, mask.flat, strict=True):
        total += value
        inside += value * hit
    return inside / total if total and mask.any() else np.nan


def test_by_hand():
    assert_allclose(true_positive_ratio(ATTENTION, MASK), [0.6, 0, 1, np.nan, np.nan], rtol=1e-15)


@pytest.mark.parametrize("mask", [255 * MASK.astype(np.uint8), 0.5 * MASK], ids=["uint8", "float"])
def test_a_target_is_where_the_mask_is_not_zero(mask):
    assert_array_equal(true_positive_ratio(ATTENTION, mask), true_positive_ratio(ATTENTION, MASK))
    assert_array_equal(pointing_game(ATTENTION, mask), pointing_game(ATTENTION, MASK))
    for ours, expected in zip(overlap(ATTENTION, mask), overlap(ATTENTION, MASK), strict=True):
        assert_array_equal(ours, expected)


@pytest.mark.parametrize("shape", [(5, 2, 3), (1, 2, 2), (2, 2)])
def test_shapes_must_agree(shape):
    message = r"attention and mask must have one shape \(R, H, W\), got \(5, 2, 2\) and "
    with pytest.raises(ValueError, match=message + str(shape).replace("(", r"\(").replace(")", r"\)")):
        true_positive_ratio(ATTENTION, np.ones(shape, bool))


@pytest.mark.parametrize("metric", [true_positive_ratio, overlap, pointing_game])
@pytest.mark.parametrize("value", [-0.5, np.nan, np.inf])
def test_values_must_be_a_map(metric, value):
    with pytest.raises(ValueError, match=rf"finite and >= 0, got values from .*{value}.*; of a signed map"):
        metric(np.array([[[1, value]]]), np.ones((1, 1, 2), bool))


def test_attention_outside_the_image():
    total = np.array([20, 0.25, 10, 8, 3])
    assert_allclose(true_positive_ratio(ATTENTION, MASK, total), [0.3, 0, 0.8, np.nan, 0], rtol=1e-15)
    nowhere = true_positive_ratio(np.zeros((2, 1, 1)), np.ones((2, 1, 1)), np.array([0.5, 0]))  # off the image; none
    assert_array_equal(nowhere, [0, np.nan])
    for share in (1 - 1e-6, 0.999):  # as float32 sums differ: no ratio may pass one
        rounded = share * ATTENTION[:3].sum((1, 2))
        assert_array_equal(true_positive_ratio(ATTENTION[:3], MASK[:3], rounded), [0.6, 0, 1])


@pytest.mark.parametrize("total, row", [([9, 1, 8, 4, 1], 0), ([10, 1, 8, 4, -1], 4), ([10, 1, np.nan, 4, 1], 2)])
def test_total_is_at_least_what_is_seen(total, row):
    seen = ATTENTION[row].sum()
    message = rf"total of map {row} must be >= 0 and at least the map's sum {seen}.*, got {total[row]}.*; it is"
    with pytest.raises(ValueError, match=message):
        true_positive_ratio(ATTENTION, MASK, np.array(total))
    with pytest.raises(ValueError, match=r"total of map 1 must be >= 0 .*, got nan; it is"):  # as JSON's null
        true_positive_ratio(ATTENTION, MASK, np.array([10, None, 8, 4, 1]))
    with pytest.raises(ValueError, match=r"total must have shape \(5,\), one value a map, got \(4,\)"):
        true_positive_ratio(ATTENTION, MASK, np.array(total[:4]))


@any_pace
@given(examples(), st.floats(0.5, 1e6))
def test_is_the_loop_with_a_part_outside(example, outside):
    attention, mask = example
    ratio = true_positive_ratio(attention, mask, attention.sum((1, 2)) + outside)
    expected = [loop(a, m, outside) for a, m in zip(attention, mask, strict=True)]
    assert_allclose(ratio, expected, rtol=1e-12, atol=0)


@any_pace
@given(examples())
def test_is_the_loop_and_a_share(example):
    attention, mask = example
    ratio = true_positive_ratio(attention, mask)
    assert_allclose(ratio, [loop(a, m) for a, m in zip(attention, mask, strict=True)], rtol=1e-12, atol=0)
    known = ratio[~np.isnan(ratio)]
    assert ((known >= 0) & (known <= 1)).all()
    one_by_one = [true_positive_ratio(a[None], m[None])[0] for a, m in zip(attention, mask, strict=True)]
    assert_array_equal(ratio, one_by_one)


# Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 1998, table I, method 3.
PUBLISHED = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)]


@pytest.mark.parametrize("right, count, low, high", PUBLISHED)
def test_wilson_as_published(right, count, low, high):
    assert_allclose(wilson_interval(right, count), (low, high), rtol=0, atol=5e-5)


def test_wilson_by_hand():
    # z = 2, 1 of 2: middle (1/2 + 1) / 3 = 1/2, half 2 sqrt(1/8 + 1/4) / 3 = sqrt(1/6)
    assert_allclose(wilson_interval(1, 2, z=2), (0.5 - 6**-0.5, 0.5 + 6**-0.5), rtol=1e-15)
    assert wilson_interval(0, 0) == (0, 1)


@any_pace
@given(st.integers(1, 100_000), st.data())
def test_wilson_is_scipys(count, data):
    right = data.draw(st.integers(0, count))
    low, high = wilson_interval(right, count)
    assert isinstance(low, float)
    assert isinstance(high, float)
    assert 0 <= low <= right / count <= high <= 1
    scipys = binomtest(right, count).proportion_ci(0.95, "wilson")
    assert_allclose((low, high), (scipys.low, scipys.high), rtol=1e-9, atol=1e-15)
    assert_allclose(wilson_interval(count - right, count), (1 - high, 1 - low), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_other_numbers(dtype):
    large = np.full((1, 300, 300), 4, dtype)  # its sum is above float16's largest number
    assert_allclose(true_positive_ratio(large, np.ones(large.shape, bool)), [1], rtol=0)
