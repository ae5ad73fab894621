"""PASCAL VOC 2007's segmentation in its official VOCdevkit layout as a data set's folder: class names as queries.

docs/voc.md says what a row is, and by which name a network trained on Visual Genome knows each class.
"""

import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from progressive_attention.config import SPLITS, one_of
from progressive_attention.data.file_checks import Rejection, in_threads, look
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import labelled
from progressive_attention.data.rows import tidied, write_judged
from progressive_attention.data.table import BOX

CLASSES: tuple[str, ...] = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)  # in VOC's order: pixels of value k in a segmentation are of the k-th class
NAMES = {name: name for name in CLASSES}  # each class's name in Visual Genome
NAMES |= {"aeroplane": "airplane", "diningtable": "table", "motorbike": "motorcycle"}
NAMES |= {"pottedplant": "plant", "sofa": "couch", "tvmonitor": "tv"}
# Words for a class, the most likely first: a network that doesn't know the name above is asked by one that it knows.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "aeroplane": ("airplane", "aeroplane", "plane", "aircraft"),
    "bicycle": ("bicycle", "bike"),
    "boat": ("boat", "ship"),
    "car": ("car", "automobile"),
    "cow": ("cow", "cattle"),
    "diningtable": ("table", "dining table", "diningtable"),
    "motorbike": ("motorcycle", "motorbike"),
    "person": ("person", "people", "human"),
    "pottedplant": ("plant", "potted plant", "pottedplant", "houseplant"),
    "sofa": ("couch", "sofa"),
    "tvmonitor": ("tv", "television", "tvmonitor", "monitor"),
}
VOID = 255  # the borders of objects, and objects that were too hard to label
LISTS: dict[str, str] = dict(zip(("train", "val", "test"), SPLITS, strict=True))  # VOC's name of a split -> ours
CORNERS = ("xmin", "ymin", "xmax", "ymax")
FOLDERS = ("JPEGImages", "ImageSets/Segmentation", "SegmentationClass")
COLUMNS = ("image", "query", "attributes", "split", *BOX, "mask", "mask_value", "mask_void", "width", "height")


