"""The user's own table of images, queries and attributes (CSV, JSON lines or Parquet) as a data set's folder."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.parquet_files import FOLDERS, pictures_in
from progressive_attention.data.rows import Draft
from progressive_attention.data.table import ending, read_table
from progressive_attention.files import temporary_for


def import_table(path: Path, out: Path, *, images: Path | None = None, masks: Path | None = None) -> dict[str, Any]:
    """Write a data set from a .csv, .jsonl or .parquet table, or a folder of the last; returns dataset.json's content.

    Columns are ``table.SCHEMA``'s: image, query, and either attributes (all that are true) or attribute (the one that
    is), the others as you have them. Paths start at ``images`` and ``masks``, by default the table's folder. In CSV
    lists are written ``red; old``, and ``;`` is an empty one; a blank cell states nothing. Words keep their case;
    blanks around them go, and Unicode is composed (NFC). Rows without a split get one if no row has: by the hash of
    the image's path. Pictures inside a Parquet table (``parquet_files``) become files of the data set.

    Rows that can't be used go to rejected.parquet. Raises ValueError for a table that is broken, or has unknown or
    missing columns or a wrong cell, naming line or row; if no row can be used; and if ``out`` is there already.
    """
    out = out.resolve()
    inside = pictures_in(path) if ending(path) == ".parquet" else []
    with temporary_for(out, folder=True) if inside else nullcontext() as home:
        rows = read_table(path, home)
        named = "mask" in rows.table.column_names
        if masks is not None and not named:
            raise ValueError(f"{path} has no column mask for the files in {masks}; add it, or leave out --masks")
        draft = Draft(rows.table, rows.repaired, place=lambda row: f"{rows.unit} {rows.numbers[row]}")
        return draft.write(
            out,
            source=ending(path).removeprefix("."),
            images=root_of("image", path, images, home if "image" in inside else None),
            masks=root_of("mask", path, masks, home if "mask" in inside else None) if named else None,
            settings={"table": str(path)},
            home=home,
        )


def root_of(column: str, path: Path, given: Path | None, home: Path | None) -> ImageRoot:
    """Where a column's files are: unpacked below ``home``, or in the given folder, or beside the table."""
    if home is None:
        return ImageRoot(given or (path if path.is_dir() else path.parent))
    if given is not None:
        raise ValueError(f"{path} has its {FOLDERS[column]} inside; leave out --{FOLDERS[column]}")
    (home / FOLDERS[column]).mkdir(exist_ok=True)  # there may be none
    return ImageRoot(home / FOLDERS[column])
