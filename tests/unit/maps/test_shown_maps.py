"""Which map is shown, and how: scale, colours over the image, light on it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from progressive_attention.maps.shown_maps import (
    attended_image,
    largest_of,
    light,
    over_image,
    painted,
    scaled,
    shown_map,
    smoothed,
)

BLACK = np.zeros((1, 64, 3), np.uint8)
RAMP = np.linspace(0, 1, 64)[None]


@pytest.mark.parametrize(
    ("names", "likelihood", "shown"),
    [
        (["last", "accumulated", "activation", "flow"], "softmax", "flow"),
        (["last", "accumulated", "activation", "flow"], "bernoulli", "activation"),
        (["last", "accumulated"], "bernoulli", "accumulated"),  # of a spatial transformer both are its region
        (["last"], "softmax", "last"),
    ],
)
def test_which_map_is_shown_first(names, likelihood, shown):
    assert shown_map({name: name.upper() for name in names}, likelihood) == (shown, shown.upper())


@pytest.mark.parametrize("cell", [(1, 1), (8, 5), (4, 16)])
def test_smooth_is_bilinear_between_the_centres_of_cells(cell):
    """Against interpolation of the cells, along one axis and then the other; the outermost go on to the edge."""
    cells = np.random.default_rng(0).random((6, 4))
    places = [
        (np.arange(n * size) + 0.5, size * (np.arange(n) + 0.5)) for n, size in zip(cells.shape, cell, strict=True)
    ]
    across = np.stack([np.interp(*places[1], row) for row in cells])
    expected = np.stack([np.interp(*places[0], column) for column in across.T], 1)
    assert_allclose(smoothed(np.kron(cells, np.ones(cell)), cell), expected)


def test_smooth_leaves_what_no_cell_covers_and_what_is_alike():
    values = np.full((9, 9), 0.3)
    values[:2] = np.nan
    assert_allclose(smoothed(values, (4, 3)), values)
    assert_array_equal(smoothed(np.arange(9.0).reshape(3, 3), (0, 0)), np.arange(9.0).reshape(3, 3))  # a global cell


def test_each_map_is_scaled_by_its_own_largest_value():
    assert_array_equal(scaled(np.array([[0.01, 0.04, np.nan]])), [[0.25, 1, np.nan]])
    assert_array_equal(scaled(np.zeros((1, 2))), [[0, 0]])
    assert np.isnan(scaled(np.full((1, 2), np.nan))).all()
    assert largest_of(np.array([[0.0123, np.nan]])) == "largest 0.012"
    assert largest_of(np.full((1, 2), np.nan)) == "no cell"


def test_light_is_brighter_than_its_share():
    """As a screen has it: 1 / 255 of the light is stored as about 20 / 255."""
    assert_allclose(light(np.array([[4, 4 / 255, 0, np.nan]])), [[1, 20.5 / 255, 0, 0]], atol=0.001)


def test_map_keeps_its_order_of_lightness():
    """A larger value is never darker on black, nor less opaque anywhere."""
    lightness = over_image(BLACK, RAMP)[0] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    assert (np.diff(painted(RAMP)[0, :, 3]) > 0).all()


def test_image_stays_grey_and_readable_where_nothing_is_attended():
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 3), np.uint8)
    drawn = over_image(image, np.where(RAMP < 0.5, 0, RAMP))
    grey = drawn[:, :32]
    assert_allclose(np.ptp(grey, -1), 0, atol=1e-12)
    assert_allclose(grey[..., 0], 0.7 * image[:, :32] @ [0.299, 0.587, 0.114] / 255)
    assert np.ptp(drawn[:, 32:], -1).min() > 0.1


def test_hatched_where_a_layer_has_no_cell():
    values = np.where(RAMP < 0.5, np.nan, 0)
    drawn = over_image(BLACK, values)[0, :, 0]
    assert set(drawn[:32]) == {0, 0.3}
    assert (drawn[32:] == 0).all()
    assert (painted(values)[..., 3] == 0).all()


def test_attended_image_by_hand():
    """A tenth of the light is the stored value times 0.1 ** (1 / 2.2)."""
    image = np.array([[[255, 0, 51], [255, 255, 255], [9, 9, 9]]], np.uint8)
    drawn = attended_image(image, np.array([[0.01, 0.1, np.nan]]))
    lit = 0.1 ** (1 / 2.2)
    assert_allclose(drawn, [[[lit, 0, 0.2 * lit], [1, 1, 1], [0, 0, 0]]])
    assert_array_equal(attended_image(image, np.zeros((1, 3))), np.zeros((1, 3, 3)))
