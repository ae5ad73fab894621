"""What a manifest says by slow, obvious readers that share nothing with the library: the csv and json modules, loops.

A row that is read must equal theirs: no label, path or number may be another than what is written.
"""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from progressive_attention.data.manifest import Manifest

LISTS = ("attributes", "absent")
WORDS = ("image", "query", "attribute", "split", "mask")
UNKNOWN = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"}
UNKNOWN |= {"N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"}  # what Arrow takes for a missing number


def rows_of(path: Path) -> list[dict[str, Any]]:
    """A .csv or .jsonl manifest, row by row."""
    content = path.read_bytes().decode("utf-8-sig")
    if path.suffix == ".csv":
        head, *rows = [row for row in csv.reader(io.StringIO(content, newline="")) if row]
        return [dict(zip(head, row, strict=True)) for row in rows]
    decoder, rows, at = json.JSONDecoder(), [], 0
    while content[at:].strip():
        at += len(content[at:]) - len(content[at:].lstrip())
        row, at = decoder.raw_decode(content, at)
        rows.append(row)
    return rows


def same_number(read: float | None, said: Any) -> bool:
    """Whether a number was read as it was said, in the column's precision; booleans and times of day are none."""
    if said is None or (isinstance(said, str) and said.strip() in UNKNOWN):
        return read is None or math.isnan(read)
    if isinstance(said, str) and said.strip().lower().startswith("0x"):
        return read == int(said, 16)
    if isinstance(said, bool) or read is None:
        return read is None and isinstance(said, float) and math.isnan(said)
    try:
        number = float(said)
    except (ValueError, OverflowError):
        return False
    exact = isinstance(read, int) and (
        isinstance(said, int) or (isinstance(said, str) and said.strip().lstrip("+-").isdigit())
    )
    if exact:
        return read == int(said)
    return math.isclose(read, number, rel_tol=1e-6, abs_tol=1e-30) or (math.isnan(read) and math.isnan(number))


def same_word(read: str | None, said: Any) -> bool:
    """Whether a word was read as it was said; whole numbers and true are words, fractions are none."""
    if said is None or said == "":
        return read is None
    if isinstance(said, bool):
        return read == str(said).lower()
    return isinstance(said, (str, int)) and read == str(said)


def same_words(read: list[str] | None, said: Any) -> bool:
    if said is None or isinstance(said, str):
        cell = (said or "").strip()
        words = None if not cell else [] if cell == "[]" else [word.strip() for word in cell.split(";") if word.strip()]
        return read == words
    return (
        isinstance(said, list)
        and read is not None
        and len(read) == len(said)
        and all(
            (one is None and word is None) or (word == "" == one) or same_word(one, word)
            for one, word in zip(read, said, strict=True)
        )
    )


def wrongly_read(manifest: Manifest, path: Path) -> str | None:
    """The first cell that was read as something else than is written, None if there is none."""
    said = rows_of(path)
    table = manifest.table.to_pylist()
    if len(said) != len(table):
        return f"{len(table)} rows were read, {len(said)} are there"
    for number, (row, other) in enumerate(zip(table, said, strict=True), 1):
        for name, read in row.items():
            if name == "split" and name not in other:
                continue  # by a hash
            same = same_words if name in LISTS else same_word if name in WORDS else same_number
            if not same(read, other.get(name)):
                return f"row {number}, {name}: read {read!r}, but {other.get(name)!r} is written"
        if unread := [name for name in other if name not in row]:
            return f"row {number}: {unread} were not read"
    return None
