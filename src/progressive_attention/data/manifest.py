"""The user's own data: a folder with a table of questions beside its images.

A folder holds ``manifest.parquet``, ``manifest.csv`` or ``manifest.jsonl`` with columns of ``table.SCHEMA``: image
(path inside the folder), query, and either attribute (the one that holds) or attributes (all that hold; in CSV
``red; old``), and optionally split (train, validation, test), mask (path) with mask_value and mask_void, scale, and
x0, y0, x1, y1 (box in the image's pixels, half open). An imported folder has dataset.json too, which may place the
images elsewhere.
"""
# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import difflib
import re
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from progressive_attention.config import SPLITS, one_of
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import FileImages, FileMasks
from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.data.table import ABOUT, BOX, SCHEMA
from progressive_attention.files import read_json

WORDS = ("image", "query", "attribute", "split", "mask")
LISTS = ("attributes", "absent")
DEEPEST = 100  # brackets in brackets; a manifest needs two


def depth(content: bytes) -> int:
    """How deeply the brackets of JSON lines nest: Arrow's parser dies of 30,000, with the whole process."""
    bare = re.sub(rb'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"', b"", content)
    brackets = np.frombuffer(re.sub(rb"[^][{}]++", b"", bare), np.uint8)
    level = np.concatenate([[0], np.cumsum(np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1))])
    return int((level - np.minimum.accumulate(level)).max())  # what closes too much hides nothing


def read_jsonl(path: Path) -> pa.Table:
    """One object a line; words that look like dates stay as they were written. Raises ValueError if it nests deeply."""
    if (deep := depth(path.read_bytes())) > DEEPEST:
        raise ValueError(f"brackets are {deep} deep, expected at most {DEEPEST}")
    table = pyarrow.json.read_json(path)
    kinds = {field.name: getattr(field.type, "value_type", field.type) for field in table.schema}
    dates = [name for name, kind in kinds.items() if pa.types.is_timestamp(kind)]
    if not dates:
        return table
    words = pa.schema({name: pa.list_(pa.string()) if name in LISTS else pa.string() for name in dates})
    return pyarrow.json.read_json(path, parse_options=pyarrow.json.ParseOptions(explicit_schema=words))


READERS = {
    ".parquet": partial(pyarrow.parquet.read_table, memory_map=True),
    # Types are told: guessed from the text, the word 07 would become 7, and true True.
    ".csv": partial(
        pyarrow.csv.read_csv,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types={name: pa.string() for name in (*WORDS, *LISTS)}),
    ),
    ".jsonl": read_jsonl,
}


@dataclass(frozen=True)
class Manifest:
    """A data set's table, columns of ``table.SCHEMA`` in its types, and where its images and masks are."""

    name: str
    table: pa.Table
    images: ImageRoot
    masks: ImageRoot
    about: dict[str, Any]  # dataset.json, empty for a table that was written by hand

    def rows_of(self, split: str) -> "Manifest":
        """The same with the rows of a split, or of several, ``"train,validation"``; ValueError if there are none."""
        rows = self.table.filter(pc.is_in(self.table["split"], pa.array(split.split(","))))
        if not len(rows):
            have = ", ".join(sorted(self.table["split"].unique().to_pylist()))
            raise ValueError(
                f"{self.name} has no rows of split {split!r}; its table has {have}; name that split in the column "
                "split, or leave the column out to have images spread"
            )
        return replace(self, table=rows)

    def names(self, *columns: str) -> tuple[str, ...]:
        """All words of some columns, sorted; raises ValueError for a blank one, or a list with an empty place."""
        words: set[str] = set()
        for column in columns:
            values = self.table[column]
            words |= set((pc.list_flatten(values) if column in LISTS else values).unique().to_pylist())
        if not all(word and word.strip() for word in words):
            told = " and ".join(columns)
            raise ValueError(
                f"{self.name} has a blank word among its {told}; leave it out (`pan data check` says where)"
            )
        return tuple(sorted(words))

    def numbers(self, *columns: str, missing: float) -> np.ndarray:
        """Columns of numbers as (R, columns) float64, ``missing`` where nothing is stated or a column is not there."""
        known = self.table.column_names
        return np.stack(
            [
                pc.fill_null(self.table[name].cast(pa.float64()), missing).to_numpy()
                if name in known
                else np.full(len(self.table), missing)
                for name in columns
            ],
            1,
        )


