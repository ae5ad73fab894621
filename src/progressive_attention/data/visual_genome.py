"""Visual Genome's published files as a data set's folder; docs/visual-genome.md tells what is selected, and why.

A row is one object: its class is the query, and any number of attributes hold. Legend: I images, N objects of all
images together, M mentions of an attribute, R objects that are kept.
"""

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from progressive_attention.config import SPLITS, one_of
from progressive_attention.data.genome_json import Images, Words, find_file, read_entries, read_images, read_splits
from progressive_attention.data.genome_objects import KEPT, REASONS, Objects, choose, find, join, tidy, unusable
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.table import BOX, write_dataset

Progress = Callable[[int, int], None]


class Paper(NamedTuple):
    """What a paper tells of its selection, of classes and attributes "that appear more than 100 times"."""

    classes: int
    attributes: int
    labels: int
    images: int
    split: tuple[int, int, int]  # images of each of SPLITS


PAPERS = {
    "2018": Paper(827, 749, 667_882, 86_674, (43_337, 8_667, 34_670)),
    "2016": Paper(488, 274, 255_118, 45_393, (25_393, 10_000, 10_000)),
}
MIN_COUNT = {"2018": 101, "2016": 101, "all": 1}


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
    if there. ``progress`` is told (images read, images to read in all files). What comes back has "notes", sentences
    to show to the user.

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
        found = ", ".join(f"{REASONS[code]}: {n}" for code, n in enumerate(np.bincount(reason)) if n)
        remedy = "an object needs a name, attributes and a box inside its image"
        if any("too rare" in REASONS[code] for code in np.unique(reason)):
            remedy = f"a min_count below {least} keeps what is rarer"
        elif REASONS.index("image file missing") in reason:
            remedy = f"is {images} the folder with their images? links that lead out of it are not followed"
        raise ValueError(f"nothing is left of {annotations} ({found}); {remedy}")
    if split is None:
        split = split_by_hash(records.id, np.unique(objects.image[row]), PAPERS.get(setting), notes)
    image = objects.image[row]
    label = pa.array([*(p or f"{i}.jpg" for p, i in zip(path, records.id.tolist(), strict=True)), None], pa.string())
    rows = pa.table(
        {
            "image": label.take(pa.array(image)),
            "query": objects.vocabulary.take(pa.array(objects.entries.name[row])),
            "attributes": objects.attributes(row, stay),
            "split": pa.array(SPLITS).take(pa.array(split[image])),
            **{side: objects.box[row, i] for i, side in enumerate(BOX)},
            **find_masks(masks, records.id[image], objects.entries.place[row], notes),
            "width": objects.size[row, 0],
            "height": objects.size[row, 1],
            "id": objects.entries.id[row],
        }
    )
    counts = count(rows)
    notes += compare(setting, counts)
    left_out = {"rare attributes left out of kept rows": ~stay & (reason[objects.entries.owner] == KEPT)}
    return write_dataset(
        out,
        rows,
        rejected_rows(objects, label, reason),
        source="Visual Genome",
        images=images,
        masks=masks,
        settings={"setting": setting, "min_count": least, "splits": str(splits or "by a hash of the image id")},
        counts=counts,
        mended={
            **{what: int(often[row].sum()) for what, often in objects.mended.items()},
            **{what: int(which.sum()) for what, which in left_out.items()},
        },
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
    found = []
    for url, i in zip(records.url, records.id.tolist(), strict=True):
        folder, name = ("", *url.split("/"))[-2:]
        found.append(root.named(name, folder) or root.named(f"{i}.jpg", folder))
    return found


def read_objects(folder: Path, records: Images, progress: Progress | None, notes: list[str]) -> Objects:
    """The objects of attributes.json, joined by objects.json if that is there; that it is not is noted."""
    files = ["attributes", *(["objects"] if find_file(folder, "objects") else [])]
    if len(files) == 1:
        notes.append("there is no objects.json: names and boxes are those of attributes.json, no objects are merged")
    images = len(records.id)

    def tell(before: int, done: int) -> None:
        if progress is not None:
            progress(before + min(done, images), images * len(files))

    words = Words()
    read = [read_entries(folder, file, words, partial(tell, i * images)) for i, file in enumerate(files)]
    entries, joined = join(*read)
    return tidy(entries, list(words), joined, records)


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


def split_by_hash(ids: np.ndarray, image: np.ndarray, paper: Paper | None, notes: list[str]) -> np.ndarray:
    """(I,) int8 into SPLITS for the images of the data set, rows ``image`` of ``ids``; -1 for all others.

    In the order of the SHA-256 of the images' ids: the paper's numbers of images if there are as many images as it
    has, else 50 % for training, 10 % for validation and the rest for testing, which are the 2018 paper's shares.
    """
    many = len(image)
    if paper is not None and many == paper.images:
        train, validation, _ = paper.split
    else:
        train, validation = many // 2, many // 10
        published = "" if paper is None else f"; the paper's own numbers are of {paper.images:,} images"
        notes.append(f"the {many:,} images were split 50 / 10 / 40 % by a hash of their ids{published}")
    order = sorted(image.tolist(), key=lambda i: sha256(str(ids[i]).encode()).digest())
    split = np.full(len(ids), -1, np.int8)
    split[order] = np.repeat(np.arange(3), [train, validation, many - train - validation])
    return split


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
    """The rejected table, from reasons (N,) and the images' labels (I + 1,); ``detail`` tells what was there."""
    code = {text: number for number, text in enumerate(REASONS)}
    rare = np.isin(reason, [code["class too rare"], code["attribute too rare"]])
    seen = np.bincount(objects.entries.name[rare | (reason == KEPT)], minlength=len(objects.words))
    detail = np.full(len(reason), None, object)
    for row in np.flatnonzero(np.isin(reason, [code["empty box"], code["box outside the image"]])):
        (x, y, w, h), (wide, high) = objects.entries.box[row], objects.size[row]
        detail[row] = f"x {x:g}, y {y:g}, w {w:g}, h {h:g} in {wide} x {high} pixels"
    row = np.flatnonzero(reason == code["image not in image_data.json"])
    detail[row] = [f"image_id {i}" for i in objects.entries.image[row]]
    row = np.flatnonzero(reason == code["class too rare"])
    detail[row] = np.array([f"{n} objects" for n in seen], object)[objects.entries.name[row]]
    row = np.flatnonzero(reason == code["attribute too rare"])
    every = np.ones(len(objects.entries.mention), bool)
    detail[row] = [", ".join(words) for words in objects.attributes(row, every).to_pylist()]
    gone = np.flatnonzero(reason)
    image, name = objects.image[gone], objects.entries.name[gone]
    return pa.table(
        {
            "image": label.take(pa.array(image, mask=image < 0)),
            "query": objects.vocabulary.take(pa.array(name, mask=name < 0)),
            "id": objects.entries.id[gone],
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


def compare(setting: str, counts: dict[str, Any]) -> list[str]:
    """A sentence that sets the data set's numbers beside the paper's, for a setting that has a paper."""
    paper = PAPERS.get(setting)
    if paper is None:
        return []
    sides = ((counts[name], getattr(paper, name), name) for name in ("classes", "attributes", "labels", "images"))
    return [
        f"the {setting} paper's numbers beside these: " + ", ".join(f"{n:,} ({p:,}) {name}" for n, p, name in sides)
    ]
