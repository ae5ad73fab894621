"""What an imported data set is on disk: a folder with manifest.parquet, rejected.parquet and dataset.json.

One row is one question: an object of a class (the query) in an image, with its attributes. dataset.json tells where
images and masks lie, where the rows come from, what was mended and what was rejected, and why.
"""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from progressive_attention.files import temporary_for, write_json

MANIFEST, REJECTED_TABLE, ABOUT = "manifest.parquet", "rejected.parquet", "dataset.json"
FORMAT = 1
# A data set has either ``attributes`` (any number of them hold) or ``attribute`` (exactly one holds). All but image,
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
REJECTED = pa.schema(
    {"image": pa.string(), "query": pa.string(), "id": pa.int64(), "reason": pa.string(), "detail": pa.string()}
)


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
    """Write a data set's folder, whole or not at all; returns what dataset.json says.

    ``rows`` has columns of SCHEMA, ``rejected`` those of REJECTED (its ``reason`` a few distinct words, ``detail``
    what was there). ``home`` is a folder beside ``out``, of images and masks perhaps, that becomes the data set's.
    ``about`` (settings, counts, mended) is kept as given. Raises ValueError if ``out`` exists and is not empty: an
    import never replaces another.
    """
    out = out.resolve()  # the folder that a link leads to, not the link, is what can be replaced
    check_free(out)
    reasons = rejected["reason"].value_counts().to_pylist()
    told = {
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
        write_json(temporary / ABOUT, told)
        temporary.chmod(0o755)
        os.rename(temporary, out)  # an empty folder there is replaced
    return told


def check_free(out: Path) -> None:
    """Raises ValueError if something is at ``out`` already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and not empty; choose another --out, or delete it")


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table's columns in the schema's order and types; a column that the schema lacks is our mistake."""
    assert set(table.column_names) <= set(schema.names), set(table.column_names) - set(schema.names)
    return table.select([name for name in schema.names if name in table.column_names]).cast(
        pa.schema([field for field in schema if field.name in table.column_names])
    )


def relative_to(out: Path, folder: Path) -> str:
    """A folder inside of the data set by its relative path, so that both move together; any other by its full path."""
    full, home = folder.resolve(), out.resolve()
    return os.path.relpath(full, home) if full.is_relative_to(home) else str(full)


def as_table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Lists or arrays as a table of the schema's types, those columns only that are given."""
    return pa.table({name: pa.array(values, schema.field(name).type) for name, values in columns.items()})
