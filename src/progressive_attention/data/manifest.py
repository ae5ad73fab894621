"""The user's own data: a folder with a table of questions beside its images, or one .npz of arrays.

A folder holds ``manifest.parquet``, ``manifest.csv`` or ``manifest.jsonl`` with the columns image (path inside the
folder), query, attribute, and optionally split (train, validation, test), mask (path; non-zero pixels are the
target), scale, and x0, y0, x1, y1 (box in the image's pixels, half open).
"""

from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from progressive_attention.config import SPLITS, one_of
from progressive_attention.data.pictures import Fit, open_mask, open_picture
from progressive_attention.data.questions import QuestionSet

WORDS = ("image", "query", "attribute", "split", "mask")
BOX = ("x0", "y0", "x1", "y1")
READERS = {
    ".parquet": pyarrow.parquet.read_table,
    # Types are told: guessed from the text, the word 07 would become 7, and true True.
    ".csv": partial(
        pyarrow.csv.read_csv,
        convert_options=pyarrow.csv.ConvertOptions(column_types={name: pa.string() for name in WORDS}),
    ),
    ".jsonl": pyarrow.json.read_json,
}


class FileMasks:
    """Masks read from their files when asked for; a row without a file has an empty mask.

    ``places`` are where each row's image was fitted, and its (width, height): a mask goes to the same pixels. Asking
    raises ValueError for a file that can't be read, or is not of its image's size.
    """

    def __init__(self, paths: list[Path | None], places: list[tuple[Fit, tuple[int, int]]], side: int) -> None:
        self.paths, self.places, self.side = paths, places, side

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        masks = np.zeros((len(rows), self.side, self.side), bool)
        for mask, row in zip(masks, rows, strict=True):
            if path := self.paths[row]:
                picture = open_mask(path)
                fit, size = self.places[row]
                if picture.size != size:
                    raise ValueError(
                        f"{path} is {picture.width} x {picture.height} pixels, but its image {size[0]} x {size[1]}; "
                        "a mask must be of its image's size"
                    )
                mask[:] = fit.mask(picture)
        return masks


def find_manifest(folder: Path) -> Path:
    """The one manifest file in a folder; raises ValueError if there is none, or more than one."""
    found = [folder / f"manifest{suffix}" for suffix in READERS if (folder / f"manifest{suffix}").is_file()]
    if len(found) != 1:
        raise ValueError(
            f"{folder} holds {len(found)} manifests, expected one of manifest.parquet, manifest.csv, manifest.jsonl "
            "with the columns image, query, attribute"
        )
    return found[0]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The table's columns: words as lists (None for no mask), scale and box as float arrays (NaN for none).

    Raises ValueError for a broken file, and for missing or wrong columns and values.
    """
    path = find_manifest(folder)
    try:
        table: pa.Table = READERS[path.suffix](path)
        columns: dict[str, Any] = table.to_pydict()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    if missing := [name for name in ("image", "query", "attribute") if name not in table.column_names]:
        raise ValueError(f"{path} lacks the columns {missing}; it has {table.column_names}")
    if not len(table):
        raise ValueError(f"{path} has no rows")
    for name in (name for name in WORDS if name in columns):
        columns[name] = words = [None if value in (None, "") else str(value) for value in columns[name]]
        if name != "mask" and (empty := [i for i, word in enumerate(words) if word is None]):
            raise ValueError(
                f"{path}: no {name} in {len(empty)} rows, the first is row {empty[0] + 1}; fill or drop them"
            )
    if 0 < len(box := [name for name in BOX if name in columns]) < len(BOX):
        raise ValueError(f"{path} has only {box} of the columns {list(BOX)}; a box needs all four")
    for name in (name for name in ("scale", *BOX) if name in columns):
        try:
            columns[name] = np.array(columns[name], float)  # None becomes NaN
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {name} must hold numbers, or nothing where it is unknown ({error})") from error
    if "split" not in columns:
        columns["split"] = [split_of(image) for image in columns["image"]]
    for value in dict.fromkeys(columns["split"]):
        one_of(f"split in {path}", value, SPLITS)
    return columns


def split_of(image: str) -> str:
    """Split of an image where the table names none: 60 / 20 / 20 % by the path's hash, so images never straddle."""
    share = int(sha256(PurePosixPath(image).as_posix().encode()).hexdigest()[:8], 16) / 16**8
    return SPLITS[0] if share < 0.6 else SPLITS[1] if share < 0.8 else SPLITS[2]


