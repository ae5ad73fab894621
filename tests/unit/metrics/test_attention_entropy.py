"""Entropy of a layer's map: by hand, against a loop and scipy, and what must always hold."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from scipy import stats

from progressive_attention.metrics.attention import attention_entropy

values = st.just(0.0) | st.floats(1e-6, 1e6)
maps = arrays(np.float64, st.tuples(st.just(1), st.integers(1, 6), st.integers(2, 6)), elements=values)


def loop(attention):
    """The definition, cell by cell."""
    total = sum(attention.flat)
    if total == 0 or attention.size == 1:
        return math.nan
    found = 0.0
    for value in attention.flat:
        if value > 0:
            found -= value / total * math.log2(value / total)
    return found / math.log2(attention.size)


HAND = [
    ([[0.5, 0.25], [0.25, 0]], 0.75),  # 1.5 bits of 2
    ([[2, 1], [1, 0]], 0.75),  # the same, not normalised
    ([[1, 0], [0, 1]], 0.5),  # 1 bit of 2
    ([[1, 1], [1, 1]], 1),
    ([[0.1, 0.1], [0.1, 0.1]], 1),  # a gate that is a tenth open everywhere
    ([[0, 0.3], [0, 0]], 0),
    ([[0, 0], [0, 0]], math.nan),
]


def test_by_hand():
    attention = np.array([drawn for drawn, _ in HAND])
    assert_allclose(attention_entropy(attention), [value for _, value in HAND], atol=1e-15)


def test_one_cell_has_no_choice_and_no_rows_no_entropy():
    assert_allclose(attention_entropy(np.array([[[0.5]], [[0]]])), [np.nan, np.nan])
    assert attention_entropy(np.zeros((0, 4, 4))).shape == (0,)
    assert attention_entropy(np.zeros((0, 1, 1))).shape == (0,)
    assert_allclose(attention_entropy(np.zeros((2, 0, 3))), [np.nan, np.nan])


@given(maps)
def test_is_the_loop_scipys_and_a_share(attention):
    (found,) = attention_entropy(attention)
    expected = loop(attention[0] / (attention.max() or 1))
    assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    if attention.any():
        assert 0 <= found <= 1
        scipys = stats.entropy(attention.ravel() / attention.max(), base=attention.size)
        assert_allclose(found, scipys, rtol=1e-9, atol=1e-9)


@given(st.integers(1, 30), st.integers(1, 30))
def test_even_over_some_of_the_cells(some, more):
    attention = np.zeros((1, 1, some + more))
    attention[..., :some] = 0.125
    assert_allclose(attention_entropy(attention), [math.log(some) / math.log(some + more)], atol=1e-12)


def test_rounding_leaves_no_share_above_one():
    found = np.array([attention_entropy(np.full((1, 1, cells), 0.1)) for cells in range(2, 40)])
    assert_allclose(found, 1, rtol=1e-15)
    assert found.max() == 1


def test_tiny_values_count_as_any_others():
    assert_allclose(attention_entropy(np.full((1, 2, 2), 5e-324)), [1])
