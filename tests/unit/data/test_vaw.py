"""VAW from generated files in its authors' form: rows, masks and unknown labels by hand; wrong files and entries."""

import json

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from progressive_attention.data.manifest import from_folder
from progressive_attention.data.table import MANIFEST, REJECTED_TABLE
from progressive_attention.data.vaw import filled, import_vaw

SQUARE = [[[4.0, 2.0], [12.0, 2.0], [12.0, 10.0], [4.0, 10.0]]]


def entry(number, image="7", **changes):
    """An instance as the files have it: ids are text there."""
    known = {"image_id": image, "instance_id": str(number), "instance_bbox": [4.0, 2.0, 8.0, 8.0]}
    known |= {"instance_polygon": SQUARE, "object_name": "car"}
    return {**known, "positive_attributes": ["red"], "negative_attributes": ["blue"], **changes}


@pytest.fixture
def folder(tmp_path):
    """images/VG_100K/7.jpg and images/VG_100K_2/8.jpg, 20 x 20 each."""
    for name in ("VG_100K/7.jpg", "VG_100K_2/8.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (20, 20), (0, 90, 0)).save(path)
    return tmp_path


def imported(folder, **files):
    """dataset.json's content, the rows and the rejected ones; each file is a list of entries, or text."""
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    about = import_vaw(folder, folder / "images", folder / "out")
    return about, *(parquet.read_table(folder / "out" / name).to_pylist() for name in (MANIFEST, REJECTED_TABLE))


def test_rows_by_hand(folder):
    files = {"train_part1": [entry(1)], "train_part2": [entry(22, 8, instance_id=22, negative_attributes=[])]}
    files |= {"val": [entry(3, instance_polygon=None, positive_attributes=[])], "test": [entry(4, instance_bbox=None)]}
    about, rows, rejected = imported(folder, **files)
    box = {"x0": 4, "y0": 2, "x1": 12, "y1": 10}
    car = {"image": "VG_100K/7.jpg", "query": "car", "attributes": ["red"], "absent": ["blue"], **box}
    car |= {"width": 20, "height": 20}
    assert rows == [
        {**car, "split": "train", "id": 1, "mask": "1.png"},
        {**car, "split": "train", "id": 22, "mask": "22.png", "image": "VG_100K_2/8.jpg", "absent": []},
        {**car, "split": "validation", "id": 3, "mask": None, "attributes": []},
        {**car, "split": "test", "id": 4, "mask": "4.png", **dict.fromkeys(box)},
    ]
    assert (rejected, about["mended"], about["notes"], about["masks"]) == ([], {}, [], "masks")


def test_what_is_not_labelled_stays_unknown(folder):
    imported(folder, train_part1=[entry(1, positive_attributes=["red", "old"]), entry(2, negative_attributes=["new"])])
    questions = from_folder(folder / "out", "train", 20)
    assert questions.attribute_names == ("blue", "new", "old", "red")
    np.testing.assert_array_equal(questions.attribute[np.arange(2)], [[0, -1, 1, 1], [-1, 0, -1, 1]])
    inside = np.zeros((20, 20), bool)
    inside[2:10, 4:12] = True
    assert questions.masks is not None
    np.testing.assert_array_equal(questions.masks[np.arange(2)], [inside, inside])


def inside_slowly(polygon, x, y):
    """Whether a ray from (x, y) to the right crosses the polygon's edges an odd number of times."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) > x:
            crossings += 1
    return crossings % 2 == 1


@pytest.mark.parametrize("seed", range(5))
def test_polygons_are_filled_as_by_the_slow_rule(seed):
    rng = np.random.default_rng(seed)
    polygons = [rng.uniform(-5, 25, (corners, 2)).tolist() for corners in (3, 4, 9)]
    expected = [
        [any(inside_slowly(polygon, x + 0.5, y + 0.5) for polygon in polygons) for x in range(17)] for y in range(13)
    ]
    np.testing.assert_array_equal(filled(polygons, 17, 13), expected)


def test_polygons_without_a_pixel_leave_no_mask(folder):
    thin = [
        [[4.1, 4.1], [4.3, 4.1], [4.3, 4.3]],
        [[1, 1], [9, 9]],
        [],
        [[-9, -9], [-5, 9], [-5, -9]],
        [[30, 1], [40, 9]],
    ]
    about, rows, _ = imported(folder, train_part1=[entry(1, instance_polygon=thin), entry(2)])
    assert [row["mask"] for row in rows] == [None, "2.png"]
    assert about["mended"] == {"polygons left out, which no pixel's centre is in": 1}


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"image_id": 9}, "image file missing", "val.json: no 9.jpg below"),
        ({"instance_id": 1}, "instance listed twice", "in train_part1.json, too"),
        ({"instance_polygon": [[4, 2], [12, 2]]}, "polygon unusable", "val.json: Expected `array`, got `int`"),
        ({"instance_polygon": [[[4, 2, 1]]]}, "polygon unusable", "length 2"),
        ({"instance_polygon": [[[4, 1e300]]]}, "polygon unusable", "<= 1000000"),
        ({"instance_bbox": [4, 2, 0, 8]}, "empty box", "(4.0, 2.0, 4.0, 10.0)"),
        ({"instance_bbox": [40, 2, 8, 8]}, "box outside the image", "20 x 20"),
        ({"negative_attributes": ["red"]}, "contradiction", "['red'] both true and absent"),
        ({"object_name": " "}, "no query", ""),
    ],
)
def test_entries_that_cannot_be_used(folder, change, reason, detail):
    _, rows, rejected = imported(folder, train_part1=[entry(1)], val=[entry(2, **change)])
    assert [row["id"] for row in rows] == [1]
    assert [row["reason"] for row in rejected] == [reason]
    assert detail in rejected[0]["detail"]


def test_an_image_that_is_none(folder):
    (folder / "images" / "VG_100K_2" / "8.jpg").write_text("no picture")
    _, rows, rejected = imported(folder, train_part1=[entry(1), entry(2, 8), entry(3, 8)])
    assert [row["id"] for row in rows] == [1]
    assert [(row["id"], row["reason"]) for row in rejected] == [(2, "image unreadable"), (3, "image unreadable")]


def test_half_a_box_is_left_out_and_a_missing_file_is_noted(folder):
    about, rows, _ = imported(folder, train_part1=[entry(1, instance_bbox=[4, 2, 8]), entry(2)], test=[entry(3)])
    assert [row["x0"] for row in rows] == [None, 4, 4]
    assert about["mended"] == {"incomplete boxes left out": 1}
    assert about["notes"] == [f"{folder} has no train_part2.json and no val.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{]", r"val\.json can't be read as VAW's JSON: JSON is malformed"),
        ("{}", r"val\.json can't be read as VAW's JSON: Expected `array`"),
        ([entry("x1")], r"val\.json can't be read as VAW's JSON: .*`\$\[0\].instance_id`"),
        (
            [entry(2, positive_attributes=None)],
            r"val\.json can't be read as VAW's JSON: .*`\$\[0\].positive_attributes`",
        ),
        ([{"image_id": 7}], r"missing required field `instance_id`"),
    ],
)
def test_files_of_another_form(folder, content, message):
    with pytest.raises(ValueError, match=message):
        imported(folder, val=content)
    assert not (folder / "out").exists()


def test_nothing_to_import(folder):
    with pytest.raises(ValueError, match=r"has none of train_part1\.json, train_part2\.json, val\.json, test\.json"):
        imported(folder)
    with pytest.raises(ValueError, match=r"no row of vaw can be used: image file missing: 1; the first: 9\.jpg, car"):
        imported(folder, val=[entry(1, 9)])
    assert sorted(path.name for path in folder.iterdir()) == ["images", "val.json"]