def from_folder(folder: Path, split: str, side: int) -> QuestionSet:
    """One split of a manifest folder, images fitted into ``side`` x ``side``; names are those of all splits.

    Raises ValueError naming the first file that can't be read.
    """
    one_of("split", split, SPLITS)
    columns = read_manifest(folder)
    rows = [i for i, value in enumerate(columns["split"]) if value == split]
    if not rows:
        have = ", ".join(sorted(set(columns["split"])))
        raise ValueError(f"{folder} has no rows of split {split!r}; its table has {have}")
    paths = list(dict.fromkeys(columns["image"][i] for i in rows))
    images = np.zeros((len(paths), side, side, 3), np.uint8)
    fits = []
    for image, path in zip(images, paths, strict=True):
        picture = open_picture(inside(folder, path))
        fits.append((Fit.into(side, *picture.size), picture.size))
        image[:] = fits[-1][0].image(picture)
    index = {path: i for i, path in enumerate(paths)}
    image = np.array([index[columns["image"][i]] for i in rows])
    names = {name: tuple(sorted(set(columns[name]))) for name in ("query", "attribute")}
    position = {name: {word: i for i, word in enumerate(names[name])} for name in names}
    ids = {name: np.array([position[name][columns[name][i]] for i in rows]) for name in names}
    box = None
    if all(name in columns for name in BOX):
        raw = np.stack([columns[name] for name in BOX], 1)[rows]
        box = np.stack([fits[at][0].box(b, *fits[at][1]) for at, b in zip(image, raw, strict=True)])
    scale = columns["scale"][rows] if "scale" in columns else None
    masks = None
    if "mask" in columns:
        files = [inside(folder, columns["mask"][i]) if columns["mask"][i] else None for i in rows]
        masks = FileMasks(files, [fits[at] for at in image], side)
    return QuestionSet(
        f"{folder.name}/{split}",
        images,
        image,
        ids["query"],
        ids["attribute"],
        names["query"],
        names["attribute"],
        scale,
        box,
        masks,
    )


def inside(folder: Path, path: str) -> Path:
    """A path of the table; raises ValueError if it leads out of the folder, as no shared table should."""
    full = (folder / path).resolve()
    if not full.is_relative_to(folder.resolve()):
        raise ValueError(f"{path!r} lies outside {folder}; a manifest's paths must stay in its folder")
    return full


def from_npz(path: Path, split: str | None = None) -> QuestionSet:
    """Scenes from an .npz, all of them or one split (60 / 20 / 20 % by the hash of their place in it).

    Arrays: images (N, H, W, 3) uint8, query (N,), attribute (N,), attribute_names; optionally query_names, scale (N,),
    mask (N, H, W) bool. A query may be a name, or an id into query_names; without these an id is its own name (digit 7
    is "7"). Raises ValueError naming the array that is missing or of another shape.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except Exception as error:  # numpy, zipfile and zlib raise whatever a damaged file runs into
        raise ValueError(f"{path} can't be read as an .npz of plain arrays ({error})") from error
    if missing := [name for name in ("images", "query", "attribute", "attribute_names") if name not in arrays]:
        raise ValueError(f"{path} lacks the arrays {missing}; it has {sorted(arrays)}")
    images = arrays["images"]
    for name in ("query", "attribute", "scale", "mask"):
        shape = images.shape[:3] if name == "mask" else images.shape[:1]
        if name in arrays and arrays[name].shape != shape:
            raise ValueError(f"{path}: {name} must be {shape} beside images {images.shape}, got {arrays[name].shape}")
    if not len(images):
        raise ValueError(f"{path} has no images")
    attribute, attribute_names = named(path, "attribute", arrays["attribute"], arrays["attribute_names"])
    query, query_names = named(path, "query", arrays["query"], arrays.get("query_names"))
    masks = arrays["mask"].astype(bool) if "mask" in arrays else None
    scale = arrays.get("scale")
    if scale is not None and scale.dtype.kind not in "iuf":
        raise ValueError(f"{path}: scale must hold numbers, got {scale.dtype}")
    scale = None if scale is None else scale.astype(float)
    image = np.arange(len(images))
    whole = QuestionSet(path.name, images, image, query, attribute, query_names, attribute_names, scale, None, masks)
    if split is None:
        return whole
    one_of("split", split, SPLITS)
    rows = np.array([i for i in image if split_of(str(i)) == split], np.int64)
    if not len(rows):
        raise ValueError(f"{path} has no images in split {split!r}: {len(images)} are too few to be split by hash")
    return whole.rows(rows)


def named(path: Path, what: str, values: np.ndarray, names: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Ids (N,) int64 into names, from ids or from the names themselves."""
    if names is not None and (
        names.ndim != 1 or names.dtype.kind not in "iuU" or len(set(names.tolist())) < len(names)
    ):
        raise ValueError(f"{path}: {what}_names must be distinct names (n,), got {names.dtype} {names.tolist()}")
    if values.dtype.kind in "iu" and names is not None:
        if len(values) and not 0 <= values.min() <= values.max() < len(names):
            raise ValueError(
                f"{path}: {what} ids must be in 0..{len(names) - 1}, got {values.min()}..{values.max()}; "
                f"{what}_names has {len(names)}"
            )
        return values.astype(np.int64), tuple(map(str, names.tolist()))
    if values.dtype.kind not in "iuU":
        raise ValueError(f"{path}: {what} must hold integer ids or names, got {values.dtype}")
    words = [str(value) for value in values.tolist()]
    known = tuple(map(str, names.tolist())) if names is not None else tuple(sorted(set(words)))
    for word in dict.fromkeys(words):
        one_of(f"{what} in {path}", word, known)
    return np.array([known.index(word) for word in words], np.int64), known
