"""The user's own tables: three formats give one data set, and a row that can't be used is rejected with its line."""

import io
import unicodedata
import zipfile
from collections import Counter

import pyarrow as pa
import pytest
from hand_tables import COLUMNS, ROWS, write_pictures, write_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from progressive_attention.data.manifest import from_folder, split_of
from progressive_attention.data.table import MANIFEST, REJECTED_TABLE
from progressive_attention.data.tables import import_table, read_csv, typed


@pytest.fixture
def folder(tmp_path):
    return write_pictures(tmp_path)


def imported(path, **options):
    """dataset.json's content, the rows and the rejected ones."""
    out = path.parent / "out"
    told = import_table(path, out, **options)
    return told, *(parquet.read_table(out / name).to_pylist() for name in (MANIFEST, REJECTED_TABLE))


def from_text(folder, text, **options):
    """The same from a CSV's text."""
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return imported(folder / "t.csv", **options)


# --- what is right ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_one_set_from_three_formats(folder, form):
    told, rows, rejected = imported(write_table(folder / f"t.{form}", ROWS, COLUMNS))
    assert not rejected
    sizes = {"a.png": {"width": 40, "height": 20}, "sub/b.jpg": {"width": 8, "height": 6}}
    blank = dict.fromkeys(COLUMNS)
    assert rows == [{**blank, **row, **sizes[row["image"]]} for row in ROWS]
    assert told["source"] == form
    assert told["counts"] == {
        "images": 2,
        "rows": 4,
        "classes": 4,
        "attributes": 6,
        "splits": {"train": 3, "validation": 0, "test": 1},
    }
    assert told["mended"] == {}
    questions = from_folder(folder / "out", "train", 20)  # what training sees
    assert questions.query_names == ("07", 'a "cat"', "dog", "dog, big")
    assert questions.likelihood == "bernoulli"


def test_one_attribute_a_row(folder):
    _, rows, _ = from_text(folder, "image,query,attribute\na.png,dog,red; old\nsub/b.jpg,dog,07\n")
    assert [row["attribute"] for row in rows] == ["red; old", "07"]
    assert from_folder(folder / "out", rows[0]["split"], 20).likelihood == "softmax"


def test_splits_by_the_images_hash(folder):
    for i in range(40):
        Image.new("RGB", (2, 2)).save(folder / f"{i}.png")
    text = "image,query,attributes,split\n" + "".join(f"{i % 40}.png,{i},red,\n" for i in range(80))
    told, rows, _ = from_text(folder, text)
    assert [row["split"] for row in rows] == [split_of(row["image"]) for row in rows]
    assert min(told["counts"]["splits"].values()) > 0


def test_folders_and_zips_elsewhere(folder):
    images, masks = folder / "images", folder / "masks"
    images.mkdir()
    masks.mkdir()
    (folder / "m.png").rename(masks / "m.png")
    with zipfile.ZipFile(images / "images.zip", "w") as archive:
        archive.write(folder / "a.png", "deep/a.png")
    text = "image,query,attributes,mask\nimages.zip/deep/a.png,dog,red,m.png\nimages.zip/a.png,dog,red,m.png\n"
    told, rows, rejected = from_text(folder, text, images=images, masks=masks)
    assert (rows[0]["width"], rows[0]["height"]) == (40, 20)
    assert [row["reason"] for row in rejected] == ["image file missing"]
    assert (told["images"], told["masks"]) == (str(images), str(masks))


def test_spreadsheets_byte_order_mark_and_line_ends(folder):
    content = '\ufeffimage, query ,attributes\r\na.png,dog,été\r\n\r\nsub/b.jpg,"two\r\nlines",;\r\n'
    (folder / "t.csv").write_bytes(content.encode())
    _, rows, _ = imported(folder / "t.csv")
    assert [(row["query"], row["attributes"]) for row in rows] == [("dog", ["été"]), ("two\r\nlines", [])]


def test_words_are_mended_and_counted(folder):
    text = "image,query,attributes\n a.png, Dog ,Cafe\u0301;red;red\na.png,dog,RED; \n"
    told, rows, _ = from_text(folder, text)
    assert [(r["image"], r["query"], r["attributes"]) for r in rows] == [
        ("a.png", "Dog", ["Café", "red"]),
        ("a.png", "dog", ["RED"]),
    ]
    assert told["mended"] == {
        "words with blanks around them": 1,
        "words not in NFC (Unicode's composed form)": 1,
        "words listed twice": 1,
    }


words = st.text(st.characters(codec="utf-8", exclude_characters=";"), min_size=1).filter(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(words, st.lists(words, max_size=3), st.none() | st.floats(0, 1e6, width=32)), min_size=1))
def test_csv_gives_back_what_was_written(tmp_path, rows):
    table = [
        {"image": f"{i}.png", "query": query, "attributes": listed, "scale": number}
        for i, (query, listed, number) in enumerate(rows)
    ]
    raw = read_csv(write_table(tmp_path / "t.csv", table))
    columns = typed(tmp_path / "t.csv", raw, Counter())

    def tidy(word):
        return unicodedata.normalize("NFC", word.strip())

    assert columns == {
        "image": [row["image"] for row in table],
        "query": [tidy(query) for query, _, _ in rows],
        "attributes": [tuple(dict.fromkeys(map(tidy, listed))) for _, listed, _ in rows],
        "scale": [number for _, _, number in rows],
    }
    lines = io.StringIO((tmp_path / "t.csv").read_bytes().decode(), newline="").readlines()
    for number, row in zip(raw.numbers, table, strict=True):  # each row's line is where its image stands
        assert lines[number - 1].startswith(row["image"])


