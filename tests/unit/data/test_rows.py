"""What every importer does with rows: words cleaned, boxes clipped, files looked into, nothing lost on the way."""

import io
import os
import unicodedata
import zipfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from progressive_attention.config import SPLITS
from progressive_attention.data import rows as rows_module
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.manifest import split_of
from progressive_attention.data.rows import Draft, Refusal, Refused, clean, clean_list, fitted, look
from progressive_attention.data.table import MANIFEST, REJECTED_TABLE

EXIF_ORIENTATION = 0x0112


def size_of(root, path):
    return look(ImageRoot(root), "image", rows_module.upright_size, path)


def reason_of(root, path, kind="image"):
    with pytest.raises(Refusal) as raised:
        look(ImageRoot(root), kind, rows_module.upright_size, path)
    return raised.value.args


@pytest.fixture
def pictures(tmp_path):
    """inside/a.png 40 x 20 and inside/b.jpg 8 x 6; outside.png beside the folder."""
    root = tmp_path / "inside"
    root.mkdir()
    Image.new("RGB", (40, 20)).save(root / "a.png")
    Image.new("RGB", (8, 6)).save(root / "b.jpg")
    Image.new("RGB", (3, 3)).save(tmp_path / "outside.png")
    return root


def written(draft, root, out, **options):
    """dataset.json's content, the rows and the rejected ones."""
    options = {"source": "test", "masks": None, "settings": {}, "images": ImageRoot(root), **options}
    told = draft.write(out, **options)
    return told, *(parquet.read_table(out / name).to_pylist() for name in (MANIFEST, REJECTED_TABLE))


# --- words ------------------------------------------------------------------------------------------------------------


@given(st.text())
def test_clean_words_are_composed_and_bare(text):
    mended = Counter()
    word = clean(text, mended)
    assert word == word.strip() == unicodedata.normalize("NFC", text.strip())
    assert sum(mended.values()) == (text.strip() != text) + (word != text.strip())
    again = Counter()
    assert clean(word, again) == word
    assert not +again


def test_lists_hold_each_word_once():
    mended = Counter()
    assert clean_list([" red", "old", "", "red", " ", "Red", "cafe\u0301", "caf\u00e9"], mended) == (
        "red",
        "old",
        "Red",  # case stays
        "caf\u00e9",
    )
    assert +mended == {
        "words with blanks around them": 2,
        "words listed twice": 2,
        "words not in NFC (Unicode's composed form)": 1,
    }


# --- boxes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4)),
        ((-5, -1, 50, 21), (0, 0, 40, 20)),
        ((39.5, 0, 41, 1), (39.5, 0, 40, 1)),
        ((None,) * 4, (None,) * 4),
        ((0, 0, None, 4), "incomplete box"),
        ((None, None, None, 0), "incomplete box"),
        ((0, 0, float("nan"), 4), "box not finite"),
        ((0, 0, float("inf"), 4), "box not finite"),
        ((3, 3, 3, 9), "empty box"),
        ((5, 3, 3, 9), "empty box"),
        ((40, 0, 50, 9), "box outside the image"),
        ((0, 20, 5, 29), "box outside the image"),
        ((-9, 0, 0, 9), "box outside the image"),
        ((0, -9, 5, 0), "box outside the image"),
    ],
)
def test_boxes_by_hand(box, expected):
    if isinstance(expected, tuple):
        assert fitted(box, 40, 20) == expected
        return
    with pytest.raises(Refusal) as raised:
        fitted(box, 40, 20)
    assert raised.value.args[0] == expected
    assert "in an image of 40 x 20" in raised.value.args[1]


@given(*[st.integers(-10, 30)] * 4, st.integers(1, 20), st.integers(1, 20))
def test_clipped_boxes_cover_the_same_pixels_of_the_image(x0, y0, x1, y1, width, height):
    pixels = {(x, y) for x in range(x0, x1) for y in range(y0, y1) if 0 <= x < width and 0 <= y < height}
    try:
        u0, v0, u1, v1 = map(int, fitted((x0, y0, x1, y1), width, height))
    except Refusal:
        assert not pixels
    else:
        assert {(x, y) for x in range(u0, u1) for y in range(v0, v1)} == pixels != set()


# --- files ------------------------------------------------------------------------------------------------------------


