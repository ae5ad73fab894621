"""Visual Genome's published files as a data set's folder; docs/visual-genome.md says what is selected, and why.

A row is one object: its class is the query, and any number of attributes are true. Legend: I images, N objects of all
images together, M mentions of an attribute, V words (class names and attributes), R objects that are kept.
"""
# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from hashlib import sha256
from math import isnan
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from progressive_attention.config import SPLITS, one_of
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.names import frequent, normalise, rare_plurals
from progressive_attention.data.table import BOX, write_dataset
from progressive_attention.data.visual_genome_files import (
    AttributeList,
    Entry,
    Listed,
    ObjectList,
    Record,
    find_file,
    read_splits,
)

Progress = Callable[[int, int], None]
STEP = 1000  # images between two reports of progress
KEPT = 0
REASONS = ("kept", "image not in image_data.json", "image file missing", "in no split", "no name", "no attributes")
REASONS += ("no box in the image", "class too rare", "attribute too rare")
CODE = {reason: code for code, reason in enumerate(REASONS)}
MIN_COUNT = {"2018": 101, "2016": 101, "all": 1}  # the papers: classes and attributes "that appear more than 100 times"


class Words(dict[str, int]):
    """Number of a word that people typed, -1 for a blank one; ``known`` has the words as they are written here."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __missing__(self, raw: str) -> int:
        word = normalise(raw)
        self[raw] = self.known.setdefault(word, len(self.known)) if word else -1
        return self[raw]


OBJECT = np.dtype(
    [
        ("image_id", "i8"),
        ("place", "i4"),  # in its image's list in attributes.json, from 1
        ("id", "i8"),
        ("name", "i4"),  # as typed, into the words; -1 where there is none
        ("box", "f8", 4),  # x, y, w, h in pixels, nan where there is none
        ("joined", "i4"),  # how many entries became one, less one
        ("left", "i4"),  # how many attributes were repeated or blank
        ("attributes", "i4"),  # how many it has
    ]
)


class Objects(NamedTuple):
    """All objects, each there once, their words normalised, no attribute listed twice."""

    table: np.ndarray  # (N,) OBJECT
    words: pa.Array  # (V,)
    name: np.ndarray  # (N,) into the words, rare plurals as their singulars; -1 where there is none
    image: np.ndarray  # (N,) row of image_data.json, -1 where it lacks the image
    size: np.ndarray  # (N, 2) width, height of the image
    box: np.ndarray  # (N, 4) float32 x0, y0, x1, y1, clipped to the image; nan where there is none
    clipped: np.ndarray  # (N,) which boxes were
    owner: np.ndarray  # (M,) the mention's object, rising
    mention: np.ndarray  # (M,) into the words

    def attributes(self, row: np.ndarray, which: np.ndarray) -> pa.ListArray:
        """Words of the objects ``row`` (R,), rising: those of their mentions that are in the mask ``which`` (M,)."""
        place = np.full(len(self.table), -1)
        place[row] = np.arange(len(row))
        which = which & (place[self.owner] >= 0)
        count = np.bincount(place[self.owner[which]], minlength=len(row))
        offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, self.words.take(pa.array(self.mention[which])))


def import_visual_genome(
    annotations: Path,
    images: Path,
    out: Path,
    *,
    setting: Literal["2018", "2016", "all"] = "2018",
    min_count: int | None = None,
    masks: Path | None = None,
    splits: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a data set from image_data.json, attributes.json and objects.json (or their zips); returns dataset.json.

    A class or an attribute is kept if at least ``min_count`` objects of the data set have it (default: the papers'
    101, for "all" 1). ``masks`` has ID.png whose value k marks the k-th entry of the image's list in attributes.json,
    ``splits`` lists image ids by split; left out, they are the folder masks and splits.json beside the annotations,
    if there. ``progress`` gets (images read, images to read).

    Raises ValueError for files that are missing, broken or contradict themselves, if nothing is left, and if ``out``
    is there and not empty.
    """
    one_of("setting", setting, tuple(MIN_COUNT))
    least = MIN_COUNT[setting] if min_count is None else min_count
    if least < 1:
        raise ValueError(f"min_count must be >= 1, got {least}; 1 keeps every class and attribute")
    notes: list[str] = []
    masks = masks or beside(annotations / "masks", notes)
    splits = splits or beside(annotations / "splits.json", notes)
    listed = Listed(annotations, "image_data")
    records = [listed.get(image, Record) for image in listed.parts]
    ids = np.array([record.image_id for record in records], np.int64)
    path = locate(records, ImageRoot(images))
    split = None if splits is None else split_by_file(splits, ids, notes)  # and now: the next takes a minute
    objects = read_objects(annotations, records, progress, notes)
    reason, stay = choose(objects, unusable(objects, path, split), least)
    row = np.flatnonzero(reason == KEPT)
    if not len(row):
        reasons = ", ".join(f"{REASONS[code]}: {n}" for code, n in enumerate(np.bincount(reason)) if n)
        needs = f"an image in {images}, a name, attributes, a box inside the image, and words that {least} objects have"
        raise ValueError(f"nothing is left of {annotations} ({reasons}); an object needs {needs} (min_count)")
    if split is None:
        split = split_by_hash(ids, np.unique(objects.image[row]))
    label = pa.array([*(p or f"{i}.jpg" for p, i in zip(path, ids.tolist(), strict=True)), None], pa.string())
    rows = kept_rows(objects, row, stay, label, split, find_masks(masks, objects.table[row], notes))
    return write_dataset(
        out,
        rows,
        rejected_rows(objects, label, reason),
        source="Visual Genome",
        images=images,
        masks=masks,
        settings={"setting": setting, "min_count": least, "splits": str(splits or "by a hash of the image id")},
        counts=count(rows),
        mended=repairs(objects, row, stay),
        notes=notes,
    )


