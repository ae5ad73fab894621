"""Image and mask files as import and check open them: inside their folder, whole, and not too large."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from progressive_attention.data import file_checks
from progressive_attention.data.file_checks import Rejection, decoded, headed, in_threads, look
from progressive_attention.data.image_root import ImageRoot


def reason_of(root, path, kind="image"):
    with pytest.raises(Rejection) as raised:
        look(ImageRoot(root), kind, headed, path)
    assert "0x" not in raised.value.args[1], "an address would make two imports differ"
    return raised.value.args[0]


@pytest.fixture
def pictures(tmp_path):
    """inside/a.png 40 x 20; outside.png beside the folder."""
    root = tmp_path / "inside"
    root.mkdir()
    Image.new("RGB", (40, 20)).save(root / "a.png")
    Image.new("RGB", (3, 3)).save(tmp_path / "outside.png")
    return root


def test_sizes_and_pixels_are_of_the_upright_image(pictures):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6  # EXIF's orientation: to be turned by a quarter, clockwise
    noise.save(pictures / "turned.png", exif=turned)
    noise.transpose(Image.Transpose.ROTATE_270).save(pictures / "upright.png")
    root = ImageRoot(pictures)
    assert look(root, "image", headed, "a.png").size == (40, 20)
    assert look(root, "image", headed, "turned.png").size == (20, 40)
    assert look(root, "image", decoded, "turned.png") == look(root, "image", decoded, "upright.png")


@pytest.mark.parametrize(
    "path", ["../outside.png", "sub/../a.png", "link.png", "folder/outside.png", "circle.png", "\0"]
)
def test_paths_stay_below_the_root(pictures, path):
    (pictures / "link.png").symlink_to(pictures.parent / "outside.png")
    (pictures / "folder").symlink_to(pictures.parent)
    (pictures / "circle.png").symlink_to(pictures / "circle.png")
    (pictures / "fine.png").symlink_to("a.png")
    assert reason_of(pictures, path) in ("image outside", "image file missing")
    assert reason_of(pictures, str(pictures / "a.png")) == "image outside"
    assert look(ImageRoot(pictures), "image", headed, "fine.png").size == (40, 20)


def test_what_is_no_file_is_never_opened(pictures):
    os.mkfifo(pictures / "pipe.png")  # opening it would wait for ever
    for path in ("pipe.png", ".", "none.png", "", "a.png/b.png", "x" * 300):
        assert reason_of(pictures, path) == "image file missing"


def test_broken_images(pictures):
    (pictures / "text.png").write_text("no image")
    (pictures / "empty.jpg").touch()
    whole = (pictures / "a.png").read_bytes()
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])
    for path in ("text.png", "empty.jpg", "cut.png"):
        assert reason_of(pictures, path) == "image unreadable"
        assert reason_of(pictures, path, "mask") == "mask unusable"


@pytest.mark.parametrize("side", [12_000, 40_000])  # the second one Pillow itself does not open
def test_bombs_are_not_decoded(pictures, side, monkeypatch):
    monkeypatch.setattr(file_checks, "upright_size", lambda picture: pytest.fail("was read"))
    header = io.BytesIO()
    Image.new("1", (1, 1)).save(header, "bmp")
    content = bytearray(header.getvalue())
    content[18:26] = np.array([side, side], "<i4").tobytes()
    (pictures / "bomb.bmp").write_bytes(content)
    assert reason_of(pictures, "bomb.bmp") == "image unreadable"


def test_jobs_in_threads_keep_their_order(monkeypatch):
    monkeypatch.setattr(file_checks, "CHUNK", 3)

    def job(i):
        if i % 2:
            raise Rejection("why", str(i))
        return i

    seen = []
    found = in_threads([lambda i=i: job(i) for i in range(7)], lambda done, total: seen.append((done, total)))
    reasons = {i: one.args for i, one in enumerate(found) if isinstance(one, Rejection)}
    assert reasons == {i: ("why", str(i)) for i in (1, 3, 5)}
    assert found[::2] == [0, 2, 4, 6]
    assert seen == [(i, 7) for i in range(1, 8)]
