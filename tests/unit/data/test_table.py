"""The one reader of tables, in three forms, and an imported data set on disk, whole or not at all."""

import io
import json
import shutil
import unicodedata
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hand_tables import COLUMNS, ROWS, as_table, write_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from progressive_attention.config import SPLITS
from progressive_attention.data import table as module
from progressive_attention.data.manifest import from_folder, read_manifest
from progressive_attention.data.table import (
    BOX,
    REJECTED,
    SCHEMA,
    read_table,
    split_of,
    tidy_lists,
    tidy_words,
    write_dataset,
)
from progressive_attention.files import read_json

FORMATS = ("csv", "jsonl", "parquet")
in_a_folder = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
words = st.text(st.characters(codec="utf-8", exclude_characters=";"), min_size=1, max_size=5).filter(str.strip)


def tidy(word):
    return unicodedata.normalize("NFC", word.strip())


@pytest.mark.parametrize("form", FORMATS)
def test_one_table_from_three_forms(tmp_path, form):
    rows = read_table(write_table(tmp_path / f"t.{form}", ROWS, COLUMNS))
    assert rows.table.to_pylist() == [{**dict.fromkeys(COLUMNS), **row} for row in ROWS]
    assert all(field.type == SCHEMA.field(field.name).type for field in rows.table.schema)
    assert not +rows.repaired
    start = 1 if form == "csv" else 0  # below the header
    assert (rows.unit, [*rows.numbers]) == ("row" if form == "parquet" else "line", [start + n for n in (1, 2, 3, 4)])


@in_a_folder
@given(st.lists(st.tuples(words, st.lists(words, max_size=3), st.none() | st.floats(0, 1e6, width=32)), min_size=1))
def test_any_words_and_numbers_from_any_form(tmp_path, some):
    table = [
        {"image": f"{i}.png", "query": query, "attributes": listed, "scale": number, "split": "train"}
        for i, (query, listed, number) in enumerate(some)
    ]
    expected = [
        {**row, "query": tidy(row["query"]), "attributes": list(dict.fromkeys(map(tidy, row["attributes"])))}
        for row in table
    ]
    for form in FORMATS:
        rows = read_table(write_table(tmp_path / f"t.{form}", table))
        assert rows.table.to_pylist() == expected
        if form == "csv":  # each row's line is where its image is
            lines = io.StringIO((tmp_path / "t.csv").read_bytes().decode(), newline="").readlines()
            assert [lines[n - 1].split(",")[0] for n in rows.numbers] == [row["image"] for row in table]


@pytest.mark.parametrize("form", FORMATS)
def test_words_that_look_like_something_else(tmp_path, form):
    looks = ["07", "1e3", "true", "null", "NA", "2020-01-01", "2007-05-08T10:00:00", "[red]"]
    rows = [{"image": word, "query": word, "attributes": [word], "split": "train"} for word in looks]
    assert read_table(write_table(tmp_path / f"t.{form}", rows)).table.to_pylist() == rows


def test_spreadsheets_byte_order_mark_and_line_ends(tmp_path):
    (tmp_path / "t.csv").write_bytes(
        '\ufeffimage, query ,attributes\r\na,dog,été\r\n\r\nb,"two\r\nlines",;\r\n'.encode()
    )
    rows = read_table(tmp_path / "t.csv")
    assert rows.table.select(["query", "attributes"]).to_pydict() == {
        "query": ["dog", "two\r\nlines"],
        "attributes": [["été"], []],
    }
    assert rows.numbers == [2, 4]
    line = '{"image": "a", " query": "dog", "attributes": []}'
    (tmp_path / "t.jsonl").write_bytes(f"\ufeff{line}\r\n \r\n\r\n{line.replace('dog', 'cat')}".encode())
    rows = read_table(tmp_path / "t.jsonl")
    assert (rows.table["query"].to_pylist(), rows.numbers) == (["dog", "cat"], [1, 4])


def test_lists_as_one_writes_them(tmp_path):
    cells = ["red; old", "red;old;", " ; red ;; old", "red", "[]", " [] ", ";", "true; 07", ""]
    (tmp_path / "t.csv").write_text("image,query,attributes\n" + "".join(f"a,b,{cell}\n" for cell in cells))
    expected = [["red", "old"]] * 3 + [["red"]] + [[]] * 3 + [["true", "07"], None]
    assert read_table(tmp_path / "t.csv").table["attributes"].to_pylist() == expected
    rows = [{"image": "a", "query": 7, "attributes": cell} for cell in (*cells, [1, "1", True, None, " "], None)]
    table = read_table(write_table(tmp_path / "t.jsonl", rows)).table
    assert table["attributes"].to_pylist() == [*expected, ["1", "true"], None]
    assert table["query"].to_pylist() == ["7"] * len(rows)