def find_manifest(folder: Path) -> Path:
    """The one manifest file in a folder; raises ValueError if there is none, or more than one, or no folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give one that holds a manifest, as `pan data import` makes it")
    found = [folder / f"manifest{suffix}" for suffix in READERS if (folder / f"manifest{suffix}").is_file()]
    if len(found) != 1:
        raise ValueError(
            f"{folder} holds {len(found)} manifests, expected one of manifest.parquet, manifest.csv, manifest.jsonl "
            "with the columns image, query, and attribute or attributes; `pan data import` makes one"
        )
    return found[0]


def read_manifest(folder: Path) -> Manifest:
    """A folder's table, its words and numbers checked, its images not yet opened.

    Raises ValueError for a broken file, unknown or missing columns, and wrong or missing values.
    """
    path = find_manifest(folder)
    try:
        table: pa.Table = READERS[path.suffix](path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    check_columns(path, table)
    columns = {name: typed(path, name, table[name].combine_chunks()) for name in table.column_names}
    for name in [name for name in ("image", "query", "attribute", "attributes", "split") if name in columns]:
        if empty := columns[name].null_count:
            first = pc.index(columns[name].is_null(), True).as_py() + 1
            none = "; write [] where none holds" if name == "attributes" else ""
            raise ValueError(f"{path}: no {name} in {empty} rows, the first is row {first}; fill or drop them{none}")
    if "split" in columns:
        for value in columns["split"].unique().to_pylist():
            one_of(f"split in {path}", value, SPLITS)
    else:
        columns["split"] = split_by_hash(columns["image"])
    about = read_json(folder / ABOUT) if (folder / ABOUT).is_file() else {}
    try:
        images, masks = (ImageRoot(folder / (about.get(what) or ".")) for what in ("images", "masks"))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{folder / ABOUT} does not say where images and masks are: {error}") from error
    return Manifest(folder.resolve().name, pa.table(columns), images, masks, about)


def check_columns(path: Path, table: pa.Table) -> None:
    """Raises ValueError for columns that are unknown, missing, repeated or contradict each other, and for no rows."""
    names = table.column_names
    answers = [name for name in ("attribute", "attributes") if name in names]
    if missing := [name for name in ("image", "query") if name not in names] + ["attribute"] * (not answers):
        raise ValueError(
            f"{path} lacks the columns {missing}; it has {names}; rename yours: image, query, and attribute (the one "
            "that holds) or attributes (all that hold)"
        )
    for name in names:
        if name not in SCHEMA.names:
            near = difflib.get_close_matches(name, SCHEMA.names, 1)
            hint = f"is it {near[0]!r}? " if near else ""
            raise ValueError(f"{path} has an unknown column {name!r}; {hint}known: {', '.join(SCHEMA.names)}")
        if names.count(name) > 1:
            raise ValueError(f"{path} has {names.count(name)} columns {name!r}, expected one")
    if len(answers) == 2:
        raise ValueError(
            f"{path} has both attribute (exactly one holds) and attributes (any number do); which one is meant?"
        )
    if 0 < len(box := [name for name in BOX if name in names]) < len(BOX):
        raise ValueError(f"{path} has only {box} of the columns {list(BOX)}; a box needs all four")
    if not len(table):
        raise ValueError(f"{path} has no rows")


def typed(path: Path, name: str, column: pa.Array) -> pa.Array:
    """A column in the schema's type, blanks as null; raises ValueError for values that don't fit."""
    wanted = SCHEMA.field(name).type
    try:
        if name in LISTS and (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            column = listed(column)
        refuse_cast(name, column)
        if name in WORDS:
            column = column.cast(pa.string())
            return pc.if_else(pc.equal(column, ""), None, column)
        if wanted in (pa.int32(), pa.int64()) and pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        return finite(column, column.cast(wanted))
    except pa.ArrowException as error:
        what = "numbers, or nothing where it is unknown" if name not in (*WORDS, *LISTS) else str(wanted)
        raise ValueError(f"{path}: {name} must hold {what} ({error})") from error


def refuse_cast(name: str, column: pa.Array) -> None:
    """Raises ArrowInvalid for values that a cast would silently make others: 8.0 into the word 8, 12:30 into 45000."""
    values = (pc.list_flatten(column) if pa.types.is_list(column.type) else column).drop_null()
    kind = getattr(values.type, "value_type", values.type)  # of a dictionary
    number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    wrong = number if name in (*WORDS, *LISTS) else pa.types.is_boolean(kind)
    if len(values) and (wrong or pa.types.is_temporal(kind)):
        raise pa.ArrowInvalid(f"got {kind}, the first {values[0].as_py()!r}; in JSON put words in quotes")
    if pa.types.is_floating(kind) and pa.types.is_integer(SCHEMA.field(name).type):
        large = values.filter(pc.greater(pc.abs(values), 2.0**53))  # beyond, float64 rounds whole numbers
        if len(large):
            raise pa.ArrowInvalid(f"got {large[0].as_py()!r}, expected numbers of at most {2**53}")


def finite(said: pa.Array, read: pa.Array) -> pa.Array:
    """What was read, of what is said; raises ArrowInvalid where a number is infinite, be it only in its new type."""
    if pa.types.is_floating(read.type) and pc.any(pc.is_inf(read)).as_py():
        row = pc.index(pc.is_inf(read), True).as_py()
        raise pa.ArrowInvalid(f"row {row + 1} has {said[row].as_py()!r}, which is infinite as a {read.type}")
    return read


def listed(column: pa.Array) -> pa.Array:
    """Words written as ``red; old`` -> lists of them; a blank cell is null, ``[]`` an empty list."""
    cells = [(cell or "").strip() for cell in column.to_pylist()]
    words = ([] if cell == "[]" else map(str.strip, cell.split(";")) for cell in cells)
    lists = [[*filter(None, some)] if cell else None for cell, some in zip(cells, words, strict=True)]
    return pa.array(lists, pa.list_(pa.string()))


def split_of(image: str) -> str:
    """Split of an image where the table names none: 60 / 20 / 20 % by the path's hash, so images never straddle."""
    share = int(sha256(PurePosixPath(image).as_posix().encode()).hexdigest()[:8], 16) / 16**8
    return SPLITS[0] if share < 0.6 else SPLITS[1] if share < 0.8 else SPLITS[2]


