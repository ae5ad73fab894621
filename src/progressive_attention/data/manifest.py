"""The user's own data: a folder with a table of questions (columns of ``table.SCHEMA``) beside its images.

An imported folder has dataset.json too, which may place the images elsewhere; its rows were judged by the rules of
``checks`` then, those of other folders are judged here.
"""
# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from progressive_attention.config import SPLITS, one_of
from progressive_attention.data.checks import judge, left_out, summary
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import FileImages, FileMasks
from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.data.table import ABOUT, BOX, FORMAT, LISTS, flat, imported_table, numbers, read_table
from progressive_attention.data.voc import other_words
from progressive_attention.files import read_json

FORMS = (".parquet", ".csv", ".jsonl")


@dataclass(frozen=True)
class Manifest:
    """A data set's table, columns of ``table.SCHEMA`` in its types, and where its images and masks are."""

    name: str
    table: pa.Table
    images: ImageRoot
    masks: ImageRoot
    about: dict[str, Any]  # dataset.json, empty for a table that was written by hand
    imported: bool  # whether an import judged its rows and wrote the images' true sizes

    def usable(self, sizes: np.ndarray) -> tuple["Manifest", np.ndarray]:
        """What the rules leave of it, and the numbers of these rows; warns of what they changed.

        ``sizes`` (R, 2): width and height of each row's image, 0 where they are unknown.
        """
        if self.imported:
            return self, np.arange(len(self.table))
        table, findings = judge(self.table, sizes)
        changes = ", ".join(f"{kind}: {n:,}" for kind, n in summary(findings).items())
        rows = np.setdiff1d(np.arange(len(table)), list(left_out(findings)))
        if not len(rows):
            raise ValueError(f"no row of {self.name} can be used ({changes}); `pan data check` lists them")
        if changes:
            advice = "(rows left out or repaired; `pan data check` lists them)"
            warnings.warn(f"{self.name}: {changes} {advice}", stacklevel=3)
        return replace(self, table=table.take(pa.array(rows))), rows

    def rows_of(self, split: str) -> "Manifest":
        """The same with the rows of a split, or of several, ``"train,validation"``; ValueError if there are none."""
        rows = self.table.filter(pc.is_in(self.table["split"], pa.array(split.split(","))))
        if not len(rows):
            have = ", ".join(sorted(self.table["split"].unique().to_pylist()))
            remedy = "name that split in the column split, or leave the column out to have images spread"
            raise ValueError(f"{self.name} has no rows of split {split!r}; its table has {have}; {remedy}")
        return replace(self, table=rows)

    @property
    def synonyms(self) -> dict[str, tuple[str, ...]]:
        """Other words for each query, of PASCAL VOC only; see ``QuestionSet``."""
        return {query: other_words(query) for query in self.names("query")} if self.about.get("source") == "voc" else {}

    def names(self, *columns: str) -> tuple[str, ...]:
        """All words of those columns that the table has, sorted."""
        known = [name for name in columns if name in self.table.column_names]
        return tuple(sorted({word for name in known for word in flat(self.table[name])[1].unique().to_pylist()}))