def beside(path: Path, notes: list[str]) -> Path | None:
    """What lies beside the annotations, if it is there; that it is used is noted."""
    if not path.exists():
        return None
    notes.append(f"{path} is used, as it lies beside the annotations")
    return path


def locate(records: list[Record], root: ImageRoot) -> list[str | None]:
    """(I,) each image's path: the file with the name that its url ends with, or ID.jpg; None if neither is there.

    Only names are looked up among the files that are there, so no url leads outside of the folder.
    """
    paths = []
    for record in records:
        folder, name = ("", *(record.url or "").split("/"))[-2:]
        paths.append(root.named(name, folder) or root.named(f"{record.image_id}.jpg", folder))
    return paths


def read_objects(folder: Path, records: list[Record], progress: Progress | None, notes: list[str]) -> Objects:
    """The objects of attributes.json, joined by objects.json if that is there; that it is not is noted."""
    entries = Listed(folder, "attributes")
    drawn = Listed(folder, "objects") if find_file(folder, "objects") else None
    if drawn is None:
        notes.append("there is no objects.json: names and boxes are those of attributes.json, no objects are merged")
    words, mention = Words(), array("i")
    table = np.fromiter(things(entries, drawn, words, mention, progress), OBJECT)
    image = find(table["image_id"], np.array([record.image_id for record in records], np.int64))
    size = pick(np.array([(record.width, record.height) for record in records], np.int64).reshape(-1, 2), image, 0)
    return Objects(
        table,
        pa.array(list(words.known), pa.string()),
        singulars_of(table["name"], words.known)[table["name"]],
        image,
        size,
        *clip(table["box"], size),
        owner=np.repeat(np.arange(len(table)), table["attributes"]),
        mention=np.asarray(mention),
    )


def things(
    entries: Listed, drawn: Listed | None, words: Words, mention: array, progress: Progress | None
) -> Iterator[tuple]:
    """Every object as a row of OBJECT; the numbers of its attributes are added to ``mention``."""
    for done, image in enumerate(entries.parts, 1):
        here = drawn.get(image, ObjectList).objects if drawn and image in drawn.parts else []
        for place, number, name, box, typed, joined in joined_entries(
            entries.get(image, AttributeList).attributes, here
        ):
            attributes = dict.fromkeys(words[word] for word in typed)
            attributes.pop(-1, None)
            mention.extend(attributes)
            left = len(typed) - len(attributes)
            yield image, place, number, words[name or ""], box, joined, left, len(attributes)
        if progress and (done % STEP == 0 or done == len(entries.parts)):
            progress(done, len(entries.parts))


