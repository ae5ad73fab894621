"""Pictures: any file as upright RGB, and one geometry that moves image, mask and box together."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from progressive_attention.data import pictures
from progressive_attention.data.pictures import Fit, open_picture, opened, target

RED, GREY = (200, 40, 10), (90, 90, 90)
EXIF_ORIENTATION = 0x0112


def with_rectangle(width, height, box, colour=RED):
    """A grey picture with a coloured rectangle, and the rectangle alone as a mask."""
    picture, mask = Image.new("RGB", (width, height), GREY), Image.new("L", (width, height))
    picture.paste(colour, box)
    mask.paste(1, box)
    return picture, mask


def mask_in(path):
    """A mask's target in a file, as masks of data sets are opened."""
    return opened(path, str(path), target)[0]


# --- one geometry -----------------------------------------------------------------------------------------------------


def test_fit_by_hand():
    assert Fit.into(100, 200, 100) == (100, 0, 25, 100, 50, False)
    assert Fit.into(100, 50, 100) == (100, 25, 0, 50, 100, False)
    assert Fit.into(100, 100, 100) == (100, 0, 0, 100, 100, False)
    assert Fit.into(100, 3000, 20) == (100, 0, 49, 100, 1, False)  # two thirds of a pixel, but never none
    assert Fit.into(100, 1, 5000) == (100, 49, 0, 1, 100, False)
    assert Fit.into(100, 1, 1) == (100, 0, 0, 100, 100, False)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 5000), st.integers(1, 5000))
def test_fit_is_as_large_as_can_be_and_central(side, width, height):
    fit = Fit.into(side, width, height)
    assert max(fit.w, fit.h) == side
    assert 0 <= fit.x <= fit.x + fit.w <= side
    assert 0 <= fit.y <= fit.y + fit.h <= side
    assert 0 <= side - fit.w - 2 * fit.x <= 1
    assert 0 <= side - fit.h - 2 * fit.y <= 1
    assert abs(fit.w * height - fit.h * width) <= max(width, height)  # the picture's shape, to a pixel


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_fit_needs_pixels(size):
    with pytest.raises(ValueError, match=f"the picture is {size[0]} x {size[1]} pixels: there is nothing in it"):
        Fit.into(100, *size)


def near(*edges):
    """Which of 100 pixels have their centre within two pixels of an edge."""
    return np.abs(np.arange(100)[:, None] + 0.5 - edges).min(1) <= 2


@pytest.mark.parametrize("width, height", [(100, 100), (200, 200), (300, 150), (80, 320), (50, 40), (25, 25)])
def test_image_mask_and_box_move_together(width, height):
    box = width // 5, height // 5, 3 * width // 5, 4 * height // 5  # in the square, too, its edges lie between pixels
    picture, mask = with_rectangle(width, height, box)
    fit = Fit.into(100, width, height)
    image, inside = fit.image(picture), fit.mask(mask)
    assert (image.shape, image.dtype, inside.shape, inside.dtype) == ((100, 100, 3), np.uint8, (100, 100), bool)
    x0, y0, x1, y1 = fit.box(np.array(box), width, height).round(9)
    assert [x0, y0, x1, y1] == [int(x0), int(y0), int(x1), int(y1)]
    expected = np.zeros((100, 100), bool)
    expected[int(y0) : int(y1), int(x0) : int(x1)] = True
    assert_array_equal(inside, expected)
    red = image[..., 0].astype(int) - image[..., 2]  # 190 on the rectangle, 0 elsewhere
    clear = ~(near(y0, y1)[:, None] | near(x0, x1))  # bilinear resizing mixes the colours at the rectangle's edges only
    assert_array_equal(red[clear & expected], 190)
    assert_array_equal(red[clear & ~expected], 0)
    assert abs(red.sum() / 190 - expected.sum()) <= 0.02 * expected.sum()
    outside = np.ones((100, 100), bool)
    outside[fit.y : fit.y + fit.h, fit.x : fit.x + fit.w] = False
    assert not image[outside].any()
    assert (image[~outside].sum(-1) > 200).all()


