"""Pictures of any mode, grey, palette or transparent: what they are as RGB, as a mask, and as values of a mask."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from progressive_attention.data.pictures import Fit, labelled, target, to_rgb


def one(mode, value):
    return Image.new(mode, (2, 1), value)


def palette(transparent=None):
    picture = Image.new("P", (2, 1), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    if transparent is not None:
        picture.info["transparency"] = transparent
    return picture


def grey_with_transparency(value):
    picture = one("L", value)
    picture.info["transparency"] = value
    return picture


MODES = [
    (one("RGB", (1, 2, 3)), (1, 2, 3)),
    (one("L", 7), (7, 7, 7)),
    (one("1", 1), (255, 255, 255)),
    (one("LA", (100, 0)), (0, 0, 0)),
    (one("LA", (100, 255)), (100, 100, 100)),
    (one("RGBA", (100, 200, 50, 0)), (0, 0, 0)),
    (one("RGBA", (100, 200, 50, 255)), (100, 200, 50)),
    (one("RGBA", (255, 0, 0, 51)), (51, 0, 0)),
    (palette(), (10, 20, 30)),
    (palette(transparent=1), (0, 0, 0)),
    (palette(transparent=0), (10, 20, 30)),
    (grey_with_transparency(9), (0, 0, 0)),
    (one("I;16", 0x8040), (0x80,) * 3),
    (one("I", 0xFFFF), (255,) * 3),
    (one("I", 70_000), (255,) * 3),
    (one("I", -5), (0,) * 3),
    (one("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
    (one("F", 12.0), (12,) * 3),
]


@pytest.mark.parametrize("picture, colour", MODES, ids=[f"{i}-{p.mode}" for i, (p, _) in enumerate(MODES)])
def test_any_mode_as_rgb(picture, colour):
    rgb = to_rgb(picture)
    assert rgb.mode == "RGB"
    assert_array_equal(np.asarray(rgb), [[colour, colour]])


TARGETS = [
    (one("L", 1), True),
    (one("L", 0), False),
    (one("1", 1), True),
    (one("RGB", (0, 0, 1)), True),  # as grey this would round to black
    (one("RGB", (0, 1, 0)), True),
    (one("RGB", (1, 0, 0)), True),
    (one("RGBA", (255, 255, 255, 0)), False),
    (one("I;16", 1), True),  # one of many objects, numbered: as 8 bits this would be black
    (one("I", 3), True),
    (one("I;16", 0), False),
    (one("F", 0.25), True),
    (palette(), True),
    (palette(transparent=1), False),
]


@pytest.mark.parametrize("picture, inside", TARGETS, ids=[f"{i}-{p.mode}" for i, (p, _) in enumerate(TARGETS)])
def test_any_mode_as_mask(picture, inside):
    assert_array_equal(np.asarray(target(picture)), np.full((1, 2), 255 if inside else 0))
    assert_array_equal(Fit.into(2, 2, 1).mask(picture), [[inside, inside], [False, False]])


LABELS = [
    (one("L", 7), 7),
    (one("1", 1), 1),
    (one("P", 3), 3),  # the index, whatever its colour
    (palette(), 1),
    (palette(transparent=1), 1),
    (one("I;16", 0x8040), 0x8040),
    (one("I", 70_000), 70_000),
    (one("F", 2.0), 2),
]


@pytest.mark.parametrize("mask, value", LABELS, ids=[f"{i}-{p.mode}" for i, (p, _) in enumerate(LABELS)])
def test_a_masks_values_are_what_is_in_the_file(mask, value):
    assert_array_equal(np.asarray(labelled(mask)), [[value, value]])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_a_picture_in_colours_has_no_values(mode):
    with pytest.raises(ValueError, match=f"its mode is {mode}, expected a palette or grey picture whose pixels are n"):
        labelled(Image.new(mode, (2, 1)))