def joined_entries(entries: list[Entry], drawn: list[Entry]) -> Iterator[tuple]:
    """Place, id, name, box, attributes and number of further entries of each object of an image.

    Entries are of one object if they have one id, or if objects.json says that one was merged into the other. Their
    attributes are united. objects.json gives name and box where it has the object, else the entry of its own id.
    """
    known: dict[int, Entry] = {}
    into: dict[int, int] = {}
    for entry in drawn:
        known.setdefault(entry.object_id, entry)
        for gone in entry.merged:
            into.setdefault(gone, entry.object_id)
    groups: defaultdict[int, list[tuple[bool, int, Entry]]] = defaultdict(list)
    for place, entry in enumerate(entries, 1):
        number = entry.object_id
        this = number if number in known else into.get(number, number)
        groups[this].append((number != this, place, entry))
    leaders = {this: min(group, key=itemgetter(0, 1)) for this, group in groups.items()}
    for this, (_, place, leader) in sorted(leaders.items(), key=lambda item: item[1][1]):
        source = known.get(this, leader)
        box = source.box if leader is source or not any(map(isnan, source.box)) else leader.box
        typed = [word for _, _, entry in groups[this] for word in entry.attributes or ()]
        yield place, this, source.name or leader.name, box, typed, len(groups[this]) - 1


def singulars_of(name: np.ndarray, words: dict[str, int]) -> np.ndarray:
    """(V + 1,) each word's number or, of a plural that is rare among the names (N,), its singular's; the last is -1."""
    singular = np.append(np.arange(len(words)), -1)
    seen = np.bincount(name[name >= 0], minlength=len(words)).tolist()
    frequency = {word: often for word, often in zip(words, seen, strict=True) if often}
    for plural, word in rare_plurals(frequency).items():
        singular[words[plural]] = words[word]
    return singular


