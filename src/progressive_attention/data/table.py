"""A data set's table: its columns, the one reader of CSV, JSON lines and Parquet, and the folder that an import writes.

One row is one question: an object of a class (the query) in an image, with its attributes. Cells are read as they are
written and then turned into the columns' types, so that a wrong one is named as it was written. An imported folder has
manifest.parquet, rejected.parquet and dataset.json, which says where images and masks lie, where the rows come from,
what was repaired and what was rejected, and why. Legend: R rows.
"""

# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import codecs
import csv
import difflib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from progressive_attention.config import SPLITS
from progressive_attention.data.cells import converter, tidy_lists, tidy_words
from progressive_attention.data.parquet_files import read_parquet
from progressive_attention.files import temporary_for, write_json

MANIFEST, REJECTED_TABLE, ABOUT = "manifest.parquet", "rejected.parquet", "dataset.json"
FORMAT = 1
# A data set has either ``attributes`` (any number of them are true) or ``attribute`` (exactly one is). All but image,
# query and one of these may be null, or be left out.
SCHEMA = pa.schema(
    {
        "image": pa.string(),  # path below the images' folder, see image_root
        "query": pa.string(),
        "attributes": pa.list_(pa.string()),
        "attribute": pa.string(),
        "absent": pa.list_(pa.string()),  # where given, what is in neither list is unknown (as in VAW), not false
        "split": pa.string(),
        "x0": pa.float32(),  # box in the image's pixels, half open
        "y0": pa.float32(),
        "x1": pa.float32(),
        "y1": pa.float32(),
        "mask": pa.string(),  # path below the masks' folder
        "mask_value": pa.int32(),  # the target's pixels have this value; null: all that are not zero
        "mask_void": pa.int32(),  # pixels of this value count neither as target nor as its surroundings
        "width": pa.int32(),  # of the image, upright, in pixels
        "height": pa.int32(),
        "scale": pa.float64(),
        "id": pa.int64(),  # of the object, where it comes from
    }
)
BOX = ("x0", "y0", "x1", "y1")
LISTS = ("attributes", "absent")
WORDS = ("image", "query", "attribute", "split", "mask")
LONGER = re.compile(r"(^|/)\.?(/|$)")  # places in a path that say nothing
REJECTED = pa.schema(
    {"image": pa.string(), "query": pa.string(), "id": pa.int64(), "reason": pa.string(), "detail": pa.string()}
)


class Rows(NamedTuple):
    """A table in SCHEMA's types; where its rows are: ``unit`` ("line") and their numbers (R,); what was repaired."""

    table: pa.Table
    unit: str
    numbers: Sequence[int]
    repaired: Counter[str]


class Raw(NamedTuple):
    """A table as it was written: names and R cells of its columns, and where each row is."""

    columns: Sequence[tuple[str, Sequence[Any] | pa.ChunkedArray]]
    unit: str
    numbers: Sequence[int]


# --- reading ----------------------------------------------------------------------------------------------------------


def ending(path: Path) -> str:
    """A file's ending; a folder is one of Parquet files."""
    return ".parquet" if path.is_dir() else path.suffix


def read_table(path: Path, home: Path | None = None) -> Rows:
    """A .csv, .jsonl or .parquet file, or a folder of the last; pictures inside are unpacked below ``home``.

    Raises ValueError for a broken file, unknown or missing columns, and a cell of another type, naming its line or row.
    """
    try:
        if ending(path) == ".csv":
            raw = read_csv(path)
        elif ending(path) == ".jsonl":
            raw = read_jsonl(path)
        elif ending(path) == ".parquet":
            table = read_parquet(path, home)
            columns = list(zip(table.column_names, table.columns, strict=True))
            raw = Raw(columns, "row", range(1, len(table) + 1))  # of a folder's files in the order of their names
        else:
            raise ValueError(f"{path} must end with .csv, .jsonl, .parquet")
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    check_columns(path, [name for name, _ in raw.columns], len(raw.numbers))
    repaired: Counter[str] = Counter()
    table = pa.table({name: typed(path, raw, name, cells) for name, cells in raw.columns})
    return Rows(tidy(table, repaired), raw.unit, raw.numbers, repaired)


