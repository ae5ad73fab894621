"""What can be wrong with a data set's rows, one check a function; ``audit`` opens the files and puts all together.

A finding is an *error* where a row can't be used, a *warning* where results would mislead, and a *note* where a look is
worth it. Rows count from 1, which is the first below a header. Legend: R rows, N images.
"""

# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from progressive_attention.config import SPLITS
from progressive_attention.data.images import UNREADABLE_SHARE
from progressive_attention.data.manifest import Manifest
from progressive_attention.data.names import normalise, singulars
from progressive_attention.data.rows import Refused, attempt, fitted
from progressive_attention.data.table import BOX

RARE = 5  # a word with fewer rows than this to learn from is noted
PATHS = "write paths from the images' folder on, without '..' and without links that lead out of it"
MASKS = "evaluation stops at it; mend the file or its path, or leave the cell empty"
LEAK = "results would flatter; keep"
UNLEARNT = "it can't be learnt; move rows of it to train, or drop them"
SPELLINGS = "they count as different words; write one way"
FEW = f"fewer than {RARE} rows to learn it from; add some, or drop the word"
# What can be found, in the order of the report: its severity, and what to do.
KINDS: dict[str, tuple[str, str]] = {
    "image outside": ("error", f"training stops at it; {PATHS}"),
    "image file missing": ("error", "put the file there, mend its path, or drop its rows"),
    "image unreadable": ("error", "fetch or save the file again, or drop its rows"),
    "image too large": ("error", "save it smaller (its boxes and masks too), or drop its rows"),
    "image of another size": ("error", "put the picture there that the table is about, or mend width and height"),
    "too many unusable images": ("error", "training stops at so many; mend or drop those above"),
    "incomplete box": ("error", "give all four numbers, or none"),
    "empty box": ("error", "x0 < x1 and y0 < y1 must hold; mend the box, or leave its four cells empty"),
    "box outside the image": ("error", "boxes are in pixels of the upright image; mend it, or leave its cells empty"),
    "mask outside": ("error", f"evaluation stops at it; {PATHS}"),
    "mask file missing": ("error", MASKS),
    "mask unusable": ("error", MASKS),
    "mask too large": ("error", MASKS),
    "mask of another size": ("error", "evaluation stops at it; a mask must have its upright image's size"),
    "blank query": ("error", "name what is asked about, or drop the row"),
    "blank attribute": ("error", "leave out what is no word; [] says that none holds"),
    "box reaching out of its image": ("warning", "it is cut at the image's edge; are its numbers pixels?"),
    "mask without its target": ("warning", "attention can't be measured there; is mask_value right?"),
    "no attributes": ("warning", "counts as: none holds; drop the row where that is not known"),
    "attribute both listed and absent": ("warning", "counts as: it holds; keep one of both"),
    "repeated row": ("warning", "it counts more than others; keep one of them"),
    "same object, other attributes": ("warning", "keep the right row, or list all in one; tell objects apart by boxes"),
    "image in several splits": ("warning", f"{LEAK} all rows of an image in one split"),
    "same picture in several splits": ("warning", f"{LEAK} copies in one split, or only one of them"),
    "split without rows": ("warning", "name it in the column split, or leave that column out to have images spread"),
    "query never in train": ("warning", UNLEARNT),
    "attribute never in train": ("warning", UNLEARNT),
    "query in several spellings": ("warning", SPELLINGS),
    "attribute in several spellings": ("warning", SPELLINGS),
    "no attributes in any row": (
        "note",
        "enough to measure attention by a network trained elsewhere; none for training",
    ),
    "same picture under several paths": ("note", "keep one of them if this is not meant"),
    "query in singular and plural": ("note", f"{SPELLINGS} if they mean the same"),
    "attribute in singular and plural": ("note", f"{SPELLINGS} if they mean the same"),
    "rare query": ("note", FEW),
    "rare attribute": ("note", FEW),
}
Counts = dict[str, dict[str, int]]  # word -> split -> rows