def find(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where each value first stands among the keys, -1 where it does not. (N,), (K,) -> (N,) int64"""
    place = pc.index_in(pa.array(values, pa.int64()), value_set=pa.array(keys, pa.int64()))
    return place.fill_null(-1).to_numpy().astype(np.int64)


def pick(values: np.ndarray, index: np.ndarray, missing: float) -> np.ndarray:
    """``values[index]``, with ``missing`` for the index -1. (K, ...), (N,) -> (N, ...)"""
    return np.concatenate([values, np.full((1, *values.shape[1:]), missing, values.dtype)])[index]


def clip(box: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x, y, w, h (N, 4) and width, height (N, 2) -> x0, y0, x1, y1 in the image (N, 4) float32; which changed (N,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], 1)
    inside = np.clip(corners, 0, np.concatenate([size, size], 1))
    return inside.astype(np.float32), (inside != corners).any(1)


def unusable(objects: Objects, path: list[str | None], split: np.ndarray | None) -> np.ndarray:
    """(N,) int8 into REASONS, the first against an object; from its image's path (I,) and split (I,), -1 for none."""
    x0, y0, x1, y1 = objects.box.T
    there = np.array([p is not None for p in path], bool)
    against = [
        objects.image < 0,
        ~pick(there, objects.image, True),
        np.zeros(len(objects.table), bool) if split is None else pick(split, objects.image, 0) < 0,
        objects.name < 0,
        objects.table["attributes"] == 0,
        (objects.table["box"][:, 2:] <= 0).any(1) | ~((x1 > x0) & (y1 > y0)),
    ]
    return np.select(against, [np.int8(code) for code in range(1, len(against) + 1)], np.int8(KEPT))


def choose(objects: Objects, reason: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Reasons (N,) with those of rare objects added (``names.frequent``), and which mentions stay (M,)."""
    usable = reason == KEPT
    on = np.flatnonzero(usable[objects.owner])
    owner = (np.cumsum(usable) - 1)[objects.owner[on]]
    classes, chosen = frequent(objects.name[usable], owner, objects.mention[on], least)
    stay = np.zeros(len(objects.mention), bool)
    stay[on[chosen]] = True
    kept = np.bincount(owner[chosen], minlength=usable.sum()) > 0
    rare = np.where(classes[objects.name[usable]], CODE["attribute too rare"], CODE["class too rare"])
    reason = reason.copy()
    reason[usable] = np.where(kept, KEPT, rare)
    return reason, stay


def split_by_file(path: Path, ids: np.ndarray, notes: list[str]) -> np.ndarray:
    """(I,) int8 into SPLITS, -1 for an image that the file does not list; ids that no image has are noted."""
    split, unknown = np.full(len(ids), -1, np.int8), 0
    for code, part in enumerate(read_splits(path)):
        at = find(part, ids)
        split[at[at >= 0]] = code
        unknown += int((at < 0).sum())
    if unknown:
        notes.append(f"{path.name} lists {unknown} images that image_data.json lacks")
    return split


def split_by_hash(ids: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(I,) int8 into SPLITS for the images of the data set, rows ``image`` of ``ids``; -1 for all others.

    By the SHA-256 of their ids: 50, 10 and 40 % for training, validation and test, the 2018 paper's shares.
    """
    many = len(image)
    order = sorted(image.tolist(), key=lambda i: sha256(str(ids[i]).encode()).digest())
    split = np.full(len(ids), -1, np.int8)
    split[order] = np.repeat(np.arange(3), [many // 2, many // 10, many - many // 2 - many // 10])
    return split


def repairs(objects: Objects, row: np.ndarray, stay: np.ndarray) -> dict[str, int]:
    """What was repaired in the objects ``row`` (R,), and how often, from the mentions that stay (M,)."""
    counts = {
        "entries joined": objects.table["joined"],
        "plurals read as singular": objects.table["name"] != objects.name,
        "repeated or blank attributes left out": objects.table["left"],
        "boxes clipped to the image": objects.clipped,
        "rare attributes left out of kept rows": np.bincount(objects.owner[~stay], minlength=len(objects.table)),
    }
    return {what: int(often[row].sum()) for what, often in counts.items()}


def kept_rows(
    objects: Objects, row: np.ndarray, stay: np.ndarray, label: pa.Array, split: np.ndarray, masks: dict[str, pa.Array]
) -> pa.Table:
    """The manifest of the objects ``row`` (R,) with the mentions that stay (M,)."""
    image = objects.image[row]
    return pa.table(
        {
            "image": label.take(pa.array(image)),
            "query": objects.words.take(pa.array(objects.name[row])),
            "attributes": objects.attributes(row, stay),
            "split": pa.array(SPLITS).take(pa.array(split[image])),
            **{side: objects.box[row, i] for i, side in enumerate(BOX)},
            "width": objects.size[row, 0],
            "height": objects.size[row, 1],
            "id": objects.table["id"][row],
            **masks,
        }
    )


def find_masks(masks: Path | None, table: np.ndarray, notes: list[str]) -> dict[str, pa.Array]:
    """Columns mask and mask_value for rows of OBJECT (R,); none without a folder."""
    if masks is None:
        return {}
    root = ImageRoot(masks)
    image, of_image = np.unique(table["image_id"], return_inverse=True)
    path = pa.array([root.named(f"{i}.png") for i in image.tolist()], pa.string())
    if path.null_count:
        notes.append(f"{path.null_count:,} of {len(image):,} images have no mask in {masks}")
    mask = path.take(pa.array(of_image))
    return {"mask": mask, "mask_value": pa.array(table["place"], mask=mask.is_null().to_numpy(zero_copy_only=False))}


def rejected_rows(objects: Objects, label: pa.Array, reason: np.ndarray) -> pa.Table:
    """The rejected table, from reasons (N,) and the images' labels (I + 1,); ``detail`` says what was there."""
    detail = np.full(len(reason), None, object)
    for row in np.flatnonzero(reason == CODE["no box in the image"]):
        (x, y, w, h), (wide, high) = objects.table["box"][row], objects.size[row]
        detail[row] = f"x {x:g}, y {y:g}, w {w:g}, h {h:g} in {wide} x {high} pixels"
    for row in np.flatnonzero(reason == CODE["image not in image_data.json"]):
        detail[row] = f"image_id {objects.table['image_id'][row]}"
    row = np.flatnonzero(reason >= CODE["class too rare"])
    every = np.ones(len(objects.mention), bool)
    detail[row] = [", ".join(words) for words in objects.attributes(row, every).to_pylist()]
    gone = np.flatnonzero(reason)
    image, name = objects.image[gone], objects.name[gone]
    return pa.table(
        {
            "image": label.take(pa.array(image, mask=image < 0)),
            "query": objects.words.take(pa.array(name, mask=name < 0)),
            "id": objects.table["id"][gone],
            "reason": pa.array(REASONS).take(pa.array(reason[gone])),
            "detail": pa.array(detail[gone], pa.string()),
        }
    )


def count(rows: pa.Table) -> dict[str, Any]:
    """Numbers of images, rows, labels (attributes of rows), classes and attributes, in all and in each split."""

    def counts(table: pa.Table) -> dict[str, int]:
        attributes = table["attributes"].combine_chunks().flatten()
        return {
            "images": len(table["image"].unique()),
            "rows": len(table),
            "labels": len(attributes),
            "classes": len(table["query"].unique()),
            "attributes": len(attributes.unique()),
        }

    split = rows["split"].to_numpy()
    return {**counts(rows), "splits": {name: counts(rows.filter(pa.array(split == name))) for name in SPLITS}}
