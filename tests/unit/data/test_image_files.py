"""Pixels from files: the same however they are asked for, and what can't be read is black and told, never guessed."""

import os
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from progressive_attention.data import image_files as module
from progressive_attention.data.image_files import FileImages
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.pictures import Fit, open_picture

SIDE = 12
SIZES = [(8, 8), (20, 10), (5, 30), (64, 48), (12, 12), (1, 9), (7, 3), (40, 40)]
NAMES = [f"{i}.png" for i in range(len(SIZES))]
EXIF_ORIENTATION = 0x0112


def noise(width, height, seed=0):
    pixels = np.random.default_rng([seed, width, height]).integers(50, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight pictures of any size."""
    out = tmp_path_factory.mktemp("pictures")
    for name, size in zip(NAMES, SIZES, strict=True):
        noise(*size).save(out / name)
    return out


@pytest.fixture(scope="module")
def expected(folder):
    """Their pixels, one by one."""
    fits = [Fit.into(SIDE, *size) for size in SIZES]
    return np.stack([fit.image(open_picture(folder / name)) for fit, name in zip(fits, NAMES, strict=True)])


def images_of(folder, names=NAMES, sizes=None, side=SIDE):
    sizes = np.zeros((len(names), 2), np.int64) if sizes is None else np.array(sizes)
    return FileImages(ImageRoot(folder), names, side, sizes)


@pytest.fixture(params=["kept", "not kept"])
def keeping(request, monkeypatch):
    if request.param == "not kept":
        monkeypatch.setattr(module, "KEEP_BYTES", len(NAMES) * SIDE * SIDE * 3 - 1)
    return request.param == "kept"


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_they_look_like_an_array(folder):
    images = images_of(folder)
    assert (images.shape, images.dtype, len(images)) == ((8, SIDE, SIDE, 3), np.uint8, 8)
    assert images.nbytes == 8 * SIDE * SIDE * 3
    assert_array_equal(images.sizes, SIZES)
    assert images.fits == [Fit.into(SIDE, *size) for size in SIZES]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(-8, 7), max_size=12), max_size=5))
def test_any_order_and_repeated(folder, expected, keeping, asked):
    images = images_of(folder)
    assert hasattr(images, "kept") is keeping
    for some in asked:
        found = images[np.array(some, np.int64)]
        assert found.dtype == np.uint8
        assert_array_equal(found, expected[np.array(some, np.int64)])
    for one in {i for some in asked for i in some}:
        assert_array_equal(images[one], expected[one])
        assert_array_equal(images[np.int64(one)], expected[one])


@pytest.mark.parametrize("key", [slice(None), slice(5, 1, -2), [3, 1], np.arange(8) % 3 == 0, np.int64(4), slice(2, 2)])
def test_the_ways_to_ask_of_an_array(folder, expected, keeping, key):
    found = images_of(folder)[key]
    assert_array_equal(found, expected[key])


def test_who_asks_can_change_nothing(folder, expected, keeping):
    images = images_of(folder)
    images[np.arange(8)][:] = 0
    images[3][:] = 0
    assert_array_equal(images[:], expected)


@pytest.mark.parametrize("index", [8, -9, [0, 8]])
def test_images_there_are_not(folder, index):
    with pytest.raises(IndexError):
        images_of(folder)[index]


@pytest.mark.parametrize("cores", [1, 2, 7, None])
def test_threads_change_nothing(folder, expected, monkeypatch, cores):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    many = np.random.default_rng(0).integers(0, 8, 100)
    images = images_of(folder)
    assert_array_equal(images[many], expected[many])
    assert_array_equal(images.read(many, [images.fits[i] for i in many]), expected[many])


def test_each_is_decoded_once_where_they_are_kept(folder, keeping, monkeypatch):
    images, calls = images_of(folder), []
    monkeypatch.setattr(FileImages, "decode", lambda self, image, fit: calls.append(image))
    images[np.array([3, 1, 3])]
    images[np.array([1, 2])]
    assert sorted(calls) == ([1, 2, 3] if keeping else [1, 1, 2, 3, 3])


def test_stated_sizes_save_reading_headers(folder, expected, monkeypatch):
    monkeypatch.setattr(module, "picture_size", lambda file, name: pytest.fail(f"{name} was opened"))
    assert_array_equal(images_of(folder, sizes=SIZES)[:], expected)


def test_a_size_half_stated_is_read(folder, expected):
    sizes = np.array([(0, height) if i % 2 else (width, -1) for i, (width, height) in enumerate(SIZES)])
    before = sizes.copy()
    images = images_of(folder, sizes=sizes)
    assert_array_equal(images.sizes, SIZES)
    assert_array_equal(sizes, before)
    assert_array_equal(images[:], expected)


def test_members_of_zips(folder, expected, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in NAMES[::2]:
            archive.write(folder / name, f"VG/{name}")
    for name in NAMES[1::2]:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    names = [f"photos.zip/VG/{name}" if i % 2 == 0 else name for i, name in enumerate(NAMES)]
    images = images_of(tmp_path, names)
    order = np.random.default_rng(0).integers(0, 8, 40)
    assert_array_equal(images[order], expected[order])
    assert not images.unreadable


COLOURS = {
    "rgb.png": (Image.new("RGB", (4, 4), (10, 20, 30)), (10, 20, 30)),
    "grey.png": (Image.new("L", (4, 4), 77), (77, 77, 77)),
    "bilevel.png": (Image.new("1", (4, 4), 1), (255, 255, 255)),
    "deep.png": (Image.fromarray(np.full((4, 4), 0x8040, np.uint16)), (0x80, 0x80, 0x80)),
    "clear.png": (Image.new("RGBA", (4, 4), (100, 200, 50, 0)), (0, 0, 0)),
    "veiled.png": (Image.new("RGBA", (4, 4), (255, 0, 0, 51)), (51, 0, 0)),
    "palette.png": (Image.new("RGB", (4, 4), (9, 99, 199)).quantize(4), (9, 99, 199)),
    "palette.gif": (Image.new("RGB", (4, 4), (9, 99, 199)).quantize(4), (9, 99, 199)),
    "ink.jpg": (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
    "grey.jpg": (Image.new("L", (4, 4), 128), (128, 128, 128)),
    "ink.tiff": (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
}


@pytest.mark.parametrize("name", COLOURS)
def test_any_mode_of_file(tmp_path, name):
    picture, colour = COLOURS[name]
    picture.save(tmp_path / name)
    found = images_of(tmp_path, [name], side=8)[0].astype(int)
    assert np.abs(found - colour).max() <= 2 * name.endswith("jpg")


@pytest.mark.parametrize("orientation, corner", [(1, (0, 0)), (3, (1, 1)), (6, (0, 1)), (8, (1, 0))])
@pytest.mark.parametrize("known", [True, False])
def test_photographs_held_any_way_are_small_and_upright(tmp_path, orientation, corner, known):
    """Red is the first corner in the file; a large JPEG is decoded smaller than it is."""
    stored = Image.new("RGB", (320, 160), (0, 0, 255))
    stored.paste((255, 0, 0), (0, 0, 160, 80))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    size = (160, 320) if orientation > 4 else (320, 160)
    images = images_of(tmp_path, ["a.jpg"], [size] if known else None, side=16)
    assert_array_equal(images.sizes, [size])
    red = images[0][..., 0] > images[0][..., 2]
    upright = red[:, 4:12] if orientation > 4 else red[4:12]
    down, across = upright.shape[0] // 2, upright.shape[1] // 2
    expected = np.zeros_like(upright)
    expected[corner[0] * down : (corner[0] + 1) * down, corner[1] * across : (corner[1] + 1) * across] = True
    assert_array_equal(upright, expected)
    assert not images.unreadable


# --- what can't be read -----------------------------------------------------------------------------------------------


def spoil(folder, kind):
    """One of many files made unreadable; returns its name, its stated size, and how it is told."""
    whole = (folder / "39.png").read_bytes()
    size, name = (6, 6), "39.png"
    if kind == "cut":
        (folder / name).write_bytes(whole[:-40])
    elif kind == "text":
        (folder / name).write_text("Dear diary, this is no picture.")
    elif kind == "gone":
        (folder / name).unlink()
    elif kind == "folder":
        (folder / name).unlink()
        (folder / name).mkdir()
    elif kind == "large":
        Image.new("1", (200, 200)).save(folder / name)
        size = (200, 200)
    elif kind == "other":
        size = (6, 7)
    elif kind == "turned":
        noise(6, 8).save(folder / name)
        size = (8, 6)
    else:
        with zipfile.ZipFile(folder / "all.zip", "w") as archive:
            archive.writestr("x.png", whole)
        name = "all.zip/y.png"
    told = {
        **{"cut": "can't be read as an image", "text": "can't be read as an image", "gone": "does not exist"},
        **{"folder": "is no file", "large": "has 200 x 200 pixels, expected at", "member": "has no member 'y.png'"},
        **{"other": "39.png is 6 x 6 pixels, but 6 x 7 in the table", "turned": "is 6 x 8 pixels, but 8 x 6 in the"},
    }
    return name, size, told[kind]


@pytest.fixture
def forty(tmp_path):
    for i in range(40):
        noise(6, 6, i).save(tmp_path / f"{i}.png")
    return tmp_path


ANYWAY = ["cut", "text", "gone", "folder", "large", "member"]
BY_SIZE = ["other", "turned"]  # wrong only where a size is stated
FAULTS = [*((kind, stated) for kind in ANYWAY for stated in (True, False)), *((kind, True) for kind in BY_SIZE)]


@pytest.mark.parametrize("kind, stated", FAULTS)
def test_unreadable_files_are_black_and_noted_once(forty, kind, stated, keeping, monkeypatch):
    monkeypatch.setattr("progressive_attention.data.pictures.MAX_PIXELS", 1000)
    name, size, told = spoil(forty, kind)
    sizes = [(6, 6)] * 39 + [size]
    images = images_of(forty, [*(f"{i}.png" for i in range(39)), name], sizes if stated else None, side=6)
    assert bool(images.unreadable) is not stated
    for _ in range(2):
        for asked in (np.array([39, 5, 39]), np.array([39]), np.arange(40)):
            found = images[asked]
            assert not found[asked == 39].any()
            assert (found[asked != 39] >= 50).all()
        assert not images.read(np.array([39]), [Fit(6, -1, 0, 8, 8, True)]).any()
        assert list(images.unreadable) == [39]
        assert told in images.unreadable[39]


def test_an_unreadable_file_is_not_opened_again(forty, monkeypatch):
    spoil(forty, "cut")
    images = images_of(forty, [f"{i}.png" for i in range(40)], [(6, 6)] * 40, side=6)
    monkeypatch.setattr(module, "KEEP_BYTES", 0)
    images[np.array([39])]
    monkeypatch.setattr(ImageRoot, "open", lambda *_: pytest.fail("it was opened"))
    assert not images[np.array([39])].any()


@pytest.mark.parametrize("bad, allowed", [(1, True), (2, True), (3, False), (40, False)])
@pytest.mark.parametrize("stated", [True, False])
def test_too_many_unreadable_files_stop(forty, bad, allowed, stated):
    """Of forty, two are five per cent."""
    for i in range(bad):
        (forty / f"{i}.png").write_text("no picture")

    def read():
        images = images_of(forty, [f"{i}.png" for i in range(40)], [(6, 6)] * 40 if stated else None)
        for one in reversed(range(40)):
            images[np.array([one])]
        return images

    if allowed:
        assert sorted(read().unreadable) == list(range(bad))
    else:
        with pytest.raises(ValueError, match=r"\d+ of 40 images can't be used, more than 5%; the first: \d+\.png"):
            read()


def test_no_images_at_all(folder):
    images = images_of(folder, [])
    assert images.shape == (0, SIDE, SIDE, 3)
    assert images[np.array([], np.int64)].shape == (0, SIDE, SIDE, 3)


# --- places -----------------------------------------------------------------------------------------------------------


def test_places_are_a_function_of_seed_epoch_and_image(folder):
    images = images_of(folder)
    every = np.arange(8)
    drawn = images.places(every, "crop", 3, 5)
    for some in (np.array([4, 4, 1]), np.array([7]), every[::-1]):
        assert images.places(some, "crop", 3, 5) == tuple(drawn[i] for i in some)
    assert images_of(folder, NAMES[:3]).places(every[:3], "crop", 3, 5) == drawn[:3]
    others = {images.places(every, "crop", *at) for at in ((3, 6), (4, 5), (5, 3), (0, 0))}
    assert len({*others, drawn}) == 5


def test_places_are_the_same_in_every_release(folder):
    places = images_of(folder).places(np.arange(3), "crop", 7, 2)
    assert [tuple(place) for place in places] == [
        (12, -1, 0, 13, 13, False),
        (12, -2, 0, 14, 7, False),
        (12, 3, -1, 2, 14, False),
    ]


def test_flips_move_nothing_else(folder):
    images = images_of(folder, side=11)  # room that can't be halved
    places = [images.places(np.arange(8), "flip", 0, epoch) for epoch in range(60)]
    for image in range(8):
        seen = {place[image] for place in places}
        assert seen == {images.fits[image], images.fits[image]._replace(mirrored=True)}
    share = np.mean([place.mirrored for epoch in places for place in epoch])
    assert 0.4 < share < 0.6


def test_crops_enlarge_and_move(folder):
    images = images_of(folder, side=200)
    places = np.array([images.places(np.array([1]), "crop", 0, epoch)[0] for epoch in range(200)])
    fit = images.fits[1]
    _, x, y, w, h, mirrored = places.T
    assert fit.w <= w.min() < 1.03 * fit.w < 1.22 * fit.w < w.max() <= 1.25 * fit.w
    assert np.abs(h - w / 2).max() <= 1
    assert (x <= 0).all()
    assert (x >= 200 - w).all()
    assert len(set(x)) > 20
    assert (y >= 0).all()
    assert (y <= 200 - h).all()
    assert y.min() < 15
    assert (200 - h - y).min() < 15
    assert 0.4 < mirrored.mean() < 0.6


def test_what_is_read_lies_in_its_place(folder):
    images = images_of(folder)
    asked = np.array([3, 0, 3, 7])
    places = images.places(np.array([0, 1, 2, 3]), "crop", 1, 1)
    expected = [fit.image(open_picture(folder / NAMES[i])) for i, fit in zip(asked, places, strict=True)]
    assert_array_equal(images.read(asked, places), expected)
