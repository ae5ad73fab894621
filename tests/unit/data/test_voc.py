"""PASCAL VOC from a generated devkit: a row for each class of an image as it was drawn; broken files and lists."""

import re
from pathlib import Path

import numpy as np
import pytest
from generated_devkit import BOX, SCENES, SPLITS, draw_mask, imported, save_palette, write_devkit
from numpy.testing import assert_array_equal
from PIL import Image
from pyarrow import parquet

from progressive_attention.data.manifest import from_folder
from progressive_attention.data.sources import known_words, unknown_queries
from progressive_attention.data.table import MANIFEST
from progressive_attention.data.voc import CLASSES, NAMES, SYNONYMS, import_voc, other_words

DOCS = Path(__file__).parents[3] / "docs" / "voc.md"


@pytest.fixture
def devkit(tmp_path):
    return write_devkit(tmp_path)


def test_the_published_classes():
    assert CLASSES[:3] == ("aeroplane", "bicycle", "bird")
    assert (CLASSES[14], CLASSES[19], len(CLASSES)) == ("person", "tvmonitor", 20)
    assert list(CLASSES) == sorted(CLASSES)  # VOC's own order, which gives the values in its masks
    assert len(set(NAMES.values())) == 20


def test_the_page_tells_the_names():
    table = re.findall(r"^\| (\d+) \| (\w+) \| ([\w ]+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert table == [(str(k), name, NAMES[name]) for k, name in enumerate(CLASSES, 1)]


def test_the_page_lists_the_other_words():
    table = re.findall(r"^\| (\w+) \| ([\w ]+(?:, [\w ]+)+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: tuple(words.split(", ")) for name, words in table if name in CLASSES} == SYNONYMS


def test_other_words_name_one_class_only():
    words = [word for name in CLASSES for word in {NAMES[name], *SYNONYMS.get(name, ())}]
    assert len(set(words)) == len(words)
    assert all(SYNONYMS[name][0] == NAMES[name] for name in SYNONYMS)
    assert other_words("bicycle") == ("bike",)
    assert other_words("television") == ("tv", "tvmonitor", "monitor")
    assert other_words("bird") == other_words("telly") == ()


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        (("bike", "motorcycle", "person"), {"motorcycle": "motorcycle", "person": "person"}),
        (("motorbike", "monitor", "television"), {"motorcycle": "motorbike", "tv": "television"}),
        (
            ("couch", "sofa", "dining table", "houseplant"),
            {"couch": "couch", "table": "dining table", "plant": "houseplant"},
        ),
    ],
)
def test_a_network_is_asked_by_words_that_it_knows(devkit, known, asked):
    imported(devkit)
    questions = from_folder(devkit.parent / "out", "train,validation,test", 50)
    assert known_words(questions, known) == asked
    assert set(unknown_queries(questions, known)) == set(questions.query_names) - set(asked)


def expected_segmentation():
    """Image and query -> the row, from the scenes, class by class."""
    rows = {}
    for stem, scene in SCENES.items():
        for name in {name for name, _, _ in scene.objects}:
            x0, y0, x1, y1 = zip(*(box for other, box, _ in scene.objects if other == name), strict=True)
            rows[f"{stem}.jpg", NAMES[name]] = {
                "image": f"{stem}.jpg",
                "query": NAMES[name],
                "attributes": [],
                "split": SPLITS[scene.list],
                **dict(zip(BOX, (min(x0), min(y0), max(x1), max(y1)), strict=True)),
                "mask": f"{stem}.png",
                "mask_value": CLASSES.index(name) + 1,
                "mask_void": 255,
                "width": scene.size[0],
                "height": scene.size[1],
            }
    return rows


@pytest.mark.parametrize("given", [".", "VOC2007"])
def test_a_row_for_each_class_of_an_image(devkit, given):
    about = import_voc(devkit / given, devkit.parent / "out")
    rows = parquet.read_table(devkit.parent / "out" / MANIFEST).to_pylist()
    assert {(row["image"], row["query"]): row for row in rows} == expected_segmentation()
    assert len(rows) == 8  # the two chairs of one image are one question
    splits = {"train": 3, "validation": 3, "test": 2}
    assert about["counts"] == {"images": 5, "rows": 8, "classes": 8, "attributes": 0, "splits": splits}
    assert (about["rejected"], about["mended"], about["notes"]) == ({}, {}, [])
    assert about["images"].endswith("JPEGImages")
    assert about["masks"].endswith("SegmentationClass")