def test_parquet_of_other_writers(tmp_path):
    """Polars and pandas write large strings, large lists and dictionaries, floats for whole numbers, NaN for none."""
    lists = pa.array([["red", "old"], []])
    for attributes in (lists, lists.cast(pa.large_list(pa.large_string())), pa.array(["red;old", "[]"])):
        columns = {
            "image": pa.array(["a.png", "b.jpg"]).dictionary_encode(),
            "query": pa.array(["dog", "cat"], pa.large_string()),
            "attributes": attributes,
            "id": pa.array([1.0, np.nan], pa.float64()),
            "scale": pa.array([np.nan, 2], pa.float64()),
            **{name: pa.array([0.5, np.nan], pa.float64()) for name in BOX},
            "split": pa.array(["train", "test"]).dictionary_encode(),
        }
        parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
        table = read_table(tmp_path / "t.parquet").table
        assert table["attributes"].to_pylist() == [["red", "old"], []]
        assert (table["id"].to_pylist(), table["scale"].to_pylist(), table["x0"].to_pylist()) == (
            [1, None],
            [None, 2],
            [0.5, None],
        )
        assert table.schema == pa.schema([SCHEMA.field(name) for name in columns])


@given(
    st.lists(st.none() | st.text(max_size=4)),
    st.lists(st.none() | st.lists(st.none() | st.text(" ae\u0301", max_size=2))),
)
def test_tidy_words_are_bare_and_composed_and_each_once(some, lists):
    repaired = Counter()
    found = tidy_words(pa.array(some, pa.string()), repaired).to_pylist()
    assert found == [None if word is None else tidy(word) or None for word in some]
    known = [word for word in some if word is not None]
    assert repaired["words with blanks around them"] == sum(word.strip() != word for word in known)
    assert repaired["words not in NFC (Unicode's composed form)"] == sum(tidy(word) != word.strip() for word in known)
    repaired = Counter()
    expected = [words and [*dict.fromkeys(tidy(word) for word in words if word and tidy(word))] for words in lists]
    assert tidy_lists(pa.array(lists, pa.list_(pa.string())), repaired).to_pylist() == expected
    full = sum(bool(word and tidy(word)) for words in lists for word in words or ())
    assert repaired["words listed twice"] == full - sum(len(words or ()) for words in expected)


def test_images_never_straddle_splits(tmp_path):
    paths = [f"{i}.png" for i in range(3000)]
    rows = [{"image": p, "query": q, "attribute": "x", "split": None} for q in ("car", "dog") for p in paths]
    split = read_table(write_table(tmp_path / "t.jsonl", rows)).table["split"].to_pylist()
    assert split[:3000] == split[3000:] == [split_of(path) for path in paths]
    assert split_of("a/b.png") == split_of("./a//b.png")
    golden = "train train train validation validation test"  # in every release: a split never leaks into another
    assert " ".join(map(split_of, paths[:6])) == golden
    np.testing.assert_allclose([split.count(name) / len(split) for name in SPLITS], [0.6, 0.2, 0.2], atol=0.03)


FILES = ["dataset.json", "manifest.parquet", "rejected.parquet"]
WRITTEN = {
    "image": ["a.png", "b.png", "a.png"],
    "query": ["car", "dog", "07"],
    "attributes": [["red", "old"], [], ["red"]],
    "absent": [["wet"], None, []],
    "split": ["train", "test", "train"],
    **dict(zip(BOX, [[0.5, None, 1], [0, None, 2], [3, None, 7.25], [4, None, 8]], strict=True)),
    "width": [8, 8, 8],
    "height": [8, None, 8],
    "id": [2**60, None, 3],
}
REFUSED = {
    "image": ["c.png", None, "d.png"],
    "query": ["cup", None, None],
    "id": [1, None, 2],
    "reason": ["bad", "no image", "no image"],
    "detail": ["c.png", "line 3", ""],
}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in {"a": (9, 8, 7), "b": (1, 2, 3)}.items():
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
    return folder


