"""Folders whose rows list any number of attributes, and what an import adds: sizes, mask values, dataset.json."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from test_manifest import FORMATS, write_table

from progressive_attention.data.images import Fit
from progressive_attention.data.manifest import from_folder, read_manifest
from progressive_attention.data.table import SCHEMA

ROWS = [
    {"image": "a.png", "query": "car", "attributes": ["red", "old"], "absent": ["wet", "red"], "split": "train"},
    {"image": "b.png", "query": "dog", "attributes": [], "absent": None, "split": "train"},
    {"image": "a.png", "query": "dog", "attributes": ["wet", "wet"], "absent": [], "split": "train"},
    {"image": "c.png", "query": "cup", "attributes": ["07; true"], "absent": ["old", "new"], "split": "test"},
]
NAMES = ("07; true", "new", "old", "red", "wet")
SIDE = 8


def cell(value):
    """A list as one writes it in CSV: null is blank."""
    if not isinstance(value, list):
        return value
    return " ; ".join(value) or "[]"


def write(folder, rows, form):
    return write_table(folder, [{k: cell(v) for k, v in r.items()} for r in rows] if form == "csv" else rows, form)


def without(rows, *names):
    return [{key: value for key, value in row.items() if key not in names} for row in rows]


def dense(questions):
    return questions.attribute[np.arange(len(questions))]


@pytest.fixture
def folder(tmp_path):
    for name, size in {"a": (8, 8), "b": (16, 8), "c": (8, 8)}.items():
        Image.new("RGB", size, (9, 9, 9)).save(tmp_path / f"{name}.png")
    return tmp_path


# --- lists of attributes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_lists_with_absent_ones(folder, form):
    write(folder, ROWS, form)
    train, test = (from_folder(folder, split, SIDE) for split in ("train", "test"))
    assert train.attribute_names == test.attribute_names == NAMES
    assert train.likelihood == "bernoulli"
    # red is in both lists of the first row: it holds
    assert_array_equal(dense(train), [[-1, -1, 1, 1, 0], [-1] * 5, [-1, -1, -1, -1, 1]])
    assert_array_equal(dense(test), [[1, 0, 0, -1, -1]])
    assert train.words(0) == ("car", ["old", "red"])
    assert_array_equal(train.attribute.totals, [[0, 0, 1, 1, 1], [0, 0, 1, 1, 2]])


@pytest.mark.parametrize("form", FORMATS)
def test_lists_alone_say_that_others_do_not_hold(folder, form):
    rows = [{**row, "attributes": [word.replace("; ", "-") for word in row["attributes"]]} for row in ROWS]
    write(folder, without(rows, "absent"), form)
    train = from_folder(folder, "train", SIDE)
    assert train.attribute_names == ("07-true", "old", "red", "wet")
    assert_array_equal(dense(train), [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    assert_array_equal(train.attribute.totals, [[0, 1, 1, 1], [3, 3, 3, 3]])
    assert_array_equal(train.image, [0, 1, 0])


def test_one_set_from_three_formats(folder):
    rows = [{**row, "attributes": row["attributes"][:1] * (i < 3)} for i, row in enumerate(ROWS)]
    sets = {}
    for form in FORMATS:
        write(folder, rows, form)
        sets[form] = from_folder(folder, "train", SIDE)
        (folder / f"manifest.{form}").unlink()
    for other in (sets["csv"], sets["jsonl"]):
        assert other.attribute_names == sets["parquet"].attribute_names
        assert_array_equal(dense(other), dense(sets["parquet"]))


def test_lists_as_one_writes_them_in_csv(folder):
    cells = ["red; old", "red;old;", " ; red ;; old", "red", "[]", " [] ", ";", "true; 07"]
    lines = [f"a.png,car,{cell},train" for cell in cells]
    (folder / "manifest.csv").write_text("\n".join(["image,query,attributes,split", *lines]))
    expected = [["old", "red"]] * 3 + [["red"]] + [[]] * 3 + [["07", "true"]]
    train = from_folder(folder, "train", SIDE)
    assert [train.words(row)[1] for row in range(len(train))] == expected


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_list_is_not_an_unknown_one(folder, form):
    """Where nothing is said about attributes, nobody may guess that none holds."""
    write(folder, [*ROWS[:2], {**ROWS[0], "attributes": None}], form)
    told = r"no attributes in 1 rows, the first is row 3; fill or drop them; write \[\] where none holds"
    with pytest.raises(ValueError, match=told):
        from_folder(folder, "train", SIDE)


def test_lists_of_any_arrow_type(folder):
    """Polars and pandas write large strings, large lists and dictionaries."""
    words = pa.array([["red", "old"], [], ["wet"]])
    columns = {"image": ["a.png"] * 3, "query": pa.array(["car", "dog", "car"]).dictionary_encode()}
    found = []
    columns["split"] = pa.array(["train"] * 3, pa.large_string())
    for attributes in (
        words,
        words.cast(pa.large_list(pa.large_string())),
        pa.array(["red;old", "[]", "wet"]),
        pa.array(["red; old", "[]", "wet"], pa.large_string()),
    ):
        pyarrow.parquet.write_table(pa.table({**columns, "attributes": attributes}), folder / "manifest.parquet")
        found.append(dense(from_folder(folder, "train", SIDE)))
    assert_array_equal(found, [[[1, 1, 0], [0, 0, 0], [0, 0, 1]]] * 4)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("column", ["attributes", "absent"])
@pytest.mark.parametrize("word", [None, "", "  "])
def test_blank_words_in_lists(folder, form, column, word):
    """The table is read, so that `pan data check` can tell the rows; what can't be asked is not."""
    write(folder, [*ROWS, {**ROWS[0], column: ["red", word]}], form)
    assert len(read_manifest(folder).table) == 5
    told = "has a blank word among its attributes and absent; leave it out .`pan data check` says where"
    with pytest.raises(ValueError, match=told):
        from_folder(folder, "test", SIDE)