def read_csv(path: Path) -> Raw:
    """Commas between cells, quotes around those with commas; UTF-8; the first line names the columns."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the table as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        names = [name.strip() for name in next(reader, [])]
        if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
            raise ValueError(f"{path}, line 1: cells must be separated by commas, got {names[0]!r}")
        start = reader.line_num + 1
        for row in reader:
            if row:
                rows.append(row)
                lines.append(start)
            if row and len(row) != len(names):
                counts = f"{len(row)} cells, but {len(names)} columns"
                raise ValueError(f"{path}, line {start}: {counts}; put words with commas in quotes")
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    return Raw([(name, [row[i] for row in rows]) for i, name in enumerate(names)], "line", lines)


def read_jsonl(path: Path) -> Raw:
    """One JSON object a line; blank lines are skipped, and a key may be left out."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            try:
                row = decoder.decode(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {error}; expected one JSON object a line") from error
            rows.append({key.strip(): value for key, value in row.items()})
            lines.append(number)
    names = dict.fromkeys(name for row in rows for name in row)
    return Raw([(name, [row.get(name) for row in rows]) for name in names], "line", lines)


def check_columns(path: Path, names: Sequence[str], rows: int) -> None:
    """Raises ValueError for columns that are unknown, missing, repeated or contradict each other, and for no rows."""
    answers = [name for name in ("attribute", "attributes") if name in names]
    if missing := [name for name in ("image", "query") if name not in names] + ["attribute"] * (not answers):
        raise ValueError(
            f"{path} lacks the columns {missing}; it has {list(names)}; rename yours: image, query, and attribute "
            "(the one that is true) or attributes (all that are)"
        )
    for name in names:
        if name not in SCHEMA.names:
            near = difflib.get_close_matches(name, SCHEMA.names, 1)
            hint = f"is it {near[0]!r}? " if near else ""
            raise ValueError(f"{path} has an unknown column {name!r}; {hint}known: {', '.join(SCHEMA.names)}")
        if names.count(name) > 1:
            raise ValueError(f"{path} has {names.count(name)} columns {name!r}, expected one")
    if len(answers) == 2:
        raise ValueError(f"{path} has both attribute (exactly one is true) and attributes (any number are); keep one")
    if 0 < len(box := [name for name in BOX if name in names]) < len(BOX):
        raise ValueError(f"{path} has only {box} of the columns {list(BOX)}; a box needs all four")
    if not rows:
        raise ValueError(f"{path} has no rows")


def typed(path: Path, raw: Raw, name: str, cells: Sequence[Any] | pa.ChunkedArray) -> pa.Array:
    """A column in the schema's type, blank cells as null; raises ValueError naming the first wrong cell."""
    kind = SCHEMA.field(name).type
    if isinstance(cells, pa.ChunkedArray):
        if (same := unchanged(cells, kind)) is not None:
            return same
        cells = cells.to_pylist()
    convert = converter(kind)
    values = []
    for cell, number in zip(cells, raw.numbers, strict=True):
        try:
            values.append(None if cell is None else convert(cell))
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path}, {raw.unit} {number}, column {name}: {error}") from error
    return pa.array(values, kind)


def unchanged(cells: pa.ChunkedArray, kind: pa.DataType) -> pa.Array | None:
    """Arrow's values where they are of the wanted type already, or text in another layout; else None."""
    if cells.type != kind and not (is_text(cells.type) and is_text(kind) and is_list(cells.type) == is_list(kind)):
        return None
    same = cells.cast(kind).combine_chunks()
    if not pa.types.is_floating(kind):
        return same
    return None if pc.any(pc.is_inf(same)).as_py() else pc.if_else(pc.is_nan(same), None, same)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column has lists."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column has words, in lists or a dictionary perhaps."""
    inner = getattr(kind, "value_type", kind)
    return pa.types.is_string(inner) or pa.types.is_large_string(inner)


