"""COCO's instances JSON, with attributes in the forms that COCO-style sets have, as a data set's folder.

Boxes only: a mask file holds one value a pixel, and COCO's objects overlap, so segmentations would need a file each.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

import msgspec

from progressive_attention.data.file_checks import Rejection
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.rows import tidied, write_judged
from progressive_attention.data.table import BOX

T = TypeVar("T")
E = TypeVar("E", bound="Named | Picture")
COLUMNS = ("image", "query", "attributes", "absent", "id", "width", "height", *BOX)
Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Side = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]


class Named(msgspec.Struct):
    """An entry of categories, or of the vocabulary of attributes."""

    id: Id
    name: str


class Picture(msgspec.Struct):
    """An entry of images."""

    id: Id
    file_name: str
    width: Side | None = None
    height: Side | None = None


class Annotation(msgspec.Struct):
    """An entry of annotations: one object; ids of attributes are those of the top-level list ``attributes``."""

    image_id: Id
    category_id: Id
    id: Id | None = None
    bbox: list[float] | None = None  # x, y, width, height in pixels
    iscrowd: bool | int = 0
    attributes: list[Id | str] | dict[str, Any] | None = None
    attribute_ids: list[Id] | None = None

    @property
    def stated(self) -> bool:
        """Whether it has attributes, if only an empty list."""
        return self.attributes is not None or self.attribute_ids is not None


class Instances(msgspec.Struct):
    """instances_*.json."""

    images: list[Picture]
    annotations: list[Annotation]
    categories: list[Named]
    attributes: list[Named] = []


def import_coco(annotations: Path, images: Path, out: Path) -> dict[str, Any]:
    """Write a data set from COCO's instances JSON; returns dataset.json's content.

    One row is one annotation: its category's name is the query, its bbox the box. Attributes are its "attributes" or
    "attribute_ids": a list of names; a list of ids of the top-level list "attributes" ({"id", "name"}); or a mapping
    as CVAT writes it, of names true or false ("red": true), and of words ("color": "red"). Where no annotation has
    any, all lists are empty. The split is by the hash of the image's path. An image that is not at its file_name is
    looked for in folders below ``images``.

    Crowds, annotations without attributes (where others have some) and those that can't be used go to
    rejected.parquet. Raises ValueError for a file that is broken or of another form, naming the place; if no
    annotation can be used; and if ``out`` is there already.
    """
    instances = decoded(annotations, Instances, "COCO")
    vocabulary = by_id(annotations, "attributes", instances.attributes)
    pictures = by_id(annotations, "images", instances.images)
    categories = by_id(annotations, "categories", instances.categories)
    root = ImageRoot(images)
    some = any(thing.stated for thing in instances.annotations)
    rows, rejected = [], []
    repaired, neither = Counter[str](), Counter[str]()
    for thing in instances.annotations:
        picture, category = pictures.get(thing.image_id), categories.get(thing.category_id)
        try:
            row = row_of(thing, picture, category)
            if thing.stated or not some:  # else they are unknown
                row |= words_of(thing, vocabulary, neither)
            rows.append(row)
        except Rejection as rejection:
            words = {"image": picture and picture.file_name, "query": category and category.name, "id": thing.id}
            rejected.append({**words, "reason": rejection.reason, "detail": rejection.detail})
    places = located(root, [row["image"] for row in rows])
    table = tidied([{**row, "image": places[row["image"]]} for row in rows], COLUMNS, repaired)
    neither["images found in a folder below"] += sum(path != name for name, path in places.items())
    note = f"{annotations} has no attributes: enough to measure attention, useless for training"
    return write_judged(
        out,
        table,
        repaired + neither,
        source="coco",
        images=root,
        masks=None,
        settings={"annotations": str(annotations)},
        rejected=rejected,
        notes=[] if some else [note],
    )


def row_of(thing: Annotation, picture: Picture | None, category: Named | None) -> dict[str, Any]:
    """A row without its attributes; raises Rejection for an annotation that can't be used."""
    if picture is None:
        raise Rejection("unknown image", f"image_id {thing.image_id}")
    if category is None:
        raise Rejection("unknown class", f"category_id {thing.category_id}")
    if thing.iscrowd:
        raise Rejection("crowd", "")
    row = {"image": picture.file_name, "query": category.name, "id": thing.id}
    row |= {"width": picture.width, "height": picture.height}
    if thing.bbox and len(thing.bbox) == 4:
        x, y, width, height = thing.bbox
        row |= dict(zip(BOX, (x, y, x + width, y + height), strict=True))
    elif thing.bbox:
        row |= {BOX[0]: thing.bbox[0]}  # half a box, which the rules leave out
    return row


def words_of(thing: Annotation, vocabulary: Mapping[int, Named], neither: Counter[str]) -> dict[str, list[str] | None]:
    """The attributes that are true, and those stated false; counts the rest, raises Rejection for unknown ids."""
    listed: list[int | str] = list(thing.attribute_ids or ())
    absent: list[str] = []
    if isinstance(thing.attributes, dict):
        for name, value in thing.attributes.items():
            if isinstance(value, str):
                listed.append(value)
            elif isinstance(value, bool):
                (listed if value else absent).append(name)
            else:
                neither["attributes left out, neither true or false nor a word"] += value is not None
    else:
        listed += thing.attributes or ()
    if unknown := [id for id in listed if isinstance(id, int) and id not in vocabulary]:
        raise Rejection("unknown attribute", f"attribute ids {unknown}")
    true = [vocabulary[word].name if isinstance(word, int) else word for word in listed]
    return {"attributes": true, "absent": absent or None}


def by_id(path: Path, what: str, entries: Sequence[E]) -> dict[int, E]:
    """Entries by their ids; raises ValueError for an id that is there twice."""
    known = {entry.id: entry for entry in entries}
    if len(known) < len(entries):
        id, count = Counter(entry.id for entry in entries).most_common(1)[0]
        raise ValueError(f"{path}: {count} entries of {what} have the id {id}, expected one")
    return known


def located(root: ImageRoot, names: Iterable[str]) -> dict[str, str]:
    """File name -> path below the root; of one that isn't there the only path that ends with it, if one does."""
    paths = {}
    for name in dict.fromkeys(names):
        ends = [] if root.has(name) else root.by_name.get(PurePosixPath(name).name, [])
        ends = [path for path in ends if path.endswith(f"/{name}")]
        paths[name] = ends[0] if len(ends) == 1 else name
    return paths


def decoded(path: Path, form: type[T], whose: str) -> T:
    """A JSON file in its form; raises ValueError naming the file, the place and whose form was expected."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=form)
    except (OSError, ValueError, RecursionError) as error:
        remedy = "it may be truncated, fetch it again"
        raise ValueError(f"{path} can't be read as {whose}'s JSON: {error}; {remedy}") from error
