"""A data set's table: its columns, the one reader of CSV, JSON lines and Parquet, and the folder that an import writes.

One row is one question: an object of a class (the query) in an image, with its attributes. Cells are read as they are
written and then turned into the columns' types, so that a wrong one is named as it was written. Legend: R rows.
"""

# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import codecs
import csv
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from decimal import Decimal
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from unicodedata import normalize

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from progressive_attention.config import SPLITS
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
REJECTED = pa.schema(
    {"image": pa.string(), "query": pa.string(), "id": pa.int64(), "reason": pa.string(), "detail": pa.string()}
)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
LARGEST = {kind: float(np.finfo(kind.to_pandas_dtype()).max) for kind in (pa.float32(), pa.float64())}
EXACT = 2**53  # beyond, float64 rounds whole numbers
BLANKS = "words with blanks around them"
NOT_NFC = "words not in NFC (Unicode's composed form)"
TWICE = "words listed twice"
Columns = list[tuple[str, list[Any]]]  # names and R cells, as they are written


class Rows(NamedTuple):
    """A table in SCHEMA's types; where its rows are: ``unit`` ("line") and numbers (R,); what was repaired."""

    table: pa.Table
    unit: str
    numbers: Sequence[int]
    repaired: Counter[str]


def ending(path: Path) -> str:
    """A file's ending; a folder is one of Parquet files."""
    return ".parquet" if path.is_dir() else path.suffix


def read_table(path: Path, home: Path | None = None) -> Rows:
    """A .csv, .jsonl or .parquet file, or a folder of the last; pictures inside are unpacked below ``home``.

    Raises ValueError for a broken file, unknown or missing columns, and a cell of another type, naming its line or row.
    """
    try:
        if ending(path) == ".csv":
            columns, numbers = read_csv(path)
        elif ending(path) == ".jsonl":
            columns, numbers = read_jsonl(path)
        elif ending(path) == ".parquet":
            table = read_parquet(path, home)
            columns = [(name, table[at].to_pylist()) for at, name in enumerate(table.column_names)]
            numbers = range(1, len(table) + 1)  # of a folder's files in the order of their names
        else:
            raise ValueError(f"{path} must end with .csv, .jsonl, .parquet")
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    check_columns(path, [name for name, _ in columns], len(numbers))
    unit = "row" if ending(path) == ".parquet" else "line"
    table = pa.table({name: typed(f"{path}, {unit}", numbers, name, cells) for name, cells in columns})
    repaired: Counter[str] = Counter()
    return Rows(tidy(table, repaired), unit, numbers, repaired)


def read_csv(path: Path) -> tuple[Columns, Sequence[int]]:
    """Columns and lines; commas between cells, quotes around those with commas; UTF-8; the first line has the names."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the table as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, lines = [], []
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
    return [(name, [row[at] for row in rows]) for at, name in enumerate(names)], lines


def read_jsonl(path: Path) -> tuple[Columns, Sequence[int]]:
    """Columns and lines; one JSON object a line; blank lines are skipped, and a key may be left out."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    rows, lines = [], []
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            try:
                row = decoder.decode(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {error}; expected one JSON object a line") from error
            rows.append({key.strip(): value for key, value in row.items()})
            lines.append(number)
    names = dict.fromkeys(name for row in rows for name in row)
    return [(name, [row.get(name) for row in rows]) for name in names], lines


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
            raise ValueError(f"{path} has an unknown column {name!r}; known: {', '.join(SCHEMA.names)}")
        if names.count(name) > 1:
            raise ValueError(f"{path} has {names.count(name)} columns {name!r}, expected one")
    if len(answers) == 2:
        raise ValueError(f"{path} has both attribute (exactly one is true) and attributes (any number are); keep one")
    if 0 < len(box := [name for name in BOX if name in names]) < len(BOX):
        raise ValueError(f"{path} has only {box} of the columns {list(BOX)}; a box needs all four")
    if not rows:
        raise ValueError(f"{path} has no rows")


def imported_table(path: Path) -> pa.Table | None:
    """A table that an import wrote, as it is; None for one that no import writes, and for a broken one."""
    if path.name != MANIFEST:
        return None
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError):
        return None  # reading it with care says what is wrong
    if table.schema != pa.schema([field for field in SCHEMA if field.name in table.column_names]):
        return None
    needed = {"image", "query", "split", "width", "height", answer_column(table)}
    known = {name for name in table.column_names if not table[name].null_count}
    return table if needed <= known else None


