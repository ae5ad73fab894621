"""The user's own data in folders: what a table in any form becomes as questions; bad folders say what is wrong."""

import json

import numpy as np
import pytest
from hand_tables import as_table, write_table
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from pyarrow import parquet

from progressive_attention.data.manifest import from_folder, read_manifest
from progressive_attention.data.table import SCHEMA, split_of

FORMATS = ("parquet", "csv", "jsonl")
RECTANGLE = (4, 2, 12, 8)
ROWS = [
    {"image": "c.png", "query": "dog, big", "attribute": "null", "split": "test", "scale": 2.0},
    {"image": "sub/b.png", "query": "07", "attribute": "true", "split": "train"},
    {"image": "a.png", "query": "7", "attribute": "red", "split": "train", "mask": "a-mask.png", "scale": 1.5},
    {"image": "c.png", "query": "7", "attribute": "old", "split": "validation", "scale": 2.0},
    {"image": "a.png", "query": "car", "attribute": "red", "split": "train", "mask": "a-mask.png", "scale": 3.0},
]
BOXES = [(1, 1, 2, 2), None, RECTANGLE, None, (0, 0, 40, 20)]
BOXED = [
    {**row, **dict(zip(("x0", "y0", "x1", "y1"), box or [None] * 4, strict=True))}
    for row, box in zip(ROWS, BOXES, strict=True)
]
NAMES = ("07", "7", "car", "dog, big"), ("null", "old", "red", "true")


@pytest.fixture
def folder(tmp_path):
    """a.png is 40 x 20 with a rectangle at (4, 2)-(12, 8), and its mask; b.png and c.png are squares."""
    (tmp_path / "sub").mkdir()
    picture, mask = Image.new("RGB", (40, 20), (90, 90, 90)), Image.new("L", (40, 20))
    picture.paste((200, 40, 10), RECTANGLE)
    mask.paste(1, RECTANGLE)
    picture.save(tmp_path / "a.png")
    mask.save(tmp_path / "a-mask.png")
    Image.new("RGB", (20, 20), (1, 2, 3)).save(tmp_path / "sub" / "b.png")
    Image.new("RGBA", (8, 8), (4, 5, 6, 255)).save(tmp_path / "c.png")
    return tmp_path


def write(folder, rows, form="jsonl"):
    write_table(folder / f"manifest.{form}", rows)
    return folder


def dense(questions):
    return questions.attribute[np.arange(len(questions))]


@pytest.mark.parametrize("form", FORMATS)
def test_one_set_from_three_formats(folder, form):
    write(folder, BOXED, form)
    train, test = from_folder(folder, "train", 20), from_folder(folder, "test", 20)
    assert train.name == f"{folder.name}/train"
    for questions in (train, test):  # one vocabulary for all splits; words stay as they were written
        assert (questions.query_names, questions.attribute_names) == NAMES
    assert_array_equal(train.image, [0, 1, 1])
    assert_array_equal(train.query, [0, 1, 2])
    assert_array_equal(train.attribute, [3, 2, 2])
    assert_array_equal(test.query, [3])
    assert_array_equal(test.attribute, [0])
    assert_array_equal(train.scale, [np.nan, 1.5, 3.0])
    assert_allclose(train.box, [[np.nan] * 4, [2, 6, 6, 9], [0, 5, 20, 15]])
    assert (train.images.shape, test.images.shape) == ((2, 20, 20, 3), (1, 20, 20, 3))
    assert_array_equal(train.images[0], np.broadcast_to([1, 2, 3], (20, 20, 3)))
    assert_array_equal(test.images[0], np.broadcast_to([4, 5, 6], (20, 20, 3)))
    masks = np.zeros((3, 20, 20), bool)
    masks[1:, 6:9, 2:6] = True  # the box of the rectangle
    assert_array_equal(train.masks[np.arange(3)], masks)
    assert_array_equal(train.masks[np.array([2, 0])], masks[[2, 0]])
    assert_array_equal(train.images[1][7, 3], (200, 40, 10))
    assert_array_equal(train.images[1][12, 12], (90, 90, 90))
    assert not train.images[1][[0, 4, 15, 19]].any()


