"""Attention maps with targets for the metrics' tests: five to work out by hand, and strategies that draw any."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

ATTENTION = np.array(
    [
        [[1, 2], [3, 4]],  # target: 2 and 4 of 10
        [[0.25, 0], [0, 0]],  # nothing inside
        [[0, 0], [0, 8]],  # everything inside
        [[1, 1], [1, 1]],  # empty mask
        [[0, 0], [0, 0]],  # no attention
    ]
)
MASK = np.array([[[0, 1], [0, 1]], [[0, 1], [1, 1]], [[0, 0], [0, 1]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]], bool)
maps = arrays(np.float64, array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.floats(0, 1e6))
whole_maps = arrays(np.int64, array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, 200))


@st.composite
def examples(draw, maps=maps):
    attention = draw(maps)
    return attention, draw(arrays(np.bool_, attention.shape))
