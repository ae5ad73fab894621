"""A table's cells: what each becomes in its column's type, and words without blanks around them. Legend: R rows."""

# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
LARGEST = {pa.float32(): float(np.finfo(np.float32).max), pa.float64(): float(np.finfo(np.float64).max)}
EXACT = 2**53  # beyond, float64 rounds whole numbers
UNKNOWN = "leave it empty where it is unknown"
BLANKS, NOT_NFC, TWICE = (
    "words with blanks around them",
    "words not in NFC (Unicode's composed form)",
    "words listed twice",
)


def converter(kind: pa.DataType) -> Callable[[Any], Any]:
    """What turns a cell into a column's type, None where nothing is stated; it raises ValueError for a wrong one."""
    if pa.types.is_list(kind):
        return words
    if pa.types.is_string(kind):
        return word
    if pa.types.is_floating(kind):
        return lambda cell: number(cell, LARGEST[kind])
    return lambda cell: whole(cell, kind.bit_width)


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


def parsed(cell: Any, what: str) -> int | float | None:
    """A number, or text that is one and nothing else (no ``NA``, ``0x1F`` or ``1_0``); None for blank text and NaN."""
    if isinstance(cell, str):
        text = cell.strip()
        if not text:
            return None
        if not NUMBER.fullmatch(text):
            raise ValueError(f"expected {what}, got {cell!r:.80}; {UNKNOWN}")
        cell = int(text) if WHOLE.fullmatch(text) else float(text)
    if isinstance(cell, bool) or not isinstance(cell, int | float | Decimal):
        raise ValueError(f"expected {what}, got {cell!r:.80}; {UNKNOWN}")
    cell = float(cell) if isinstance(cell, Decimal) else cell
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def number(cell: Any, largest: float) -> float | None:
    """A finite number; raises ValueError for anything else."""
    found = parsed(cell, "a number")
    if found is not None and abs(found) > largest:
        raise ValueError(f"expected a finite number, at most {largest:.2g}, got {cell!r:.80}")
    return None if found is None else float(found)


def whole(cell: Any, bits: int) -> int | None:
    """A whole number of so many bits; raises ValueError for anything else."""
    what = f"a whole number of {bits} bits"
    found = parsed(cell, what)
    if isinstance(found, float) and not (found.is_integer() and abs(found) <= EXACT):
        raise ValueError(f"expected {what}, got {cell!r:.80}; {UNKNOWN}")
    if found is not None and not -(2 ** (bits - 1)) <= found < 2 ** (bits - 1):
        raise ValueError(f"expected {what}, got {cell!r:.80}; {UNKNOWN}")
    return None if found is None else int(found)


# --- words ------------------------------------------------------------------------------------------------------------


def tidy_words(cells: pa.Array, repaired: Counter[str], path: bool = False) -> pa.Array:
    """Words (R,) without blanks around them, null where nothing is left; unless paths, in Unicode's composed form."""
    coded = cells.dictionary_encode()
    raw = coded.dictionary.to_pylist()
    bare = [text.strip() for text in raw]
    composed = bare if path else [unicodedata.normalize("NFC", text) for text in bare]
    if not path:
        often = np.bincount(coded.indices.drop_null().to_numpy(), minlength=len(raw))
        repaired[BLANKS] += int(often[[a != b for a, b in zip(raw, bare, strict=True)]].sum())
        repaired[NOT_NFC] += int(often[[a != b for a, b in zip(bare, composed, strict=True)]].sum())
    return pa.array([text or None for text in composed], pa.string()).take(coded.indices)


def tidy_lists(cells: pa.Array, repaired: Counter[str]) -> pa.Array:
    """Lists of such words (R,), each word once, blank ones left out; null stays null."""
    row, listed = flat(cells)
    listed = tidy_words(listed, repaired)
    code = codes(listed)
    first = np.zeros(len(row), bool)
    first[np.unique(row * (len(row) + 1) + code, return_index=True)[1]] = True
    stays = first & (code > 0)
    repaired[TWICE] += int((code > 0).sum() - stays.sum())
    ends = np.bincount(row[stays], minlength=len(cells)).cumsum()
    unknown = np.append(cells.is_null().to_numpy(zero_copy_only=False), False)
    offsets = pa.array(np.append(0, ends), pa.int32(), mask=unknown)
    return pa.ListArray.from_arrays(offsets, listed.filter(pa.array(stays)))


def flat(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, pa.Array]:
    """A column of words, or of lists of them: the row of each word, and the words."""
    cells = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_list(cells.type):
        return pc.list_parent_indices(cells).to_numpy(), pc.list_flatten(cells)
    return np.arange(len(cells)), cells


def codes(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """(R,) numbers >= 0 that are equal where values are; 0 is null."""
    cells = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pc.fill_null(cells.dictionary_encode().indices, -1).to_numpy().astype(np.int64) + 1


def numbers(table: pa.Table, *columns: str, missing: float) -> np.ndarray:
    """Columns of numbers as (R, columns) float64, ``missing`` where nothing is stated or a column is not there."""
    known = [
        pc.fill_null(table[name].cast(pa.float64()), missing).to_numpy()
        if name in table.column_names
        else np.full(len(table), missing)
        for name in columns
    ]
    return np.stack(known, 1)
