"""PASCAL VOC's detection from a generated devkit: a row for each object as it was drawn, and every broken XML."""

from collections import Counter

import pytest
from generated_devkit import BOX, SCENES, SPLITS, imported, write_devkit, write_xml

from progressive_attention.data.voc import NAMES, import_voc


@pytest.fixture
def devkit(tmp_path):
    return write_devkit(tmp_path)


def test_a_row_for_each_object(devkit):
    told, rows, rejected = imported(devkit, task="detection")
    expected = [
        {
            "image": f"{stem}.jpg",
            "query": NAMES[name],
            "attributes": [],
            "split": SPLITS[scene.list],
            **dict(zip(BOX, box, strict=True)),
            "width": scene.size[0],
            "height": scene.size[1],
        }
        for stem, scene in SCENES.items()
        for name, box, difficult in scene.objects
        if not difficult
    ]
    assert rows == expected
    assert [(row["image"], row["reason"]) for row in rejected] == [("000009.jpg", "difficult")]
    assert "object 2: diningtable" in rejected[0]["detail"]
    assert told["masks"] is None


def test_corners_count_from_one_and_are_inside(devkit):
    """VOC's box of the image's first 2 x 3 pixels, and of the whole image."""
    objects = "".join(
        f"<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{x}</xmax><ymax>{y}</ymax></bndbox></object>"
        for x, y in ((2, 3), (30, 30), (31, 30))
    )
    (devkit / "VOC2007" / "Annotations" / "000012.xml").write_text(f"<annotation>{objects}</annotation>")
    told, rows, rejected = imported(devkit, task="detection")
    boxes = [tuple(row[name] for name in BOX) for row in rows if row["image"] == "000012.jpg"]
    assert boxes == [(0, 0, 2, 3), (0, 0, 30, 30)]
    assert told["mended"] == {"boxes clipped to the image": 1}
    assert [row["reason"] for row in rejected] == ["difficult", "duplicate row"]  # the clipped one is the whole again


def test_a_size_stated_wrong_is_told(devkit):
    path = devkit / "VOC2007" / "Annotations" / "000012.xml"
    path.write_text(path.read_text().replace("<width>30</width>", "<width>300</width>"))
    told, _, _ = imported(devkit, task="detection")
    assert told["mended"] == {"sizes that are not the image's": 1}
    path.write_text(path.read_text().replace("<width>300</width>", f"<width>{'9' * 5000}</width>"))
    assert import_voc(devkit, devkit.parent / "out2", task="detection")["mended"] == {}


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
        ("", "annotation unusable", "no element found"),
        ("<annotation><object>", "annotation unusable", "no element found"),
        ("<annotation></object>", "annotation unusable", "mismatched tag"),
        ("no xml", "annotation unusable", "syntax error"),
        ("<html></html>", "annotation unusable", "html, expected annotation"),
        ("<annotation>&lol;</annotation>", "annotation unusable", "undefined entity"),
        (BOMB, "annotation unusable", "declares a document type"),
        (OUTSIDE, "annotation unusable", "declares a document type"),
        ("<!DOCTYPE annotation><annotation></annotation>", "annotation unusable", "declares a document type"),
        (BOMB.encode("utf-16"), "annotation unusable", "declares a document type"),
        ('<?xml version="1.0" encoding="none"?><annotation/>', "annotation unusable", "unknown encoding"),
        ('<?xml version="1.0" encoding="gb2312"?><annotation/>', "annotation unusable", "encodings are not supported"),
        (b"\xff\x00\xfe", "annotation unusable", "000012.xml"),
        ("<annotation>" + " " * 2**20 + "</annotation>", "annotation unusable", "more than 1,048,576 bytes"),
        ("<annotation></annotation>", "no object", "names none"),
        (f"<annotation>{OBJECT.replace('sofa', 'dragon')}</annotation>", "unknown class", "object 1: 'dragon'"),
        (f"<annotation>{OBJECT.replace('<name>sofa</name>', '')}</annotation>", "unknown class", "object 1: ''"),
        (f"<annotation>{OBJECT.replace('29', 'far')}</annotation>", "annotation unusable", "bndbox/xmax must be"),
        (f"<annotation>{OBJECT.replace('<xmax>29</xmax>', '')}</annotation>", "annotation unusable", "got None"),
        ("<annotation><object><name>cat</name></object></annotation>", "annotation unusable", "bndbox/xmin must"),
        (f"<annotation>{OBJECT.replace('29', 'nan')}</annotation>", "box not finite", "nan"),
        (f"<annotation>{OBJECT.replace('29', '1')}</annotation>", "empty box", "(1.0, 2.0, 1.0, 28.0)"),
        (f"<annotation>{OBJECT.replace('>2<', '>32<').replace('29', '40')}</annotation>", "box outside the image", ""),
        (f"<annotation>{OBJECT.replace('<bnd', '<difficult>maybe</difficult><bnd')}</annotation>",
         "annotation unusable", "difficult must be a number, got 'maybe'"),
    ],
)  # fmt: skip
def test_annotations_that_cannot_be_used(devkit, xml, reason, detail):
    (devkit / "VOC2007" / "Annotations" / "secret.txt").write_text("sofa")
    path = devkit / "VOC2007" / "Annotations" / "000012.xml"
    path.write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    _, rows, rejected = imported(devkit, task="detection")
    assert {row["image"] for row in rows} == {f"{stem}.jpg" for stem in SCENES} - {"000012.jpg"}
    (mine,) = [row for row in rejected if row["image"] == "000012.jpg"]
    assert mine["reason"] == reason
    assert detail in mine["detail"]


def test_one_bad_object_leaves_the_others(devkit):
    path = devkit / "VOC2007" / "Annotations" / "000007.xml"
    path.write_text(write_xml("000007", SCENES["000007"]).replace("<name>person</name>", "<name>yeti</name>"))
    (devkit / "VOC2007" / "Annotations" / "000021.xml").unlink()
    _, rows, rejected = imported(devkit, task="detection")
    assert [row["query"] for row in rows if row["image"] == "000007.jpg"] == ["airplane"]
    assert Counter(row["reason"] for row in rejected) == {"unknown class": 1, "annotation missing": 1, "difficult": 1}