class Item(NamedTuple):
    """One thing found: the paths or words that it is about, its rows (none for words), and what is the matter."""

    subjects: list[str]
    rows: list[int]
    detail: str


Found = Iterator[tuple[str, Item]]  # kind and item


class Pixels(NamedTuple):
    """An image's (width, height), upright, and the hash of its RGB pixels."""

    size: tuple[int, int]
    digest: bytes


class Values(NamedTuple):
    """A mask's (width, height), upright, and which of the values asked for it has; None: anything but zero."""

    size: tuple[int, int]
    present: frozenset[int | None]


@dataclass(frozen=True)
class Pictures:
    """The N images of a table: their paths, which of them each row is about, and what their files hold."""

    paths: list[str]
    image: np.ndarray  # (R,)
    pixels: list[Pixels | Refused]

    @cached_property
    def sizes(self) -> np.ndarray:
        """(N, 2) width and height, 0 where the file can't be used."""
        return np.array([(0, 0) if isinstance(one, Refused) else one.size for one in self.pixels], np.int64)

    @cached_property
    def rows(self) -> list[np.ndarray]:
        """The rows of each image."""
        order = np.argsort(self.image, kind="stable")
        return np.split(order, np.searchsorted(self.image[order], np.arange(1, len(self.paths))))


# --- columns ----------------------------------------------------------------------------------------------------------


def answer_column(table: pa.Table) -> str:
    """The one of both columns that a table has."""
    return "attributes" if "attributes" in table.column_names else "attribute"