def test_box_by_hand():
    fit = Fit.into(100, 200, 50)
    assert_allclose(fit.box(np.array([0, 0, 200, 50]), 200, 50), [0, 37, 100, 62])
    assert_allclose(fit.box(np.array([20, 10, 30, 50]), 200, 50), [10, 42, 15, 62])
    assert np.isnan(fit.box(np.full(4, np.nan), 200, 50)).all()


def distance(count, *edges):
    """Of each of some pixels' centres to the nearest edge."""
    return np.abs(np.arange(count)[:, None] + 0.5 - edges).min(1)


shares = st.floats(0, 1)


@st.composite
def rectangles(draw):
    """A picture's size, and a rectangle in it."""
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return width, height, (x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height)))


@settings(deadline=None, max_examples=200)
@given(rectangles(), st.integers(1, 32), st.floats(1, 2), shares, shares, st.booleans())
def test_wherever_it_is_drawn_image_mask_and_box_move_together(rectangle, side, zoom, across, down, mirrored):
    width, height, box = rectangle
    picture, mask = with_rectangle(width, height, box)
    fit = Fit.into(side, width, height).drawn(zoom, across, down, mirrored)
    x0, y0, x1, y1 = fit.box(np.array(box), width, height)
    assert_allclose(fit.unplaced(np.array([x0, y0, x1, y1]), width, height), box, rtol=0, atol=1e-9)
    centre = np.arange(side) + 0.5
    expected = ((centre > y0) & (centre < y1))[:, None] & ((centre > x0) & (centre < x1))
    on_edge = (distance(side, y0, y1) < 1e-6)[:, None] | (distance(side, x0, x1) < 1e-6)
    assert_array_equal(fit.mask(mask)[~on_edge], expected[~on_edge])
    image = fit.image(picture).astype(int)
    red = image[..., 0] - image[..., 2]  # 190 on the rectangle, 0 elsewhere, and between where colours are mixed
    mixed = (distance(side, y0, y1) <= max(1, fit.h / height))[:, None]
    mixed = mixed | (distance(side, x0, x1) <= max(1, fit.w / width))
    assert_array_equal(red[~mixed], 190 * expected[~mixed])
    place = np.zeros((side, side), bool)
    place[max(fit.y, 0) : fit.y + fit.h, max(fit.x, 0) : fit.x + fit.w] = True
    assert not image[~place].any()
    assert (image[place].sum(-1) > 200).all()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 32), st.floats(1, 2), shares, shares)
def test_a_drawn_place_leaves_no_more_black_than_it_must(width, height, side, zoom, across, down):
    before = Fit.into(side, width, height)
    fit = before.drawn(zoom, across, down, True)
    assert (fit.side, fit.w, fit.h, fit.mirrored) == (side, round(before.w * zoom), round(before.h * zoom), True)
    for at, size in ((fit.x, fit.w), (fit.y, fit.h)):
        if size <= side:
            assert 0 <= at <= side - size
        else:
            assert side - size <= at <= 0


def test_drawn_by_hand():
    fit = Fit.into(100, 200, 100)
    assert fit == (100, 0, 25, 100, 50, False)
    assert fit.drawn(1, 0, 0, False) == (100, 0, 0, 100, 50, False)
    assert fit.drawn(1, 1, 1, False) == (100, 0, 50, 100, 50, False)
    assert fit.drawn(1.2, 0, 0.5, True) == (100, -20, 20, 120, 60, True)
    assert fit.drawn(1.2, 1, 0.25, True) == (100, 0, 10, 120, 60, True)


def test_a_mirrored_picture_is_the_mirror_of_the_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 5, 3), np.uint8)
    fit = Fit(9, 2, 0, 5, 9)
    assert_array_equal(fit._replace(mirrored=True).image(Image.fromarray(pixels))[:, 2:7], pixels[:, ::-1])
    left = fit._replace(mirrored=True).box(np.array([0, 1, 2, 4]), 5, 9)
    assert_allclose(left, [5, 1, 7, 4])
    assert_allclose(fit._replace(mirrored=True, x=-3).box(np.array([0, 1, 2, 4]), 5, 9), [0, 1, 2, 4])