# --- tidying ----------------------------------------------------------------------------------------------------------


def tidy(table: pa.Table, repaired: Counter[str]) -> pa.Table:
    """Words without blanks around them and composed (NFC), each once a list; one name for an image; a split a row.

    Where no row has a split, each has the one of its image's path. Counts in ``repaired`` what it changes.
    """
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    for name in columns.keys() & {*WORDS, *LISTS}:
        if name in LISTS:
            columns[name] = tidy_lists(columns[name], repaired)
        else:
            columns[name] = tidy_words(columns[name], repaired, path=name in ("image", "mask"))
    columns["image"] = mapped(one_name, columns["image"])
    if "split" not in columns or columns["split"].null_count == len(table):
        columns["split"] = mapped(split_of, columns["image"])
    return pa.table(columns)


def mapped(rule: Callable[[str], str], column: pa.Array) -> pa.Array:
    """``rule`` of each word; null stays null."""
    coded = column.dictionary_encode()
    return pa.array([rule(word) for word in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)


def one_name(path: str) -> str:
    """An image's path as it is written shortest: ./a.jpg is a.jpg."""
    return PurePosixPath(path).as_posix() if LONGER.search(path) else path


def split_of(image: str) -> str:
    """Split of an image where the table names none: 60 / 20 / 20 % by the path's hash, so images never straddle."""
    share = int(sha256(PurePosixPath(image).as_posix().encode()).hexdigest()[:8], 16) / 16**8
    return SPLITS[0] if share < 0.6 else SPLITS[1] if share < 0.8 else SPLITS[2]


# --- writing ----------------------------------------------------------------------------------------------------------


def write_dataset(
    out: Path,
    rows: pa.Table,
    rejected: pa.Table,
    *,
    source: str,
    images: Path,
    masks: Path | None,
    home: Path | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Write a data set's folder, whole or not at all; returns dataset.json's content.

    ``rows`` has columns of SCHEMA, ``rejected`` those of REJECTED (its ``reason`` a few distinct words, ``detail``
    what was there). ``home`` is a folder beside ``out``, of images and masks perhaps, that becomes the data set's.
    ``about`` (settings, counts, mended) is kept as given. Raises ValueError if ``out`` exists and is not empty: an
    import never replaces another.
    """
    out = out.resolve()  # the folder that a link leads to, not the link, is what can be replaced
    check_free(out)
    reasons = rejected["reason"].value_counts().to_pylist()
    content = {
        "format": FORMAT,
        "source": source,
        "images": relative_to(home or out, images),
        "masks": None if masks is None else relative_to(home or out, masks),
        **about,
        "rows": len(rows),
        "rejected": {count["values"]: count["counts"] for count in sorted(reasons, key=lambda c: -c["counts"])},
    }
    with nullcontext(home) if home else temporary_for(out, folder=True) as temporary:
        parquet.write_table(conform(rows, SCHEMA), temporary / MANIFEST, compression="zstd")
        parquet.write_table(conform(rejected, REJECTED), temporary / REJECTED_TABLE, compression="zstd")
        write_json(temporary / ABOUT, content)
        temporary.chmod(0o755)
        os.rename(temporary, out)  # an empty folder there is replaced
    return content


def check_free(out: Path) -> None:
    """Raises ValueError if something is at ``out`` already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and not empty; choose another --out, or delete it")


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table's columns in the schema's order and types; a column that the schema lacks is our mistake."""
    assert set(table.column_names) <= set(schema.names), set(table.column_names) - set(schema.names)
    names = [name for name in schema.names if name in table.column_names]
    return table.select(names).cast(pa.schema([schema.field(name) for name in names]))


def relative_to(out: Path, folder: Path) -> str:
    """A folder inside the data set by its relative path, so that both move together; any other by its full path."""
    full, home = folder.resolve(), out.resolve()
    return os.path.relpath(full, home) if full.is_relative_to(home) else str(full)


def as_table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Lists or arrays as a table of the schema's types, only the columns that are given."""
    return pa.table({name: pa.array(values, schema.field(name).type) for name, values in columns.items()})
