"""The user's own data in folders, with a table in three formats; bad ones say what is wrong."""

import csv
import decimal
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from progressive_attention.config import SPLITS
from progressive_attention.data.manifest import depth, from_folder, read_manifest, split_of

FORMATS = ("parquet", "csv", "jsonl")
ROWS = [
    {"image": "c.png", "query": "dog, big", "attribute": "null", "split": "test", "mask": None, "scale": 2.0},
    {"image": "sub/b.png", "query": "07", "attribute": "true", "split": "train", "mask": None, "scale": None},
    {"image": "a.png", "query": "7", "attribute": "red", "split": "train", "mask": "a-mask.png", "scale": 1.5},
    {"image": "c.png", "query": "7", "attribute": "old", "split": "validation", "mask": None, "scale": 2.0},
    {"image": "a.png", "query": "car", "attribute": "red", "split": "train", "mask": "a-mask.png", "scale": 3.0},
]
RECTANGLE = (4, 2, 12, 8)
BOXES = [(1, 1, 2, 2), None, RECTANGLE, None, (0, 0, 40, 20)]
NAMES = ("07", "7", "car", "dog, big"), ("null", "old", "red", "true")


def write_table(folder, rows, form="csv"):
    """A manifest and nothing else."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    path = folder / f"manifest.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(pa.table({n: [row.get(n) for row in rows] for n in names}), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
    return folder


def write_images(folder):
    """a.png is 40 x 20 with a rectangle at (4, 2)-(12, 8), and its mask; b.png and c.png are squares."""
    (folder / "sub").mkdir()
    picture, mask = Image.new("RGB", (40, 20), (90, 90, 90)), Image.new("L", (40, 20))
    picture.paste((200, 40, 10), RECTANGLE)
    mask.paste(1, RECTANGLE)
    picture.save(folder / "a.png")
    mask.save(folder / "a-mask.png")
    Image.new("RGB", (20, 20), (1, 2, 3)).save(folder / "sub" / "b.png")
    Image.new("RGBA", (8, 8), (4, 5, 6, 255)).save(folder / "c.png")
    return folder


def with_boxes(rows):
    return [{**row, **dict(zip(("x0", "y0", "x1", "y1"), box or [None] * 4, strict=True))} for row, box in rows]


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path)


@pytest.mark.parametrize("form", FORMATS)
def test_one_set_from_three_formats(folder, form):
    write_table(folder, with_boxes(zip(ROWS, BOXES, strict=True)), form)
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


@pytest.mark.parametrize("form", FORMATS)
def test_columns_may_be_left_out_or_empty(folder, form):
    rows = [{"image": "a.png", "query": 7, "attribute": 1, "mask": None, "scale": None, "x0": None}]
    rows = [{**row, "y0": None, "x1": None, "y1": None} for row in rows]
    split = split_of("a.png")
    full = from_folder(write_table(folder, rows, form), split, 20)
    assert (full.query_names, full.attribute_names) == (("7",), ("1",))
    assert not full.masks[np.array([0])].any()
    assert_array_equal(full.scale, [np.nan])
    assert_array_equal(full.box, [[np.nan] * 4])
    bare = from_folder(
        write_table(folder, [{n: row[n] for n in ("image", "query", "attribute")} for row in rows], form), split, 20
    )
    assert (bare.masks, bare.scale, bare.box) == (None, None, None)


def test_csv_words_stay_as_written(folder):
    (folder / "001").write_bytes((folder / "c.png").read_bytes())
    rows = ["001,07,true,train,", "001,1e3,false,train,", "001,07,true,test,"]
    (folder / "manifest.csv").write_text("\n".join(["image,query,attribute,split,mask", *rows]))
    train = from_folder(folder, "train", 8)
    assert (train.query_names, train.attribute_names) == (("07", "1e3"), ("false", "true"))
    assert_array_equal(train.images[:], np.broadcast_to([4, 5, 6], (1, 8, 8, 3)))
    assert not train.masks[np.arange(2)].any()


def test_images_never_straddle_splits(tmp_path):
    paths = [f"{i}.png" for i in range(3000)]
    write_table(tmp_path, [{"image": p, "query": q, "attribute": "x"} for q in ("car", "dog") for p in paths])
    split = read_manifest(tmp_path).table["split"].to_pylist()
    assert split[:3000] == split[3000:] == [split_of(path) for path in paths]
    assert split_of("a/b.png") == split_of("./a//b.png")
    golden = "train train train validation validation test"  # in every release: a split never leaks into another
    assert " ".join(map(split_of, paths[:6])) == golden
    share = [split.count(name) / len(split) for name in SPLITS]
    assert_allclose(share, [0.6, 0.2, 0.2], rtol=0, atol=0.03)


def base(**change):
    return {**ROWS[2], **change}


BAD_TABLES = [
    (
        [{"image": "a.png", "answer": "red"}],
        r"lacks the columns \['query', 'attribute'\]; it has \['image', 'answer'\]",
    ),
    ([base(spilt="train")], r"has an unknown column 'spilt'; is it 'split'\? known: image, query, "),
    ([base(attributes="red; old")], "has both attribute .exactly one holds. and attributes .any number do."),
    ([base(), base(query="")], "no query in 1 rows, the first is row 2; fill or drop them"),
    ([base(image=None), base(attribute=None), base(attribute=None)], "no image in 1 rows, the first is row 1"),
    ([base(attribute=None)], "no attribute in 1 rows, the first is row 1"),
    ([base(split="dev")], r"unknown split in .*manifest\.\w+ 'dev'; known: train, validation, test"),
    ([base(), base(split=None)], "no split in 1 rows, the first is row 2; fill or drop them"),
    ([base(scale="big")], r"scale must hold numbers, or nothing where it is unknown \(.*big"),
    ([base(x0=1, y0=1)], r"has only \['x0', 'y0'\] of the columns \['x0', 'y0', 'x1', 'y1'\]; a box needs all four"),
    ([base(scale=True)], r"scale must hold numbers, or nothing where it is unknown \(got bool, the first True"),
    ([base(mask_value="12:30:00")], "mask_value must hold numbers, or nothing where it is unknown"),
    ([base(id="2020-01-01")], "id must hold numbers, or nothing where it is unknown"),
    ([base(id=1e19)], "id must hold numbers, .*expected numbers of at most 9007199254740992"),
    ([base(id=-9.3e18)], "id must hold numbers, .*expected numbers of at most 9007199254740992"),
    ([base(x0=0, y0=0, x1=1e300, y1=1)], r"x1 must hold numbers, .*row 1 has 1e.300, which is infinite as a float"),
    ([base(), base(scale=float("-inf"))], "scale must hold numbers, .*row 2 has -inf, which is infinite as a double"),
    ([base(mask_value=float("inf"))], "mask_value must hold numbers, .*got inf, expected numbers of at most"),
    ([base(x0="left", y0=0, x1=3, y1=3)], r"x0 must hold numbers, or nothing where it is unknown \(.*left"),
    ([base(image="../outside.png")], r"'\.\./outside\.png' lies outside .*a manifest's paths must stay in its folder"),
    ([base(image="/etc/hostname")], "'/etc/hostname' lies outside .*a manifest's paths must stay in its folder"),
    ([base(mask="sub/../../outside.png")], "lies outside .*a manifest's paths must stay in its folder"),
    ([base(image="linked.png")], r"'linked\.png' lies outside .*a manifest's paths must stay in its folder"),
    ([base(image="gone.png")], r"1 of 1 images can't be used, more than 5%; the first: .*gone\.png does not exist"),
    ([base(image="notes.txt")], r"notes\.txt can't be read as an image"),
    (
        [base(split="test")],
        "has no rows of split 'train'; its table has test; name that split in the column split, or leave",
    ),
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("rows, message", BAD_TABLES, ids=[message[:20] for _, message in BAD_TABLES])
def test_bad_tables(folder, form, rows, message):
    outside = folder.with_name("outside.png")
    Image.new("RGB", (4, 4)).save(outside)
    (folder / "linked.png").symlink_to(outside)
    (folder / "notes.txt").write_text("no picture")
    write_table(folder, rows, form)
    with pytest.raises(ValueError, match=message):
        from_folder(folder, "train", 20)


@pytest.mark.parametrize("number", ["9" * 400, "1e999", "-" + "9" * 400, "1e39"])
def test_a_number_that_would_be_read_as_infinite(folder, number):
    told = "x1 must hold numbers, .*row 2 has .*, which is infinite as a float"
    head, row = "image,query,attribute,x0,y0,x1,y1\n", "a.png,car,red,0,0,{},1\n"
    (folder / "manifest.csv").write_text(head + row.format(7) + row.format(number))
    with pytest.raises(ValueError, match=told):
        read_manifest(folder)
    (folder / "manifest.csv").unlink()
    row = '{{"image": "a.png", "query": "car", "attribute": "red", "x0": 0, "y0": 0, "y1": 1, "x1": {}}}\n'
    (folder / "manifest.jsonl").write_text(row.format(7) + row.format(number))
    with pytest.raises(ValueError, match=f"{told}|can't be read: JSON parse error: Number too big"):
        read_manifest(folder)


def test_a_decimal_that_would_be_read_as_infinite(folder):
    columns = {name: pa.array([value]) for name, value in base(y0=0, x1=1, y1=1).items() if value is not None}
    columns["x0"] = pa.array([decimal.Decimal(10) ** 60])
    pyarrow.parquet.write_table(pa.table(columns), folder / "manifest.parquet")
    with pytest.raises(ValueError, match="x0 must hold numbers, .*row 1 has .*, which is infinite as a float"):
        read_manifest(folder)


@pytest.mark.parametrize("before", ["", "]" * 50_000, '{"a": "x\n', '{"\\"]": "]]]"}\n'])
def test_brackets_that_would_kill_the_process(folder, before):
    """Arrow's parser overflows the stack at some 30,000 of them."""
    (folder / "manifest.jsonl").write_text(before + '{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(ValueError, match=r"manifest.jsonl can't be read: brackets are \d+ deep, expected at most 100"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "line, deep",
    [("", 0), ("[[1], [2, {}]]", 3), ('{"a": "[[[", "b": ["\\"["]}', 2), ("]]]]", 0), ("]]]][[", 2), ('"a\\\\"[', 1)],
)
def test_depth(line, deep):
    assert depth(line.encode()) == deep


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("name, value", [("query", 8.0), ("attribute", 0.1), ("attributes", [8.0])])
def test_fractions_are_no_words(folder, form, name, value):
    """8.0 would have become the word 8, and a long number one with other digits."""
    row = {key: cell for key, cell in base().items() if name != "attributes" or key != "attribute"}
    write_table(folder, [{**row, name: value}], form)
    with pytest.raises(ValueError, match=f"{name} must hold .*got double, the first "):
        read_manifest(folder)