def test_columns_may_be_left_out_or_empty(folder):
    empty = dict.fromkeys(("mask", "scale", "x0", "y0", "x1", "y1"))
    bare = {"image": "a.png", "query": 7, "attribute": 1}
    full = from_folder(write(folder, [{**bare, **empty}]), split_of("a.png"), 20)
    assert (full.query_names, full.attribute_names) == (("7",), ("1",))
    assert not full.masks[np.array([0])].any()
    assert_array_equal(full.scale, [np.nan])
    assert_array_equal(full.box, [[np.nan] * 4])
    bare = from_folder(write(folder, [bare]), split_of("a.png"), 20)
    assert (bare.masks, bare.scale, bare.box) == (None, None, None)


LISTED = [
    {"image": "a.png", "query": "car", "attributes": ["red", "old"], "absent": ["wet"], "split": "train"},
    {"image": "c.png", "query": "dog", "attributes": [], "absent": None, "split": "train"},
    {"image": "a.png", "query": "dog", "attributes": ["wet", "wet"], "absent": [], "split": "train"},
    {"image": "c.png", "query": "cup", "attributes": ["07"], "absent": ["old", "new"], "split": "test"},
]


@pytest.mark.parametrize("form", FORMATS)
def test_lists_with_absent_ones(folder, form):
    write(folder, LISTED, form)
    train, test = (from_folder(folder, split, 8) for split in ("train", "test"))
    assert train.attribute_names == test.attribute_names == ("07", "new", "old", "red", "wet")
    assert train.likelihood == "bernoulli"
    assert_array_equal(dense(train), [[-1, -1, 1, 1, 0], [-1] * 5, [-1, -1, -1, -1, 1]])
    assert_array_equal(dense(test), [[1, 0, 0, -1, -1]])
    assert train.words(0) == ("car", ["old", "red"])
    assert_array_equal(train.attribute.totals, [[0, 0, 1, 1, 1], [0, 0, 1, 1, 2]])
    write(folder, [{key: cell for key, cell in row.items() if key != "absent"} for row in LISTED], form)
    train = from_folder(folder, "train", 8)  # lists alone say that others are not true
    assert train.attribute_names == ("07", "old", "red", "wet")
    assert_array_equal(dense(train), [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]])


def test_targets_and_what_counts_for_nothing(folder):
    labels = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (8, 8))
    Image.fromarray(labels).save(folder / "m.png")
    row = {"image": "c.png", "query": "car", "attribute": "red", "split": "train"}
    rows = [
        row | {"mask": "m.png", "mask_value": 2, "mask_void": 255},
        row | {"mask": "m.png", "mask_value": None, "mask_void": None},
        row | {"mask": None, "mask_value": 1, "mask_void": 255},
        row | {"mask": "m.png", "mask_value": 1, "mask_void": 0},
    ]
    train = from_folder(write(folder, rows), "train", 8)
    nothing = np.zeros((8, 8), bool)
    assert_array_equal(train.masks[np.arange(4)], [labels == 2, labels > 0, nothing, labels == 1])
    assert_array_equal(train.void[np.arange(4)], [labels == 255, nothing, nothing, labels == 0])
    some = train.rows(np.array([3, 0]))
    assert_array_equal(some.masks[np.array([1, 0])], [labels == 2, labels == 1])
    assert_array_equal(some.void[np.array([1, 0])], [labels == 255, labels == 0])
    assert from_folder(write(folder, [{**row, "mask_void": None} for row in rows]), "train", 8).void is None