@pytest.mark.parametrize("form", FORMATS)
def test_words_that_look_like_dates_and_numbers(folder, form):
    rows = [{"image": "a.png", "query": "2020-01-01", "attributes": ["2007-05-08T10:00:00", "1e3"], "split": "train"}]
    rows += [{**rows[0], "attributes": ["2007-05-08"]}, {**rows[0], "query": "1999-12-31", "attributes": []}]
    for some in (rows, rows[1:]):
        train = from_folder(write(folder, some, form), "train", SIDE)
        assert train.query_names == ("1999-12-31", "2020-01-01")
        assert [train.words(row)[1] for row in range(len(train))] == [sorted(row["attributes"]) for row in some]


@pytest.mark.parametrize("form", FORMATS)
def test_a_byte_order_mark_is_no_letter(folder, form):
    """As Excel writes it."""
    write(folder, without(ROWS, "absent"), form)
    path = folder / f"manifest.{form}"
    if form != "parquet":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert from_folder(folder, "train", SIDE).query_names == ("car", "cup", "dog")


words = st.text("abc é日'\",", min_size=1, max_size=3).map(str.strip).filter(bool)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(words, st.lists(words, max_size=3)), min_size=1, max_size=5))
def test_any_words_in_any_format(folder, some):
    rows = [{"image": "a.png", "query": query, "attributes": held, "split": "train"} for query, held in some]
    for form in FORMATS:
        for old in folder.glob("manifest.*"):
            old.unlink()
        questions = from_folder(write(folder, rows, form), "train", SIDE)
        assert [questions.words(row) for row in range(len(rows))] == [(q, sorted(set(held))) for q, held in some]


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_whole_numbers_with_blanks_between(folder, form):
    numbers = {"width": [8, None], "height": [8, None], "mask_value": [None, 3], "id": [7, None], "scale": [None, 2]}
    rows = [
        {"image": f"{name}.png", "query": "car", "attribute": "red", "split": "train"}
        | {column: values[row] for column, values in numbers.items()}
        for row, name in enumerate("ab")
    ]
    write_table(folder, rows, form)
    table = read_manifest(folder).table
    for name, values in numbers.items():
        assert table[name].type == SCHEMA.field(name).type
        assert table[name].to_pylist() == values
    train = from_folder(folder, "train", SIDE)
    assert_array_equal(train.images.sizes, [[8, 8], [16, 8]])
    assert_array_equal(train.scale, [np.nan, 2])


@pytest.mark.parametrize(
    "column, value",
    [("width", "8.5"), ("height", "tall"), ("mask_value", "1e12"), ("id", "x7"), ("x0", "1,5"), ("width", "9" * 12)],
)
def test_what_is_no_whole_number(folder, column, value):
    row = {"image": "a.png", "query": "car", "attribute": "red", "split": "train"}
    box = dict.fromkeys(("x0", "y0", "x1", "y1"), 1) if column == "x0" else {}
    write_table(folder, [row | box | {column: value}])
    with pytest.raises(ValueError, match=rf"{column} must hold numbers, or nothing where it is unknown \("):
        from_folder(folder, "train", SIDE)


def test_stated_numbers_may_be_written_as_floats(folder):
    """As pandas does where some are missing."""
    columns = {"image": ["a.png", "b.png"], "query": ["car", "car"], "attribute": ["red", "old"]}
    floats = {"width": [8.0, np.nan], "height": [8.0, np.nan], "mask_value": [np.nan, 255.0]}
    split = {"split": ["train"] * 2}
    pyarrow.parquet.write_table(pa.table({**columns, **floats, **split}), folder / "manifest.parquet")
    assert read_manifest(folder).table["mask_value"].to_pylist() == [None, 255]
    assert_array_equal(from_folder(folder, "train", SIDE).images.sizes, [[8, 8], [16, 8]])


