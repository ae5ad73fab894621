"""Visual Genome's published files as a data set's folder; docs/visual-genome.md says what is selected, and why.

A row is one object: its class is the query, and any number of attributes are true. Legend: I images, N objects of all
images together, M mentions of an attribute, V words (class names and attributes), R objects that are kept.
"""
# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections import defaultdict
from collections.abc import Callable
from hashlib import sha256
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
    Entries,
    Images,
    find_file,
    read_entries,
    read_images,
    read_splits,
)

Progress = Callable[[int, int], None]
KEPT = 0
REASONS = (
    "kept",
    "image not in image_data.json",
    "image file missing",
    "in no split",
    "no name",
    "no attributes",
    "no box in the image",
    "class too rare",
    "attribute too rare",
)
CODE = {reason: code for code, reason in enumerate(REASONS)}
MIN_COUNT = {"2018": 101, "2016": 101, "all": 1}  # the papers: classes and attributes "that appear more than 100 times"


class Objects(NamedTuple):
    """All objects, each there once, their words normalised, no attribute listed twice."""

    entries: Entries  # N; names and mentions index ``words``
    words: pa.Array  # (V,)
    image: np.ndarray  # (N,) row of image_data.json, -1 where it lacks the image
    size: np.ndarray  # (N, 2) width, height of the image
    box: np.ndarray  # (N, 4) float32 x0, y0, x1, y1, clipped to the image; nan where there is none
    repaired: dict[str, np.ndarray]  # (N,) how often each was repaired, by what was wrong

    def attributes(self, row: np.ndarray, which: np.ndarray) -> pa.ListArray:
        """Words of the objects ``row`` (R,), rising: those of their mentions that are in the mask ``which`` (M,)."""
        place = np.full(len(self.entries.id), -1)
        place[row] = np.arange(len(row))
        which = which & (place[self.entries.owner] >= 0)
        count = np.bincount(place[self.entries.owner[which]], minlength=len(row))
        offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, self.words.take(pa.array(self.entries.mention[which])))


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
    if there. ``progress`` gets (images read, images to read in all files). What comes back has "notes", sentences to
    show to the user.

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
    records = read_images(annotations)
    path = locate(records, ImageRoot(images))
    split = None if splits is None else split_by_file(splits, records.id, notes)  # and now: the next takes a minute
    objects = read_objects(annotations, records, progress, notes)
    reason, stay = choose(objects.entries, unusable(objects, path, split), least)
    row = np.flatnonzero(reason == KEPT)
    if not len(row):
        raise nothing_left(annotations, images, reason, least)
    if split is None:
        split = split_by_hash(records.id, np.unique(objects.image[row]))
    label = pa.array([*(p or f"{i}.jpg" for p, i in zip(path, records.id.tolist(), strict=True)), None], pa.string())
    rows = kept_rows(objects, row, stay, label, split)
    for name, column in find_masks(masks, records.id[objects.image[row]], objects.entries.place[row], notes).items():
        rows = rows.append_column(name, column)
    rare = ~stay & (reason[objects.entries.owner] == KEPT)
    repaired = {what: int(often[row].sum()) for what, often in objects.repaired.items()}
    return write_dataset(
        out,
        rows,
        rejected_rows(objects, label, reason),
        source="Visual Genome",
        images=images,
        masks=masks,
        settings={"setting": setting, "min_count": least, "splits": str(splits or "by a hash of the image id")},
        counts=count(rows),
        mended={**repaired, "rare attributes left out of kept rows": int(rare.sum())},
        notes=notes,
    )


def beside(path: Path, notes: list[str]) -> Path | None:
    """What lies beside the annotations, if it is there; that it is used is noted."""
    if not path.exists():
        return None
    notes.append(f"{path} is used, as it lies beside the annotations")
    return path


def locate(records: Images, root: ImageRoot) -> list[str | None]:
    """(I,) each image's path: the file with the name that its url ends with, or ID.jpg; None if neither is there.

    Of several files of that name the one in the url's folder. Only names are looked up among the files that are there,
    so no url leads outside of the folder.
    """
    paths = []
    for url, i in zip(records.url, records.id.tolist(), strict=True):
        folder, name = ("", *url.split("/"))[-2:]
        paths.append(root.named(name, folder) or root.named(f"{i}.jpg", folder))
    return paths


def read_objects(folder: Path, records: Images, progress: Progress | None, notes: list[str]) -> Objects:
    """The objects of attributes.json, joined by objects.json if that is there; that it is not is noted."""
    files = ["attributes", "objects"] if find_file(folder, "objects") else ["attributes"]
    if len(files) == 1:
        notes.append("there is no objects.json: names and boxes are those of attributes.json, no objects are merged")
    images = len(records.id)
    words: defaultdict[str, int] = defaultdict()
    words.default_factory = words.__len__  # a new word gets the next number
    entries = []
    for before, file in enumerate(files):

        def report(done: int, before: int = before * images) -> None:
            if progress is not None:
                progress(before + min(done, images), images * len(files))

        entries.append(read_entries(folder, file, words, report))
    return tidy(*join(*entries), list(words), records)


