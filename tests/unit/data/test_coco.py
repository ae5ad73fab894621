"""COCO's instances JSON with attributes in every form that is read; broken files name the place."""

import json
from collections import Counter

import pytest
from PIL import Image
from pyarrow import parquet

from progressive_attention.data.coco import import_coco
from progressive_attention.data.manifest import from_folder
from progressive_attention.data.table import MANIFEST, REJECTED_TABLE, split_of

VOCABULARY = [{"id": 3, "name": "red"}, {"id": 7, "name": " old "}]


def instances(*annotations, **changes):
    """A file's content: two images, two categories, and annotations with what they leave out filled in."""
    known = {"image_id": 10, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 10, "file_name": "a.png", "width": 40, "height": 20, "license": 1},
            {"id": 20, "file_name": "sub/b.jpg", "width": 8, "height": 6},
        ],
        "annotations": [{"id": number, **known, **one} for number, one in enumerate(annotations, 1)],
        "categories": [{"id": 1, "name": "dog", "supercategory": "animal"}, {"id": 5, "name": "Traffic light "}],
        **changes,
    }


@pytest.fixture
def folder(tmp_path):
    """images/a.png 40 x 20 and images/sub/b.jpg 8 x 6."""
    (tmp_path / "images" / "sub").mkdir(parents=True)
    Image.new("RGB", (40, 20)).save(tmp_path / "images" / "a.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "sub" / "b.jpg")
    return tmp_path


def imported(folder, content):
    """dataset.json's content, the rows and the rejected ones."""
    path = folder / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    about = import_coco(path, folder / "images", folder / "out")
    return about, *(parquet.read_table(folder / "out" / name).to_pylist() for name in (MANIFEST, REJECTED_TABLE))


def test_rows_by_hand(folder):
    content = instances(
        {"attributes": ["red", "old"]},
        {"attributes": [], "image_id": 20, "category_id": 5, "bbox": [-1.5, 0, 4, 60.25]},
        {"attributes": ["red"], "bbox": []},
    )
    about, rows, rejected = imported(folder, content)
    common = {"width": 40, "height": 20, "image": "a.png", "split": split_of("a.png"), "query": "dog"}
    assert rows == [
        {**common, "attributes": ["red", "old"], "x0": 1, "y0": 2, "x1": 4, "y1": 6, "id": 1},
        {
            **{"image": "sub/b.jpg", "query": "Traffic light", "attributes": [], "split": split_of("sub/b.jpg")},
            **{"x0": 0, "y0": 0, "x1": 2.5, "y1": 6, "width": 8, "height": 6, "id": 2},
        },
        {**common, "attributes": ["red"], "x0": None, "y0": None, "x1": None, "y1": None, "id": 3},
    ]
    assert not rejected
    assert (about["source"], about["masks"], about["notes"]) == ("coco", None, [])
    assert about["mended"] == {"words with blanks around them": 1, "boxes clipped to the image": 1}
    counted = [about["counts"][name] for name in ("images", "rows", "classes", "attributes")]
    assert counted == [2, 3, 2, 2]


@pytest.mark.parametrize(
    ("answer", "holds", "absent"),
    [
        ({"attributes": ["red", " old", "red", ""]}, ["red", "old"], None),
        ({"attributes": [3, 7]}, ["red", "old"], None),
        ({"attribute_ids": [7]}, ["old"], None),
        ({"attribute_ids": []}, [], None),
        ({"attributes": ["new"], "attribute_ids": [3]}, ["red", "new"], None),
        ({"attributes": {"red": True, "old": False, "wet": True}}, ["red", "wet"], ["old"]),  # as CVAT writes it
        ({"attributes": {"color": "red", "rotation": 1.5, "track": None}}, ["red"], None),
        ({"attributes": {}}, [], None),
    ],
)
def test_attributes_in_every_form(folder, answer, holds, absent):
    _, (row,), rejected = imported(folder, instances(answer, attributes=VOCABULARY))
    assert (row["attributes"], row.get("absent")) == (holds, absent)
    assert not rejected
    assert not {"category", "attribute"} & row.keys()


def test_what_a_mapping_leaves_out_is_unknown(folder):
    """A door may be open, a dog may not: false is absent, and what isn't named is neither."""
    content = instances(
        {"attributes": {"open": False, "red": True, "z": 2}}, {"attributes": {"wet": True}, "bbox": [0, 0, 1, 1]}
    )
    about, _, _ = imported(folder, content)
    assert about["mended"] == {"attributes left out, neither true or false nor a word": 1}
    questions = from_folder(folder / "out", split_of("a.png"), 20)
    assert questions.attribute_names == ("open", "red", "wet")
    assert questions.attribute[questions.image * 0 + [0, 1]].tolist() == [[0, 1, -1], [-1, -1, 1]]


def test_without_attributes_a_note_says_so(folder):
    about, rows, rejected = imported(folder, instances({}, {"bbox": [0, 0, 2, 2]}))
    assert [row["attributes"] for row in rows] == [[], []]
    assert not rejected
    assert len(about["notes"]) == 1
    assert "has no attributes: enough to measure attention, useless for training" in about["notes"][0]


def test_images_in_folders_below(folder):
    for name in ("train/once.png", "train/twice.png", "val/twice.png"):
        (folder / "images" / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / "images" / name)
    names = ["b.jpg", "once.png", "twice.png", "val/twice.png", "al/twice.png"]
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    about, rows, rejected = imported(
        folder, instances(*[{"image_id": i, "bbox": [0, 0, 2, 2]} for i in range(5)], images=images)
    )
    assert [row["image"] for row in rows] == ["sub/b.jpg", "train/once.png", "val/twice.png"]
    assert [(row["image"], row["reason"]) for row in rejected] == [
        ("twice.png", "image file missing"),  # which of the two?
        ("al/twice.png", "image file missing"),
    ]
    assert about["mended"] == {"images found in a folder below": 2}


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"iscrowd": 1}, "crowd"),
        ({"image_id": 11}, "unknown image"),
        ({"category_id": 2}, "unknown class"),
        ({"attributes": None}, "no attributes"),
        ({"attributes": [4]}, "unknown attribute"),
        ({"attributes": {"red": False, "color": "red"}}, "contradiction"),
        ({"bbox": [1, 2, 0, 4]}, "empty box"),
        ({"bbox": [1.7e308, 0, 1.7e308, 1]}, "empty box"),
        ({"image_id": 40}, "image outside"),
        ({"id": 1}, "duplicate row"),
    ],
)
def test_bad_annotations_are_rejected(folder, annotation, reason):
    Image.new("RGB", (2, 2)).save(folder / "outside.png")
    content = instances({"attributes": ["red"]}, {"attributes": ["red"], **annotation}, attributes=VOCABULARY)
    content["images"].append({"id": 40, "file_name": "../outside.png"})
    about, rows, rejected = imported(folder, content)
    assert [row["id"] for row in rows] == [1]
    assert [(row["id"], row["reason"]) for row in rejected] == [(annotation.get("id", 2), reason)]
    assert about["rejected"] == Counter([reason])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(instances({}))[:-20], r"instances.json can't be read as COCO's JSON: Input data was truncated"),
        ("", r"can't be read as COCO's JSON"),
        ("{}", r"Object missing required field"),
        ("[" * 100_000, r"can't be read as COCO's JSON"),
        (instances({"image_id": "10"}), r"Expected `int`, got `str` - at `\$.annotations\[0\].image_id`"),
        (instances({"attributes": "red"}), r"\$.annotations\[0\].attributes"),
        (instances({"id": 2**63}), r"\$.annotations\[0\].id"),
        (instances({}, categories=[{"id": 1, "name": 5}]), r"\$.categories\[0\].name"),
        (
            instances({}, categories=[{"id": 1, "name": "a"}] * 2),
            r"2 entries of categories have the id 1, expected one",
        ),
        (instances(), r"no row of coco can be used: it has none"),
        (instances({"iscrowd": 1}), r"no row of coco can be used: crowd: 1; the first: a.png, dog$"),
    ],
)
def test_broken_files_name_the_place(folder, content, message):
    with pytest.raises(ValueError, match=message):
        imported(folder, content)
    assert not (folder / "out").exists()


def test_missing_files(folder):
    with pytest.raises(ValueError, match=r"none.json can't be read .*No such file"):
        import_coco(folder / "none.json", folder / "images", folder / "out")
    path = folder / "instances.json"
    path.write_text(json.dumps(instances({})))
    with pytest.raises(ValueError, match=r"nowhere is not a folder"):
        import_coco(path, folder / "nowhere", folder / "out")
