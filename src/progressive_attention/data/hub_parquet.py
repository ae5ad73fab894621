"""Parquet as Hugging Face's ``datasets`` writes and reads it: pictures inside the table, features in its metadata.

Neither way needs that package. A picture is a struct of its file's ``bytes`` and its ``path``.
"""

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from progressive_attention.config import SPLITS
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import FORMATS, examined
from progressive_attention.data.manifest import Manifest, read_manifest
from progressive_attention.data.table import check_free
from progressive_attention.files import temporary_for

FOLDERS = {"image": "images", "mask": "masks"}  # columns that may hold pictures -> where they are unpacked
PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
ROWS = 256  # that are in memory, and in a row group, at once
SPLIT_NAMES = {**{name: name for name in SPLITS}, "val": "validation", "valid": "validation", "dev": "validation"}
BYTES = 2**28  # of pictures, each row's counted, in a row group: 2 GiB of nested bytes Arrow can't read again
Progress = Callable[[int, int], None]
Picture = dict[str, Any]  # of PICTURE's fields


# --- in ---------------------------------------------------------------------------------------------------------------


def files_of(path: Path) -> list[Path]:
    """A Parquet file, or those of a folder by name; raises ValueError if it has none."""
    found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not found:
        raise ValueError(f"{path} can't be read: it holds no .parquet files; give the folder that they are in")
    return found


def pictures_in(path: Path) -> list[str]:
    """The columns of FOLDERS whose pictures are inside the table; none of what can't be read."""
    try:
        schema = parquet.read_schema(files_of(path)[0])
    except (pa.ArrowException, OSError):
        return []  # what is wrong is told by whoever reads all of it
    return [name for name in FOLDERS if schema.names.count(name) == 1 and is_picture(schema.field(name).type)]


def is_picture(kind: pa.DataType) -> bool:
    """Whether a column holds files' bytes, beside their path or alone."""
    return pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def read_columns(path: Path, home: Path | None) -> dict[str, list[Any]]:
    """All columns of a file, or of a folder's files; pictures are written below ``home`` and named there.

    Class labels become their names. Of files without a column ``split`` those called train-..., validation-... or
    test-... are of that split. Raises ValueError for files whose columns differ.
    """
    columns: dict[str, list[Any]] = {}
    for part in files_of(path):
        with parquet.ParquetFile(part) as file:
            names, classes = file.schema_arrow.names, class_names(file.schema_arrow)
            if len(set(names)) < len(names):
                raise ValueError(f"{part} has the columns {names}, expected each once")
            split = SPLIT_NAMES.get(part.stem.replace("_", "-").split("-")[0])
            added = {"split": split} if split and path.is_dir() and "split" not in names else {}
            columns = columns or {name: [] for name in (*names, *added)}
            if set(columns) != {*names, *added}:
                raise ValueError(f"{part} has the columns {names}, files before it {list(columns)}; import it alone")
            groups = range(file.num_row_groups)  # one by one: a batch over several could be more than Arrow can nest
            for batch in (one for group in groups for one in file.iter_batches(ROWS, row_groups=[group])):
                for name, values in zip(names, batch.columns, strict=True):
                    cells = values.to_pylist()
                    if name in FOLDERS and home is not None and is_picture(values.type):
                        cells = [unpacked(cell, home / FOLDERS[name]) for cell in cells]
                    columns[name] += [in_words(cell, classes[name]) for cell in cells] if name in classes else cells
                for name, value in added.items():
                    columns[name] += [value] * len(batch)
    return columns


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The words of columns that hold numbers of classes, or lists of these."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"].items()
    except (KeyError, ValueError, TypeError, AttributeError):  # not written by datasets, or not as we know it
        return {}
    found = {}
    for name, feature in features:
        inner = feature[0] if isinstance(feature, list) and feature else feature  # a list, as older versions write it
        inner = inner.get("feature", inner) if isinstance(inner, dict) else {}
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
            found[name] = inner["names"]
    return found


def in_words(cell: Any, names: list[str]) -> Any:
    """A class's number, or a list of them, as words; -1, which is no class, as None."""
    if isinstance(cell, list):
        return [in_words(one, names) for one in cell]
    if not isinstance(cell, int):  # not written by datasets
        return cell
    return None if cell < 0 else names[cell] if cell < len(names) else cell


