"""The user's own tables: three formats give one data set; what is wrong is named, with its line."""

import csv
import io
import json
import unicodedata
import zipfile
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from progressive_attention.data.manifest import from_folder, split_of
from progressive_attention.data.table import MANIFEST, REJECTED_TABLE
from progressive_attention.data.tables import import_table, read_csv, typed

BOX = {"x0": 1.5, "y0": 2, "x1": 9, "y1": 8}
ROWS = [
    {"image": "a.png", "query": "dog", "attributes": ["red", "old"], "split": "train", **BOX},
    {"image": "sub/b.jpg", "query": "07", "attributes": [], "split": "test", "id": 2**53 + 1},
    {"image": "a.png", "query": "dog, big", "attributes": ["true"], "split": "train", "absent": ["null", "1.0"]},
    {"image": "a.png", "query": 'a "cat"', "attributes": ["été"], "split": "train", "mask": "m.png", "mask_value": 3},
]
COLUMNS = list(dict.fromkeys(name for row in ROWS for name in row))


def write_table(path, rows, names=None):
    """The rows in the format of the path's ending."""
    names = names or list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for row in rows:
                writer.writerow({n: "; ".join(v) or ";" if isinstance(v, list) else v for n, v in row.items()})
    return path


@pytest.fixture
def folder(tmp_path):
    """Pictures a.png 40 x 20 and sub/b.jpg 8 x 6, and a mask m.png for the first."""
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "sub" / "b.jpg")
    Image.new("L", (40, 20), 3).save(tmp_path / "m.png")
    return tmp_path


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
    with zipfile.ZipFile(images / "z.zip", "w") as archive:
        archive.write(folder / "a.png", "deep/a.png")
    text = "image,query,attributes,mask\nz.zip/deep/a.png,dog,red,m.png\nz.zip/a.png,dog,red,m.png\n"
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


# --- tables that can't be used ----------------------------------------------------------------------------------------

HEAD = "image,query,attributes"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"lacks the columns .*image"),
        (HEAD, r"has no rows"),
        ("image,query\na.png,dog\n", r"lacks the columns .*attribute"),
        ("image,qurey,query,attributes\na,b,c,d\n", r"unknown column 'qurey'.*'query'"),
        (f"{HEAD},Split\na.png,dog,red,test\n", r"unknown column 'Split'.*'split'"),
        (f"{HEAD},\na.png,dog,red,\n", r"unknown column ''"),
        (f"{HEAD},query\na.png,dog,red,cat\n", r"2 columns 'query'"),
        (f"{HEAD},attribute\na.png,dog,red,red\n", r"both attribute .* and attributes"),
        (f"{HEAD},x0,y0,x1\na.png,dog,red,1,2,3\n", r"only .*x0.*a box needs all four"),
        (f"{HEAD}\na.png,dog,red\na.png,dog\n", r"t.csv, line 3: 2 cells, but 3 columns"),
        (f'{HEAD}\na.png,"two\nlines",red\na.png,dog,red,old\n', r"line 4: 4 cells, but 3 columns.*in quotes"),
        (f'{HEAD}\na.png,"dog"s,red\n', r"line 2: "),
        (f'{HEAD}\na.png,"dog,red\n', r"line 2: unexpected end of data"),
        ("image;query;attributes\na.png;dog;red\n", r"line 1: cells must be separated by commas"),
        (f"{HEAD},scale\na.png,dog,red,1\na.png,dog,red,big\n", r"line 3, column scale: expected a number, got 'big'"),
        (f"{HEAD},scale\na.png,dog,red,-1e999\n", r"line 2, column scale: expected a finite number, got -inf"),
        (f'{HEAD},scale\na.png,dog,red,"1,5"\n', r"line 2, column scale: expected a number, got '1,5'"),
        (f"{HEAD},id\na.png,dog,red,1.5\n", r"column id: expected a whole number of 64 bits, got 1.5"),
        (f"{HEAD},id\na.png,dog,red,{2**63}\n", r"column id: expected a whole number"),
        (f"{HEAD},mask_value\na.png,dog,red,nan\n", r"column mask_value: expected a whole number"),
        (f"{HEAD},mask_value\na.png,dog,red,{2**31}\n", r"column mask_value: expected a whole number of 32 bits"),
        (f"{HEAD},scale\na.png,dog,red,1{'0' * 400}\n", r"line 2, column scale: "),
        (f"{HEAD}\na.png,dog,red\na.png,caf\xe9,red\n".encode("latin-1"), r"t.csv, line 3: not UTF-8"),
        (f"{HEAD}\na.png,dog,red\n".encode("utf-16"), r"t.csv, line 1: not UTF-8"),
    ],
)
def test_broken_csv(folder, content, message):
    (folder / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        import_table(folder / "t.csv", folder / "out")
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "a.png"', r"t.jsonl, line 3: Input data was truncated"),
        ('{"image": "a.png"}}', r"line 3: JSON is malformed"),
        ('["a.png"]', r"line 3: Expected `object`, got `array`"),
        ('"a.png"', r"line 3: Expected `object`"),
        ("[" * 100_000, r"line 3: "),
        ('{"image": ' + "[" * 100_000, r"line 3: "),
        ('{"image": "a.png", "x0": NaN}', r"line 3: JSON is malformed"),
        ('{"image": 1.5}', r"line 3, column image: expected a word, got 1.5; in JSON put it in quotes"),
        ('{"image": "a.png", "query": true}', r"line 3, column query: expected a word, got True"),
        ('{"image": "a.png", "query": ["dog"]}', r"line 3, column query: expected a word, got \['dog'\]"),
        ('{"attributes": "red; old"}', r"line 3, column attributes: expected a list of words, got 'red; old'"),
        ('{"attributes": ["red", 1.5]}', r"line 3, column attributes: expected a word, got 1.5"),
        ('{"attributes": {"red": true}}', r"line 3, column attributes: expected a list of words"),
        ('{"x0": "12", "y0": 0, "x1": 1, "y1": 1}', r"line 3, column x0: expected a number, got '12'"),
        ('{"scale": false}', r"line 3, column scale: expected a number, got False"),
        ('{"id": true}', r"line 3, column id: expected a whole number"),
        ('{"colour": "red"}', r"unknown column 'colour'"),
    ],
)
def test_broken_jsonl(folder, line, message):
    good = '{"image": "a.png", "query": 7, "attributes": ["red"]}'
    (folder / "t.jsonl").write_text(f"{good}\n\n{line}\n")
    with pytest.raises(ValueError, match=message):
        import_table(folder / "t.jsonl", folder / "out")
    assert not (folder / "out").exists()


