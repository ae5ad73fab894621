"""Rows on their way into a data set: what every importer does with them, and the import of the user's own table.

Nothing vanishes: a row that can't be used goes to rejected.parquet with its reason, and what is repaired is counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from progressive_attention.config import SPLITS
from progressive_attention.data.checks import REPEATED, Finding, judge, left_out, summary
from progressive_attention.data.file_checks import headed, image_sizes, mask_faults, open_files, unusable
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.parquet_files import FOLDERS
from progressive_attention.data.table import (
    REJECTED,
    SCHEMA,
    answer_column,
    ending,
    flat,
    read_table,
    tidy,
    write_dataset,
)
from progressive_attention.files import temporary_for

ALWAYS = ("image", "query", "attribute", "attributes", "split")  # other columns are written where they state something
REPAIRED = {
    "box reaching out of its image": "boxes clipped to the image",
    "incomplete box": "incomplete boxes left out",
    "image of another size": "sizes that are not the image's",
}


def import_table(path: Path, out: Path, *, images: Path | None = None, masks: Path | None = None) -> dict[str, Any]:
    """Write a data set from a .csv, .jsonl or .parquet table, or a folder of the last; returns dataset.json's content.

    Columns are ``table.SCHEMA``'s: image, query, and either attributes (all that are true) or attribute (the one that
    is), the others as you have them. Paths start at ``images`` and ``masks``, by default the table's folder. In CSV
    lists are written ``red; old``, and ``;`` is an empty one; a blank cell states nothing. Splits are by the hash of
    the image's path if no row has one. Pictures inside a Parquet table become files of the data set.

    Rows that can't be used go to rejected.parquet. Raises ValueError for a table that is broken, or has unknown or
    missing columns or a wrong cell, naming line or row; if no row can be used; and if ``out`` is there already.
    """
    out = out.resolve()
    with temporary_for(out, folder=True) as home:
        rows = read_table(path, home)
        named = "mask" in rows.table.column_names
        if masks is not None and not named:
            raise ValueError(f"{path} has no column mask for the files in {masks}; add it, or leave out --masks")
        return write_judged(
            out,
            rows.table,
            rows.repaired,
            place=lambda row: f"{rows.unit} {rows.numbers[row]}",
            source=ending(path).removeprefix("."),
            images=root_of("image", path, images, home),
            masks=root_of("mask", path, masks, home) if named else None,
            settings={"table": str(path)},
            home=home,
        )


def root_of(column: str, path: Path, folder: Path | None, home: Path) -> ImageRoot:
    """Where a column's files are: unpacked below ``home``, or in the given folder, or beside the table."""
    inside = home / FOLDERS[column]
    if inside.is_dir() and folder is not None:
        raise ValueError(f"{path} has its {FOLDERS[column]} inside; leave out --{FOLDERS[column]}")
    return ImageRoot(inside if inside.is_dir() else folder or (path if path.is_dir() else path.parent))


def tidied(rows: Sequence[Mapping[str, Any]], names: Sequence[str], repaired: Counter[str]) -> pa.Table:
    """One mapping a row as a table of those columns, tidied; what a row lacks is null."""
    return tidy(pa.Table.from_pylist(rows, pa.schema([SCHEMA.field(name) for name in names])), repaired)


def write_judged(
    out: Path,
    table: pa.Table,
    repaired: Counter[str],
    *,
    source: str,
    images: ImageRoot,
    masks: ImageRoot | None,
    settings: dict[str, Any],
    rejected: Iterable[dict[str, Any]] = (),
    notes: Iterable[str] = (),
    place: Callable[[int], str] = lambda row: "",
    home: Path | None = None,
) -> dict[str, Any]:
    """Judge tidied rows and the files they name, and write the data set; returns dataset.json's content.

    ``repaired`` counts what was repaired before, ``rejected`` are rows that were already rejected; ``place`` says where
    a row is in its source, e.g. "line 7"; ``home`` as in ``write_dataset``. Raises ValueError if no row can be used.
    """
    pictures, regions = open_files(table, images, masks, headed)
    sizes = image_sizes(table, pictures)
    judged, findings = judge(table, sizes)
    gone = left_out([*unusable(table, "image", pictures), *findings, *mask_faults(table, sizes, regions)])
    rejected = [*rejected, *(rejection(table, row, gone[row], place) for row in sorted(gone))]
    for at, name in enumerate(("width", "height")):
        column = pa.array(sizes[:, at], SCHEMA.field(name).type)
        judged = judged.drop_columns(name) if name in judged.column_names else judged
        judged = judged.append_column(name, column)
    rows = judged.take(pa.array(np.setdiff1d(np.arange(len(table)), list(gone)), pa.int64()))
    if not len(rows):
        raise ValueError(f"no row of {settings.get('table', source)} can be used: {complaint(rejected)}")
    counts = summary(findings)
    repaired = repaired + Counter({name: counts[kind] for kind, name in REPAIRED.items()})
    return write_dataset(
        out,
        rows.drop_columns([n for n in rows.column_names if n not in ALWAYS and rows[n].null_count == len(rows)]),
        pa.Table.from_pylist(rejected, REJECTED),
        source=source,
        images=images.root,
        masks=None if masks is None else masks.root,
        home=home,
        settings=settings,
        counts=counts_of(rows),
        mended=dict(repaired.most_common()),
        notes=list(notes),
    )


def rejection(table: pa.Table, row: int, finding: Finding, place: Callable[[int], str]) -> dict[str, Any]:
    """A row of the rejected table."""
    same = f"the same as {place(finding.rows[0]) or 'an earlier one'}" if finding.kind == REPEATED else ""
    detail = same or finding.detail
    cells = {name: table[name][row].as_py() for name in ("image", "query", "id") if name in table.column_names}
    return {**cells, "reason": finding.kind, "detail": ": ".join(filter(None, (place(row), detail)))}


def complaint(rejected: Sequence[dict[str, Any]]) -> str:
    """What was rejected, and the first of it."""
    if not rejected:
        return "it has none"
    reasons = Counter(row["reason"] for row in rejected).most_common()
    first = ", ".join(filter(None, (rejected[0].get(name) for name in ("image", "query", "detail"))))
    return f"{'; '.join(f'{reason}: {count}' for reason, count in reasons)}; the first: {first}"


def counts_of(rows: pa.Table) -> dict[str, Any]:
    """How many images, rows, classes (queries) and attributes there are, and how many rows a split has."""
    listed = [name for name in (answer_column(rows), "absent") if name in rows.column_names]
    splits = Counter(rows["split"].to_pylist())
    return {
        "images": len(rows["image"].unique()),
        "rows": len(rows),
        "classes": len(rows["query"].unique()),
        "attributes": len({word for name in listed for word in flat(rows[name])[1].unique().to_pylist()}),
        "splits": {split: splits[split] for split in SPLITS},
    }
