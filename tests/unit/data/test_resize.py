"""Resizing digits: the triangle filter in 128ths, exact in integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from progressive_attention.data.scenes import (
    SceneSource,
    resize,
    resize_weights,
)

POOL = SceneSource("mref", "test").pool


def slow_weights(source: int, target: int) -> np.ndarray:
    """Triangle filter in float64, straight from its definition."""
    weights = np.zeros((target, source))
    width = max(1.0, source / target)
    for i in range(target):
        centre = (i + 0.5) * source / target
        for j in range(source):
            weights[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / width)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("source, sizes", [(28, range(14, 85)), (5, range(3, 16))])
def test_weights_are_the_triangle_filter_in_128ths(source, sizes):
    for size in sizes:
        weights = resize_weights(source, size)
        whole = weights * 128
        np.testing.assert_array_equal(whole, np.round(whole))
        np.testing.assert_array_equal(whole.sum(1), np.full(size, 128))
        assert weights.min() >= 0
        np.testing.assert_allclose(weights, slow_weights(source, size), rtol=0, atol=1 / 128)
        np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=0, atol=1 / 128)
    np.testing.assert_array_equal(resize_weights(source, source), np.eye(source))


@pytest.mark.parametrize("size", [14, 17, 23, 28, 41, 84])
def test_resize_equals_integer_arithmetic_and_follows_float64(size):
    whole = (resize_weights(28, size) * 128).astype(np.int64)
    slow = slow_weights(28, size)
    error = np.abs(slow - whole / 128).sum(1)
    for digit in POOL.images[:20]:
        got = resize(digit, size)
        np.testing.assert_array_equal(got, (whole @ digit.astype(np.int64) @ whole.T + 8192) >> 14)
        exact = slow @ digit.astype(float) @ slow.T
        assert np.all(abs(got - exact) <= 255 * (error[:, None] + error) + 0.5)
        assert abs(got - exact).mean() < 0.75
        pillow = np.asarray(Image.fromarray(digit).resize((size, size), Image.Resampling.BILINEAR)).astype(int)
        assert abs(got - pillow).mean() < 0.75


@given(st.integers(1, 9), st.integers(1, 30), st.integers(0, 255))
def test_a_flat_image_stays_flat(source, size, value):
    np.testing.assert_array_equal(resize(np.full((source, source), value, np.uint8), size), value)