def test_sizes_are_of_the_upright_image(pictures):
    turned = Image.Exif()
    turned[EXIF_ORIENTATION] = 6
    Image.new("RGB", (40, 20)).save(pictures / "turned.jpg", exif=turned)
    assert size_of(pictures, "a.png") == (40, 20)
    assert size_of(pictures, "turned.jpg") == (20, 40)


def test_images_in_zips(pictures):
    with zipfile.ZipFile(pictures / "images.zip", "w") as archive:
        archive.write(pictures / "a.png", "VG_100K/1.png")
        archive.write(pictures / "a.png", "../up.png")
        archive.writestr("text.png", "no image")
    assert size_of(pictures, "images.zip/VG_100K/1.png") == (40, 20)
    assert reason_of(pictures, "images.zip/2.png")[0] == "image file missing"
    assert reason_of(pictures, "images.zip/../up.png")[0] == "image outside"
    reason, detail = reason_of(pictures, "images.zip/text.png")
    assert reason == "image unreadable"
    assert "0x" not in detail, "an address would make two imports differ"


@pytest.mark.parametrize(
    "path", ["../outside.png", "sub/../a.png", "link.png", "folder/outside.png", "circle.png", "\0"]
)
def test_paths_stay_below_the_root(pictures, path):
    (pictures / "link.png").symlink_to(pictures.parent / "outside.png")
    (pictures / "folder").symlink_to(pictures.parent)
    (pictures / "circle.png").symlink_to(pictures / "circle.png")
    assert reason_of(pictures, path)[0] in ("image outside", "image file missing")
    assert reason_of(pictures, str(pictures / "a.png"))[0] == "image outside"


def test_links_within_the_root_are_fine(pictures):
    (pictures / "link.png").symlink_to("a.png")
    assert size_of(pictures, "link.png") == (40, 20)


def test_what_is_no_file_is_never_opened(pictures):
    os.mkfifo(pictures / "pipe.png")  # opening it would wait for ever
    for path in ("pipe.png", ".", "none.png", "", "a.png/b.png", "x" * 300):
        assert reason_of(pictures, path)[0] == "image file missing"


def test_broken_images(pictures):
    (pictures / "text.png").write_text("no image")
    (pictures / "empty.jpg").touch()
    whole = (pictures / "a.png").read_bytes()
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])
    for path in ("text.png", "empty.jpg", "cut.png"):
        assert reason_of(pictures, path)[0] == "image unreadable"
        assert reason_of(pictures, path, "mask")[0] == "mask unusable"


@pytest.mark.parametrize("side", [12_000, 40_000])  # the second one Pillow itself refuses to open
def test_bombs_are_not_decoded(pictures, side, monkeypatch):
    monkeypatch.setattr(rows_module, "upright_size", lambda picture: pytest.fail("was read"))
    header = io.BytesIO()
    Image.new("1", (1, 1)).save(header, "bmp")
    content = bytearray(header.getvalue())
    content[18:26] = np.array([side, side], "<i4").tobytes()
    (pictures / "bomb.bmp").write_bytes(content)
    assert reason_of(pictures, "bomb.bmp")[0] == "image too large"


# --- a draft ----------------------------------------------------------------------------------------------------------


def test_sifting_keeps_columns_together():
    draft = Draft({"image": list("abc"), "query": list("xyz"), "id": [1, 2, 3]}, ["line 2", "line 3", ""])
    assert draft.sift([10, Refused("why", "what"), None]) == [10, None]
    assert draft.columns == {"image": ["a", "c"], "query": ["x", "z"], "id": [1, 3]}
    assert draft.places == ["line 2", ""]
    assert draft.sift([Refused("why", ""), 5]) == [5]
    assert draft.rejected == {
        "image": ["b", "a"],
        "query": ["y", "x"],
        "id": [2, 1],
        "reason": ["why", "why"],
        "detail": ["line 3: what", "line 2"],
    }


def test_writing_fills_sizes_and_splits(pictures, tmp_path):
    draft = Draft({"image": ["a.png", "./b.jpg", "a.png"], "query": ["x", "y", "z"], "attribute": ["p", "q", "p"]})
    told, rows, rejected = written(draft, pictures, tmp_path / "out")
    assert [(row["image"], row["width"], row["height"]) for row in rows] == [
        ("a.png", 40, 20),
        ("b.jpg", 8, 6),  # one image has one name
        ("a.png", 40, 20),
    ]
    assert [row["split"] for row in rows] == [split_of(row["image"]) for row in rows]
    assert not rejected
    assert {"x0", "mask", "absent"}.isdisjoint(rows[0]), "columns that say nothing are left out"
    splits = Counter(row["split"] for row in rows)
    assert told["counts"] == {
        "images": 2,
        "rows": 3,
        "classes": 3,
        "attributes": 2,
        "splits": {split: splits[split] for split in SPLITS},
    }
    assert (told["rejected"], told["mended"], told["notes"]) == ({}, {}, [])


