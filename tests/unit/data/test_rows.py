"""The user's own tables imported: three forms give one data set, and a row that can't be used is rejected."""

from collections import Counter

import pytest
from hand_tables import COLUMNS, ROWS, write_pictures, write_table
from PIL import Image
from pyarrow import parquet

from progressive_attention.config import SPLITS
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.manifest import from_folder
from progressive_attention.data.rows import import_table, tidied, write_judged
from progressive_attention.data.table import MANIFEST, REJECTED_TABLE


@pytest.fixture
def folder(tmp_path):
    return write_pictures(tmp_path)


def read(out):
    """The rows and the rejected ones."""
    return [parquet.read_table(out / name).to_pylist() for name in (MANIFEST, REJECTED_TABLE)]


def from_text(folder, text, **options):
    """dataset.json's content, the rows and the rejected ones."""
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return import_table(folder / "t.csv", folder / "out", **options), *read(folder / "out")


def test_a_table_becomes_a_set(folder):
    path = write_table(folder / "t.csv", ROWS, COLUMNS)
    about = import_table(path, folder / "out")
    rows, rejected = read(folder / "out")
    assert not rejected
    sizes = {"a.png": {"width": 40, "height": 20}, "sub/b.jpg": {"width": 8, "height": 6}}
    assert rows == [{**dict.fromkeys(COLUMNS), **row, **sizes[row["image"]]} for row in ROWS]
    assert about["source"] == "csv"
    splits = {"train": 3, "validation": 0, "test": 1}
    assert about["counts"] == {"images": 2, "rows": 4, "classes": 4, "attributes": 6, "splits": splits}
    assert (about["mended"], about["rejected"], about["notes"]) == ({}, {}, [])
    questions = from_folder(folder / "out", "train", 20)  # what training sees
    assert questions.query_names == ("07", 'a "cat"', "dog", "dog, big")
    assert questions.likelihood == "bernoulli"
    import_table(path, folder / "again")
    assert (folder / "again" / MANIFEST).read_bytes() == (folder / "out" / MANIFEST).read_bytes()


def test_one_attribute_a_row_and_columns_that_say_nothing(folder):
    _, rows, _ = from_text(folder, "image,query,attribute,scale\na.png,dog,red; old,\nsub/b.jpg,dog,07,\n")
    assert [row["attribute"] for row in rows] == ["red; old", "07"]
    assert {"scale", "absent", "x0"}.isdisjoint(rows[0])
    assert from_folder(folder / "out", rows[0]["split"], 20).likelihood == "softmax"


def test_folders_elsewhere(folder):
    for name, path in {"images/deep/a.png": "a.png", "masks/m.png": "m.png"}.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / path).rename(folder / name)
    text = "image,query,attributes,mask\n./deep/a.png,dog,red,m.png\na.png,dog,red,m.png\n"
    about, rows, rejected = from_text(folder, text, images=folder / "images", masks=folder / "masks")
    assert [(row["image"], row["width"], row["height"]) for row in rows] == [("deep/a.png", 40, 20)]
    assert [row["reason"] for row in rejected] == ["image file missing"]
    assert (about["images"], about["masks"]) == (str(folder / "images"), str(folder / "masks"))


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("none.png,dog,red,", "image file missing"),
        ("t.csv,dog,red,", "image unreadable"),
        ("../a.png,dog,red,", "image outside"),
        ("/a.png,dog,red,", "image outside"),
        ("link.png,dog,red,", "image outside"),
        ("a.png,dog,red,none.png", "mask file missing"),
        ("a.png,dog,red,../m.png", "mask outside"),
        ("a.png,dog,red,t.csv", "mask unusable"),
        ("sub/b.jpg,dog,red,m.png", "mask of another size"),
    ],
)
def test_files_that_cannot_be_used_reject_their_row(folder, cells, reason):
    """Other rules: test_rules."""
    Image.new("RGB", (3, 3)).save(folder.parent / "beside.png")
    (folder / "link.png").symlink_to(folder.parent / "beside.png")
    about, rows, rejected = from_text(folder, f"image,query,attributes,mask\na.png,good,red,m.png\n{cells}\n")
    assert [row["query"] for row in rows] == ["good"]
    assert [row["reason"] for row in rejected] == [reason]
    assert rejected[0]["detail"].startswith("line 3: ")
    assert about["rejected"] == {reason: 1}


def test_masks_must_hold_numbers_where_values_are_asked_for(folder):
    Image.new("RGB", (40, 20), (1, 1, 1)).save(folder / "colour.png")  # any colour is the target
    text = "image,query,attributes,mask,mask_value\na.png,x,;,colour.png,\na.png,y,;,m.png,3\n"
    assert not from_text(folder, text)[2]
    rows = [
        {"image": "a.png", "query": "x", "attributes": [], "mask": "colour.png", "mask_value": v} for v in (1, None)
    ]
    rows.append({**rows[0], "mask": None})
    import_table(write_table(folder / "t.jsonl", rows), folder / "two")
    assert [row["reason"] for row in read(folder / "two")[1]] == ["mask unusable"] * 2


def test_every_row_is_written_or_rejected(folder):
    """Rows of every kind of fault: each is in exactly one of the two tables."""
    (folder / "text.png").write_text("no image")
    whole = {"image": "a.png", "query": "x", "attributes": ("p",), "split": "test"}
    box = dict(zip(("x0", "y0", "x1", "y1"), (0, 0, 99, 99), strict=True))
    faults = [
        ({**box}, None),
        ({"image": "text.png"}, "image unreadable"),
        ({"image": "none.png"}, "image file missing"),
        ({"image": "../outside.png"}, "image outside"),
        ({**box}, "duplicate row"),
        ({**box, "x0": 50}, "box outside the image"),
        ({**box, "x0": None, "width": 41}, None),
        ({"absent": ("q",), "attributes": ("p", "q")}, "contradiction"),
    ]
    rows = [{**whole, **change} for change, _ in faults]
    names = ("image", "query", "attributes", "absent", "split", "width", *box)
    about = write_judged(
        folder / "out",
        tidied(rows, names, Counter()),
        Counter(),
        source="test",
        images=ImageRoot(folder),
        masks=None,
        settings={"table": "hand"},
        rejected=[{"image": "early.png", "reason": "crowd", "detail": ""}],
        place=str,
    )
    kept, rejected = read(folder / "out")
    assert [(row["x0"], row["x1"], row["width"]) for row in kept] == [(0, 40, 40), (None, None, 40)]
    assert {row["detail"].partition(":")[0]: row["reason"] for row in rejected} == {
        "": "crowd",
        **{str(i): reason for i, (_, reason) in enumerate(faults) if reason},
    }
    assert about["rejected"] == Counter(row["reason"] for row in rejected)
    assert about["mended"] == {
        "boxes clipped to the image": 2,
        "incomplete boxes left out": 1,
        "sizes that are not the image's": 1,
    }
    assert sum(about["counts"]["splits"][split] for split in SPLITS) == len(kept)


def test_nothing_left_is_an_error(folder):
    rows = [{"image": "none.png", "query": "x", "attribute": "p"}, {"image": "no.png", "query": "y", "attribute": "p"}]
    with pytest.raises(ValueError, match=r"t.csv can be used: image file missing: 2; the first: none.png, x, line 2: "):
        import_table(write_table(folder / "t.csv", rows), folder / "out")
    assert not (folder / "out").exists()