def flat(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """A column of words, or of lists of them: the row of each word, and the words."""
    cells = column.combine_chunks()
    if pa.types.is_list(cells.type):
        return pc.list_parent_indices(cells).to_numpy(), pc.list_flatten(cells)
    return np.arange(len(cells)), cells


def codes(cells: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Numbers >= 0 that are equal where values are; 0 is null."""
    cells = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
    return pc.fill_null(cells.dictionary_encode().indices, -1).to_numpy().astype(np.int64) + 1


def answer_codes(table: pa.Table) -> np.ndarray:
    """(R,) numbers that are equal where the same attributes hold, in whatever order they are listed."""
    row, words = flat(table[answer_column(table)])
    row, code = np.divmod(np.unique(row * (len(words) + 1) + codes(words)), len(words) + 1)
    offsets = np.searchsorted(row, np.arange(len(table) + 1)).astype(np.int32)
    return codes(pc.binary_join(pa.ListArray.from_arrays(offsets, pa.array(code).cast(pa.string())), " "))


def split_codes(table: pa.Table) -> np.ndarray:
    """(R,) positions in SPLITS."""
    return pc.index_in(table["split"].combine_chunks(), pa.array(SPLITS)).to_numpy().astype(np.int64)


def alike(columns: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Rows that are equal in all columns, two or more at a time, ascending."""
    order = np.lexsort(columns)
    changes = np.any([column[order][1:] != column[order][:-1] for column in columns], 0)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(np.append(starts, len(order)))
    for i in np.flatnonzero(lengths > 1):
        yield order[starts[i] : starts[i] + lengths[i]]


def numbered(rows: np.ndarray) -> list[int]:
    """Rows as a person counts them."""
    return (rows + 1).tolist()


def in_splits(split: np.ndarray) -> str:
    """Positions in SPLITS, one a row, as "train 3, test 1"."""
    return ", ".join(f"{name} {n}" for name, n in zip(SPLITS, np.bincount(split, minlength=3), strict=True) if n)


# --- checks -----------------------------------------------------------------------------------------------------------


def image_faults(manifest: Manifest, pictures: Pictures) -> Found:
    """Images that can't be used, and splits with too many of them."""
    bad = np.zeros(len(pictures.paths), bool)
    for i, (path, pixels) in enumerate(zip(pictures.paths, pictures.pixels, strict=True)):
        if isinstance(pixels, Refused):
            bad[i] = True
            yield pixels.reason, Item([path], numbered(pictures.rows[i]), pixels.detail)
    stated = manifest.numbers("width", "height", missing=0).astype(np.int64)
    differs = (stated != pictures.sizes[pictures.image]).any(1)
    wrong = (stated > 0).all(1) & differs & ~bad[pictures.image]
    for i in np.unique(pictures.image[wrong]):
        rows = pictures.rows[i][wrong[pictures.rows[i]]]
        width, height = pictures.sizes[i]
        told = "{} x {} pixels in the table, {} x {} in the file".format(*stated[rows[0]], width, height)
        yield "image of another size", Item([pictures.paths[i]], numbered(rows), told)
    bad[pictures.image[wrong]] = True
    split = split_codes(manifest.table)
    for code, name in enumerate(SPLITS):
        images = np.unique(pictures.image[split == code])
        if (unusable := bad[images].sum()) > UNREADABLE_SHARE * len(images):
            told = f"{unusable} of {len(images)} images ({unusable / len(images):.0%}), expected at most "
            yield "too many unusable images", Item([name], [], f"{told}{UNREADABLE_SHARE:.0%}")


def box_faults(manifest: Manifest, pictures: Pictures) -> Found:
    """Boxes that are none in their images, or reach out of them; where an image's size is unknown, none is judged."""
    box, size = manifest.numbers(*BOX, missing=np.nan), pictures.sizes[pictures.image]
    inside = (box[:, :2] >= 0).all(1) & (box[:, :2] < box[:, 2:]).all(1) & (box[:, 2:] <= size).all(1)
    for row in np.flatnonzero(~inside & ~np.isnan(box).all(1) & (size > 0).all(1)):
        x0, y0, x1, y1 = (None if np.isnan(value) else value for value in box[row].tolist())
        width, height = size[row].tolist()
        result = attempt(fitted, (x0, y0, x1, y1), width, height)
        detail = f"box {(x0, y0, x1, y1)} in an image of {width} x {height}"
        kind = result.reason if isinstance(result, Refused) else "box reaching out of its image"
        yield kind, Item([pictures.paths[pictures.image[row]]], [int(row) + 1], detail)


def mask_faults(
    manifest: Manifest, pictures: Pictures, masks: Mapping[str, Values | Refused], wanted: list[int | None]
) -> Found:
    """Masks that can't be used, are not of their image's size, or lack the value (R,) that their row wants."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    if masks:
        for row, path in enumerate(manifest.table["mask"].to_pylist()):
            rows_of[path].append(row)
    for path, mask in masks.items():
        rows = np.array(rows_of[path])
        if isinstance(mask, Refused):
            yield mask.reason, Item([path], numbered(rows), mask.detail)
            continue
        size = pictures.sizes[pictures.image[rows]]
        other = (size != mask.size).any(1) & (size > 0).all(1)
        if other.any():
            told = "{} x {} pixels, its image {} x {}".format(*mask.size, *size[other][0])
            yield "mask of another size", Item([path], numbered(rows[other]), told)
        for row in rows[~other].tolist():
            if (value := wanted[row]) not in mask.present:
                told = "all its pixels are zero" if value is None else f"no pixel of it is {value}"
                yield "mask without its target", Item([path], [row + 1], told)


def label_faults(table: pa.Table) -> Found:
    """Rows without attributes, or with words that are none, or that both hold and don't."""
    images, queries = table["image"], table["query"]
    row, said = flat(table[answer_column(table)])
    holds = len(row)
    if "absent" in table.column_names:
        absent_row, absent = flat(table["absent"])
        row, said = np.concatenate([row, absent_row]), pa.concat_arrays([said, absent])
        key = row * (len(said) + 1) + codes(said)
        for at in np.flatnonzero(np.isin(key[:holds], key[holds:])):
            item = Item([images[row[at]].as_py()], [int(row[at]) + 1], f"attribute {said[at].as_py()!r}")
            yield "attribute both listed and absent", item
    for kind, (rows, words) in {"query": flat(queries), "attribute": (row, said)}.items():
        blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(words, "")), "").to_numpy(zero_copy_only=False)
        for at in np.unique(rows[blank]):
            yield f"blank {kind}", Item([images[at].as_py()], [int(at) + 1], "a word without letters")
    if not len(said):
        yield "no attributes in any row", Item([], [], "")
        return
    for at in np.flatnonzero(np.bincount(row, minlength=len(table)) == 0):
        yield "no attributes", Item([images[at].as_py()], [int(at) + 1], f"query {queries[at].as_py()!r}")