def test_masks_as_evaluation_reads_them(devkit):
    imported(devkit)
    questions = from_folder(devkit.parent / "out", "train", 50)
    assert questions.masks is not None
    assert questions.void is not None
    inside, void = (masks[np.arange(len(questions))] for masks in (questions.masks, questions.void))
    queries = [questions.query_names[query] for query in questions.query]
    assert queries == ["chair", "airplane", "person"]
    chairs = draw_mask(SCENES["000005"])  # 50 x 40 lies in rows 5 to 45 of the square
    assert_array_equal(inside[0, 5:45], chairs == 9)
    assert_array_equal(void[0, 5:45], chairs == 255)
    for row, value in ((1, 1), (2, 15)):  # 40 x 50, in columns 5 to 45
        other = draw_mask(SCENES["000007"])
        assert_array_equal(inside[row][:, 5:45], other == value)
        assert_array_equal(void[row][:, 5:45], other == 255)
    assert questions.attribute_names == ()


def test_without_annotations_there_are_no_boxes(devkit):
    (devkit / "VOC2007" / "Annotations" / "000012.xml").unlink()
    _, rows, rejected = imported(devkit)
    assert {row["image"] for row in rows if row["x0"] is None} == {"000012.jpg"}
    assert not rejected


def recoloured(picture, value):
    """The sofa's pixels as others."""
    return np.where(np.asarray(picture) == 18, value, np.asarray(picture)).astype(np.uint8)


@pytest.mark.parametrize(
    "change, reason, detail",
    [
        (lambda path: Image.open(path).convert("RGB").save(path), "mask unusable", "RGB"),  # as an image editor does
        (lambda path: save_palette(np.asarray(Image.open(path))[:-1], path), "mask of another size", "30 x 29"),
        (lambda path: save_palette(recoloured(Image.open(path), 21), path), "mask unusable", "[21]"),
        (lambda path: save_palette(recoloured(Image.open(path), 0), path), "no object", "000012.png"),
        (lambda path: path.write_text("no image"), "mask unusable", "no known format"),
        (lambda path: path.unlink(), "mask file missing", "000012.png"),
    ],
)
def test_masks_that_cannot_be_used(devkit, change, reason, detail):
    change(devkit / "VOC2007" / "SegmentationClass" / "000012.png")
    _, rows, rejected = imported(devkit)
    assert {row["image"] for row in rows} == {f"{stem}.jpg" for stem in SCENES} - {"000012.jpg"}
    assert [(row["image"], row["reason"]) for row in rejected] == [("000012.jpg", reason)]
    assert detail in rejected[0]["detail"]


OBJECT = "<object><name>sofa</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>29</xmax><ymax>28</ymax></bndbox></object>"
BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>'
    "<annotation><object><name>&c;</name></object></annotation>"
)
OUTSIDE = (
    '<!DOCTYPE x [<!ENTITY secret SYSTEM "secret.txt">]><annotation><object><name>&secret;</name></object></annotation>'
)