@pytest.mark.parametrize("form", FORMATS)
def test_tables_without_rows(tmp_path, form):
    empty = pa.table({name: pa.array([], pa.string()) for name in ("image", "query", "attribute")})
    if form == "parquet":
        pyarrow.parquet.write_table(empty, tmp_path / "manifest.parquet")
    else:
        (tmp_path / f"manifest.{form}").write_text("image,query,attribute\n" if form == "csv" else "")
    with pytest.raises(ValueError, match=r"manifest\.\w+ has no rows|manifest\.jsonl can't be read: Empty JSON file"):
        from_folder(tmp_path, "train", 20)


@pytest.mark.parametrize("form", FORMATS)
def test_tables_that_are_no_tables(tmp_path, form):
    (tmp_path / f"manifest.{form}").write_bytes(b'\x00\xff{"image: \n1,2\n1,2,3\n')
    with pytest.raises(ValueError, match=rf"manifest\.{form} can't be read: "):
        from_folder(tmp_path, "train", 20)


def test_one_manifest_and_a_known_split(folder):
    with pytest.raises(ValueError, match=r"holds 0 manifests, expected one of manifest\.parquet, manifest\.csv, man"):
        from_folder(folder, "train", 20)
    with pytest.raises(ValueError, match="unknown split 'dev'; known: train, validation, test"):
        from_folder(folder, "dev", 20)
    write_table(write_table(folder, ROWS), ROWS, "jsonl")
    with pytest.raises(ValueError, match=f"{folder.name} holds 2 manifests, expected one of"):
        from_folder(folder, "train", 20)


def test_masks_must_fit_their_images(folder):
    Image.new("L", (20, 40), 1).save(folder / "tall.png")
    (folder / "notes.txt").write_text("no picture")
    write_table(folder, [base(), base(mask="tall.png"), base(mask="notes.txt"), base(mask="gone.png")])
    masks = from_folder(folder, "train", 20).masks  # read only when asked for
    assert masks[np.array([0])].sum() == 4 * 3
    for row, message in enumerate(
        [r"tall\.png is 20 x 40 pixels, but its image 40 x 20; a mask must be of its image's", "can't be", "not exist"],
        1,
    ):
        with pytest.raises(ValueError, match=message):
            masks[np.array([0, row])]
