"""Parquet as Hugging Face's ``datasets`` writes it: pictures inside the table, features in its metadata.

That package is not needed. A picture is a struct of its file's ``bytes`` and its ``path``, or the bytes alone.
"""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from progressive_attention.config import SPLITS
from progressive_attention.data.images import opened

FOLDERS = {"image": "images", "mask": "masks"}  # columns that may hold pictures -> where they are unpacked
ROWS = 64  # that are in memory at once: 2 GiB of nested bytes Arrow can't read
SPLIT_NAMES = {**{name: name for name in SPLITS}, "val": "validation", "valid": "validation", "dev": "validation"}


def read_parquet(path: Path, home: Path | None = None) -> pa.Table:
    """All columns of a file, or of a folder's files; pictures are written below ``home`` and named there.

    Class labels become their names. Of files without a column ``split`` those called train-..., validation-... or
    test-... are of that split; what a file lacks is null. Raises ValueError for a folder without files.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} can't be read: it holds no .parquet files; give the folder that they are in")
    tables: list[pa.Table] = []
    for part in files:
        table = read_part(part, home)
        split = SPLIT_NAMES.get(part.stem.replace("_", "-").split("-")[0])
        if split and path.is_dir() and "split" not in table.column_names:
            table = table.append_column("split", pa.array([split] * len(table)))
        tables.append(table)
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="permissive")


def read_part(part: Path, home: Path | None) -> pa.Table:
    """One file."""
    with parquet.ParquetFile(part, memory_map=True) as file:
        schema = file.schema_arrow
        names = [name.strip() for name in schema.names]
        if len(set(names)) < len(names):
            raise ValueError(f"{part} has the columns {names}, expected each once")
        batches = [] if home is None else list(unpacked_batches(file, home))
        table = pa.Table.from_batches(batches) if batches else file.read()
    for name, classes in class_names(schema).items():
        kind = schema.field(name).type
        if pa.types.is_integer(getattr(kind, "value_type", kind)):
            cells = [in_words(cell, classes) for cell in table[name].to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(cells))
    return table.rename_columns(names)


def unpacked_batches(file: parquet.ParquetFile, home: Path) -> Iterator[pa.RecordBatch]:
    """A file's rows, a few at a time, with pictures written below ``home``; none if it has no pictures.

    A batch over several row groups could be more than Arrow can nest.
    """
    is_picture = (pa.types.is_struct, pa.types.is_binary, pa.types.is_large_binary)
    inside = [f.name for f in file.schema_arrow if f.name in FOLDERS and any(test(f.type) for test in is_picture)]
    for group in range(file.num_row_groups if inside else 0):
        for batch in file.iter_batches(ROWS, row_groups=[group]):
            for name in inside:
                paths = [unpacked(cell, home / FOLDERS[name]) for cell in batch.column(name).to_pylist()]
                batch = batch.set_column(batch.schema.get_field_index(name), name, pa.array(paths, pa.string()))
            yield batch


def unpacked(cell: dict[str, Any] | bytes | None, folder: Path) -> str | None:
    """Write a picture's bytes, once, under a name made of them; one without bytes keeps its path."""
    folder.mkdir(parents=True, exist_ok=True)
    picture: dict[str, Any] = cell if isinstance(cell, dict) else {"bytes": cell}
    content = picture.get("bytes")
    if content is None:
        return picture.get("path")
    if not isinstance(content, bytes):
        raise ValueError(f"a picture's bytes must be binary, got {type(content).__name__}; write the file's content")
    try:
        with opened(io.BytesIO(content), "a picture") as file:
            kind = str(file.format).lower()
    except ValueError:  # the row is rejected later, with the reason
        kind = "unreadable"
    path = folder / f"{sha256(content).hexdigest()[:16]}.{kind}"
    if not path.exists():
        path.write_bytes(content)
    return path.name


def class_names(schema: pa.Schema) -> dict[str, Sequence[str]]:
    """The words of columns that hold numbers of classes, or lists of these."""
    classes: dict[str, Sequence[str]] = {}
    with suppress(KeyError, ValueError, TypeError, AttributeError, IndexError):  # not as datasets writes it
        for name, feature in json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"].items():
            inner = feature[0] if isinstance(feature, list) else feature  # a list, as older versions write it
            inner = inner.get("feature", inner)
            if inner.get("_type") == "ClassLabel" and name in schema.names:
                classes[name] = [str(word) for word in inner["names"]]
    return classes


def in_words(cell: int | list[int | None] | None, names: Sequence[str]) -> Any:
    """A class's number, or a list of them, as words; -1, which is no class, as None."""
    if isinstance(cell, list):
        return [in_words(number, names) for number in cell]
    if cell is None or cell < 0:
        return None
    return names[cell] if cell < len(names) else str(cell)
