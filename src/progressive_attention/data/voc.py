"""PASCAL VOC 2007's segmentation in its official VOCdevkit layout as a data set's folder: class names as queries.

docs/voc.md says what a row is, and by which name a network trained on Visual Genome knows each class.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from progressive_attention.config import SPLITS, one_of
from progressive_attention.data.file_checks import Refusal, in_threads, look
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import labelled
from progressive_attention.data.rows import Draft, Rejection
from progressive_attention.data.table import BOX

# VOC's class -> its name in Visual Genome, in VOC's order: pixels of value k in a segmentation are of the k-th class.
NAMES = {
    "aeroplane": "airplane",
    "bicycle": "bicycle",
    "bird": "bird",
    "boat": "boat",
    "bottle": "bottle",
    "bus": "bus",
    "car": "car",
    "cat": "cat",
    "chair": "chair",
    "cow": "cow",
    "diningtable": "table",
    "dog": "dog",
    "horse": "horse",
    "motorbike": "motorcycle",
    "person": "person",
    "pottedplant": "plant",
    "sheep": "sheep",
    "sofa": "couch",
    "train": "train",
    "tvmonitor": "tv",
}
CLASSES = tuple(NAMES)
VOID = 255  # the borders of objects, and objects that were too hard to label
LISTS: dict[str, str] = dict(zip(("train", "val", "test"), SPLITS, strict=True))  # VOC's name of a split -> ours
TASK = "segmentation"
FOLDERS = ("JPEGImages", "ImageSets/Segmentation", "SegmentationClass")
COLUMNS = ("image", "query", "attributes", "split", *BOX, "mask", "mask_value", "mask_void", "width", "height")
MAX_XML = 2**20  # bytes of an annotation; VOC's own are below a hundredth of that


class Thing(NamedTuple):
    """One object of an annotation; ``box`` x0, y0, x1, y1 in pixels, half open."""

    name: str
    box: tuple[float, float, float, float]


class Annotation(NamedTuple):
    """An image's XML: its size in pixels, where stated, and its objects."""

    width: int | None
    height: int | None
    objects: list[Thing]


