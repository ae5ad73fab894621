"""What a manifest says by slow, obvious readers that share nothing with the library: the csv and json modules, loops.

A row that is read must equal theirs: no label, path or number may be another than what is written.
"""

import csv
import io
import json
import math
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

from progressive_attention.data.manifest import Manifest

LISTS = ("attributes", "absent")
WORDS = ("image", "query", "attribute", "split", "mask")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """A .csv or .jsonl manifest, row by row; blanks around columns' names go."""
    content = path.read_bytes().decode("utf-8-sig")
    if path.suffix == ".csv":
        head, *rows = [row for row in csv.reader(io.StringIO(content, newline="")) if row]
        return [dict(zip(map(str.strip, head), row, strict=True)) for row in rows]
    lines = [json.loads(line) for line in content.split("\n") if line.strip()]
    return [{name.strip(): cell for name, cell in row.items()} for row in lines]


def same_number(read: float | None, said: Any) -> bool:
    """Whether a number was read as it was said, in the column's precision; booleans and words are none."""
    if said is None or (isinstance(said, str) and not said.strip()):
        return read is None
    if isinstance(said, bool) or read is None or (isinstance(said, str) and set(said.lower()) & set("_xna")):
        return False
    try:
        exact = isinstance(read, int) and not isinstance(said, float)
        return read == int(said) if exact else math.isclose(read, float(said), rel_tol=1e-6, abs_tol=1e-30)
    except (ValueError, OverflowError):  # a whole number that is written as 8.0
        return isinstance(said, str) and float(said) == read


def bare(said: Any, name: str) -> str | None:
    """A word without blanks around it, composed but in paths; whole numbers and true are words."""
    if isinstance(said, bool):
        said = str(said).lower()
    assert said is None or isinstance(said, str | int), f"{said!r} was read as a word"
    word = str(said or "" if said != 0 else 0).strip()
    if name in ("image", "mask"):
        return (PurePosixPath(word).as_posix() if name == "image" else word) if word else None
    return unicodedata.normalize("NFC", word) or None


def same_words(read: list[str] | None, said: Any) -> bool:
    """Whether a list was read as it was said: each word once, blank ones left out."""
    if said is None or isinstance(said, str):
        cell = (said or "").strip()
        said = None if not cell else [] if cell == "[]" else cell.split(";")
    if said is None or not isinstance(said, list):
        return read is None and said is None
    return read == [word for word in dict.fromkeys(bare(word, "attributes") for word in said) if word]


def same(read: Any, said: Any, name: str) -> bool:
    """Whether a cell was read as it was said."""
    if name in LISTS:
        return same_words(read, said)
    return read == bare(said, name) if name in WORDS else same_number(read, said)


def wrongly_read(manifest: Manifest, path: Path) -> str | None:
    """The first cell that was read as something else than is written, None if there is none."""
    said = rows_of(path)
    table = manifest.table.to_pylist()
    if len(said) != len(table):
        return f"{len(table)} rows were read, {len(said)} are there"
    spread = not any(bare(row.get("split"), "split") for row in said)  # by a hash
    for number, (row, other) in enumerate(zip(table, said, strict=True), 1):
        for name, read in row.items():
            if not (name == "split" and spread) and not same(read, other.get(name), name):
                return f"row {number}, {name}: read {read!r}, but {other.get(name)!r} is written"
        if unread := [name for name in other if name not in row]:
            return f"row {number}: {unread} were not read"
    return None