def repeats(table: pa.Table) -> Found:
    """Rows about one object of one image: by its query, box and mask."""
    known = [name for name in ("image", "query", *BOX, "mask", "mask_value") if name in table.column_names]
    answer = answer_codes(table)
    for rows in alike([codes(table[name]) for name in known]):
        first = [table["image"][rows[0]].as_py()], f"query {table['query'][rows[0]].as_py()!r}"
        for same in (rows[answer[rows] == code] for code in np.unique(answer[rows])):
            if len(same) > 1:
                yield "repeated row", Item(first[0], numbered(same), first[1])
        if len(np.unique(answer[rows])) > 1:
            yield "same object, other attributes", Item(first[0], numbered(rows), first[1])


def leaks(table: pa.Table, pictures: Pictures) -> Found:
    """Images that are in several splits, or there several times."""
    split = split_codes(table)
    pairs = np.unique(pictures.image * len(SPLITS) + split) // len(SPLITS)
    for i in np.flatnonzero(np.bincount(pairs) > 1):
        rows = pictures.rows[i]
        yield "image in several splits", Item([pictures.paths[i]], numbered(rows), in_splits(split[rows]))
    copies: dict[bytes, list[int]] = defaultdict(list)
    for i, pixels in enumerate(pictures.pixels):
        if not isinstance(pixels, Refused):
            copies[pixels.digest].append(i)
    for images in copies.values():
        if len(images) > 1:
            rows = np.sort(np.concatenate([pictures.rows[i] for i in images]))
            leak = len(np.unique(split[rows])) > 1
            kind = "same picture in several splits" if leak else "same picture under several paths"
            yield kind, Item([pictures.paths[i] for i in images], numbered(rows), in_splits(split[rows]))


def empty_splits(table: pa.Table) -> Found:
    """Splits that nothing is in."""
    needs = {"test": "`pan evaluate` asks it unless --split names another"}
    for split in SPLITS:
        if not pc.any(pc.equal(table["split"], split)).as_py():
            yield "split without rows", Item([split], [], needs.get(split, "`pan train` needs it"))


def word_faults(kind: str, counts: Counts) -> Found:
    """Queries or attributes (``kind``) that can't be learnt, hardly can, or are one word written in several ways."""
    spellings: dict[str, list[str]] = defaultdict(list)
    learning = any(by_split[SPLITS[0]] for by_split in counts.values())
    for word, by_split in counts.items():
        spellings[normalise(word) or word].append(word)
        told = ", ".join(f"{split} {rows}" for split, rows in by_split.items() if rows)
        if learning and by_split[SPLITS[0]] < RARE:
            yield f"rare {kind}" if by_split[SPLITS[0]] else f"{kind} never in train", Item([word], [], told)
    for words in spellings.values():
        if len(words) > 1:
            yield f"{kind} in several spellings", Item(words, [], rows_of(words, counts))
    for word in spellings:
        for singular in singulars(word):
            if singular in spellings:
                both = spellings[singular] + spellings[word]
                yield f"{kind} in singular and plural", Item(both, [], rows_of(both, counts))


def rows_of(words: list[str], counts: Counts) -> str:
    """How many rows each word has, as "3 and 1 rows"."""
    return " and ".join(str(sum(counts[word].values())) for word in words) + " rows"
