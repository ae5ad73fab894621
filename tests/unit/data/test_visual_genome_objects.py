"""Visual Genome's objects by hand: which become rows, which are merged or mended, and which are rejected."""

from collections import Counter

import pytest
from hand_genome import image, importer, thing, write_photos


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "images")


@pytest.fixture
def take(tmp_path, photos):
    return importer(tmp_path, photos)


def test_one_object_of_each_fate(take, photos):
    things = {
        1: [
            thing(11, " Cow.", ["Red", "big", " red "]),
            thing(12, "cow", []),
            {"object_id": 13, "names": ["cow"], "x": 1, "y": 1, "w": 1, "h": 1},
            thing(14, "cow", ["red"], (10, 10, 0, 5)),
            thing(15, "cow", ["red"], (100, 10, 5, 5)),
            thing(16, "cow", ["red"], (-5, 60, 20, 30)),
            thing(17, " ", ["red"]),
            {"object_id": 18, "names": ["cow"], "attributes": ["red"], "x": 1, "y": 1, "w": 1},
            thing(19, None),
        ],
        77: [thing(21)],
        88: [thing(31)],
    }
    told, rows, rejected = take(things, [image(1), image(77)])
    assert [(r["id"], r["query"], r["attributes"]) for r in rows] == [(11, "cow", ["red", "big"]), (16, "cow", ["red"])]
    assert [[r[side] for side in ("x0", "y0", "x1", "y1")] for r in rows] == [[10, 20, 40, 60], [0, 60, 15, 80]]
    assert {(r["width"], r["height"], r["image"]) for r in rows} == {(100, 80, "1.jpg")}
    assert [(r["image"], r["query"], r["id"], r["reason"], r["detail"]) for r in rejected] == [
        ("1.jpg", "cow", 12, "no attributes", None),
        ("1.jpg", "cow", 13, "no attributes", None),
        ("1.jpg", "cow", 14, "empty box", "x 10, y 10, w 0, h 5 in 100 x 80 pixels"),
        ("1.jpg", "cow", 15, "box outside the image", "x 100, y 10, w 5, h 5 in 100 x 80 pixels"),
        ("1.jpg", None, 17, "no name", None),
        ("1.jpg", "cow", 18, "no box", None),
        ("1.jpg", None, 19, "no name", None),
        ("77.jpg", "cow", 21, "image file missing", None),
        (None, "cow", 31, "image not in image_data.json", "image_id 88"),
    ]
    assert told["mended"] == {
        "entries joined": 0,
        "names rewritten": 1,
        "of these, plurals read as singular": 0,
        "attributes rewritten": 1,
        "repeated attributes left out": 1,
        "blank attributes left out": 0,
        "boxes clipped to the image": 1,
        "rare attributes left out of kept rows": 0,
    }
    assert told["settings"] == {"setting": "all", "min_count": 1, "splits": "by a hash of the image id"}
    assert any("no objects.json" in note for note in told["notes"])


def test_where_nothing_is_left_the_remedy_fits(take):
    with pytest.raises(ValueError, match=r"image file missing: 1\); is .*images the folder with their images\?"):
        take({77: [thing(21)]})
    with pytest.raises(ValueError, match=r"class too rare: 1\); a min_count below 2 keeps what is rarer"):
        take({1: [thing(11)]}, min_count=2)


def test_rare_classes_and_attributes_are_left_out(take):
    cows = [thing(i, "cow", ["red"]) for i in range(3)] + [
        thing(3, "cow", ["spotted"]),
        thing(4, "cow", ["red", "wet"]),
    ]
    told, rows, rejected = take({1: [*cows, thing(5, "yak", ["red"])]}, min_count=2)
    assert [(r["id"], r["attributes"]) for r in rows] == [(i, ["red"]) for i in (0, 1, 2, 4)]
    assert [(r["id"], r["reason"], r["detail"]) for r in rejected] == [
        (3, "attribute too rare", "spotted"),
        (5, "class too rare", "1 objects"),
    ]
    assert told["mended"]["rare attributes left out of kept rows"] == 1


