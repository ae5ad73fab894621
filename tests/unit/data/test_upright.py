"""Image files opened: turned as the camera was held, no larger than needed, and their size known before."""

import io

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image, ImageFile
from test_pictures import EXIF_ORIENTATION, RED, with_rectangle

from progressive_attention.data import pictures
from progressive_attention.data.pictures import Fit, open_picture, opened, picture_size, to_rgb, upright_size


def jpeg():
    file = io.BytesIO()
    with_rectangle(200, 100, (20, 20, 90, 90))[0].save(file, "JPEG")
    return file.getvalue()


CONTENT = jpeg()


@pytest.mark.parametrize("near", [None, 5, 12])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
def test_every_way_a_camera_was_held(tmp_path, orientation, suffix, near):
    turns = (None, None, 0, 3, 1, 5, 2, 6, 4, None)  # Image.Transpose that undoes what the viewer will do
    upright, _ = with_rectangle(96, 48, (0, 0, 48, 24))
    stored = upright if turns[orientation] is None else upright.transpose(Image.Transpose(turns[orientation]))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    options = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {"lossless": True}
    stored.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    assert picture_size(tmp_path / f"a.{suffix}", "a") == (96, 48)
    picture, size = opened(tmp_path / f"a.{suffix}", "a", to_rgb, near)
    assert size == (96, 48)
    assert picture.width == 2 * picture.height
    small = np.asarray(picture.resize((24, 12), Image.Resampling.BOX)).astype(int)
    expected = np.asarray(upright.resize((24, 12), Image.Resampling.BOX)).astype(int)
    assert np.abs(small - expected).max() <= 12


@pytest.mark.parametrize(
    "near, decoded", [(None, 640), (400, 640), (161, 640), (160, 320), (81, 320), (80, 160), (3, 80)]
)
def test_large_jpegs_are_decoded_no_larger_than_needed(tmp_path, near, decoded):
    """In halves, quarters or eighths, and no smaller than twice what is needed."""
    with_rectangle(640, 480, (0, 0, 320, 240))[0].save(tmp_path / "a.jpg")
    picture, size = opened(tmp_path / "a.jpg", "a", to_rgb, near)
    assert (size, picture.width, picture.height) == ((640, 480), decoded, decoded * 3 // 4)
    assert_allclose(np.asarray(open_picture(tmp_path / "a.jpg", near))[5, 5], RED, atol=12)


@pytest.mark.parametrize("size", [(2000, 1), (1, 2000), (3000, 7)])
def test_thin_jpegs_are_no_trouble(tmp_path, size):
    Image.new("RGB", size, RED).save(tmp_path / "thin.jpg")
    picture, found = opened(tmp_path / "thin.jpg", "thin", to_rgb, 8)
    assert found == size
    assert max(picture.size) >= 16
    assert_allclose(np.asarray(Fit.into(8, *size).image(picture)).max((0, 1)), RED, atol=12)


def test_orientation_in_xmp_counts_too(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    upright, _ = with_rectangle(48, 96, (0, 0, 24, 48))
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", xmp=xmp, quality=95)
    picture, size = opened(tmp_path / "a.jpg", "a", to_rgb)
    assert size == picture.size == picture_size(tmp_path / "a.jpg", "a") == (48, 96)
    assert_allclose(np.asarray(picture)[20, 10], RED, atol=12)


def test_a_jpegs_size_is_in_its_header(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(CONTENT[:-400])
    assert picture_size(tmp_path / "cut.jpg", "cut") == (200, 100)
    with Image.open(tmp_path / "cut.jpg") as picture:
        assert upright_size(picture) == (200, 100)


@pytest.mark.parametrize("reader", [picture_size, lambda path, name: opened(path, name, to_rgb)])
@pytest.mark.parametrize("name, content", [("notes.jpg", b"a diary"), ("empty.png", b""), ("head.jpg", None)])
def test_what_has_no_size(tmp_path, reader, name, content):
    (tmp_path / name).write_bytes(CONTENT[:40] if content is None else content)
    with pytest.raises(ValueError, match=rf"^{name} can't be read as an image \(.*\); expected PNG, JPEG, WEBP, B"):
        reader(tmp_path / name, name)
    with pytest.raises(ValueError, match=r"^gone\.png does not exist; give the path of an image file or of a folder"):
        reader(tmp_path / "gone.png", "gone.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
def test_what_is_too_large_is_not_decoded(tmp_path, monkeypatch, suffix):
    Image.new("L", (50, 41)).save(tmp_path / f"large.{suffix}")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 2000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    for reader in (picture_size, lambda path, name: opened(path, name, to_rgb)):
        with pytest.raises(ValueError, match=r"^large has 50 x 41 pixels, expected at most 2,000"):
            reader(tmp_path / f"large.{suffix}", "large")