def test_masks_must_fit_their_images(folder):
    Image.new("L", (20, 40), 1).save(folder / "tall.png")
    messages = {"tall.png": r"is 20 x 40 pixels, expected 40 x 20", "gone.png": "not exist"}
    write(folder, [{**ROWS[2], "mask": mask} for mask in ("a-mask.png", *messages)])
    masks = from_folder(folder, "train", 20).masks  # read only when asked for
    assert masks[np.array([0])].sum() == 4 * 3
    for row, message in enumerate(messages.values(), 1):
        with pytest.raises(ValueError, match=message):
            masks[np.array([0, row])]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image": "../outside.png"}, r"'\.\./outside\.png' lies outside"),
        ({"image": "/etc/hostname"}, "'/etc/hostname' lies outside"),
        ({"mask": "sub/../../outside.png"}, "lies outside"),
        ({"image": "linked.png"}, r"'linked\.png' lies outside"),
        ({"image": "gone.png"}, r"1 of 1 images can't be used.*gone\.png does not exist"),
        ({"image": "notes.txt"}, r"notes\.txt can't be read as an image"),
        ({"split": "test"}, "no rows of split 'train'; its table has test"),
    ],
)
def test_paths_and_splits(folder, change, message):
    outside = folder.with_name("outside.png")
    Image.new("RGB", (4, 4)).save(outside)
    (folder / "linked.png").symlink_to(outside)
    (folder / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=message):
        from_folder(write(folder, [{**ROWS[2], **change}]), "train", 20)


def test_one_manifest_and_a_known_split(folder):
    with pytest.raises(ValueError, match=r"holds 0 manifests, expected one of manifest\.parquet, manifest\.csv, man"):
        from_folder(folder, "train", 20)
    with pytest.raises(ValueError, match="unknown split 'dev'; known: train, validation, test"):
        from_folder(folder, "dev", 20)
    write(write(folder, ROWS), ROWS, "csv")
    with pytest.raises(ValueError, match=f"{folder.name} holds 2 manifests, expected one of"):
        from_folder(folder, "train", 20)


def test_what_an_import_wrote_is_taken_as_it_is(folder):
    """No rule is applied again, and no header is read; but for a table that no import writes."""
    row = {**ROWS[2], "width": 4, "height": 2, "x0": -3, "y0": 0, "x1": 2, "y1": 1}
    (folder / "dataset.json").write_text(json.dumps({"format": 1}))
    columns = {name: [row[name]] * 2 for name in SCHEMA.names if name in row}
    parquet.write_table(as_table(columns), folder / "manifest.parquet")
    train = from_folder(folder, "train", 20)
    assert_array_equal(train.images.sizes, [[4, 2]])
    assert_array_equal(train.box, [[-15, 5, 10, 10]] * 2)
    parquet.write_table(as_table({**columns, "split": ["train", None]}), folder / "manifest.parquet")
    with pytest.warns(UserWarning, match="unknown split: 1|another size: 1"):
        assert_array_equal(from_folder(folder, "train", 20).box, [[0, 5, 1, 5.5]])


def test_images_and_masks_may_be_elsewhere(folder):
    far = folder / "far"
    (far / "masks").mkdir(parents=True)
    (folder / "c.png").rename(far / "c.png")
    about = {"images": str(far), "masks": "far/masks", "source": "voc"}
    (folder / "dataset.json").write_text(json.dumps(about))
    manifest = read_manifest(write(folder, ROWS[:1]))
    assert (manifest.images.root, manifest.masks.root, manifest.about["source"]) == (far, far / "masks", "voc")
    assert (from_folder(folder, "test", 8).images[0] == (4, 5, 6)).all()
    for about in ({}, {"images": None, "masks": None}, {"images": "."}, {"masks": ""}):
        (folder / "dataset.json").write_text(json.dumps(about))
        manifest = read_manifest(folder)
        assert manifest.images.root == manifest.masks.root == folder


@pytest.mark.parametrize(
    "about, message",
    [
        (b'{"images": "gone"}', "gone is not a folder"),
        (b'{"images": 5}', "does not say where images and masks are"),
        (b'{"masks": {"at": "here"}}', "does not say where images and masks are"),
        (json.dumps({"images": "a\0b"}).encode(), "b is not a folder"),
        (b"[]", "does not say where images and masks are"),
        (b'{"images": "a', "is not valid JSON"),
    ],
)
def test_a_dataset_json_that_lies(folder, about, message):
    write(folder, ROWS)
    (folder / "dataset.json").write_bytes(about)
    with pytest.raises(ValueError, match=message):
        read_manifest(folder)