def test_same_size_changes_no_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    assert_array_equal(Fit.into(60, 60, 60).image(Image.fromarray(pixels)), pixels)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tiff", "gif"])
def test_files_without_loss(tmp_path, suffix):
    picture, mask = with_rectangle(9, 7, (2, 1, 5, 4))
    options = {"lossless": True} if suffix == "webp" else {}
    picture.save(tmp_path / f"a.{suffix}", **options)
    mask.save(tmp_path / "mask.png")
    assert_array_equal(np.asarray(open_picture(tmp_path / f"a.{suffix}")), np.asarray(picture))
    assert_array_equal(np.asarray(open_picture(str(tmp_path / f"a.{suffix}"))), np.asarray(picture))
    assert_array_equal(np.asarray(mask_in(tmp_path / "mask.png")), np.asarray(mask) * 255)


def test_photographs_are_turned_upright(tmp_path):
    upright, upright_mask = with_rectangle(16, 8, (0, 0, 8, 4))
    for orientation, turn in [(1, None), (3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90)]:
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        for name, picture in [("picture", upright), ("mask", upright_mask)]:
            stored = picture if turn is None else picture.transpose(turn)
            stored.save(tmp_path / f"{name}.png", exif=exif)
        assert_array_equal(np.asarray(open_picture(tmp_path / "picture.png")), np.asarray(upright))
        assert_array_equal(np.asarray(mask_in(tmp_path / "mask.png")) > 0, np.asarray(upright_mask) > 0)


def jpeg(quality=90, **options):
    file = io.BytesIO()
    with_rectangle(200, 100, (20, 20, 90, 90))[0].save(file, "JPEG", quality=quality, **options)
    return file.getvalue()


BROKEN = {
    "notes.txt": b"Dear diary,\nthis is no picture.\n",
    "empty.png": b"",
    "cut.jpg": jpeg()[:-400],
    "head.jpg": jpeg()[:40],
    "cut.png": None,
    "number.ppm": b"P6\n1\xff 2 255\n" + bytes(60),
}


@pytest.mark.parametrize("kind", ["PPM", "PCX", "TGA", "ICO", "SGI", "EPS", "PDF"])
def test_seldom_used_formats_are_not_decoded(tmp_path, kind):
    path = tmp_path / "picture.png"
    Image.new("RGB", (50, 50), "red").save(path, kind)
    with pytest.raises(ValueError, match="can't be read as an image"):
        open_picture(path)


@pytest.mark.parametrize("opener", [open_picture, mask_in])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path, name, opener):
    content = BROKEN[name]
    if content is None:
        file = io.BytesIO()
        Image.effect_noise((50, 50), 90).save(file, "PNG")
        content = file.getvalue()[:-900]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} can't be read as an image \(.*\); expected PNG, JPEG, WEBP, BM"):
        opener(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.png does not exist; give the path of an image file or of a folder"):
        open_picture(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=f"{tmp_path.name} can't be read as an image"):
        open_picture(tmp_path)


def test_too_many_pixels(tmp_path, monkeypatch):
    Image.new("1", (50, 41)).save(tmp_path / "large.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 50 * 41)
    assert open_picture(tmp_path / "large.png").size == (50, 41)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 2000)
    with pytest.raises(ValueError, match=r"large\.png has 50 x 41 pixels, expected at most 2,000"):
        open_picture(tmp_path / "large.png")


def test_bombs_are_refused(tmp_path, monkeypatch):
    Image.new("1", (50, 41)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"bomb\.png can't be read as an image \(.*decompression bomb"):
        open_picture(tmp_path / "bomb.png")


def test_the_bound_is_the_one_that_is_documented():
    stated = (Path(__file__).parents[3] / "docs/trust.md").read_text(encoding="utf-8")
    assert f"| Pixels of a picture or mask | {pictures.MAX_PIXELS:,}, by the header alone" in stated