def test_objects_that_were_merged_become_one(take):
    things = {
        1: [
            thing(11, "cow", ["red"], (0, 0, 5, 5)),
            thing(12, "a cow", ["big", "red"], (1, 1, 5, 5)),
            thing(13, "ox", ["old"]),
            thing(12, "a cow", ["wet"]),  # one object listed twice
        ],
        2: [thing(21, "yak", ["dry"], (1, 2, 3, 4)), thing(22, "yak", ["soft"])],
    }
    objects = [
        {
            "image_id": 1,
            "objects": [{**thing(12, "Cow", box=(2, 2, 9, 9)), "merged_object_ids": [11, 13]}, thing(13, "ox")],
        },
        {"image_id": 2, "objects": [{**thing(99, "yak", box=(5, 5, 5, 5)), "merged_object_ids": [21, 22]}]},
    ]
    told, rows, rejected = take(things, objects=objects)
    assert not rejected
    assert [(r["id"], r["query"], r["attributes"], r["x0"], r["x1"]) for r in rows] == [
        (12, "cow", ["red", "big", "wet"], 2, 11),  # name and box as objects.json has them
        (13, "ox", ["old"], 10, 40),  # an object of its own there: it is not merged away
        (99, "yak", ["dry", "soft"], 5, 10),  # the id that only objects.json knows
    ]
    assert told["mended"]["entries joined"] == 3


def test_objects_json_fills_in_what_attributes_json_lacks(take):
    things = {1: [{"object_id": 11, "attributes": ["red"]}, {"object_id": 12, "attributes": ["red"]}]}
    objects = [
        {"image_id": 1, "objects": [thing(11, "cow", box=(1, 2, 3, 4))]},
        {"image_id": 2, "objects": [thing(12)]},
    ]
    _, rows, rejected = take(things, objects=objects)
    assert [(r["id"], r["query"], r["x0"], r["y1"]) for r in rows] == [(11, "cow", 1, 6)]
    assert [(r["id"], r["reason"]) for r in rejected] == [(12, "no name")]  # the 12 there is in another image


def test_a_rare_plural_is_read_as_its_singular(take):
    told, rows, _ = take({1: [*[thing(i, "berry") for i in range(20)], thing(20, "Berries"), thing(21, "peas")]})
    assert Counter(r["query"] for r in rows) == {"berry": 21, "peas": 1}
    assert told["mended"]["names rewritten"] == told["mended"]["of these, plurals read as singular"] == 1


def test_keys_of_the_first_version_and_of_single_names(take):
    old = {"id": 11, "object_names": ["cow"], "attributes": ["red"], "x": 1, "y": 1, "w": 5, "h": 5}
    single = {"object_id": 12, "name": "ox", "attributes": ["red"], "x": 1, "y": 1, "w": 5.5, "h": 5}
    text = {**old, "id": 13, "object_names": "yak"}
    _, rows, _ = take({1: [old, single, text]}, [{"id": 1, "width": 9, "height": 9, "url": None}])
    assert [(r["id"], r["query"], r["image"], r["x1"]) for r in rows] == [
        (11, "cow", "1.jpg", 6),
        (12, "ox", "1.jpg", 6.5),
        (13, "yak", "1.jpg", 6),
    ]


def test_huge_and_tiny_boxes(take):
    boxes = [(-1e308, -1e308, 1.7e308, 1.7e308), (1e308, 0, 1e308, 5), (50, 50, 1e-12, 5), (-1e300, 0, 1e300, 9)]
    boxes += [(5, 5, -1, 4), (99.5, 79.5, 3, 3), (-4, 0, 4, 4)]
    _, rows, rejected = take({1: [thing(i, box=box) for i, box in enumerate(boxes)]})
    assert [(r["id"], r["x0"], r["y0"], r["x1"], r["y1"]) for r in rows] == [
        (0, 0, 0, 100, 80),
        (5, 99.5, 79.5, 100, 80),
    ]
    reasons = {r["id"]: r["reason"] for r in rejected}
    outside = "box outside the image"
    assert reasons == {1: outside, 2: outside, 3: outside, 4: "empty box", 6: outside}
