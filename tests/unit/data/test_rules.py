"""One rule each: what an import repairs or rejects, loading repairs or leaves out, and ``pan data check`` reports."""

import csv
import warnings
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from pyarrow import parquet

from progressive_attention.data.audit import audit
from progressive_attention.data.checks import KINDS, alike, fit_boxes
from progressive_attention.data.images import BoxMasks
from progressive_attention.data.manifest import from_folder, read_manifest
from progressive_attention.data.rows import import_table
from progressive_attention.data.table import BOX, MANIFEST, REJECTED_TABLE

SIDE = 20
BASE = {"image": "wide.png", "query": "dog", "attributes": "red", "split": "train"}
FIRST = {**BASE, "query": "cat"}


class Seen(NamedTuple):
    """What import, load and check make of a table."""

    about: dict[str, Any]
    rows: list[dict[str, Any]]
    rejected: list[tuple[str, str]]  # reason and detail
    questions: Any
    warned: str
    kinds: dict[str, list[int]]  # of the check: kind -> its rows, from 1
    usable: int


@pytest.fixture
def see(tmp_path):
    """Import a CSV, and load and check it as it is; both pictures are 40 x 20."""

    def seen(*rows, names=None, folder="set"):
        home = tmp_path / folder
        home.mkdir()
        for name in ("wide.png", "other.png"):
            Image.new("RGB", (40, 20), (9, 9, len(name))).save(home / name)
        names = names or list(dict.fromkeys(name for row in rows for name in row))
        with (home / "manifest.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        about = import_table(home / "manifest.csv", tmp_path / f"{folder}-imported")
        rows, rejected = (
            parquet.read_table(tmp_path / f"{folder}-imported" / n).to_pylist() for n in (MANIFEST, REJECTED_TABLE)
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            questions = from_folder(home, "train", SIDE)
        report = audit(home)
        kinds = {f["kind"]: [row for item in f["items"] for row in item["rows"]] for f in report["findings"]}
        kinds = {kind: found for kind, found in kinds.items() if found}
        usable = report["splits"]["train"]["usable"]
        told = [(row["reason"], row["detail"]) for row in rejected]
        return Seen(about, rows, told, questions, "; ".join(str(w.message) for w in caught), kinds, usable)

    return seen


def same_questions(seen):
    """The imported rows are those that are loaded from the table itself, with the same boxes."""
    questions = seen.questions
    assert len(seen.rows) == len(questions) == seen.usable
    assert [row["query"] for row in seen.rows] == [questions.query_names[q] for q in questions.query]
    if questions.box is not None:
        boxes = np.array([[np.nan if row.get(n) is None else row[n] for n in BOX] for row in seen.rows])
        assert_allclose(questions.box, boxes / 2 + [0, 5, 0, 5])  # 40 x 20 lies in rows 5 to 15 of the square


def box(x0, y0, x1, y1):
    return dict(zip(BOX, (x0, y0, x1, y1), strict=True))


def test_an_attribute_both_true_and_absent(see):
    seen = see({**FIRST, "absent": "old"}, {**BASE, "attributes": "old; red", "absent": "red;wet"})
    assert seen.rejected == [("contradiction", "line 3: ['red'] both true and absent")]
    assert seen.kinds["contradiction"] == [2]
    assert "contradiction: 1" in seen.warned
    same_questions(seen)


def test_a_box_over_the_edge_is_measured_where_the_picture_is(see):
    seen = see({**FIRST, **box(-10, -30, 20, 90)}, {**BASE, **box(1, 1, 3, 3)})
    assert [seen.rows[0][name] for name in BOX] == [0, 0, 20, 20]
    assert seen.about["mended"] == {"boxes clipped to the image": 1}
    assert seen.kinds["box reaching out of its image"] == [1]
    assert "box reaching out of its image: 1" in seen.warned
    same_questions(seen)
    expected = np.zeros((SIDE, SIDE), bool)
    expected[5:15, :10] = True  # not over the black above and below
    assert_array_equal(BoxMasks(seen.questions.box, SIDE)[np.array([0])][0], expected)


def test_half_a_box_is_left_out_and_the_question_stays(see):
    seen = see({**FIRST, **box(1, 2, 3, "")}, {**BASE, **box("", "", "", "")})
    assert not seen.rejected
    assert seen.about["mended"] == {"incomplete boxes left out": 1}
    assert seen.kinds["incomplete box"] == [1]
    assert "incomplete box: 1" in seen.warned
    assert np.isnan(seen.questions.box).all()
    assert len(seen.rows) == len(seen.questions) == seen.usable == 2


def test_a_size_that_is_stated_wrong_gives_way_to_the_file(see):
    size = {"width": 20, "height": 40}
    seen = see({**FIRST, **size, **box(30, 0, 50, 20)}, {**BASE, "image": "other.png", **box(0, 0, 1, 1)})
    assert (seen.rows[0]["width"], seen.rows[0]["height"]) == (40, 20)
    assert seen.about["mended"] == {"sizes that are not the image's": 1, "boxes clipped to the image": 1}
    assert seen.kinds["image of another size"] == [1]
    assert "image of another size: 1" in seen.warned
    same_questions(seen)
    assert seen.questions.images[np.array([0])][0, 10].any()  # and it is not black
    assert not seen.questions.images.unreadable


def test_a_repeated_row_is_asked_once(see):
    """The order of a list says nothing; another box is another object."""
    first = {**BASE, "attributes": "red; old", **box(0, 0, 9, 90)}
    seen = see(first, {**first, "attributes": "old;red;old", **box(0, 0, 9, 20)}, {**first, **box(0, 0, 8, 9)})
    assert seen.rejected == [("duplicate row", "line 3: the same as line 2")]
    assert seen.kinds["duplicate row"] == [1, 2]
    assert "duplicate row: 1" in seen.warned
    same_questions(seen)


def test_blanks_around_words_and_headers_go(see):
    rows = [
        {" image": " wide.png", "query ": " dog ", "attributes": " red ; ; red", " split ": "train "},
        {" image": "./wide.png", "query ": "cafe\u0301", "attributes": "red", " split ": "train"},
    ]
    seen = see(*rows)
    assert [(row["image"], row["query"], row["attributes"]) for row in seen.rows] == [
        ("wide.png", "dog", ["red"]),
        ("wide.png", "caf\u00e9", ["red"]),
    ]
    assert seen.about["mended"] == {
        "words with blanks around them": 2,
        "words not in NFC (Unicode's composed form)": 1,
        "words listed twice": 1,
    }
    assert seen.questions.images.paths == ["wide.png"]
    assert (seen.questions.attribute_names, seen.warned) == (("red",), "")
    assert seen.kinds == {}
    same_questions(seen)


@pytest.mark.parametrize("cell", ["NA", "nan", "null", "0x1F", "1_0", "1,5", "١", "1e999", "-inf", "1e39", "true"])
@pytest.mark.parametrize("column", ["x1", "mask_value"])
def test_what_is_no_number_is_named_by_all_three(tmp_path, cell, column):
    row = {**BASE, **box(0, 0, 5, 5), "mask_value": ""}
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerows([row, {**row, column: cell}])
    for reader in (
        lambda: import_table(path, tmp_path / "out"),
        lambda: read_manifest(tmp_path),
        lambda: audit(tmp_path),
    ):
        with pytest.raises(ValueError, match=rf"manifest.csv, line 3, column {column}: expected a .*number.*{cell}"):
            reader()


def test_an_empty_number_is_unknown(see):
    seen = see({**FIRST, "scale": "", "mask_value": " "}, {**BASE, "scale": "1.5", "mask_value": "8.0"})
    assert [(row["scale"], row["mask_value"]) for row in seen.rows] == [(None, None), (1.5, 8)]
    assert_array_equal(seen.questions.scale, [np.nan, 1.5])


@pytest.mark.parametrize(
    "change, kind",
    [
        ({"image": ""}, "no image"),
        ({"query": " "}, "no query"),
        ({"attributes": ""}, "no attributes"),
        ({"split": "val"}, "unknown split"),
        ({"split": ""}, "unknown split"),
        (box(5, 2, 5, 9), "empty box"),
        (box(40, 2, 50, 9), "box outside the image"),
    ],
)
def test_rows_that_cannot_be_used(see, change, kind):
    seen = see({**FIRST, **box(0, 0, 1, 1)}, {**BASE, **box(0, 0, 1, 1), **change})
    assert [reason for reason, _ in seen.rejected] == [kind]
    assert seen.rejected[0][1].startswith("line 3")
    assert seen.kinds[kind] == [2]
    assert KINDS[kind][0] == "error"
    assert f"{kind}: 1" in seen.warned
    same_questions(seen)


def test_without_a_row_that_can_be_used(tmp_path):
    (tmp_path / "manifest.csv").write_text("image,query,attribute,split\na.png,dog,red,dev\n")
    with pytest.raises(ValueError, match=r"no row of .* can be used \(unknown split: 1\)"):
        from_folder(tmp_path, "train", SIDE)
    with pytest.raises(ValueError, match=r"no row of .*manifest.csv can be used: "):
        import_table(tmp_path / "manifest.csv", tmp_path / "out")


def fitted(sides, width, height):
    table = pa.table({"image": ["a"]} | {n: pa.array([side], pa.float32()) for n, side in zip(BOX, sides, strict=True)})
    boxes, findings = fit_boxes(table, np.array([[width, height]]))
    return [None if np.isnan(side) else side for side in boxes[0]], [finding.kind for finding in findings]


@pytest.mark.parametrize(
    "sides, expected, kinds",
    [
        ((1, 2, 3, 4), [1, 2, 3, 4], []),
        ((-5, -1, 50, 21), [0, 0, 40, 20], ["box reaching out of its image"]),
        ((None,) * 4, [None] * 4, []),
        ((None, None, None, 0), [None] * 4, ["incomplete box"]),
        ((0, 0, float("inf"), 4), None, ["empty box"]),
        ((3, 3, 3, 9), None, ["empty box"]),
        ((0, 20, 5, 29), None, ["box outside the image"]),
    ],
)
def test_boxes_by_hand(sides, expected, kinds):
    found, why = fitted(sides, 40, 20)
    assert why == kinds
    assert expected is None or found == expected


@given(*[st.integers(-10, 30)] * 4, st.integers(1, 20), st.integers(1, 20))
def test_clipped_boxes_cover_the_same_pixels_of_the_image(x0, y0, x1, y1, width, height):
    pixels = {(x, y) for x in range(x0, x1) for y in range(y0, y1) if 0 <= x < width and 0 <= y < height}
    found, kinds = fitted((x0, y0, x1, y1), width, height)
    if kinds in (["empty box"], ["box outside the image"]):
        assert not pixels
    else:
        u0, v0, u1, v1 = map(int, found)
        assert {(x, y) for x in range(u0, u1) for y in range(v0, v1)} == pixels != set()


def test_alike_rows():
    rng = np.random.default_rng(1)
    lists = [rng.choice(["red", "old", "big", "new"], rng.integers(0, 4)).tolist() for _ in range(300)]
    images = rng.choice(["a", "b", "c"], 300).tolist()
    sides = [None if x == 2 else float(x) for x in rng.integers(0, 3, 300)]
    keys = [(image, x, frozenset(words)) for image, x, words in zip(images, sides, lists, strict=True)]
    groups = [[i for i, key in enumerate(keys) if key == some] for some in set(keys)]
    table = pa.table({"image": images, "x0": sides, "attributes": pa.array(lists, pa.list_(pa.string()))})
    assert sorted(alike(table, table.column_names)) == sorted(group for group in groups if len(group) > 1)
    assert max(map(len, groups)) > 3
