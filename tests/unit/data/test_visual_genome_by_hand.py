"""Visual Genome's objects by hand: which become rows, which are merged or repaired, and which are rejected; splits."""

from collections import Counter
from hashlib import sha256

import numpy as np
import pytest
from hand_genome import image, importer, thing, write_photos

from progressive_attention.config import SPLITS
from progressive_attention.data.visual_genome import split_by_hash


@pytest.fixture
def take(tmp_path):
    return importer(tmp_path, write_photos(tmp_path / "images"))


def test_one_object_of_each_fate(take):
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
    about, rows, rejected = take(things, [image(1), image(77)])
    assert [(r["id"], r["query"], r["attributes"]) for r in rows] == [(11, "cow", ["red", "big"]), (16, "cow", ["red"])]
    assert [[r[side] for side in ("x0", "y0", "x1", "y1")] for r in rows] == [[10, 20, 40, 60], [0, 60, 15, 80]]
    assert {(r["width"], r["height"], r["image"]) for r in rows} == {(100, 80, "1.jpg")}
    assert [(r["image"], r["query"], r["id"], r["reason"], r["detail"]) for r in rejected] == [
        ("1.jpg", "cow", 12, "no attributes", None),
        ("1.jpg", "cow", 13, "no attributes", None),
        ("1.jpg", "cow", 14, "no box in the image", "x 10, y 10, w 0, h 5 in 100 x 80 pixels"),
        ("1.jpg", "cow", 15, "no box in the image", "x 100, y 10, w 5, h 5 in 100 x 80 pixels"),
        ("1.jpg", None, 17, "no name", None),
        ("1.jpg", "cow", 18, "no box in the image", "x 1, y 1, w 1, h nan in 100 x 80 pixels"),
        ("1.jpg", None, 19, "no name", None),
        ("77.jpg", "cow", 21, "image file missing", None),
        (None, "cow", 31, "image not in image_data.json", "image_id 88"),
    ]
    assert about["mended"] == {
        "entries joined": 0,
        "plurals read as singular": 0,
        "repeated or blank attributes left out": 1,
        "boxes clipped to the image": 1,
        "rare attributes left out of kept rows": 0,
    }
    assert about["settings"] == {"setting": "all", "min_count": 1, "splits": "by a hash of the image id"}
    assert any("no objects.json" in note for note in about["notes"])


def test_rare_classes_and_attributes_are_left_out(take):
    cows = [
        *(thing(i, "cow", ["red"]) for i in range(3)),
        thing(3, "cow", ["spotted"]),
        thing(4, "cow", ["red", "wet"]),
    ]
    about, rows, rejected = take({1: [*cows, thing(5, "yak", ["red"])]}, min_count=2)
    assert [(r["id"], r["attributes"]) for r in rows] == [(i, ["red"]) for i in (0, 1, 2, 4)]
    assert [(r["id"], r["reason"], r["detail"]) for r in rejected] == [
        (3, "attribute too rare", "spotted"),
        (5, "class too rare", "red"),
    ]
    assert about["mended"]["rare attributes left out of kept rows"] == 1


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
    merged = {**thing(12, "Cow", box=(2, 2, 9, 9)), "merged_object_ids": [11, 13]}
    yak = {**thing(99, "yak", box=(5, 5, 5, 5)), "merged_object_ids": [21, 22]}
    objects = [{"image_id": 1, "objects": [merged, thing(13, "ox")]}, {"image_id": 2, "objects": [yak]}]
    about, rows, rejected = take(things, objects=objects)
    assert not rejected
    assert [(r["id"], r["query"], r["attributes"], r["x0"], r["x1"]) for r in rows] == [
        (12, "cow", ["red", "big", "wet"], 2, 11),  # name and box as objects.json has them
        (13, "ox", ["old"], 10, 40),  # an object of its own there: it is not merged away
        (99, "yak", ["dry", "soft"], 5, 10),  # the id that only objects.json knows
    ]
    assert about["mended"]["entries joined"] == 3


def test_objects_json_fills_in_what_attributes_json_lacks(take):
    things = {1: [{"object_id": 11, "attributes": ["red"]}, {"object_id": 12, "attributes": ["red"]}]}
    here, elsewhere = [thing(11, "cow", box=(1, 2, 3, 4))], [thing(12)]
    _, rows, rejected = take(things, objects=[{"image_id": 1, "objects": here}, {"image_id": 2, "objects": elsewhere}])
    assert [(r["id"], r["query"], r["x0"], r["y1"]) for r in rows] == [(11, "cow", 1, 6)]
    assert [(r["id"], r["reason"]) for r in rejected] == [(12, "no name")]


