"""The user's own tables that can't be used: what is wrong is named, with its line."""

import pyarrow as pa
import pytest
from hand_tables import COLUMNS, ROWS, write_pictures, write_table
from pyarrow import parquet

from progressive_attention.data.manifest import read_manifest
from progressive_attention.data.rows import import_table

HEAD = "image,query,attributes"


@pytest.fixture
def folder(tmp_path):
    return write_pictures(tmp_path)


def rejected_by_all(folder, form, message):
    """Import and load read a table by one reader."""
    with pytest.raises(ValueError, match=rf"(?s)manifest\.{form}.*{message}"):
        import_table(folder / f"manifest.{form}", folder / "out")
    with pytest.raises(ValueError, match=rf"(?s)manifest\.{form}.*{message}"):
        read_manifest(folder)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"lacks the columns .*image"),
        (HEAD, r"has no rows"),
        ("image,query\na.png,dog\n", r"lacks the columns .*attribute"),
        ("image,qurey,query,attributes\na,b,c,d\n", r"unknown column 'qurey'; known: .*query"),
        (f"{HEAD},Split\na.png,dog,red,test\n", r"unknown column 'Split'"),
        (f"{HEAD},\na.png,dog,red,\n", r"unknown column ''"),
        (f"{HEAD}, query\na.png,dog,red,cat\n", r"2 columns 'query'"),
        (f"{HEAD},attribute\na.png,dog,red,red\n", r"both attribute .* and attributes"),
        (f"{HEAD},x0,y0,x1\na.png,dog,red,1,2,3\n", r"only .*x0.*a box needs all four"),
        (f"{HEAD}\na.png,dog,red\na.png,dog\n", r"line 3: 2 cells, but 3 columns"),
        (f'{HEAD}\na.png,"two\nlines",red\na.png,dog,red,old\n', r"line 4: 4 cells, but 3 columns.*in quotes"),
        (f'{HEAD}\na.png,"dog"s,red\n', r"line 2: "),
        (f'{HEAD}\na.png,"dog,red\n', r"line 2: unexpected end of data"),
        ("image;query;attributes\na.png;dog;red\n", r"line 1: cells must be separated by commas"),
        (
            f"{HEAD},scale\na.png,dog,red,1\na.png,dog,red,big\n",
            r"line 3, column scale: expected a finite number, got 'big'",
        ),
        (f"{HEAD},id\na.png,dog,red,1.5\n", r"column id: expected a whole number of 64 bits, got '1.5'"),
        (f"{HEAD},id\na.png,dog,red,{2**63}\n", r"column id: expected a whole number"),
        (f"{HEAD},mask_value\na.png,dog,red,{2**31}\n", r"column mask_value: expected a whole number of 32 bits"),
        (f"{HEAD},scale\na.png,dog,red,1{'0' * 400}\n", r"line 2, column scale: expected a finite number"),
        (f"{HEAD},id\na.png,dog,red,{'9' * 5000}\n", r"line 2, column id: "),
        (f"{HEAD}\na.png,dog,red\na.png,caf\xe9,red\n".encode("latin-1"), r"line 3: not UTF-8"),
        (f"{HEAD}\na.png,dog,red\n".encode("utf-16"), r"line 1: not UTF-8"),
        (b'\x00\xff{"image: \n1,2\n1,2,3\n', r"line 1: not UTF-8"),
    ],
)
def test_broken_csv(folder, content, message):
    (folder / "manifest.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    rejected_by_all(folder, "csv", message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "a.png"', r"line 3: Input data was truncated"),
        ('{"image": "a.png"}}', r"line 3: JSON is malformed"),
        ('["a.png"]', r"line 3: Expected `object`, got `array`"),
        ("[" * 100_000, r"line 3: "),
        ('{"image": ' + "[" * 100_000, r"line 3: "),
        ('{"image": "a.png", "x0": NaN}', r"line 3: JSON is malformed"),
        ('{"image": 1.5}', r"line 3, column image: expected a word, got 1.5; in JSON put it in quotes"),
        ('{"image": "a.png", "query": ["dog"]}', r"line 3, column query: expected a word, got \['dog'\]"),
        ('{"attributes": ["red", 1.5]}', r"line 3, column attributes: expected a word, got 1.5"),
        ('{"attributes": {"red": true}}', r"line 3, column attributes: expected a list of words"),
        ('{"scale": false}', r"line 3, column scale: expected a finite number, got False"),
        ('{"scale": "12:30:00"}', r"line 3, column scale: expected a finite number, got '12:30:00'"),
        ('{"id": true}', r"line 3, column id: expected a whole number"),
        ('{"id": 1e19}', r"line 3, column id: expected a whole number"),
        ('{"colour": "red"}', r"unknown column 'colour'"),
    ],
)
def test_broken_jsonl(folder, line, message):
    good = '{"image": "a.png", "query": 7, "attributes": ["red"]}'
    (folder / "manifest.jsonl").write_text(f"{good}\n\n{line}\n")
    rejected_by_all(folder, "jsonl", message)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": [8.0, None]}, r"row 1, column query: expected a word, got 8.0"),
        ({"scale": [None, "big"]}, r"row 2, column scale: expected a finite number, got 'big'"),
        ({"scale": [None, float("inf")]}, r"row 2, column scale: expected a finite number"),
        ({"mask_value": [0.5, 1]}, r"row 1, column mask_value: expected a whole number"),
        ({"x0": [1, 2]}, r"a box needs all four"),
        ({"image": [{"bytes": b"x", "path": "a"}, None]}, "column image: expected a word|image unreadable"),
        ({"__index_level_0__": [0, 1]}, r"unknown column '__index_level_0__'"),
    ],
)
def test_broken_parquet(folder, columns, message):
    whole = {"image": ["a.png", "a.png"], "query": ["dog", "cat"], "attributes": [["red"], []], **columns}
    parquet.write_table(pa.table(whole), folder / "manifest.parquet")
    rejected_by_all(folder, "parquet", message)
    content = (folder / "manifest.parquet").read_bytes()
    (folder / "manifest.parquet").write_bytes(content[: len(content) // 2])
    rejected_by_all(folder, "parquet", "can't be read: ")


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