def import_voc(devkit: Path, out: Path, *, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Write a data set from VOCdevkit (or VOCdevkit/VOC2007); returns dataset.json's content.

    A row for each class in an image, its mask the class's pixels in SegmentationClass without the void ones, its box
    around the boxes of that class in the image's XML, if there is one. ``names`` (class -> query) replaces entries of
    NAMES. No row has attributes.

    What can't be used goes to rejected.parquet. Raises ValueError for a folder that is no devkit, for broken lists, if
    no row can be used, and if ``out`` is there already.
    """
    queries = NAMES | dict(names or {})
    for name in queries:
        one_of("class of VOC", name, CLASSES)
    if len(set(queries.values())) < len(CLASSES):
        raise ValueError(f"names must keep all classes of VOC apart, got {queries}")
    root = devkit_root(devkit)
    splits = read_lists(root / "ImageSets" / "Segmentation")
    masks = ImageRoot(root / "SegmentationClass")
    images = in_threads([partial(rows_of, root, masks, queries, stem) for stem in splits])
    rows, rejected = [], []
    for (stem, split), result in zip(splits.items(), images, strict=True):
        if isinstance(result, Rejection):
            rejected.append({"image": f"{stem}.jpg", "reason": result.reason, "detail": result.detail})
        else:
            rows += [{"image": f"{stem}.jpg", "split": split, "attributes": [], **row} for row in result]
    missing = [name for name, split in LISTS.items() if split not in splits.values()]
    repaired = Counter[str]()
    return write_judged(
        out,
        tidied(rows, COLUMNS, repaired),
        repaired,
        source="voc",
        images=ImageRoot(root / "JPEGImages"),
        masks=masks,
        settings={"devkit": str(devkit), "task": "segmentation", "names": queries},
        rejected=rejected,
        notes=[f"{devkit} has no images of VOC's {' and '.join(missing)} split"] if missing else [],
    )


def other_words(query: str) -> tuple[str, ...]:
    """The other words of the class that a query names, the most likely first; none of a word that names no class."""
    words = next((words for words in SYNONYMS.values() if query in words), ())
    return tuple(word for word in words if word != query)


def rows_of(root: Path, masks: ImageRoot, queries: Mapping[str, str], stem: str) -> list[dict[str, Any]]:
    """A row for each class in an image's segmentation; raises Rejection for an image that can't be used."""
    mask = f"{stem}.png"
    values = look(masks, "mask", pixel_values, mask)
    if strange := [value for value in values if value > len(CLASSES)]:
        raise Rejection("mask unusable", f"{mask!r} has pixels of {strange}, expected 0 to {len(CLASSES)} and {VOID}")
    if not values:
        raise Rejection("no object", f"{mask!r} has only background and void")
    path = root / "Annotations" / f"{stem}.xml"
    size, boxes = read_annotation(path) if path.is_file() else ({}, {})
    rows = []
    for value in values:
        name = CLASSES[value - 1]
        rows.append({"query": queries[name], "mask": mask, "mask_value": value, "mask_void": VOID, **size})
        if name in boxes:
            x0, y0, x1, y1 = zip(*boxes[name], strict=True)
            rows[-1] |= dict(zip(BOX, (min(x0), min(y0), max(x1), max(y1)), strict=True))
    return rows


def pixel_values(picture: Image.Image) -> list[int]:
    """The values of a mask's pixels but background and void; raises ValueError for a picture in colours."""
    return np.setdiff1d(np.asarray(labelled(picture)), [0, VOID]).tolist()


def devkit_root(devkit: Path) -> Path:
    """The folder VOC2007; raises ValueError naming what it lacks."""
    root = devkit / "VOC2007" if (devkit / "VOC2007").is_dir() else devkit
    if missing := [name for name in FOLDERS if not (root / name).is_dir()]:
        raise ValueError(f"{root} lacks the folders {missing}; give VOCdevkit or VOCdevkit/VOC2007 as unpacked")
    return root


def read_lists(folder: Path) -> dict[str, str]:
    """Image name (without .jpg) -> our split, from train.txt, val.txt and test.txt.

    Raises ValueError if all are missing, for a line that is no name, and for an image that is listed twice.
    """
    splits: dict[str, str] = {}
    paths = [path for path in (folder / f"{name}.txt" for name in LISTS) if path.is_file()]
    if not paths:
        raise ValueError(f"{folder} has none of {', '.join(f'{name}.txt' for name in LISTS)}: lists of image names")
    for path in paths:
        for number, line in enumerate(path.read_bytes().decode("utf-8-sig", "replace").splitlines(), 1):
            name = line.strip()
            if not re.fullmatch(r"(\w[\w.-]{0,199})?", name):
                raise ValueError(f"{path}, line {number}: expected the name of one image, got {line[:80]!r}")
            if name in splits:
                raise ValueError(f"{path}, line {number}: {name} is in {splits[name]} already; list an image once")
            if name:
                splits[name] = LISTS[path.stem]
    return splits


MAX_XML = 2**20  # bytes of an annotation; VOC's own are below a hundredth of that


class NoDoctype(ElementTree.TreeBuilder):
    """Rejects document type declarations, the only place where entities, and so bombs and outside files, come from."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Raises ValueError."""
        raise ValueError(f"it declares a document type ({name}), which VOC's never do")


def read_annotation(path: Path) -> tuple[dict[str, int], dict[str, list[list[float]]]]:
    """An image's width and height in pixels, where stated, and the boxes of its objects by their class.

    VOC's corners are pixels counted from 1, both inside, so its (1, 1, 2, 2) is our 0, 0, 2, 2. Raises Rejection for
    XML that is not of VOC's form.
    """
    boxes: dict[str, list[list[float]]] = {}
    try:
        if path.stat().st_size > MAX_XML:
            raise ValueError(f"expected at most {MAX_XML:,} bytes, got {path.stat().st_size:,}")
        root = ElementTree.parse(path, ElementTree.XMLParser(target=NoDoctype())).getroot()
        for thing in root.iterfind("object"):
            name = (thing.findtext("name") or "").strip()
            one_of("class of VOC", name, CLASSES)
            x0, y0, x1, y1 = (float(thing.findtext(f"bndbox/{side}") or "") for side in CORNERS)
            boxes.setdefault(name, []).append([x0 - 1, y0 - 1, x1, y1])
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError: unknown encodings
        raise Rejection("annotation unusable", f"{path.name}: {error}") from error
    texts = {side: (root.findtext(f"size/{side}") or "").strip() for side in ("width", "height")}
    return {side: int(text) for side, text in texts.items() if re.fullmatch(r"\d{1,9}", text)}, boxes