def unpacked(cell: dict[str, Any] | bytes | None, folder: Path) -> str | None:
    """Write a picture's bytes, once, under a name made of them; one without bytes keeps its path."""
    picture: dict[str, Any] = cell if isinstance(cell, dict) else {"bytes": cell}
    content = picture.get("bytes")
    if content is None:
        return picture.get("path")
    if not isinstance(content, bytes):
        raise ValueError(f"a picture's bytes must be binary, got {type(content).__name__}; write the file's content")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            kind = str(opened.format).lower()
    except Exception:  # Pillow raises whatever a damaged file runs into; the row is refused later, with the reason
        kind = "unreadable"
    path = folder / f"{sha256(content).hexdigest()[:16]}.{kind}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path.name


# --- out --------------------------------------------------------------------------------------------------------------


def export_parquet(folder: Path, out: Path, progress: Progress | None = None) -> dict[str, int]:
    """Write a data set's splits as ``out``/train.parquet, ..., pictures inside; returns the rows of each.

    ``datasets.load_dataset("parquet", data_dir=out)`` opens it, and so does the Hub. Whole or not at all; raises
    ValueError for a data set or an image that can't be read, and if ``out`` is there already.
    """
    out = out.resolve()
    check_free(out)
    manifest = read_manifest(folder)
    have = manifest.table["split"].unique().to_pylist()
    written = dict.fromkeys([split for split in SPLITS if split in have], 0)
    with temporary_for(out, folder=True) as temporary:
        for split in written:
            for table in tables_of(manifest.rows_of(split), temporary / f"{split}.parquet"):
                written[split] += len(table)
                if progress:
                    progress(sum(written.values()), len(manifest.table))
        temporary.chmod(0o755)
        os.rename(temporary, out)
    return written


def tables_of(manifest: Manifest, path: Path) -> Iterator[pa.Table]:
    """Write a manifest's rows, ROWS or about BYTES of pictures at a time, yielding what has been written."""
    roots = {"image": manifest.images, "mask": manifest.masks}
    fields = [pa.field(f.name, PICTURE if f.name in FOLDERS else f.type) for f in manifest.table.schema]
    described = {field.name: feature(field.type) for field in fields}
    schema = pa.schema(fields, {"huggingface": json.dumps({"info": {"features": described}})})
    # As a dictionary, a picture with many questions is written once in each row group.
    options: dict[str, Any] = {"use_dictionary": True, "dictionary_pagesize_limit": 2**30}
    with parquet.ParquetWriter(path, schema, **options) as writer:
        for start in range(0, len(manifest.table), ROWS):
            rows = manifest.table.slice(start, ROWS)
            pictures = {name: embedded(rows[name], roots[name]) for name in roots if name in rows.column_names}
            for place in small_enough(list(pictures.values())):
                inside = {name: pa.array(cells[place], PICTURE) for name, cells in pictures.items()}
                part = rows.slice(place.start, place.stop - place.start)
                table = pa.table({name: inside.get(name, part[name]) for name in rows.column_names}, schema)
                writer.write_table(table)
                yield table


def small_enough(columns: Sequence[Sequence[Picture | None]]) -> Iterator[slice]:
    """Consecutive rows of columns of pictures that hold about BYTES together."""
    cost = np.array([sum(len(cell["bytes"]) for cell in row if cell) for row in zip(*columns, strict=True)], np.int64)
    ends = np.flatnonzero(np.diff(cost.cumsum() // BYTES)) + 1
    yield from (slice(a, b) for a, b in pairwise([0, *ends.tolist(), len(cost)]))


def embedded(paths: pa.ChunkedArray, root: ImageRoot) -> list[Picture | None]:
    """Files as pictures; null stays null. Raises ValueError for a file that is none."""
    known: dict[str | None, Picture | None] = {None: None}
    for path in paths.unique().to_pylist():
        if path is not None:
            with root.open(path) as file:
                examined(file, path, lambda picture: None)
                file.seek(0)
                known[path] = {"bytes": file.read(), "path": path}
    return [known[path] for path in paths.to_pylist()]


def feature(kind: pa.DataType) -> dict[str, Any]:
    """A column's type as ``datasets`` writes it; "Sequence" is what all its versions know."""
    if kind == PICTURE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": feature(kind.value_type), "_type": "Sequence"}
    return {"dtype": {"float": "float32", "double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}