@pytest.mark.parametrize(
    ("xml", "reason", "detail"),
    [
        ("<annotation><object>", "annotation unusable", "no element found"),
        ("no xml", "annotation unusable", "syntax error"),
        ("<annotation>" + " " * 2**20, "annotation unusable", "1,048,576 bytes"),
        ("<annotation>&lol;</annotation>", "annotation unusable", "undefined entity"),
        (BOMB, "annotation unusable", "declares a document type"),
        (OUTSIDE, "annotation unusable", "declares a document type"),
        (BOMB.encode("utf-16"), "annotation unusable", "declares a document type"),
        ('<?xml version="1.0" encoding="none"?><annotation/>', "annotation unusable", "unknown encoding"),
        (b"\xff\x00\xfe", "annotation unusable", "000012.xml"),
        (f"<annotation>{OBJECT.replace('sofa', 'dragon')}</annotation>", "annotation unusable", "'dragon'"),
        (f"<annotation>{OBJECT.replace('29', 'far')}</annotation>", "annotation unusable", "'far'"),
        (f"<annotation>{OBJECT.replace('<xmax>29</xmax>', '')}</annotation>", "annotation unusable", "000012.xml"),
        (f"<annotation>{OBJECT.replace('29', '1')}</annotation>", "empty box", "(1.0, 2.0, 1.0, 28.0)"),
        (f"<annotation>{OBJECT.replace('>2<', '>32<').replace('29', '40')}</annotation>", "box outside the image", ""),
    ],
)
def test_annotations_that_cannot_be_used_reject_an_image(devkit, xml, reason, detail):
    (devkit / "VOC2007" / "Annotations" / "secret.txt").write_text("sofa")
    path = devkit / "VOC2007" / "Annotations" / "000012.xml"
    path.write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    _, rows, rejected = imported(devkit)
    assert {row["image"] for row in rows} == {f"{stem}.jpg" for stem in SCENES} - {"000012.jpg"}
    assert [(row["image"], row["reason"]) for row in rejected] == [("000012.jpg", reason)]
    assert detail in rejected[0]["detail"]


def test_a_size_stated_wrong(devkit):
    path = devkit / "VOC2007" / "Annotations" / "000012.xml"
    path.write_text(path.read_text().replace("<width>30</width>", "<width>300</width>"))
    told, _, _ = imported(devkit)
    assert told["mended"] == {"sizes that are not the image's": 1}
    path.write_text(path.read_text().replace("<width>300</width>", f"<width>{'9' * 5000}</width>"))
    assert import_voc(devkit, devkit.parent / "out2")["mended"] == {}


def test_other_names(devkit):
    told, rows, _ = imported(devkit, names={"sofa": "sofa", "tvmonitor": "television"})
    assert {"sofa", "television", "airplane"} <= {row["query"] for row in rows}
    assert told["settings"]["names"]["tvmonitor"] == "television"
    for names, message in (
        ({"television": "tv"}, r"unknown class of VOC 'television'; known: aeroplane"),
        ({"sofa": "chair"}, r"names must keep all classes of VOC apart"),
    ):
        with pytest.raises(ValueError, match=message):
            import_voc(devkit, devkit.parent / "out2", names=names)


def test_folders_that_are_missing(devkit):
    folder = "ImageSets/Segmentation"
    (devkit / "VOC2007" / folder).rename(devkit / "elsewhere")
    with pytest.raises(ValueError, match=rf"lacks the folders \['{folder}'\]"):
        import_voc(devkit, devkit.parent / "out")
    assert not (devkit.parent / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("000012\n000007 1\n", r"val.txt, line 2: expected the name of one image, got '000007 1'"),
        ("../../secret\n", r"val.txt, line 1: expected the name of one image"),
        ("000005\n", r"val.txt, line 1: 000005 is in train already"),
        ("000012\n\n000012\n", r"val.txt, line 3: 000012 is in validation already"),
    ],
)
def test_broken_lists(devkit, text, message):
    lists = devkit / "VOC2007" / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        import_voc(devkit, devkit.parent / "out")
    for name in ("train", "val", "test"):
        (lists / f"{name}.txt").unlink()
    with pytest.raises(ValueError, match=r"has none of train.txt, val.txt, test.txt"):
        import_voc(devkit, devkit.parent / "out")


def test_a_devkit_of_some_splits_and_of_none(devkit):
    lists = devkit / "VOC2007" / "ImageSets" / "Segmentation"
    (lists / "test.txt").unlink()
    about, rows, _ = imported(devkit)
    assert {row["split"] for row in rows} == {"train", "validation"}
    assert about["notes"] == [f"{devkit} has no images of VOC's test split"]
    for name in ("train", "val"):
        (lists / f"{name}.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"no row of voc can be used: it has none"):
        import_voc(devkit, devkit.parent / "out2")