def import_voc(devkit: Path, out: Path, *, task: str = TASK, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Write a data set from VOCdevkit (or VOCdevkit/VOC2007); returns dataset.json's content.

    A row for each class in an image, its mask the class's pixels in SegmentationClass without the void ones, its box
    around the boxes of that class in the image's XML, if there is one. ``names`` (class -> query) replaces entries of
    NAMES. No row has attributes.

    What can't be used goes to rejected.parquet. Raises ValueError for a folder that is no devkit, for broken lists, if
    no row can be used, and if ``out`` is there already.
    """
    if task != TASK:
        raise ValueError(
            f"task must be {TASK}, got {task!r}; for VOC's boxes write a table with the columns image, query, "
            "attributes, x0, y0, x1, y1, or COCO's JSON, and import it: pan data import csv, pan data import coco"
        )
    queries = NAMES | dict(names or {})
    for name in queries:
        one_of("class of VOC", name, CLASSES)
    if len(set(queries.values())) < len(CLASSES):
        raise ValueError(f"names must keep all classes of VOC apart, got {queries}")
    root = devkit_root(devkit)
    splits = read_lists(root / "ImageSets" / "Segmentation")
    masks = ImageRoot(root / "SegmentationClass")
    images = in_threads([partial(rows_of, root, masks, queries, stem) for stem in splits])
    rows: list[dict[str, Any]] = []
    rejected: list[Rejection] = []
    for stem, result in zip(splits, images, strict=True):
        if isinstance(result, Refusal):
            rejected.append(Rejection(f"{stem}.jpg", None, None, result.reason, result.detail))
        else:
            rows += [{"image": f"{stem}.jpg", "split": splits[stem], "attributes": (), **row} for row in result]
    draft = Draft.of(rows, COLUMNS)
    draft.rejected += rejected
    if missing := [name for name, split in LISTS.items() if split not in splits.values()]:
        draft.notes.append(f"{devkit} has no images of VOC's {' and '.join(missing)} split")
    settings = {"devkit": str(devkit), "task": task, "names": queries}
    return draft.write(out, source="voc", images=ImageRoot(root / "JPEGImages"), masks=masks, settings=settings)


def rows_of(root: Path, masks: ImageRoot, queries: Mapping[str, str], stem: str) -> list[dict[str, Any]]:
    """A row for each class in an image's segmentation; raises Refusal for an image that can't be used."""
    mask = f"{stem}.png"
    values = look(masks, "mask", pixel_values, mask)
    if strange := [value for value in values if value > len(CLASSES)]:
        raise Refusal("mask unusable", f"{mask!r} has pixels of {strange}, expected 0 to {len(CLASSES)} and {VOID}")
    if not values:
        raise Refusal("no object", f"{mask!r} has only background and void")
    path = root / "Annotations" / f"{stem}.xml"
    annotation = read_annotation(path) if path.is_file() else Annotation(None, None, [])
    rows = []
    for value in values:
        name = CLASSES[value - 1]
        row = {"query": queries[name], "mask": mask, "mask_value": value, "mask_void": VOID}
        row |= {"width": annotation.width, "height": annotation.height}
        boxes = np.array([thing.box for thing in annotation.objects if thing.name == name])
        if len(boxes):
            row |= dict(zip(BOX, [*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()], strict=True))
        rows.append(row)
    return rows


def pixel_values(picture: Image.Image) -> list[int]:
    """The values of a mask's pixels but background and void; raises ValueError for a picture in colours."""
    values = np.unique(np.asarray(labelled(picture))).tolist()
    return [int(value) for value in values if value not in (0, VOID)]


# --- the devkit's files -----------------------------------------------------------------------------------------------


def devkit_root(devkit: Path) -> Path:
    """The folder VOC2007; raises ValueError naming what it lacks."""
    root = devkit / "VOC2007" if (devkit / "VOC2007").is_dir() else devkit
    if missing := [name for name in FOLDERS if not (root / name).is_dir()]:
        raise ValueError(
            f"{root} lacks the folders {missing}; a devkit must hold {', '.join(FOLDERS)}: give VOCdevkit or "
            "VOCdevkit/VOC2007 as unpacked from the official files"
        )
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


class NoDoctype(ElementTree.TreeBuilder):
    """Rejects document type declarations, the only place where entities, and so bombs and outside files, come from."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Raises Refusal."""
        raise Refusal("annotation unusable", f"it declares a document type ({name}), which VOC's never do")


def read_annotation(path: Path) -> Annotation:
    """An image's XML; raises Refusal if it is not of VOC's form."""
    with path.open("rb") as file:
        content = file.read(MAX_XML + 1)
    if len(content) > MAX_XML:
        raise Refusal("annotation unusable", f"{path.name} has more than {MAX_XML:,} bytes")
    parser = ElementTree.XMLParser(target=NoDoctype())
    try:
        parser.feed(content)
        root = parser.close()
    except Refusal:
        raise
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter two: unknown encodings
        raise Refusal("annotation unusable", f"{path.name}: {error}") from error
    if root.tag != "annotation":
        raise Refusal("annotation unusable", f"{path.name}: its outermost element is {root.tag}, expected annotation")
    things = [read_object(f"{path.name}, object {n}", one) for n, one in enumerate(root.iterfind("object"), 1)]
    return Annotation(side(root, "width"), side(root, "height"), things)


def read_object(place: str, element: ElementTree.Element) -> Thing:
    """One object; VOC's corners are pixels counted from 1, both inside, so its (1, 1, 2, 2) is our 0, 0, 2, 2."""
    name = (element.findtext("name") or "").strip()
    if name not in CLASSES:
        raise Refusal("unknown class", f"{place}: {name!r}")
    corners = [element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x0, y0, x1, y1 = (float(corner or "") for corner in corners)
    except ValueError as error:
        raise Refusal("annotation unusable", f"{place}: corners must be numbers, got {corners}") from error
    return Thing(name, (x0 - 1, y0 - 1, x1, y1))


def side(annotation: ElementTree.Element, name: str) -> int | None:
    """The image's width or height in pixels, None where none is stated."""
    text = (annotation.findtext(f"size/{name}") or "").strip()
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None