def find(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where each value first stands among the keys, -1 where it does not. (N,), (K,) -> (N,) int64"""
    place = pc.index_in(pa.array(values, pa.int64()), value_set=pa.array(keys, pa.int64()))
    return place.fill_null(-1).to_numpy().astype(np.int64)


def pick(values: np.ndarray, index: np.ndarray, missing: float) -> np.ndarray:
    """``values[index]``, with ``missing`` for the index -1. (K, ...), (N,) -> (N, ...)"""
    return np.concatenate([values, np.full((1, *values.shape[1:]), missing, values.dtype)])[index]


def join(entries: Entries, objects: Entries | None = None) -> tuple[Entries, np.ndarray]:
    """One entry for each object of an image, in the order of the first file, and how many others joined it (N,).

    Entries are of one object if they have one id, or if objects.json says that one was merged into the other (v1.4
    did so with objects that were drawn twice). Their attributes are united. objects.json gives name and box where it
    has the object, else the entry of the object's own id does, else the first one.
    """
    this = entries.id
    if objects is not None:
        into = np.where(find(this, objects.id) < 0, find(this, objects.merged[:, 0]), -1)
        this = np.where(into < 0, this, pick(objects.merged[:, 1], into, -1))
    order = np.lexsort((this != entries.id, this, entries.image))  # stable; the entry of the object's own id leads
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(entries.image[order]) != 0) | (np.diff(this[order]) != 0)
    leader = np.sort(order[new])
    row = np.empty(len(order), np.int64)
    row[order] = np.searchsorted(leader, order[new])[np.cumsum(new) - 1]
    by_row = np.argsort(row[entries.owner], kind="stable")
    name, box, image = entries.name[leader], entries.box[leader], entries.image[leader]
    if objects is not None:
        at = find(this[leader], objects.id)
        at = np.where(pick(objects.image, at, -1) == image, at, -1)
        drawn, outline = pick(objects.name, at, -1), pick(objects.box, at, np.nan)
        name = np.where(drawn < 0, name, drawn)
        box = np.where(np.isnan(outline).any(1, keepdims=True), box, outline)
    joined = Entries(
        image=image,
        id=this[leader],
        place=entries.place[leader],
        name=name,
        box=box,
        owner=row[entries.owner][by_row],
        mention=entries.mention[by_row],
        merged=entries.merged,
    )
    return joined, np.bincount(row, minlength=len(leader)) - 1


def tidy(entries: Entries, joined: np.ndarray, words: list[str], records: Images) -> Objects:
    """Words written one way, rare plurals read as singulars, repeated and blank attributes left out, boxes clipped."""
    normal = [normalise(word) for word in words]
    known = {word: i for i, word in enumerate(dict.fromkeys(filter(None, normal)))}
    # These three are indexed with -1, no name, too: their last value is for it.
    code = np.array([*(known.get(word, -1) for word in normal), -1])
    rewritten = np.array([*(raw != word for raw, word in zip(words, normal, strict=True)), False])
    singular = np.append(np.arange(len(known)), -1)
    name, mention = code[entries.name], code[entries.mention]
    seen = np.bincount(name[name >= 0], minlength=len(known)).tolist()
    frequency = {word: often for word, often in zip(known, seen, strict=True) if often}
    for plural, word in rare_plurals(frequency).items():
        singular[known[plural]] = known[word]
    stay = np.zeros(len(mention), bool)
    stay[np.unique(entries.owner * (len(known) + 1) + mention, return_index=True)[1]] = True
    stay &= mention >= 0
    image = find(entries.image, records.id)
    size = pick(records.size, image, 0)
    box, clipped = clip(entries.box, size)
    changed = entries.owner[rewritten[entries.mention] | ~stay]
    repaired = {
        "entries joined": joined,
        "names rewritten": rewritten[entries.name] | (singular[name] != name),
        "attributes rewritten or left out": np.bincount(changed, minlength=len(name)),
        "boxes clipped to the image": clipped,
    }
    entries = entries._replace(name=singular[name], owner=entries.owner[stay], mention=mention[stay])
    return Objects(entries, pa.array(list(known), pa.string()), image, size, box, repaired)


def clip(box: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x, y, w, h (N, 4) and width, height (N, 2) -> x0, y0, x1, y1 in the image (N, 4) float32; which changed (N,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], 1)
    inside = np.clip(corners, 0, np.concatenate([size, size], 1))
    return inside.astype(np.float32), (inside != corners).any(1)


def unusable(objects: Objects, path: list[str | None], split: np.ndarray | None) -> np.ndarray:
    """(N,) int8 into REASONS: the first that speaks against an object, whatever else is in the data set.

    From the images' paths (I,), None for a missing file, and their splits (I,), -1 for none, if a file gives them.
    """
    entries, (x0, y0, x1, y1) = objects.entries, objects.box.T
    many = len(entries.id)
    there = np.array([p is not None for p in path], bool)
    against = [
        objects.image < 0,
        ~pick(there, objects.image, True),
        np.zeros(many, bool) if split is None else pick(split, objects.image, 0) < 0,
        entries.name < 0,
        np.bincount(entries.owner, minlength=many) == 0,
        (entries.box[:, 2:] <= 0).any(1) | ~((x1 > x0) & (y1 > y0)),
    ]
    return np.select(against, [np.int8(code) for code in range(1, len(against) + 1)], np.int8(KEPT))


def choose(entries: Entries, reason: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the objects with no reason against them (N,), leave out what is rare (``names.frequent``).

    Returns the reasons with those of rare objects added, and which mentions stay (M,).
    """
    usable = reason == KEPT
    on = np.flatnonzero(usable[entries.owner])
    owner = (np.cumsum(usable) - 1)[entries.owner[on]]
    classes, chosen = frequent(entries.name[usable], owner, entries.mention[on], least)
    stay = np.zeros(len(entries.mention), bool)
    stay[on[chosen]] = True
    kept = np.bincount(owner[chosen], minlength=usable.sum()) > 0
    rare = np.where(classes[entries.name[usable]], CODE["attribute too rare"], CODE["class too rare"])
    reason = reason.copy()
    reason[usable] = np.where(kept, KEPT, rare)
    return reason, stay


def nothing_left(annotations: Path, images: Path, reason: np.ndarray, least: int) -> ValueError:
    """The error where no object is kept, from the reasons (N,)."""
    reasons = ", ".join(f"{REASONS[code]}: {n}" for code, n in enumerate(np.bincount(reason)) if n)
    return ValueError(
        f"nothing is left of {annotations} ({reasons}); an object needs an image in {images}, a name, attributes, a "
        f"box inside the image, and words that {least} objects have (min_count)"
    )


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

    In the order of the SHA-256 of their ids: 50 % for training, 10 % for validation, the rest for testing, which are
    the 2018 paper's shares.
    """
    many = len(image)
    order = sorted(image.tolist(), key=lambda i: sha256(str(ids[i]).encode()).digest())
    split = np.full(len(ids), -1, np.int8)
    split[order] = np.repeat(np.arange(3), [many // 2, many // 10, many - many // 2 - many // 10])
    return split


def kept_rows(objects: Objects, row: np.ndarray, stay: np.ndarray, label: pa.Array, split: np.ndarray) -> pa.Table:
    """The manifest of the objects ``row`` (R,) with the mentions that stay (M,), but for masks."""
    image = objects.image[row]
    return pa.table(
        {
            "image": label.take(pa.array(image)),
            "query": objects.words.take(pa.array(objects.entries.name[row])),
            "attributes": objects.attributes(row, stay),
            "split": pa.array(SPLITS).take(pa.array(split[image])),
            **{side: objects.box[row, i] for i, side in enumerate(BOX)},
            "width": objects.size[row, 0],
            "height": objects.size[row, 1],
            "id": objects.entries.id[row],
        }
    )


def find_masks(masks: Path | None, ids: np.ndarray, place: np.ndarray, notes: list[str]) -> dict[str, pa.Array]:
    """Columns mask and mask_value for rows with image ids and places in attributes.json (R,); none without a folder."""
    if masks is None:
        return {}
    root = ImageRoot(masks)
    image, of_image = np.unique(ids, return_inverse=True)
    path = pa.array([root.named(f"{i}.png") for i in image.tolist()], pa.string())
    if path.null_count:
        notes.append(f"{path.null_count:,} of {len(image):,} images have no mask in {masks}")
    mask = path.take(pa.array(of_image))
    return {"mask": mask, "mask_value": pa.array(place, mask=mask.is_null().to_numpy(zero_copy_only=False))}


def rejected_rows(objects: Objects, label: pa.Array, reason: np.ndarray) -> pa.Table:
    """The rejected table, from reasons (N,) and the images' labels (I + 1,); ``detail`` says what was there."""
    entries = objects.entries
    detail = np.full(len(reason), None, object)
    for row in np.flatnonzero(reason == CODE["no box in the image"]):
        (x, y, w, h), (wide, high) = entries.box[row], objects.size[row]
        detail[row] = f"x {x:g}, y {y:g}, w {w:g}, h {h:g} in {wide} x {high} pixels"
    for row in np.flatnonzero(reason == CODE["image not in image_data.json"]):
        detail[row] = f"image_id {entries.image[row]}"
    row = np.flatnonzero(reason >= CODE["class too rare"])
    every = np.ones(len(entries.mention), bool)
    detail[row] = [", ".join(words) for words in objects.attributes(row, every).to_pylist()]
    gone = np.flatnonzero(reason)
    image, name = objects.image[gone], entries.name[gone]
    return pa.table(
        {
            "image": label.take(pa.array(image, mask=image < 0)),
            "query": objects.words.take(pa.array(name, mask=name < 0)),
            "id": entries.id[gone],
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