def test_jsonl_with_byte_order_mark_and_blank_lines(folder):
    line = '{"image": "a.png", "query": "dog", "attributes": []}'
    (folder / "t.jsonl").write_bytes(f"\ufeff{line}\r\n \r\n\r\n{line.replace('dog', 'cat')}".encode())
    _, rows, _ = imported(folder / "t.jsonl")
    assert [row["query"] for row in rows] == ["dog", "cat"]


def test_whole_numbers_are_words_in_jsonl(folder):
    row = {"image": "a.png", "query": 7, "attributes": [1, "1", None]}
    _, rows, _ = imported(write_table(folder / "t.jsonl", [row]))
    assert (rows[0]["query"], rows[0]["attributes"]) == ("7", ["1"])


def test_parquet_of_other_writers(folder):
    table = pa.table(
        {
            "image": pa.array(["a.png", "sub/b.jpg"]).dictionary_encode(),
            "query": pa.array(["dog", "cat"], pa.large_string()),
            "attributes": pa.array([["red"], []], pa.large_list(pa.large_string())),
            "id": pa.array([1.0, None], pa.float64()),
            "split": pa.array(["train", "test"]).dictionary_encode(),
        }
    )
    parquet.write_table(table, folder / "t.parquet")
    _, rows, rejected = imported(folder / "t.parquet")
    assert [(row["query"], row["attributes"], row["id"]) for row in rows] == [("dog", ["red"], 1), ("cat", [], None)]
    assert not rejected


# --- rows that can't be used ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("none.png,dog,red,train,,,,,", "image file missing"),
        ("t.csv,dog,red,train,,,,,", "image unreadable"),
        ("../a.png,dog,red,train,,,,,", "image outside"),
        ("/a.png,dog,red,train,,,,,", "image outside"),
        ("link.png,dog,red,train,,,,,", "image outside"),
        (" ,dog,red,train,,,,,", "no image"),
        ("a.png,,red,train,,,,,", "no query"),
        ("a.png, ,red,train,,,,,", "no query"),
        ("a.png,dog,,train,,,,,", "no attributes"),
        ("a.png,dog,red,Train,,,,,", "unknown split"),
        ("a.png,dog,red,val,,,,,", "unknown split"),
        ("a.png,dog,red,,,,,,", "unknown split"),
        ("a.png,dog,red,train,1,2,3,,", "incomplete box"),
        ("a.png,dog,red,train,1,2,nan,9,", "box not finite"),
        ("a.png,dog,red,train,1,2,1e999,9,", "box not finite"),
        ("a.png,dog,red,train,5,2,5,9,", "empty box"),
        ("a.png,dog,red,train,40,2,50,9,", "box outside the image"),
        ("a.png,dog,red,train,,,,,none.png", "mask file missing"),
        ("a.png,dog,red,train,,,,,../m.png", "mask outside"),
        ("sub/b.jpg,dog,red,train,,,,,m.png", "mask unusable"),
        ("a.png,good,red;old,train,1,2,99,9,m.png", "duplicate row"),
    ],
)
def test_bad_rows_are_rejected_with_their_line(folder, cells, reason):
    Image.new("RGB", (3, 3)).save(folder.parent / "beside.png")
    (folder / "link.png").symlink_to(folder.parent / "beside.png")
    head = "image,query,attributes,split,x0,y0,x1,y1,mask\na.png,good,red; old,train,1,2,99,9,m.png\n"
    told, rows, rejected = from_text(folder, head + cells + "\n")
    assert [row["query"] for row in rows] == ["good"]
    assert [row["reason"] for row in rejected] == [reason]
    assert rejected[0]["detail"].startswith("line 3")
    assert told["rejected"] == {reason: 1}


def test_null_is_unknown_and_an_empty_list_is_not(folder):
    rows = [{"image": "a.png", "query": q, "attributes": a} for q, a in [("x", []), ("y", None), ("z", ["red"])]]
    rows.append({"image": "a.png", "query": "w"})
    _, kept, rejected = imported(write_table(folder / "t.jsonl", rows))
    assert [(row["query"], row["attributes"]) for row in kept] == [("x", []), ("z", ["red"])]
    assert [(row["query"], row["reason"], row["detail"][:6]) for row in rejected] == [
        ("y", "no attributes", "line 2"),
        ("w", "no attributes", "line 4"),
    ]


def test_brackets_are_an_empty_list(folder):
    _, rows, _ = from_text(folder, "image,query,attributes\na.png,dog,red; old\na.png,cat, []\n")
    assert [row["attributes"] for row in rows] == [["red", "old"], []]


def test_contradictions(folder):
    _, rows, rejected = from_text(
        folder, "image,query,attribute,absent\na.png,dog,red,red; old\na.png,dog,red,old\na.png,cat,red,\n"
    )
    assert [row["absent"] for row in rows] == [["old"], None]
    assert [(row["reason"], row["detail"]) for row in rejected] == [
        ("contradiction", "line 2: ['red'] both hold and are absent")
    ]


def test_stated_sizes_give_way_to_the_files(folder):
    text = "image,query,attributes,width,height\na.png,x,red,40,20\na.png,y,red,20,40\na.png,z,red,,20\n"
    told, rows, _ = from_text(folder, text)
    assert {(row["width"], row["height"]) for row in rows} == {(40, 20)}
    assert told["mended"] == {"sizes that are not the image's": 1}
    assert "1 rows state another size" in told["notes"][0]


def test_a_set_is_the_same_each_time(folder):
    path = write_table(folder / "t.csv", ROWS, COLUMNS)
    for name in ("one", "two"):
        import_table(path, folder / name)
    assert (folder / "one" / MANIFEST).read_bytes() == (folder / "two" / MANIFEST).read_bytes()