def test_every_row_is_written_or_rejected(pictures, tmp_path):
    """Rows of every kind of fault: each is in exactly one of the two tables."""
    (pictures / "text.png").write_text("no image")
    images = ["a.png", "text.png", "none.png", "../outside.png", "a.png", "a.png", "a.png", "b.jpg"]
    boxes = [(0, 0, 99, 99), *[(0, 0, 1, 1)] * 3, (0, 0, 99, 99), (50, 0, 60, 1), (None, 0, 1, 1), (None,) * 4]
    draft = Draft(
        {
            "image": images,
            "query": ["x"] * 8,
            "attributes": [("p",)] * 7 + [("p", "q")],
            "absent": [None] * 7 + [("q",)],
            "split": ["test"] * 8,
            "width": [40, None, None, None, 40, 40, 41, 8],
            **{name: [box[at] for box in boxes] for at, name in enumerate(("x0", "y0", "x1", "y1"))},
        },
        map(str, range(8)),
    )
    told, rows, rejected = written(draft, pictures, tmp_path / "out")
    assert [tuple(row[name] for name in ("image", "x0", "y0", "x1", "y1")) for row in rows] == [("a.png", 0, 0, 40, 20)]
    assert {row["detail"].partition(":")[0]: row["reason"] for row in rejected} == {
        "1": "image unreadable",
        "2": "image file missing",
        "3": "image outside",
        "4": "duplicate row",
        "5": "box outside the image",
        "6": "incomplete box",
        "7": "contradiction",
    }
    assert told["rejected"] == Counter(row["reason"] for row in rejected)
    assert told["mended"] == {"boxes clipped to the image": 2, "sizes that are not the image's": 1}
    assert "1 rows state another size than their image has" in told["notes"][0]


def test_masks_must_fit_their_images(pictures, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.new("L", (40, 20), 1).save(masks / "good.png")
    Image.new("RGB", (40, 20), (1, 1, 1)).save(masks / "colour.png")
    Image.new("L", (20, 40), 1).save(masks / "turned.png")
    (masks / "cut.png").write_bytes((masks / "good.png").read_bytes()[:40])
    wanted = [
        (("good.png", None, None), None),
        (("good.png", 3, 255), None),
        (("colour.png", None, None), None),  # any colour is the target
        ((None, None, None), None),
        (("colour.png", 1, None), "mask unusable"),
        (("colour.png", None, 255), "mask unusable"),
        (("turned.png", None, None), "mask unusable"),
        (("cut.png", None, None), "mask unusable"),
        (("none.png", None, None), "mask file missing"),
        (("../inside/a.png", None, None), "mask outside"),
    ]
    columns = {name: [mask[at] for mask, _ in wanted] for at, name in enumerate(("mask", "mask_value", "mask_void"))}
    known = {"image": ["a.png"] * len(wanted), "query": ["x"] * len(wanted), "attributes": [()] * len(wanted)}
    draft = Draft({**known, **columns}, map(str, range(len(wanted))))
    told, rows, rejected = written(draft, pictures, tmp_path / "out", masks=ImageRoot(masks))
    assert len(rows) == 4
    reasons = {int(row["detail"].partition(":")[0]): row["reason"] for row in rejected}
    assert reasons == {at: reason for at, (_, reason) in enumerate(wanted) if reason}
    assert told["masks"] == str(masks)


def test_nothing_left_is_an_error(pictures, tmp_path):
    draft = Draft({"image": ["none.png", "no.png", "b.jpg"], "query": ["x"] * 3, "attributes": [None] * 3})
    draft.sift([None, None, Refused("no attributes", "")])
    expected = r"no row of test can be used: image file missing: 2; no attributes: 1; the first: b.jpg, x$"
    with pytest.raises(ValueError, match=expected):
        written(draft, pictures, tmp_path / "out")
    assert not (tmp_path / "out").exists()
