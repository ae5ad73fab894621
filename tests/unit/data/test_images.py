"""Pictures: any file as upright RGB, and one geometry that moves image, mask and box together."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageFile

from progressive_attention.data import images as module
from progressive_attention.data.images import Fit, labelled, open_picture, opened, target, to_rgb, upright, upright_size

RED, GREY = (200, 40, 10), (90, 90, 90)
EXIF_ORIENTATION = 0x0112


def with_rectangle(width, height, box):
    """A grey picture with a red rectangle, and the rectangle alone as a mask."""
    picture, mask = Image.new("RGB", (width, height), GREY), Image.new("L", (width, height))
    picture.paste(RED, box)
    mask.paste(1, box)
    return picture, mask


def size_of(path, name="a"):
    """By the header."""
    with opened(path, name) as picture:
        return upright_size(picture)


def read(path, name="a", convert=to_rgb, near=None):
    """What is in a file, converted, and its size."""
    with opened(path, name) as picture:
        size = upright_size(picture)
        return convert(upright(picture, near)), size


def test_fit_by_hand():
    assert Fit.into(100, 200, 100) == (100, 0, 25, 100, 50, False)
    assert Fit.into(100, 50, 100) == (100, 25, 0, 50, 100, False)
    assert Fit.into(100, 3000, 20) == (100, 0, 49, 100, 1, False)  # two thirds of a pixel, but never none
    assert Fit.into(100, 1, 1) == (100, 0, 0, 100, 100, False)
    with pytest.raises(ValueError, match="the picture is 0 x 5 pixels"):
        Fit.into(100, 0, 5)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 5000), st.integers(1, 5000))
def test_fit_is_as_large_as_can_be_and_central(side, width, height):
    fit = Fit.into(side, width, height)
    assert max(fit.w, fit.h) == side
    assert 0 <= side - fit.w - 2 * fit.x <= 1
    assert 0 <= side - fit.h - 2 * fit.y <= 1
    assert abs(fit.w * height - fit.h * width) <= max(width, height)  # the picture's shape, to a pixel


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
@given(rectangles(), st.integers(1, 32), st.just(1) | st.floats(1, 2), shares, shares, st.booleans())
def test_wherever_it_is_drawn_image_mask_and_box_move_together(rectangle, side, zoom, across, down, mirrored):
    width, height, box = rectangle
    picture, mask = with_rectangle(width, height, box)
    whole = Fit.into(side, width, height)
    fit = whole.drawn(zoom, across, down, mirrored)
    assert (fit.side, fit.w, fit.h, fit.mirrored) == (side, round(whole.w * zoom), round(whole.h * zoom), mirrored)
    for at, size in ((fit.x, fit.w), (fit.y, fit.h)):  # no more black than must be
        assert min(0, side - size) <= at <= max(0, side - size)
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


def test_places_and_boxes_by_hand():
    fit = Fit.into(100, 200, 50)
    assert_allclose(fit.box(np.array([20, 10, 30, 50]), 200, 50), [10, 42, 15, 62])
    assert np.isnan(fit.box(np.full(4, np.nan), 200, 50)).all()
    fit = Fit.into(100, 200, 100)
    assert fit.drawn(1, 0, 0, False) == (100, 0, 0, 100, 50, False)
    assert fit.drawn(1, 1, 1, False) == (100, 0, 50, 100, 50, False)
    assert fit.drawn(1.2, 0, 0.5, True) == (100, -20, 20, 120, 60, True)


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tiff", "gif"])
def test_files_without_loss(tmp_path, suffix):
    picture, _ = with_rectangle(9, 7, (2, 1, 5, 4))
    options = {"lossless": True} if suffix == "webp" else {}
    picture.save(tmp_path / f"a.{suffix}", **options)
    assert_array_equal(np.asarray(open_picture(tmp_path / f"a.{suffix}")), np.asarray(picture))


@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
def test_every_way_a_camera_was_held(tmp_path, orientation):
    turns = (None, None, 0, 3, 1, 5, 2, 6, 4, None)  # Image.Transpose that undoes what the viewer will do
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    upright, mask = with_rectangle(96, 48, (0, 0, 48, 24))
    expected = np.asarray(upright.resize((24, 12), Image.Resampling.BOX)).astype(int)
    for suffix, near in (("jpg", None), ("jpg", 5), ("jpg", 12), ("png", 5), ("webp", None), ("tiff", None)):
        stored = upright if turns[orientation] is None else upright.transpose(Image.Transpose(turns[orientation]))
        options = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {"lossless": True}
        stored.save(tmp_path / f"a.{suffix}", exif=exif, **options)
        assert size_of(tmp_path / f"a.{suffix}") == (96, 48)
        picture, size = read(tmp_path / f"a.{suffix}", near=near)
        assert size == (96, 48)
        assert picture.width == 2 * picture.height
        small = np.asarray(picture.resize((24, 12), Image.Resampling.BOX)).astype(int)
        assert np.abs(small - expected).max() <= 12
    stored = mask if turns[orientation] is None else mask.transpose(Image.Transpose(turns[orientation]))
    stored.save(tmp_path / "mask.png", exif=exif)
    assert_array_equal(np.asarray(read(tmp_path / "mask.png", convert=target)[0]), np.asarray(mask) * 255)


def test_orientation_in_xmp_counts_too(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    upright, _ = with_rectangle(48, 96, (0, 0, 24, 48))
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", xmp=xmp, quality=95)
    picture, size = read(tmp_path / "a.jpg")
    assert size == picture.size == size_of(tmp_path / "a.jpg") == (48, 96)
    assert_allclose(np.asarray(picture)[20, 10], RED, atol=12)


@pytest.mark.parametrize("near, decoded", [(None, 640), (161, 640), (160, 320), (81, 320), (80, 160), (3, 80)])
def test_large_jpegs_are_decoded_no_larger_than_needed(tmp_path, near, decoded):
    """In halves, quarters or eighths, and no smaller than twice what is needed."""
    with_rectangle(640, 480, (0, 0, 320, 240))[0].save(tmp_path / "a.jpg")
    picture, size = read(tmp_path / "a.jpg", near=near)
    assert (size, picture.width, picture.height) == ((640, 480), decoded, decoded * 3 // 4)
    assert_allclose(np.asarray(read(tmp_path / "a.jpg", near=near)[0])[5, 5], RED, atol=12)


def test_thin_jpegs_are_no_trouble(tmp_path):
    Image.new("RGB", (3000, 7), RED).save(tmp_path / "thin.jpg")
    picture, stated = read(tmp_path / "thin.jpg", near=8)
    assert stated == (3000, 7)
    assert_allclose(np.asarray(Fit.into(8, *stated).image(picture)).max((0, 1)), RED, atol=12)


def saved(kind):
    file = io.BytesIO()
    Image.effect_noise((200, 100), 90).convert("RGB").save(file, kind)
    return file.getvalue()


READERS = [size_of, read, lambda path, name: read(path, name, target)]
BROKEN = {
    "notes.txt": b"Dear diary,\nthis is no picture.\n",
    "empty.png": b"",
    "head.jpg": saved("JPEG")[:40],
    "number.ppm": b"P6\n1\xff 2 255\n" + bytes(60),
    **{f"{kind}.png": saved(kind) for kind in ("PPM", "PCX", "TGA", "SGI", "EPS", "PDF")},  # seldom used, not decoded
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path, name):
    (tmp_path / name).write_bytes(BROKEN[name])
    for reader in READERS:
        with pytest.raises(
            ValueError, match=rf"^{name} can't be read as an image \(.*\); expected PNG, JPEG, WEBP, BM"
        ):
            reader(tmp_path / name, name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_that_was_cut_off_is_not_shown_in_part(tmp_path, kind):
    (tmp_path / "cut").write_bytes(saved(kind)[:-900])
    for reader in READERS[1:]:
        with pytest.raises(ValueError, match="^cut can't be read as an image"):
            reader(tmp_path / "cut", "cut")
    if kind == "JPEG":
        assert size_of(tmp_path / "cut") == (200, 100)  # which its header has


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.png does not exist"):
        open_picture(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=f"{tmp_path.name} can't be read as an image"):
        open_picture(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
def test_what_is_too_large_is_not_decoded(tmp_path, monkeypatch, suffix):
    Image.new("L", (50, 41)).save(tmp_path / f"large.{suffix}")
    monkeypatch.setattr(module, "MAX_PIXELS", 50 * 41)
    assert open_picture(tmp_path / f"large.{suffix}").size == (50, 41)
    monkeypatch.setattr(module, "MAX_PIXELS", 2000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    for reader in READERS:
        with pytest.raises(ValueError, match=r"^large has 50 x 41 pixels, expected at most 2,000"):
            reader(tmp_path / f"large.{suffix}", "large")


def test_the_bound_is_the_one_that_is_documented():
    stated = (Path(__file__).parents[3] / "docs/trust.md").read_text(encoding="utf-8")
    assert f"| Pixels of a picture or mask | {module.MAX_PIXELS:,}, by the header alone" in stated


def plain(mode, value):
    return Image.new(mode, (2, 1), value)


def palette(transparent=None):
    picture = Image.new("P", (2, 1), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    if transparent is not None:
        picture.info["transparency"] = transparent
    return picture


def grey_with_transparency(value):
    picture = plain("L", value)
    picture.info["transparency"] = value
    return picture


MODES = [  # picture, as RGB, whether it is inside as a mask, its value as a labelled mask (None: it has none)
    (plain("RGB", (1, 0, 0)), (1, 0, 0), True, None),
    (plain("RGB", (0, 1, 0)), (0, 1, 0), True, None),
    (plain("RGB", (0, 0, 1)), (0, 0, 1), True, None),  # as grey this would round to black
    (plain("L", 7), (7, 7, 7), True, 7),
    (plain("L", 0), (0, 0, 0), False, 0),
    (grey_with_transparency(9), (0, 0, 0), False, 9),
    (plain("1", 1), (255, 255, 255), True, 1),
    (plain("LA", (100, 0)), (0, 0, 0), False, None),
    (plain("LA", (100, 255)), (100, 100, 100), True, None),
    (plain("RGBA", (255, 255, 255, 0)), (0, 0, 0), False, None),
    (plain("RGBA", (255, 0, 0, 51)), (51, 0, 0), True, None),
    (palette(), (10, 20, 30), True, 1),  # the index, whatever its colour
    (palette(transparent=1), (0, 0, 0), False, 1),
    (palette(transparent=0), (10, 20, 30), True, 1),
    (plain("I;16", 0x8040), (0x80,) * 3, True, 0x8040),
    (plain("I;16", 1), (0,) * 3, True, 1),  # one of many objects, numbered
    (plain("I;16", 0), (0,) * 3, False, 0),
    (plain("I", 70_000), (255,) * 3, True, 70_000),
    (plain("I", -5), (0,) * 3, True, -5),
    (plain("CMYK", (0, 255, 255, 0)), (255, 0, 0), True, None),
    (plain("F", 12.0), (12,) * 3, True, 12),
    (plain("F", 0.25), (0,) * 3, True, 0.25),
]


@pytest.mark.parametrize("picture, colour, inside, value", MODES, ids=[f"{i}-{m[0].mode}" for i, m in enumerate(MODES)])
def test_any_mode_as_rgb_as_mask_and_as_labels(picture, colour, inside, value):
    assert to_rgb(picture).mode == "RGB"
    assert_array_equal(np.asarray(to_rgb(picture)), [[colour, colour]])
    assert_array_equal(np.asarray(target(picture)), np.full((1, 2), 255 if inside else 0))
    assert_array_equal(Fit.into(2, 2, 1).mask(picture), [[inside, inside], [False, False]])
    if value is None:
        with pytest.raises(ValueError, match=f"its mode is {picture.mode}, expected a palette or grey picture"):
            labelled(picture)
    else:
        assert_array_equal(np.asarray(labelled(picture)), [[value, value]])
