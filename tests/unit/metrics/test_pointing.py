"""Points and boxes of maps: by hand, against slow twins, and what must always be true."""

import numpy as np
import pytest
import torch
from hand_maps import whole_maps
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose, assert_array_equal

from progressive_attention.maps.pixel_maps import as_density
from progressive_attention.maps.receptive_field import Field
from progressive_attention.metrics.pointing import bounding_box, box_iou, highest_point, smallest_box

any_pace = settings(deadline=None)
masks = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=6))


def with_plateaus(rows: list[str]) -> np.ndarray:
    """A map (1, H, W) of digits."""
    return np.array([[[int(value) for value in row] for row in rows]], float)


def point_by_walking(values: np.ndarray) -> tuple[float, float]:
    """The slow twin: from the first highest pixel to neighbours of the same value."""
    height, width = values.shape
    highest = [(i, j) for i in range(height) for j in range(width) if values[i, j] == values.max()]
    reached, new = set(), highest[:1]
    while new:
        i, j = new.pop()
        reached.add((i, j))
        new += [at for at in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)) if at in highest and at not in reached]
    return sum(j + 0.5 for _, j in reached) / len(reached), sum(i + 0.5 for i, _ in reached) / len(reached)


def box_by_sorting(values: np.ndarray, share: float) -> tuple[int, int, int, int]:
    """The slow twin: one pixel after the other, whole numbers."""
    order = sorted(np.ndindex(values.shape), key=lambda at: -int(values[at]))  # stable: row order
    taken, held = [], 0
    for at in order:
        if held >= share * values.sum() - 1e-9:
            break
        taken.append(at)
        held += int(values[at])
    (rows, columns) = zip(*taken, strict=True)
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


BY_HAND = [
    (["00", "03"], (1.5, 1.5)),  # the last pixel's centre
    (["9990", "9990", "0009"], (1.5, 1)),  # a cell of 3 x 2; the corner's pixel touches by no edge
    (["1922", "2299"], (1.5, 0.5)),  # ties: the first in row order
    (["090", "999", "090"], (1.5, 1.5)),
    (["9099", "9009", "9999"], (14 / 9 + 0.5, 10 / 9 + 0.5)),  # around corners, back up
    (["44", "44"], (1, 1)),
]


@pytest.mark.parametrize("rows, point", BY_HAND)
def test_points_by_hand(rows, point):
    assert_allclose(highest_point(with_plateaus(rows)), [point], rtol=1e-15)


@any_pace
@given(whole_maps.map(lambda values: values // 60))
def test_points_are_the_walks(attention):
    for values, point in zip(attention, highest_point(attention), strict=True):
        assert_allclose(point, point_by_walking(values) if values.any() else [np.nan] * 2, rtol=1e-14)


@any_pace
@given(st.integers(1, 5), st.integers(1, 5), st.integers(2, 7), st.integers(0, 999))
def test_a_cells_point_is_its_centre(h, w, stride, seed):
    field = Field(stride, 3, 3 + stride - 1)  # the first cell begins at pixel 3
    cells = np.random.default_rng(seed).random((4, h, w))
    pixels = as_density(torch.from_numpy(cells), (field, field), (stride * h + 5, stride * w + 7)).numpy()
    row, column = np.unravel_index(cells.reshape(4, -1).argmax(1), (h, w))
    expected = np.stack([3 + stride * (column + 0.5), 3 + stride * (row + 0.5)], 1)
    assert_allclose(highest_point(pixels), expected, rtol=1e-14)


def test_rounding_moves_no_point():
    cell = np.zeros((1, 8, 8))
    cell[0, 2:6, 2:6] = 1 + 1e-7 * np.random.default_rng(0).random((4, 4))
    assert_array_equal(highest_point(cell), [[4, 4]])


def test_boxes_by_hand():
    attention = with_plateaus(["0000", "0560", "0450", "0000"])  # of 20: 6, 11, 16, 20
    shares = [0.3, 0.31, 0.55, 0.56, 0.8, 0.81, 1]
    boxes = [(2, 1, 3, 2), (1, 1, 3, 2), (1, 1, 3, 2), *[(1, 1, 3, 3)] * 4]
    for share, box in zip(shares, boxes, strict=True):
        assert_array_equal(smallest_box(attention, share), [box])
    ties = with_plateaus(["111", "111", "111"])
    assert_array_equal(smallest_box(ties, 1 / 9), [[0, 0, 1, 1]])
    assert_array_equal(smallest_box(ties, 0.4), [[0, 0, 3, 2]])
    assert_array_equal(smallest_box(ties), [[0, 0, 3, 3]])


@any_pace
@given(whole_maps, st.integers(1, 20))
def test_boxes_are_the_loops(attention, twentieths):
    for values, box in zip(attention, smallest_box(attention, twentieths / 20), strict=True):
        assert_array_equal(box, box_by_sorting(values, twentieths / 20) if values.any() else [np.nan] * 4)


def test_iou_by_hand():
    box = [0, 0, 4, 2]
    others = [box, [2, 1, 4, 2], [2, 0, 6, 2], [4, 0, 8, 2], [-9, -9, -8, -8], [1, 1, 1, 1], [np.nan] * 4]
    expected = [1, 2 / 8, 4 / 12, 0, 0, 0, np.nan]
    assert_allclose(box_iou(np.array([box] * 7), np.array(others)), expected, rtol=1e-15)
    assert_array_equal(box_iou(np.array([[1, 1, 1, 3]]), np.array([[5, 5, 5, 5]])), [np.nan])


@any_pace
@given(*[st.lists(st.integers(0, 7), min_size=4, max_size=4)] * 2)
def test_iou_is_that_of_pixels(one, other):
    pixels = np.zeros((2, 8, 8), bool)
    for (x0, y0, x1, y1), inside in zip((one, other), pixels, strict=True):
        inside[y0:y1, x0:x1] = True
    union = pixels.any(0).sum()
    expected = pixels.all(0).sum() / union if union else np.nan
    assert_allclose(box_iou(np.array([one]), np.array([other])), [expected], rtol=1e-15)


def test_maps_of_zeros_point_nowhere():
    nothing = np.zeros((2, 3, 4))
    assert_array_equal(highest_point(nothing), np.full((2, 2), np.nan))
    assert_array_equal(smallest_box(nothing), np.full((2, 4), np.nan))
    assert (highest_point(nothing[:0]).shape, smallest_box(nothing[:0]).shape) == ((0, 2), (0, 4))


@pytest.mark.parametrize("measure", [highest_point, smallest_box])
def test_wrong_maps(measure):
    with pytest.raises(ValueError, match=r"shape \(R, H, W\), got \(2, 2\)"):
        measure(np.ones((2, 2)))
    with pytest.raises(ValueError, match="finite and >= 0, got values from -1"):
        measure(np.full((1, 2, 2), -1.0))


@pytest.mark.parametrize("share", [0, -0.5, 1.1, np.nan])
def test_wrong_shares(share):
    with pytest.raises(ValueError, match=f"share must be above 0 and at most 1, got {share}"):
        smallest_box(np.ones((1, 2, 2)), share)


@any_pace
@given(masks)
def test_bounding_boxes_are_the_loops(mask):
    for inside, box in zip(mask, bounding_box(mask), strict=True):
        rows, columns = np.nonzero(inside)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [np.nan] * 4
        assert_array_equal(box, expected)