def test_boxes_go_where_their_images_go(folder):
    box = {"x0": 1, "y0": 2, "x1": 13, "y1": 6.5}
    rows = [{"image": name, "query": "car", "attribute": "red", "split": "train", **box} for name in ("b.png", "a.png")]
    train = from_folder(write_table(folder, rows), "train", SIDE)
    assert_allclose(train.box, [Fit.into(SIDE, 16, 8).box([1, 2, 13, 6.5], 16, 8), [1, 2, 13, 6.5]])
    assert_allclose(train.box[0], [0.5, 3, 6.5, 5.25])


# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_targets_and_what_counts_for_nothing(folder, form):
    labels = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (8, 8))
    Image.fromarray(labels).save(folder / "m.png")
    row = {"image": "a.png", "query": "car", "attribute": "red", "split": "train"}
    rows = [
        row | {"mask": "m.png", "mask_value": 2, "mask_void": 255},
        row | {"mask": "m.png", "mask_value": None, "mask_void": None},
        row | {"mask": None, "mask_value": 1, "mask_void": 255},
        row | {"mask": "m.png", "mask_value": 1, "mask_void": 0},
    ]
    train = from_folder(write_table(folder, rows, form), "train", SIDE)
    nothing = np.zeros((8, 8), bool)
    assert_array_equal(train.masks[np.arange(4)], [labels == 2, labels > 0, nothing, labels == 1])
    assert_array_equal(train.void[np.arange(4)], [labels == 255, nothing, nothing, labels == 0])
    some = train.rows(np.array([3, 0]))
    assert_array_equal(some.masks[np.array([1, 0])], [labels == 2, labels == 1])
    assert_array_equal(some.void[np.array([1, 0])], [labels == 255, labels == 0])
    rows = [{**row, "mask_void": None} for row in rows]
    assert from_folder(write_table(folder, rows, form), "train", SIDE).void is None


# --- dataset.json -----------------------------------------------------------------------------------------------------


def lying(folder, about):
    write(folder, without(ROWS, "absent"), "parquet")
    (folder / "dataset.json").write_text(about if isinstance(about, str) else json.dumps(about))
    return folder


def test_images_and_masks_may_be_elsewhere(folder, tmp_path):
    far = tmp_path / "far"
    (far / "masks").mkdir(parents=True)
    for path in folder.glob("*.png"):
        path.rename(far / path.name)
    manifest = read_manifest(lying(folder, {"images": str(far), "masks": "far/masks", "source": "voc"}))
    assert (manifest.images.root, manifest.masks.root, manifest.about["source"]) == (far, far / "masks", "voc")
    assert (from_folder(folder, "train", SIDE).images[0] == 9).all()


@pytest.mark.parametrize("about", [{}, {"images": None, "masks": None}, {"images": "."}, {"masks": ""}])
def test_unless_told_they_are_beside_the_table(folder, about):
    manifest = read_manifest(lying(folder, about))
    assert manifest.images.root == manifest.masks.root == folder


LIES = [
    ({"images": "gone"}, r"gone is not a folder; give the one that holds the images"),
    ({"masks": "a.png"}, r"a\.png is not a folder"),
    ({"images": 5}, r"dataset\.json does not say where images and masks are"),
    ({"images": ["a"]}, r"dataset\.json does not say where images and masks are"),
    ({"masks": {"at": "here"}}, r"dataset\.json does not say where images and masks are"),
    ({"images": True}, r"dataset\.json does not say where images and masks are"),
    ({"images": "a\0b"}, r"b is not a folder; give the one that holds the images"),
    ({"images": "x" * 5000}, r"x is not a folder; give the one that holds the images"),
    ([], r"dataset\.json does not say where images and masks are"),
    ("null", r"dataset\.json does not say where images and masks are"),
    ("7", r"dataset\.json does not say where images and masks are"),
    ('"images"', r"dataset\.json does not say where images and masks are"),
    ('{"images": "a', r"dataset\.json is not valid JSON"),
    ("", r"dataset\.json is not valid JSON"),
]


@pytest.mark.parametrize("about, message", LIES, ids=[str(about)[:24] for about, _ in LIES])
def test_a_dataset_json_that_lies(folder, about, message):
    lying(folder, about)
    for reader in (read_manifest, lambda path: from_folder(path, "train", SIDE)):
        with pytest.raises(ValueError, match=message):
            reader(folder)


def test_a_dataset_json_of_other_bytes(folder):
    lying(folder, {})
    (folder / "dataset.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"dataset\.json is not valid JSON"):
        read_manifest(folder)