def test_a_rare_plural_is_read_as_its_singular(take):
    about, rows, _ = take({1: [*[thing(i, "berry") for i in range(20)], thing(20, "Berries"), thing(21, "peas")]})
    assert Counter(r["query"] for r in rows) == {"berry": 21, "peas": 1}
    assert about["mended"]["plurals read as singular"] == 1


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
    sides = [tuple(r[side] for side in ("id", "x0", "y0", "x1", "y1")) for r in rows]
    assert sides == [(0, 0, 0, 100, 80), (5, 99.5, 79.5, 100, 80)]
    assert {r["id"]: r["reason"] for r in rejected} == dict.fromkeys((1, 2, 3, 4, 6), "no box in the image")


def test_split_is_a_function_of_the_ids_alone():
    ids = np.array([7, 1, 2407890, 3, 12, 5, 6, 4, 9, 10])
    split = split_by_hash(ids, np.arange(10))
    by_hand = sorted(ids.tolist(), key=lambda i: sha256(str(i).encode()).hexdigest())
    assert [SPLITS[split[list(ids).index(i)]] for i in by_hand] == ["train"] * 5 + ["validation"] + ["test"] * 4
    assert by_hand == [9, 10, 4, 3, 12, 1, 7, 2407890, 6, 5]  # in every release: no image changes sides
    assert split_by_hash(ids[::-1], np.arange(10))[::-1].tolist() == split.tolist()
    assert (split_by_hash(ids, np.arange(8))[8:] == -1).all()


def test_an_image_is_in_one_split(take):
    about, rows, _ = take({n: [thing(10 * n), thing(10 * n + 1)] for n in range(1, 10)})
    assert all(len({r["split"] for r in rows if r["image"] == f"{n}.jpg"}) == 1 for n in range(1, 10))
    assert [part["images"] for part in about["counts"]["splits"].values()] == [4, 0, 5]


def test_splits_from_a_file(take, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "splits.json").write_text('{"train": [2], "test": [1, 55]}')
    about, rows, rejected = take({1: [thing(11)], 2: [thing(21)], 3: [thing(31)]})
    assert [(r["id"], r["split"]) for r in rows] == [(11, "test"), (21, "train")]
    assert [(r["id"], r["reason"]) for r in rejected] == [(31, "in no split")]
    assert any("1 images that image_data.json lacks" in note for note in about["notes"])
    assert any("splits.json is used" in note for note in about["notes"])
    other = tmp_path / "parts.json"
    other.write_text('{"validation": [3]}')
    assert [r["id"] for r in take({1: [thing(11)], 3: [thing(31)]}, splits=other)[1]] == [31]


BAD_SPLITS = [
    ('{"train": [1, 2], "test": [2]}', "image 2 is in several splits"),
    ('{"train": [1], "dev": [2]}', "unknown field `dev`"),
    ('{"train": ["1"]}', r"Expected `int`, got `str` - at `\$.train\[0\]`"),
    ('{"train": [1', "truncated"),
]


@pytest.mark.parametrize(("text", "message"), BAD_SPLITS)
def test_bad_splits(take, tmp_path, text, message):
    path = tmp_path / "parts.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"parts\.json.*{message}"):
        take({1: [thing(11)]}, splits=path)


NOTHING = [
    ({1: [thing(11)]}, {"setting": "2017"}, "unknown setting '2017'; known: 2018, 2016, all"),
    ({1: [thing(11)]}, {"min_count": 0}, "min_count must be >= 1, got 0"),
    ({1: []}, {}, "nothing is left"),
    ({1: [thing(11, name=None)]}, {}, r"\(no name: 1\); an object needs .* a name"),
    ({77: [thing(11)]}, {}, r"\(image file missing: 1\); an object needs an image in .*images"),
    (
        {1: [thing(i) for i in range(100)]},
        {"setting": "2018"},
        r"\(class too rare: 100\); .*words that 101 objects have",
    ),
]


@pytest.mark.parametrize(("things", "options", "message"), NOTHING)
def test_bad_settings_and_nothing_left(take, tmp_path, things, options, message):
    with pytest.raises(ValueError, match=message):
        take(things, **options)
    assert not list(tmp_path.glob("out*"))


def test_the_papers_settings_keep_what_a_hundred_and_one_objects_have(take):
    about, rows, _ = take({1: [thing(i) for i in range(101)]}, setting="2018")
    assert (about["settings"]["min_count"], len(rows)) == (101, 101)
