"""A data set as Parquet with its pictures inside, as Hugging Face's ``datasets`` and the Hub open it."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from progressive_attention.config import SPLITS
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import opened
from progressive_attention.data.manifest import Manifest, read_manifest
from progressive_attention.data.parquet_files import FOLDERS, PICTURE, ROWS
from progressive_attention.data.table import check_free
from progressive_attention.files import temporary_for

Progress = Callable[[int, int], None]


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
            for rows in write_split(manifest.rows_of(split), temporary / f"{split}.parquet"):
                written[split] += rows
                if progress:
                    progress(sum(written.values()), len(manifest.table))
        temporary.chmod(0o755)
        os.rename(temporary, out)
    return written


def write_split(manifest: Manifest, path: Path) -> Iterator[int]:
    """Write a manifest's rows, ROWS at a time, yielding how many each time."""
    roots = {"image": manifest.images, "mask": manifest.masks}
    fields = [pa.field(f.name, PICTURE if f.name in FOLDERS else f.type) for f in manifest.table.schema]
    described = {field.name: feature(field.type) for field in fields}
    schema = pa.schema(fields, {"huggingface": json.dumps({"info": {"features": described}})})
    # As a dictionary, a picture with many questions is written once in each row group.
    with parquet.ParquetWriter(path, schema, use_dictionary=True, dictionary_pagesize_limit=2**30) as writer:
        for start in range(0, len(manifest.table), ROWS):
            rows = manifest.table.slice(start, ROWS)
            for name in [name for name in roots if name in rows.column_names]:
                rows = rows.set_column(rows.column_names.index(name), name, embedded(rows[name], roots[name]))
            writer.write_table(rows.cast(schema))
            yield len(rows)


def embedded(paths: pa.ChunkedArray, root: ImageRoot) -> pa.Array:
    """Files as pictures; null stays null. Raises ValueError for a file that is none."""
    known: dict[str | None, dict[str, Any] | None] = {None: None}
    for path in paths.drop_null().unique().to_pylist():
        with root.open(path) as file:
            with opened(file, path):
                pass
            file.seek(0)
            known[path] = {"bytes": file.read(), "path": path}
    return pa.array([known[path] for path in paths.to_pylist()], PICTURE)


def feature(kind: pa.DataType) -> dict[str, Any]:
    """A column's type as ``datasets`` writes it; "Sequence" is what all its versions know."""
    if kind == PICTURE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": feature(kind.value_type), "_type": "Sequence"}
    return {"dtype": {"float": "float32", "double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}
