"""Masks from files and from boxes: the row's own pixels, in the place where its image lies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from progressive_attention.data.image_files import BoxMasks, FileImages, FileMasks
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.pictures import Fit
from progressive_attention.data.questions import RowsOfMasks


def noise(width, height):
    pixels = np.random.default_rng([width, height]).integers(50, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def images_of(folder, names, side):
    return FileImages(ImageRoot(folder), names, side, np.zeros((len(names), 2), np.int64))


# --- masks in files ---------------------------------------------------------------------------------------------------

LABELS = np.array([[0, 1, 1, 255], [2, 2, 0, 255], [0, 0, 3, 3], [7, 0, 0, 0]], np.uint8)
COLOUR_MAP = [0, 0, 0, *range(1, 256), *range(1, 256), *range(1, 256)]  # VOC's has a colour for each class too


@pytest.fixture
def masks(tmp_path):
    """Images of 4 x 4 and 8 x 4 pixels, and masks in every form."""
    noise(4, 4).save(tmp_path / "a.png")
    noise(8, 4).save(tmp_path / "b.png")
    palette = Image.fromarray(LABELS).convert("P")
    palette.putpalette(COLOUR_MAP)
    for name, picture in {
        "grey": Image.fromarray(LABELS),
        "palette": palette,
        "deep": Image.fromarray(LABELS.astype(np.uint16) * 300),
        "wide": Image.fromarray(LABELS.repeat(2, 1)),
        "colour": Image.fromarray(LABELS).convert("RGB"),
    }.items():
        picture.save(tmp_path / f"{name}.png")
    (tmp_path / "notes.png").write_text("no picture")
    return tmp_path


def masks_of(folder, rows, side=4):
    """Rows of (mask, value, image)."""
    paths, values, image = zip(*rows, strict=True)
    images = images_of(folder, ["a.png", "b.png"], side=side)
    return FileMasks(ImageRoot(folder), paths, np.array(values), images, np.array(image))


@pytest.mark.parametrize("value", [0, 1, 2, 3, 7, 255, 254])
@pytest.mark.parametrize("name", ["grey.png", "palette.png"])
def test_the_targets_pixels_have_its_value(masks, name, value):
    assert_array_equal(masks_of(masks, [(name, value, 0)])[np.array([0])], [value == LABELS])


def test_masks_by_rows(masks):
    rows = [("grey.png", 1, 0), (None, 5, 0), ("palette.png", 255, 0), ("deep.png", 2100, 0), ("", 1, 0)]
    rows += [("grey.png", -1, 0), ("palette.png", -1, 0), ("colour.png", -1, 0), (None, -1, 1), ("wide.png", 2, 1)]
    wide = np.zeros((8, 8), bool)
    wide[2:6] = (LABELS == 2).repeat(2, 1)
    nothing, some = np.zeros((4, 4), bool), LABELS > 0
    small = [LABELS == 1, nothing, LABELS == 255, LABELS == 7, nothing, some, some, some]
    expected = np.array([one.repeat(2, 0).repeat(2, 1) for one in small] + [np.zeros((8, 8), bool), wide])
    found = masks_of(masks, rows, side=8)
    assert found[np.arange(10)].dtype == bool
    assert_array_equal(found[np.arange(10)], expected)
    order = np.array([9, 0, 5, 5, 3, 0, 8])
    assert_array_equal(found[order], expected[order])
    assert_array_equal(RowsOfMasks(found, order)[np.array([0, 4])], expected[[9, 3]])
    assert found[np.array([], np.int64)].shape == (0, 8, 8)


def test_masks_move_with_their_images(masks):
    found = masks_of(masks, [("grey.png", 1, 0), ("wide.png", 2, 1)], side=8)
    fits = [Fit(8, -1, 2, 10, 10, True), Fit(8, -2, 1, 10, 5)]
    expected = [
        fit.mask(Image.fromarray((values * 255).astype(np.uint8)))
        for fit, values in zip(fits, (LABELS == 1, (LABELS == 2).repeat(2, 1)), strict=True)
    ]
    assert_array_equal(found.read(np.arange(2), fits), expected)
    assert_array_equal(RowsOfMasks(found, np.array([1, 0])).read(np.array([1, 0]), fits), expected)


WRONG = [
    (("colour.png", 1, 0), r"colour\.png can't be read as an image \(its mode is RGB, expected a palette or grey pict"),
    (("notes.png", 1, 0), r"notes\.png can't be read as an image"),
    (("gone.png", -1, 0), r"gone\.png does not exist"),
    (("../a.png", -1, 0), r"'\.\./a\.png' lies outside"),
    (("wide.png", 1, 0), r"wide\.png is 8 x 4 pixels, but its image 4 x 4; a mask must be of its image's size"),
    (("grey.png", 1, 1), r"grey\.png is 4 x 4 pixels, but its image 8 x 4; a mask must be of its image's size"),
]


@pytest.mark.parametrize("row, message", WRONG, ids=[message[:14] for _, message in WRONG])
def test_masks_that_cannot_be_used_are_told(masks, row, message):
    found = masks_of(masks, [("grey.png", 1, 0), ("wide.png", 2, 1), row, (None, 1, 0)])
    assert found[np.array([0, 1, 3])].any((1, 2)).tolist() == [True, True, False]
    with pytest.raises(ValueError, match=message):
        found[np.array([0, 1, 2])]  # though another row of the same file may be right


def test_masks_of_unreadable_images_ask_for_nothing(masks):
    """The image's size is not known then, and no question is asked."""
    for i in range(38):
        noise(4, 4).save(masks / f"{i}.png")
    (masks / "a.png").write_text("no picture")
    images = images_of(masks, ["a.png", *(f"{i}.png" for i in range(38)), "b.png"], side=4)
    found = FileMasks(ImageRoot(masks), ["grey.png"], np.array([1]), images, np.array([0]))
    assert found[np.array([0])].shape == (1, 4, 4)