def split_by_hash(image: pa.Array) -> pa.Array:
    """``split_of`` of each row's image."""
    coded = image.dictionary_encode()
    return pa.array([split_of(path) for path in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)


def ids(column: pa.ChunkedArray | pa.Array, names: tuple[str, ...]) -> np.ndarray:
    """Positions of words in ``names``, which holds them all: (R,) int64."""
    return pc.index_in(column, pa.array(names, pa.string())).to_numpy(zero_copy_only=False).astype(np.int64)


def labels_of(table: pa.Table, names: tuple[str, ...]) -> Labels:
    """The lists ``attributes``, and ``absent`` where there is such a column: then the unlisted are unknown."""
    parts = [("attributes", 1)] + [("absent", 0)] * ("absent" in table.column_names)
    rows, found, values = [], [], []
    for column, value in parts:
        lists = table[column].combine_chunks()
        rows.append(pc.list_parent_indices(lists).to_numpy())
        found.append(ids(pc.list_flatten(lists), names))
        values.append(np.full(len(rows[-1]), value, np.int8))
    row, attribute, value = (np.concatenate(part) for part in (rows, found, values))
    # Each attribute of a row once; what is said to hold comes first, and wins.
    cell, first = np.unique(row * len(names) + attribute, return_index=True)
    row, attribute = np.divmod(cell, len(names))
    start = np.concatenate([[0], np.bincount(row, minlength=len(table)).cumsum()])
    return Labels(start, attribute, value[first], len(names), -1 if len(parts) == 2 else 0)


def from_folder(folder: Path, split: str, side: int) -> QuestionSet:
    """One split of a manifest folder (or several, ``"train,validation"``), images fitted into ``side`` x ``side``.

    Names are those of all splits. Images are opened when they are asked for; ``images`` says what happens to
    those that can't be. Raises ValueError as ``read_manifest`` does, for a split without rows, and for paths that lead
    out of the folder.
    """
    for name in split.split(","):
        one_of("split", name, SPLITS)
    whole = read_manifest(folder)
    manifest = whole.rows_of(split)
    table = manifest.table
    coded = table["image"].combine_chunks().dictionary_encode()
    image, paths = coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()
    for path in paths:
        manifest.images.check(path)
    sizes = np.zeros((len(paths), 2), np.int64)
    sizes[image] = manifest.numbers("width", "height", missing=0)
    images = FileImages(manifest.images, paths, side, sizes)
    query_names = whole.names("query")
    multi = "attributes" in table.column_names
    attribute_names = whole.names(*[n for n in (LISTS if multi else ["attribute"]) if n in table.column_names])
    box = None
    if BOX[0] in table.column_names:
        boxes = manifest.numbers(*BOX, missing=np.nan)
        box = np.stack([images.fits[at].box(b, *images.sizes[at]) for at, b in zip(image, boxes, strict=True)])
    masks, void = masks_of(manifest, images, image)
    return QuestionSet(
        f"{manifest.name}/{split}",
        images,
        image,
        ids(table["query"], query_names),
        labels_of(table, attribute_names) if multi else ids(table["attribute"], attribute_names),
        query_names,
        attribute_names,
        manifest.numbers("scale", missing=np.nan)[:, 0] if "scale" in table.column_names else None,
        box,
        masks,
        void,
    )


def masks_of(manifest: Manifest, images: FileImages, image: np.ndarray) -> tuple[FileMasks | None, FileMasks | None]:
    """Target and void masks of the rows, None where the table has none; raises ValueError for paths outside."""
    table = manifest.table
    if "mask" not in table.column_names:
        return None, None
    files = table["mask"].to_pylist()
    for path in set(files) - {None}:
        manifest.masks.check(path)
    values = manifest.numbers("mask_value", "mask_void", missing=-1).astype(np.int64).T
    target = FileMasks(manifest.masks, files, values[0], images, image)
    if (values[1] < 0).all():
        return target, None
    with_void = [path if value >= 0 else None for path, value in zip(files, values[1], strict=True)]
    return target, FileMasks(manifest.masks, with_void, values[1], images, image)