def typed(where: str, places: Sequence[int], name: str, cells: Sequence[Any]) -> pa.Array:
    """A column in the schema's type, blank numbers and lists as null; raises ValueError naming the first wrong cell."""
    kind = SCHEMA.field(name).type
    convert = words if name in LISTS else word if pa.types.is_string(kind) else lambda cell: number(cell, kind)
    values = []
    for cell, place in zip(cells, places, strict=True):
        try:
            values.append(None if cell is None else convert(cell))
        except ValueError as error:
            raise ValueError(f"{where} {place}, column {name}: {error}") from error
    return pa.array(values, kind)


def word(cell: Any) -> str:
    """A word, or a whole number, true or false that is one (digit 7); raises ValueError for anything else."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, str | int):
        return str(cell)
    raise ValueError(f"expected a word, got {cell!r:.80}; in JSON put it in quotes")


def words(cell: Any) -> list[str] | None:
    """A list of words, or ``red; old`` for one: ``;`` and ``[]`` are empty ones, a blank cell is none."""
    if isinstance(cell, str):
        cell = cell.strip()
        return None if not cell else [] if cell == "[]" else [part.strip() for part in cell.split(";")]
    if not isinstance(cell, list):
        raise ValueError(f"expected a list of words, got {cell!r:.80}")
    return [word(part) for part in cell if part is not None]


def number(cell: Any, kind: pa.DataType) -> int | float | None:
    """A number that fits the type, or text that is one (no ``NA``, no ``1_0``); None for blank text and NaN."""
    value = cell.strip() if isinstance(cell, str) else float(cell) if isinstance(cell, Decimal) else cell
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = int(value) if WHOLE.fullmatch(value) else float(value)
    if value == "" or value != value:
        return None
    whole = pa.types.is_integer(kind)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not whole and abs(value) <= LARGEST[kind]:
            return float(value)
        exact = isinstance(value, int) or (value.is_integer() and abs(value) <= EXACT)
        if whole and exact and -(2 ** (kind.bit_width - 1)) <= value < 2 ** (kind.bit_width - 1):
            return int(value)
    what = f"a whole number of {kind.bit_width} bits" if whole else "a finite number"
    raise ValueError(f"expected {what}, got {cell!r:.80}; leave it empty where it is unknown")


def tidy(table: pa.Table, repaired: Counter[str]) -> pa.Table:
    """Words bare and composed (NFC), each once a list; one name for an image; splits by hash where no row has one."""
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    for name, cells in columns.items():
        if name in LISTS:
            columns[name] = tidy_lists(cells, repaired)
        elif pa.types.is_string(cells.type):
            columns[name] = tidy_words(cells, None if name in ("image", "mask") else repaired)
    columns["image"] = mapped(lambda path: PurePosixPath(path).as_posix(), columns["image"])  # ./a.jpg is a.jpg
    if "split" not in columns or columns["split"].null_count == len(table):
        columns["split"] = mapped(split_of, columns["image"])
    return pa.table(columns)


def tidy_words(cells: pa.Array, repaired: Counter[str] | None) -> pa.Array:
    """Words (R,) without blanks around them, null where nothing is left; unless paths (None), composed (NFC)."""
    bare = pc.utf8_trim_whitespace(cells)
    # Before version 26, pyarrow's own utf8_normalize changes nothing.
    composed = bare if repaired is None else mapped(partial(normalize, "NFC"), bare)
    if repaired is not None:
        repaired[BLANKS] += pc.sum(pc.not_equal(cells, bare)).as_py() or 0
        repaired[NOT_NFC] += pc.sum(pc.not_equal(bare, composed)).as_py() or 0
    return pc.if_else(pc.equal(composed, ""), pa.scalar(None, pa.string()), composed)


def tidy_lists(cells: pa.Array, repaired: Counter[str]) -> pa.Array:
    """Lists of such words (R,), each word once, blank ones left out; null stays null."""
    row, listed = flat(cells)
    tidied = tidy_words(listed, repaired)
    lists: list[dict[str, None] | None] = [{} if known else None for known in cells.is_valid().to_pylist()]
    for at, text in zip(row.tolist(), tidied.to_pylist(), strict=True):
        if text is not None:
            lists[at][text] = None
    repaired[TWICE] += len(tidied) - tidied.null_count - sum(map(len, filter(None, lists)))
    return pa.array([None if some is None else list(some) for some in lists], cells.type)


def mapped(rule: Callable[[str], str], column: pa.Array) -> pa.Array:
    """``rule`` of each word; null stays null."""
    coded = column.dictionary_encode()
    return pa.array([rule(text) for text in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)


def split_of(image: str) -> str:
    """Split of an image where the table names none: 60 / 20 / 20 % by the path's hash, so images never straddle."""
    share = int(sha256(PurePosixPath(image).as_posix().encode()).hexdigest()[:8], 16) / 16**8
    return SPLITS[0] if share < 0.6 else SPLITS[1] if share < 0.8 else SPLITS[2]