# --- boxes as masks ---------------------------------------------------------------------------------------------------


def by_pixels(box, side):
    """Each pixel by itself; at least one of a box with an area inside the square: that with its middle."""
    x0, y0, x1, y1 = (min(max(value, 0), side) for value in box)
    if not (x0 < x1 and y0 < y1):
        return np.zeros((side, side), bool)
    across = [x for x in range(side) if x0 <= x + 0.5 < x1] or [int((x0 + x1) / 2)]
    down = [y for y in range(side) if y0 <= y + 0.5 < y1] or [int((y0 + y1) / 2)]
    return np.array([[x in across and y in down for x in range(side)] for y in range(side)])


edges = st.integers(-8, 40).map(lambda n: n / 4) | st.floats(-20, 20, width=32) | st.sampled_from([np.inf, -np.inf])


@settings(deadline=None)
@given(st.integers(1, 9), st.lists(st.tuples(edges, edges, edges, edges), min_size=1, max_size=5), st.data())
def test_boxes_are_the_pixels_whose_middle_is_inside(side, boxes, data):
    rows = np.array(data.draw(st.lists(st.integers(0, len(boxes) - 1), max_size=5)), np.int64)
    found = BoxMasks(np.array(boxes), side)[rows]
    assert (found.shape, found.dtype) == ((len(rows), side, side), bool)
    assert_array_equal(found, np.array([by_pixels(boxes[row], side) for row in rows], bool).reshape(-1, side, side))


BOXES = [
    ((1, 2, 3, 5), (slice(2, 5), slice(1, 3))),
    ((0.5, 0.5, 2.5, 1.5), (slice(0, 1), slice(0, 2))),  # half open: a middle on the far edge is out
    ((-9, -9, 99, 99), (slice(0, 6), slice(0, 6))),
    ((2.6, 1, 2.9, 3), (slice(1, 3), slice(2, 3))),  # thin
    ((2.9, 3.7, 3.2, 3.8), (slice(3, 4), slice(3, 4))),  # thin both ways
    ((-5, 1, 0.2, 2), (slice(1, 2), slice(0, 1))),  # a sliver of it is inside
    ((5.9, 5.9, 9, 9), (slice(5, 6), slice(5, 6))),
    ((6, 0, 9, 3), None),
    ((-3, 0, 0, 3), None),
    ((1, 1, 1, 3), None),  # without an area
    ((3, 1, 1, 3), None),
    ((np.nan,) * 4, None),
    ((0, np.nan, 3, 3), None),
]


@pytest.mark.parametrize("box, where", BOXES)
def test_boxes_by_hand(box, where):
    expected = np.zeros((6, 6), bool)
    if where:
        expected[where] = True
    assert_array_equal(BoxMasks(np.array([box]), 6)[np.array([0])], [expected])