def test_jsonl_with_byte_order_mark_and_blank_lines(folder):
    line = '{"image": "a.png", "query": "dog", "attributes": []}'
    (folder / "t.jsonl").write_bytes(f"\ufeff{line}\r\n \r\n\r\n{line.replace('dog', 'cat')}".encode())
    _, rows, _ = imported(folder / "t.jsonl")
    assert [row["query"] for row in rows] == ["dog", "cat"]


def test_whole_numbers_are_words_in_jsonl(folder):
    row = {"image": "a.png", "query": 7, "attributes": [1, "1", None]}
    _, rows, _ = imported(write_table(folder / "t.jsonl", [row]))
    assert (rows[0]["query"], rows[0]["attributes"]) == ("7", ["1"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": [True, False]}, r"t.parquet, row 1, column query: expected a word"),
        ({"attributes": ["red", "old"]}, r"row 1, column attributes: expected a list of words, got 'red'"),
        ({"scale": [None, "big"]}, r"row 2, column scale: expected a number, got 'big'"),
        ({"x0": [1, 2]}, r"a box needs all four"),
        ({"__index_level_0__": [0, 1]}, r"unknown column '__index_level_0__'"),
    ],
)
def test_broken_parquet(folder, columns, message):
    whole = {"image": ["a.png", "a.png"], "query": ["dog", "cat"], "attributes": [["red"], []], **columns}
    parquet.write_table(pa.table(whole), folder / "t.parquet")
    with pytest.raises(ValueError, match=message):
        import_table(folder / "t.parquet", folder / "out")
    content = (folder / "t.parquet").read_bytes()
    (folder / "t.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"t.parquet can't be read as Parquet"):
        import_table(folder / "t.parquet", folder / "out")


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


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.xlsx", "folder.csv"])
def test_files_that_are_none(folder, name):
    (folder / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=r"must end with .csv, .jsonl, .parquet|can't be read"):
        import_table(folder / name, folder / "out")


def test_folders_that_are_none(folder):
    path = write_table(folder / "t.csv", ROWS, COLUMNS)
    for option in ("images", "masks"):
        with pytest.raises(ValueError, match=r"nowhere is not a folder"):
            import_table(path, folder / "out", **{option: folder / "nowhere"})
    with pytest.raises(ValueError, match=r"is there already"):
        import_table(path, folder)
