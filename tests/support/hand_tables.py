"""A table in three formats, and pictures for its rows, that the tests of imported tables share."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from progressive_attention.data.table import SCHEMA

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
                writer.writerow(
                    {n: "; ".join(map(str, v)) or ";" if isinstance(v, list) else v for n, v in row.items()}
                )
    return path


def as_cell(value):
    """A list as one writes it in CSV; what it has no place for is left blank."""
    return ("; ".join(word or "" for word in value) or ";") if isinstance(value, list) else value


def write_pictures(folder: Path) -> Path:
    """Pictures a.png 40 x 20 and sub/b.jpg 8 x 6, and a mask m.png for the first."""
    (folder / "sub").mkdir()
    Image.new("RGB", (40, 20)).save(folder / "a.png")
    Image.new("RGB", (8, 6)).save(folder / "sub" / "b.jpg")
    Image.new("L", (40, 20), 3).save(folder / "m.png")
    return folder


def as_table(columns: Mapping[str, Any], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Lists or arrays as a table of the schema's types, only the columns that are given."""
    return pa.table({name: pa.array(values, schema.field(name).type) for name, values in columns.items()})
