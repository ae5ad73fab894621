"""Pixels and masks from files: the same however they are asked for; what can't be read is black and noted."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from progressive_attention.data import images as module
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import BoxMasks, FileImages, FileMasks, Fit, open_picture
from progressive_attention.data.questions import RowsOfMasks

SIDE = 12
SIZES = [(8, 8), (20, 10), (5, 30), (64, 48), (12, 12), (1, 9), (7, 3), (40, 40)]
NAMES = [f"{i}.png" for i in range(len(SIZES))]


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


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(-8, 7), max_size=12), max_size=5))
def test_any_order_and_repeated(folder, expected, keeping, asked):
    images = images_of(folder)
    assert (images.kept is not None) is keeping
    for some in asked:
        pixels = images[np.array(some, np.int64)]
        assert pixels.dtype == np.uint8
        assert_array_equal(pixels, expected[np.array(some, np.int64)])
    for image in {i for some in asked for i in some}:
        assert_array_equal(images[image], expected[image])


@pytest.mark.parametrize("key", [slice(5, 1, -2), [3, 1], np.arange(8) % 3 == 0, np.int64(4)])
def test_the_ways_to_ask_of_an_array(folder, expected, keeping, key):
    images = images_of(folder)
    images[key][:] = 0  # who asks can change nothing
    assert_array_equal(images[key], expected[key])
    with pytest.raises(IndexError):
        images[[0, 8]]


def test_each_is_decoded_once_where_they_are_kept(folder, keeping, monkeypatch):
    images, calls = images_of(folder), []
    monkeypatch.setattr(FileImages, "decode", lambda self, image, fit: calls.append(image) or 0)
    images[np.array([3, 1, 3])]
    images[np.array([1, 2])]
    assert sorted(calls) == ([1, 2, 3] if keeping else [1, 1, 2, 3, 3])


def test_stated_sizes_save_reading_headers_and_half_a_size_does_not(folder, expected, monkeypatch):
    sizes = np.array([(0, height) if i % 2 else (width, -1) for i, (width, height) in enumerate(SIZES)])
    before = sizes.copy()
    images = images_of(folder, sizes=sizes)
    assert (images.shape, images.dtype, images.nbytes) == ((8, SIDE, SIDE, 3), np.uint8, 8 * SIDE * SIDE * 3)
    assert images.fits == [Fit.into(SIDE, *size) for size in SIZES]
    assert_array_equal(images.sizes, SIZES)
    assert_array_equal(sizes, before)
    assert_array_equal(images[:], expected)
    monkeypatch.setattr(FileImages, "read_size", lambda self, image: pytest.fail(f"{image} was opened"))
    assert_array_equal(images_of(folder, sizes=SIZES)[:], expected)


def test_photographs_are_turned_before_they_are_fitted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("RGB", (320, 160), (0, 0, 255))
    stored.paste((255, 0, 0), (0, 0, 160, 80))  # upright, the corner at the top right
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    for sizes in (None, [(160, 320)]):
        images = images_of(tmp_path, ["a.jpg"], sizes, side=16)
        assert_array_equal(images.sizes, [(160, 320)])
        red = images[0][..., 0] > images[0][..., 2]
        expected = np.zeros((16, 16), bool)
        expected[:8, 8:12] = True
        assert_array_equal(red, expected)


@pytest.fixture
def forty(tmp_path):
    for i in range(40):
        noise(6, 6, i).save(tmp_path / f"{i}.png")
    return tmp_path


FAULTS = {  # what is done to a file of 6 x 6 pixels, and what is said then
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "can't be read as an image"),
    "gone": (lambda path: path.unlink(), "does not exist"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "is no file"),
    "large": (lambda path: Image.new("1", (200, 200)).save(path), "has 200 x 200 pixels, expected at"),
    "another": (lambda path: noise(6, 8).save(path), "39.png is 6 x 8 pixels, expected 6 x 6, as the table says"),
}


@pytest.mark.parametrize("kind, stated", [(kind, stated) for kind in FAULTS for stated in (True, False)][:-1])
def test_unreadable_files_are_black_and_noted_once(forty, kind, stated, monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    spoil, message = FAULTS[kind]
    spoil(forty / "39.png")
    images = images_of(forty, [f"{i}.png" for i in range(40)], [(6, 6)] * 40 if stated else None, side=6)
    assert bool(images.unreadable) is not stated
    for asked in (np.array([39, 5, 39]), np.array([39]), np.arange(40)):
        pixels = images[asked]
        assert not pixels[asked == 39].any()
        assert (pixels[asked != 39] >= 50).all()
    assert list(images.unreadable) == [39]
    assert message in images.unreadable[39]
    mask = FileMasks(ImageRoot(forty), ["0.png"], np.array([-1]), images, np.array([39]))
    assert mask[np.array([0])].shape == (1, 6, 6)  # the image's size is not known, and no question is asked
    monkeypatch.setattr(ImageRoot, "open", lambda *_: pytest.fail("it was opened again"))
    assert not images.read(np.array([39]), [Fit(6, -1, 0, 8, 8, True)]).any()


@pytest.mark.parametrize("stated", [True, False])
def test_too_many_unreadable_files_stop(forty, stated):
    """Of forty, two are five per cent."""

    def read():
        images = images_of(forty, [f"{i}.png" for i in range(40)], [(6, 6)] * 40 if stated else None)
        for image in reversed(range(40)):
            images[np.array([image])]
        return sorted(images.unreadable)

    for i in (7, 3):
        (forty / f"{i}.png").write_text("no picture")
    assert read() == [3, 7]
    (forty / "1.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"3 of 40 images can't be used, more than 5%; the first: \d\.png"):
        read()


def test_places_are_a_function_of_seed_epoch_and_image(folder):
    images = images_of(folder)
    every = np.arange(8)
    drawn = images.places(every, "crop", 3, 5)
    for some in (np.array([4, 4, 1]), np.array([7]), every[::-1]):
        assert images.places(some, "crop", 3, 5) == tuple(drawn[i] for i in some)
    assert images_of(folder, NAMES[:3]).places(every[:3], "crop", 3, 5) == drawn[:3]
    others = {images.places(every, "crop", *at) for at in ((3, 6), (4, 5), (5, 3), (0, 0))}
    assert len({*others, drawn}) == 5
    pixels = [fit.image(open_picture(folder / name)) for fit, name in zip(drawn, NAMES, strict=True)]
    assert_array_equal(images.read(every, drawn), pixels)


def test_places_are_the_same_in_every_release(folder):
    places = images_of(folder).places(np.arange(3), "crop", 7, 2)
    assert [tuple(place) for place in places] == [
        (12, -1, 0, 13, 13, False),
        (12, -2, 0, 14, 7, False),
        (12, 3, -1, 2, 14, False),
    ]


def test_flips_move_nothing_else_and_crops_enlarge_and_move(folder):
    images = images_of(folder, side=201)  # room that can't be halved
    fit = images.fits[1]
    flips = [images.places(np.array([1]), "flip", 0, epoch)[0] for epoch in range(200)]
    assert {*flips} == {fit, fit._replace(mirrored=True)}
    crops = np.array([images.places(np.array([1]), "crop", 0, epoch)[0] for epoch in range(200)])
    _, x, y, w, h, mirrored = crops.T
    assert fit.w <= w.min() < 1.03 * fit.w < 1.22 * fit.w < w.max() <= 1.25 * fit.w
    assert np.abs(h - w / 2).max() <= 1
    assert ((x <= 0) & (x >= 201 - w)).all()
    assert ((y >= 0) & (y <= 201 - h)).all()
    assert len({*x.tolist()}) > 20
    assert (y.min(), (201 - h - y).min()) < (15, 15)
    assert all(0.4 < np.mean(coins) < 0.6 for coins in (mirrored, [place.mirrored for place in flips]))


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


def test_the_targets_pixels_have_its_value(masks):
    rows = [(name, value, 0) for name in ("grey.png", "palette.png") for value in (0, 1, 2, 3, 7, 255, 254)]
    assert_array_equal(masks_of(masks, rows)[np.arange(len(rows))], [value == LABELS for _, value, _ in rows])


def test_masks_by_rows(masks):
    rows = [("grey.png", 1, 0), (None, 5, 0), ("palette.png", 255, 0), ("deep.png", 2100, 0), ("", 1, 0)]
    rows += [("grey.png", -1, 0), ("palette.png", -1, 0), ("colour.png", -1, 0), (None, -1, 1), ("wide.png", 2, 1)]
    wide = np.zeros((8, 8), bool)
    wide[2:6] = (LABELS == 2).repeat(2, 1)
    nothing, some = np.zeros((4, 4), bool), LABELS > 0
    small = [LABELS == 1, nothing, LABELS == 255, LABELS == 7, nothing, some, some, some]
    expected = np.array([mask.repeat(2, 0).repeat(2, 1) for mask in small] + [np.zeros((8, 8), bool), wide])
    source = masks_of(masks, rows, side=8)
    assert source[np.arange(10)].dtype == bool
    assert_array_equal(source[np.arange(10)], expected)
    order = np.array([9, 0, 5, 5, 3, 0, 8])
    assert_array_equal(source[order], expected[order])
    assert_array_equal(RowsOfMasks(source, order)[np.array([0, 4])], expected[[9, 3]])
    assert source[np.array([], np.int64)].shape == (0, 8, 8)


def test_masks_move_with_their_images(masks):
    source = masks_of(masks, [("grey.png", 1, 0), ("wide.png", 2, 1)], side=8)
    fits = [Fit(8, -1, 2, 10, 10, True), Fit(8, -2, 1, 10, 5)]
    expected = [
        fit.mask(Image.fromarray((values * 255).astype(np.uint8)))
        for fit, values in zip(fits, (LABELS == 1, (LABELS == 2).repeat(2, 1)), strict=True)
    ]
    assert_array_equal(source.read(np.arange(2), fits), expected)
    assert_array_equal(RowsOfMasks(source, np.array([1, 0])).read(np.array([1, 0]), fits), expected)


WRONG = [
    (("colour.png", 1, 0), r"colour\.png can't be read as an image \(its mode is RGB"),
    (("notes.png", 1, 0), r"notes\.png can't be read as an image"),
    (("gone.png", -1, 0), r"gone\.png does not exist"),
    (("../a.png", -1, 0), r"'\.\./a\.png' lies outside"),
    (("wide.png", 1, 0), r"wide\.png is 8 x 4 pixels, expected 4 x 4, as its image is"),
    (("grey.png", 1, 1), r"grey\.png is 4 x 4 pixels, expected 8 x 4, as its image is"),
]


@pytest.mark.parametrize("row, message", WRONG, ids=[message[:14] for _, message in WRONG])
def test_masks_that_cannot_be_used_are_named(masks, row, message):
    source = masks_of(masks, [("grey.png", 1, 0), ("wide.png", 2, 1), row, (None, 1, 0)])
    assert source[np.array([0, 1, 3])].any((1, 2)).tolist() == [True, True, False]
    with pytest.raises(ValueError, match=message):
        source[np.array([0, 1, 2])]  # though another row of the same file may be right


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
    masks = BoxMasks(np.array(boxes), side)[rows]
    assert (masks.shape, masks.dtype) == ((len(rows), side, side), bool)
    assert_array_equal(masks, np.array([by_pixels(boxes[row], side) for row in rows], bool).reshape(-1, side, side))


def test_half_open_thin_and_missing_boxes():
    boxes = np.array([(0.5, 0.5, 2.5, 1.5), (2.6, 1, 2.9, 3), (np.nan,) * 4, (0, np.nan, 3, 3)])
    expected = np.zeros((4, 6, 6), bool)
    expected[0, 0, :2] = True
    expected[1, 1:3, 2] = True
    assert_array_equal(BoxMasks(boxes, 6)[np.arange(4)], expected)
