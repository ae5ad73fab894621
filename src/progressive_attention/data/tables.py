"""The user's own table of images, queries and attributes (CSV, JSON lines or Parquet) as a data set's folder."""

import codecs
import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from progressive_attention.config import SPLITS
from progressive_attention.data.hub_parquet import FOLDERS, pictures_in, read_columns
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.manifest import check_columns
from progressive_attention.data.rows import Draft, Refused, clean, clean_list
from progressive_attention.data.table import BOX, SCHEMA
from progressive_attention.files import temporary_for

PATHS = ("image", "mask")


class Raw(NamedTuple):
    """A table as it was written: columns of R values, and where each row stands: ``unit`` ("line") and its number."""

    columns: Mapping[str, Sequence[Any]]
    unit: str
    numbers: Sequence[int]


def import_table(path: Path, out: Path, *, images: Path | None = None, masks: Path | None = None) -> dict[str, Any]:
    """Write a data set from a .csv, .jsonl or .parquet table, or a folder of the last; returns what dataset.json says.

    Columns are ``table.SCHEMA``'s: image, query, and either attributes (all that hold) or attribute (the one that
    does), the others as you have them. Paths start at ``images`` and ``masks``, by default the table's folder. In CSV
    lists are written ``red; old``, and ``;`` is a list of none; a blank cell states nothing. Words keep their case;
    blanks around them go, and Unicode is composed (NFC). Rows without a split get one if no row has: by the hash of
    the image's path. Pictures inside a Parquet table (``hub_parquet``) become files of the data set.

    Rows that can't be used go to rejected.parquet. Raises ValueError for a table that is broken, or has unknown,
    missing or wrongly typed columns, naming line or row; if no row can be used; and if ``out`` is there already.
    """
    out = out.resolve()
    inside = pictures_in(path) if suffix(path) == ".parquet" else []
    with temporary_for(out, folder=True) if inside else nullcontext() as home:
        raw = read(path, home)
        mended: Counter[str] = Counter()
        draft = Draft(typed(path, raw, mended), (f"{raw.unit} {number}" for number in raw.numbers))
        draft.mended = mended
        check_words(draft)
        if masks is not None and "mask" not in raw.columns:
            raise ValueError(
                f"{path} has no column mask that could name files in {masks}; add it, or leave out --masks"
            )
        return draft.write(
            out,
            source=suffix(path).removeprefix("."),
            images=root_of("image", path, images, home if "image" in inside else None),
            masks=root_of("mask", path, masks, home if "mask" in inside else None) if "mask" in raw.columns else None,
            settings={"table": str(path)},
            home=home,
        )


def root_of(column: str, path: Path, given: Path | None, home: Path | None) -> ImageRoot:
    """Where a column's files are: unpacked below ``home``, or where it was said, or beside the table."""
    if home is None:
        return ImageRoot(given or (path if path.is_dir() else path.parent))
    if given is not None:
        raise ValueError(f"{path} has its {FOLDERS[column]} inside; leave out --{FOLDERS[column]}")
    (home / FOLDERS[column]).mkdir(exist_ok=True)  # there may be none
    return ImageRoot(home / FOLDERS[column])


def check_words(draft: Draft) -> None:
    """Take out rows without image, query or answer, and those of an unknown split where the table has splits."""
    columns = draft.columns
    if not any(columns.get("split", ())):
        columns.pop("split", None)
    answers = columns["attributes"] if "attributes" in columns else columns["attribute"]
    splits = columns.get("split", [SPLITS[0]] * len(draft))

    def fault(image: str | None, query: str | None, answer: Any, split: str | None) -> Refused | None:
        if image is None:
            return Refused("no image", "")
        if query is None:
            return Refused("no query", "")
        if answer is None:
            return Refused("no attributes", "write [] where none holds, in CSV ;")
        if split not in SPLITS:
            return Refused("unknown split", f"{split!r}, expected one of {', '.join(SPLITS)}")
        return None

    draft.sift(list(map(fault, columns["image"], columns["query"], answers, splits)))


# --- values -----------------------------------------------------------------------------------------------------------


def typed(path: Path, raw: Raw, mended: Counter[str]) -> dict[str, list[Any]]:
    """The columns' values in SCHEMA's types; raises ValueError naming file, row and column of the first wrong one."""
    columns = {}
    for name, values in raw.columns.items():
        convert = converter(name, mended)
        columns[name] = found = []
        for value, number in zip(values, raw.numbers, strict=True):
            try:
                found.append(None if value is None else convert(value))
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{path}, {raw.unit} {number}, column {name}: {error}") from error
    return columns