def answer_column(table: pa.Table) -> str:
    """The one of both columns that a table has."""
    return "attributes" if "attributes" in table.column_names else "attribute"


def flat(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, pa.Array]:
    """A column of words, or of lists of them: the row of each word, and the words."""
    cells = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_list(cells.type):
        return pc.list_parent_indices(cells).to_numpy(), pc.list_flatten(cells)
    return np.arange(len(cells)), cells


def word_sets(table: pa.Table, name: str) -> list[set[str]]:
    """The words of each row in a column of words, or of lists of them; none for null, and where there is no column."""
    cells = table[name].to_pylist() if name in table.column_names else [None] * len(table)
    return [{cell} if isinstance(cell, str) else set(cell or ()) for cell in cells]


def numbers(table: pa.Table, *columns: str, missing: float) -> np.ndarray:
    """Columns of numbers as (R, columns) float64, ``missing`` where nothing is stated or a column is not there."""
    known = [
        pc.fill_null(table[name].cast(pa.float64()), missing).to_numpy()
        if name in table.column_names
        else np.full(len(table), missing)
        for name in columns
    ]
    return np.stack(known, 1)


def rows_by(column: pa.ChunkedArray) -> dict[Any, list[int]]:
    """The rows, ascending, of each value of a column; null is none."""
    rows = defaultdict(list)
    for row, value in enumerate(column.to_pylist()):
        if value is not None:
            rows[value].append(row)
    return rows


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

    ``rows`` has columns of SCHEMA, ``rejected`` those of REJECTED. ``home`` is a folder beside ``out``, of images and
    masks perhaps, that becomes the data set's. ``about`` (settings, counts, repairs) is kept as given. Raises
    ValueError if ``out`` exists and is not empty.
    """
    out = out.resolve()  # the folder that a link leads to, not the link, is what can be replaced
    check_free(out)
    content = {
        "format": FORMAT,
        "source": source,
        "images": relative_to(home or out, images),
        "masks": None if masks is None else relative_to(home or out, masks),
        **about,
        "rows": len(rows),
        "rejected": dict(Counter(rejected["reason"].to_pylist()).most_common()),
    }
    with nullcontext(home) if home else temporary_for(out, folder=True) as temporary:
        for table, schema, name in ((rows, SCHEMA, MANIFEST), (rejected, REJECTED, REJECTED_TABLE)):
            fields = pa.schema([field for field in schema if field.name in table.column_names])
            parquet.write_table(table.select(fields.names).cast(fields), temporary / name, compression="zstd")
        write_json(temporary / ABOUT, content)
        temporary.chmod(0o755)
        os.rename(temporary, out)  # an empty folder there is replaced
    return content


def check_free(out: Path) -> None:
    """Raises ValueError if something is at ``out`` already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and not empty; choose another --out, or delete it")


def relative_to(out: Path, folder: Path) -> str:
    """A folder inside the data set by its relative path, so that both move together; any other by its full path."""
    full, home = folder.resolve(), out.resolve()
    return os.path.relpath(full, home) if full.is_relative_to(home) else str(full)