def find_manifest(folder: Path) -> Path:
    """The one manifest file in a folder; raises ValueError if there is none, or more than one, or no folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give one that holds a manifest, as `pan data import` makes it")
    paths = [folder / f"manifest{form}" for form in FORMS if (folder / f"manifest{form}").is_file()]
    if len(paths) != 1:
        expected = "one of manifest.parquet, manifest.csv, manifest.jsonl; `pan data import` makes one"
        raise ValueError(f"{folder} holds {len(paths)} manifests, expected {expected}")
    return paths[0]


def read_folder(folder: Path) -> Manifest:
    """A folder's table with all its rows, not yet judged, and its images not opened.

    Raises ValueError for a broken file, unknown or missing columns, and wrong cells.
    """
    path = find_manifest(folder)
    about = read_json(folder / ABOUT) if (folder / ABOUT).is_file() else {}
    try:
        images, masks = (ImageRoot(folder / (about.get(what) or ".")) for what in ("images", "masks"))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{folder / ABOUT} does not say where images and masks are: {error}") from error
    table = imported_table(path) if about.get("format") == FORMAT else None
    rows = read_table(path).table if table is None else table
    return Manifest(folder.resolve().name, rows, images, masks, about, imported=table is not None)


def read_manifest(folder: Path) -> Manifest:
    """A folder's rows that can be used, its images not opened; warns of rows that can't, and of repeated ones.

    Raises ValueError as ``read_folder`` does, and if no row can be used.
    """
    manifest = read_folder(folder)
    return manifest.usable(np.zeros((len(manifest.table), 2), np.int64))[0]


def from_folder(folder: Path, split: str, side: int) -> QuestionSet:
    """One split of a manifest folder (or several, ``"train,validation"``), images fitted into ``side`` x ``side``.

    Names are those of all splits. Images are opened when they are asked for. Raises ValueError as ``read_manifest``
    does, for a split without rows, and for paths that lead out of the folder.
    """
    for name in split.split(","):
        one_of("split", name, SPLITS)
    whole = read_manifest(folder)
    part = whole.rows_of(split)
    images, image = file_images(part, side)
    sizes = images.sizes.copy()
    sizes[list(images.unreadable)] = 0
    part, rows = part.usable(sizes[image])
    table, image = part.table, image[rows]
    multi = "attributes" in table.column_names
    query_names, attribute_names = whole.names("query"), whole.names(*(LISTS if multi else ["attribute"]))
    masks, void = file_masks(part, images, image)
    return QuestionSet(
        name=f"{part.name}/{split}",
        images=images,
        image=image,
        query=ids(table["query"], query_names),
        attribute=labels_of(table, attribute_names) if multi else ids(table["attribute"], attribute_names),
        query_names=query_names,
        attribute_names=attribute_names,
        scale=numbers(table, "scale", missing=np.nan)[:, 0] if "scale" in table.column_names else None,
        box=placed_boxes(table, images, image) if BOX[0] in table.column_names else None,
        masks=masks,
        void=void,
        synonyms=whole.synonyms,
    )


def file_images(manifest: Manifest, side: int) -> tuple[FileImages, np.ndarray]:
    """The images of its rows, and which of them each row (R,) is about."""
    coded = manifest.table["image"].combine_chunks().dictionary_encode()
    image, paths = coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()
    for path in paths:
        manifest.images.check(path)
    sizes = np.zeros((len(paths), 2), np.int64)
    if manifest.imported:
        sizes[image] = numbers(manifest.table, "width", "height", missing=0)
    return FileImages(manifest.images, paths, side, sizes), image


def placed_boxes(table: pa.Table, images: FileImages, image: np.ndarray) -> np.ndarray:
    """Boxes (R, 4) in the square's pixels."""
    place = np.array([(fit.x, fit.y, fit.w, fit.h) for fit in images.fits], float)[image]
    scale = place[:, [2, 3, 2, 3]] / images.sizes[image][:, [0, 1, 0, 1]]
    return numbers(table, *BOX, missing=np.nan) * scale + place[:, [0, 1, 0, 1]]


def file_masks(manifest: Manifest, images: FileImages, image: np.ndarray) -> tuple[FileMasks | None, FileMasks | None]:
    """Target and void masks of the rows, None where the table has none; raises ValueError for paths outside."""
    table = manifest.table
    if "mask" not in table.column_names:
        return None, None
    files = table["mask"].to_pylist()
    for path in set(files) - {None}:
        manifest.masks.check(path)
    values, voids = numbers(table, "mask_value", "mask_void", missing=-1).astype(np.int64).T
    target = FileMasks(manifest.masks, files, values, images, image)
    if (voids < 0).all():
        return target, None
    with_void = [path if value >= 0 else None for path, value in zip(files, voids, strict=True)]
    return target, FileMasks(manifest.masks, with_void, voids, images, image)


def ids(column: pa.ChunkedArray | pa.Array, names: tuple[str, ...]) -> np.ndarray:
    """Positions of words in ``names``, which holds them all: (R,) int64."""
    return pc.index_in(column, pa.array(names, pa.string())).to_numpy(zero_copy_only=False).astype(np.int64)


def labels_of(table: pa.Table, names: tuple[str, ...]) -> Labels:
    """The lists ``attributes``, and ``absent`` where there is such a column: then the unlisted are unknown."""
    columns = [name for name in LISTS if name in table.column_names]
    flattened = [flat(table[name]) for name in columns]
    row = np.concatenate([rows for rows, _ in flattened])
    attribute = np.concatenate([ids(words, names) for _, words in flattened])
    value = np.repeat(np.array([1, 0], np.int8)[: len(columns)], [len(rows) for rows, _ in flattened])
    order = np.lexsort((attribute, row))
    start = np.concatenate([[0], np.bincount(row, minlength=len(table)).cumsum()])
    return Labels(start, attribute[order], value[order], len(names), -1 if len(columns) == 2 else 0)