def write(out, images, **changes):
    given = {"source": "test", "images": images, "masks": None, **changes}
    return write_dataset(out, as_table(WRITTEN, SCHEMA), as_table(REFUSED, REJECTED), **given)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_data_sets_folder_is_read_back_the_same(tmp_path, images):
    out = tmp_path / "deep" / "set"
    about = write(out, images, settings={"min_count": 3}, notes=["naïve 日本"])
    assert (names(out), names(out.parent)) == (FILES, ["set"])
    assert about == read_json(out / "dataset.json")
    assert about == {
        "format": 1,
        "source": "test",
        "images": str(images),
        "masks": None,
        "settings": {"min_count": 3},
        "notes": ["naïve 日本"],
        "rows": 3,
        "rejected": {"no image": 2, "bad": 1},
    }
    assert list(about["rejected"]) == ["no image", "bad"]  # the most frequent first
    assert oct(out.stat().st_mode & 0o777) == "0o755"  # as any folder, though it was a temporary one
    assert parquet.read_table(out / "rejected.parquet").to_pydict() == REFUSED
    manifest = read_manifest(out)
    assert manifest.table.to_pydict() == WRITTEN
    assert manifest.table.schema == pa.schema([field for field in SCHEMA if field.name in WRITTEN])
    assert (manifest.name, manifest.images.root, manifest.masks.root) == ("set", images, out)


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("there", [False, True])
def test_nothing_half_written(tmp_path, images, monkeypatch, call, there):
    """Failing at the first table, the second, or the last file."""
    out, calls = tmp_path / "sets" / "set", []
    if there:
        out.mkdir(parents=True)

    def failing(write):
        def wrapped(*args, **options):
            calls.append(1)
            write(*args, **options)
            if len(calls) == call:
                raise KeyboardInterrupt

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(module.parquet, "write_table", failing(module.parquet.write_table))
        patch.setattr(module, "write_json", failing(module.write_json))
        with pytest.raises(KeyboardInterrupt):
            write(out, images)
    assert (len(calls), names(out.parent)) == (call, ["set"] * there)
    assert not there or not names(out)
    write(out, images)  # and nothing is in the way of another try
    assert names(out) == FILES


@pytest.mark.parametrize("what", ["folder", "link", "here"])
def test_an_empty_folder_is_taken(tmp_path, images, monkeypatch, what):
    (tmp_path / "disk").mkdir()
    (tmp_path / "set").symlink_to(tmp_path / "disk") if what == "link" else (tmp_path / "set").mkdir()
    if what == "here":
        monkeypatch.chdir(tmp_path / "set")
    write(module.Path(".") if what == "here" else tmp_path / "set", images)
    assert names(tmp_path / "set") == FILES
    assert (tmp_path / "set").is_symlink() == (what == "link")
    assert names(tmp_path) == ["disk", "images", "set"]


@pytest.mark.parametrize("what", ["file", "hidden", "earlier"])
def test_nothing_is_replaced(tmp_path, images, what):
    out = tmp_path / "set"
    if what == "file":
        out.write_text("mine")
    elif what == "earlier":
        write(out, images)
    else:
        out.mkdir()
        (out / ".hidden").write_text("mine")
    before = {path: path.read_bytes() for path in [out, *out.glob("*"), *out.glob(".*")] if path.is_file()}
    with pytest.raises(ValueError, match="set is there already and not empty"):
        write(out, images)
    assert {path: path.read_bytes() for path in [out, *out.glob("*"), *out.glob(".*")] if path.is_file()} == before
    assert names(tmp_path) == ["images", "set"]


def test_a_set_with_its_images_can_be_moved(tmp_path, images):
    """Its images may come after it, as when they are unpacked there."""
    out = tmp_path / "set"
    about = write(out, out / "photos" / "2007", masks=out)
    assert (about["images"], about["masks"]) == ("photos/2007", ".")
    (out / "photos").mkdir()
    shutil.move(images, out / "photos" / "2007")
    shutil.move(out, tmp_path / "elsewhere")
    assert (from_folder(tmp_path / "elsewhere", "train", 8).images[0] == (9, 8, 7)).all()


def test_images_elsewhere_are_found_wherever_the_set_goes(tmp_path, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    about = write(module.Path("set"), module.Path("images"), masks=module.Path("set/../images"))
    assert (about["images"], about["masks"]) == (str(images), str(images))
    shutil.move("set", tmp_path / "deep")
    assert (from_folder(tmp_path / "deep", "test", 8).images[0] == (1, 2, 3)).all()
    (tmp_path / "imagesets").mkdir()
    assert write(images / "set", tmp_path / "imagesets")["images"] == str(tmp_path / "imagesets")  # not inside
    assert json.loads((images / "set" / "dataset.json").read_text())["images"] == str(tmp_path / "imagesets")