def converter(name: str, mended: Counter[str]) -> Callable[[Any], Any]:
    """What makes a column's values str, tuple of str, float or int, and a blank one None; it raises ValueError."""
    kind = SCHEMA.field(name).type
    if pa.types.is_list(kind):
        return lambda value: clean_list(as_words(value), mended)
    if name in PATHS:
        return lambda value: as_word(value).strip() or None
    if pa.types.is_string(kind):
        return lambda value: clean(as_word(value), mended) or None
    if pa.types.is_floating(kind):
        return as_number if name in BOX else as_finite  # a box that is none costs its row alone
    return partial(as_integer, bits=kind.bit_width)


def as_word(value: Any) -> str:
    """A word, or a whole number that is one (digit 7); raises ValueError for anything else."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise ValueError(f"expected a word, got {value!r}; in JSON put it in quotes")


def as_words(value: Any) -> list[str]:
    """A list of words; raises ValueError for anything else."""
    if not isinstance(value, list):
        raise ValueError(f"expected a list of words, got {value!r}")
    return [as_word(word) for word in value if word is not None]


def as_number(value: Any) -> float:
    """A number; raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"expected a number, got {value!r}")
    return float(value)


def as_finite(value: Any) -> float:
    """A number that is not infinite, which no manifest may hold; raises ValueError for anything else."""
    number = as_number(value)
    if math.isinf(number):
        raise ValueError(f"expected a finite number, got {value!r}")
    return number


def as_integer(value: Any, bits: int) -> int:
    """A whole number of so many bits; raises ValueError for anything else."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise ValueError(f"expected a whole number of {bits} bits, got {value!r}")
    return int(value)


# --- files ------------------------------------------------------------------------------------------------------------


def suffix(path: Path) -> str:
    """A file's ending; a folder is one of Parquet files."""
    return ".parquet" if path.is_dir() else path.suffix


def read(path: Path, home: Path | None = None) -> Raw:
    """A table by its file's ending; raises ValueError for a broken one, and for unknown or missing columns."""
    readers = {".csv": read_csv, ".jsonl": read_jsonl, ".parquet": partial(read_parquet, home=home)}
    if suffix(path) not in readers:
        raise ValueError(f"{path} must end with {', '.join(readers)}, to tell what it is")
    try:
        return readers[suffix(path)](path)
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror or error})") from error


def checked(path: Path, names: Sequence[str], rows: int) -> None:
    """Raises ValueError for columns that are unknown, missing or repeated, and for a table without rows."""
    check_columns(path, pa.Table.from_arrays([pa.nulls(rows)] * len(names), names=list(names)))


def read_csv(path: Path) -> Raw:
    """Commas between cells, quotes around those that hold commas; UTF-8, the first line names the columns."""
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
            if row and len(row) != len(names):
                raise ValueError(
                    f"{path}, line {start}: {len(row)} cells, but {len(names)} columns; put words with commas in quotes"
                )
            if row:
                rows.append(row)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    checked(path, names, len(rows))
    columns = {
        name: [read_cell(cell) if cell.strip() else None for cell in cells]
        for name, read_cell, cells in zip(names, map(cell_reader, names), zip(*rows, strict=True), strict=True)
    }
    return Raw(columns, "line", lines)


def cell_reader(name: str) -> Callable[[str], Any]:
    """What makes a column's cells its kind of value; a word where a number belongs stays one."""
    kind = SCHEMA.field(name).type
    if pa.types.is_list(kind):
        return lambda cell: [] if cell.strip() == "[]" else [word.strip() for word in cell.split(";")]
    return str if pa.types.is_string(kind) else cell_number


def cell_number(cell: str) -> int | float | str:
    """A whole number as such, ids being too long for floats; what is no number as it is."""
    for read_number in (int, float):
        try:
            return read_number(cell)
        except ValueError:
            continue
    return cell


def read_jsonl(path: Path) -> Raw:
    """One JSON object a line; blank lines are skipped, and a key may be left out."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            try:
                rows.append(decoder.decode(line))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {error}; expected one JSON object a line") from error
            lines.append(number)
    names = distinct(row.keys() for row in rows)
    checked(path, names, len(rows))
    return Raw({name: [row.get(name) for row in rows] for name in names}, "line", lines)


def distinct(keys: Iterable[Iterable[str]]) -> list[str]:
    """Each key once, in the order in which they first appear."""
    return list(dict.fromkeys(key for some in keys for key in some))


def read_parquet(path: Path, home: Path | None = None) -> Raw:
    """Rows are counted from 1, of a folder's files in the order of their names."""
    try:
        columns = read_columns(path, home)
    except pa.ArrowException as error:
        raise ValueError(f"{path} can't be read as Parquet: {error}") from error
    rows = len(next(iter(columns.values()), []))
    checked(path, list(columns), rows)
    return Raw(columns, "row", range(1, rows + 1))
