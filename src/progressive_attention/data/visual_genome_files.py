"""Visual Genome's JSON files as columns, read one image at a time: of millions of objects, few are in Python at once.

Versions differ in keys. An image's id is ``image_id`` (v1.2, v1.4) or ``id`` (v1), an object's ``object_id`` or ``id``;
names are a list ``names`` or ``object_names``, or one ``name``; objects.json has ``merged_object_ids`` since v1.4; an
object may lack ``attributes``. All are read alike, and each file may lie in its .zip, as it is published.
"""

import zipfile
from array import array
from collections.abc import Callable, Iterator
from math import nan
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import msgspec
import numpy as np

MAX_JSON = 2 * 2**30  # bytes of an unpacked JSON file; the largest one published has about a quarter
STEP = 1000  # images between two reports of progress
NONE = -(2**63)  # an id that is not stated

Id = Annotated[int, msgspec.Meta(gt=NONE, le=2**63 - 1)]
Side = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class Item(msgspec.Struct, gc=False):
    """One image of a file."""

    image_id: Id = NONE
    id: Id = NONE


T = TypeVar("T", bound=Item)


class Record(Item, kw_only=True, gc=False):
    """One image of image_data.json."""

    width: Side
    height: Side
    url: str | None = None


class Entry(msgspec.Struct, gc=False):
    """One object, in attributes.json or objects.json."""

    object_id: Id = NONE
    id: Id = NONE
    names: list[str] | str | None = None
    object_names: list[str] | str | None = None
    name: str | None = None
    x: float = nan
    y: float = nan
    w: float = nan
    h: float = nan
    attributes: list[str] | None = None
    merged: list[Id] = msgspec.field(name="merged_object_ids", default_factory=list)


class AttributeList(Item, kw_only=True):
    """One image of attributes.json."""

    attributes: list[Entry]


class ObjectList(Item, kw_only=True):
    """One image of objects.json."""

    objects: list[Entry]


LISTS = {"attributes": AttributeList, "objects": ObjectList}


class Splits(msgspec.Struct, forbid_unknown_fields=True):
    """Image ids of each split."""

    train: list[Id] = []
    validation: list[Id] = []
    test: list[Id] = []


class Images(NamedTuple):
    """image_data.json. I images."""

    id: np.ndarray  # (I,) int64
    size: np.ndarray  # (I, 2) int64 width, height in pixels
    url: list[str]


class Entries(NamedTuple):
    """attributes.json or objects.json. N entries, M mentions of attributes, P pairs."""

    image: np.ndarray  # (N,) int64 image id
    id: np.ndarray  # (N,) int64 object id
    place: np.ndarray  # (N,) int64 in its image's list, from 1
    name: np.ndarray  # (N,) int32 into the words, -1 where there is none
    box: np.ndarray  # (N, 4) float64 x, y, w, h in pixels, nan where there is none
    owner: np.ndarray  # (M,) int64 the mention's entry, rising
    mention: np.ndarray  # (M,) int32 into the words
    merged: np.ndarray  # (P, 2) int64 id of an object, id of the one it was merged into


def read_images(folder: Path) -> Images:
    """image_data.json; raises ValueError for a broken file, and for an image that is there twice."""
    records = list(read_list(folder, "image_data", Record))
    ids = np.array([number for number, _ in records], np.int64)
    size = np.array([(record.width, record.height) for _, record in records], np.int64).reshape(-1, 2)
    reject_repeated(f"{folder}: image_data.json", ids)
    return Images(ids, size, [record.url or "" for _, record in records])


def read_entries(
    folder: Path, file: str, words: dict[str, int], report: Callable[[int], None] = lambda images: None
) -> Entries:
    """attributes.json or objects.json (``file`` without its ending).

    ``words`` numbers names and attributes, and gives a new one its number by itself. Raises ValueError for a broken
    file, an entry without an id, and an image that is there twice.
    """
    image, length, number, name, box = array("q"), array("q"), array("q"), array("i"), array("d")
    mentions, mention, merged = array("i"), array("i"), array("q")
    for image_id, item in read_list(folder, file, LISTS[file]):
        # Whole lists at a time: with millions of entries, each call for a single one is felt.
        entries: list[Entry] = getattr(item, file)
        ids = [entry.id if entry.object_id == NONE else entry.object_id for entry in entries]
        if NONE in ids:
            raise ValueError(f"{folder}: {file}.json: image {image_id}: entry {ids.index(NONE) + 1} has no object_id")
        names = [entry.names or entry.object_names or entry.name for entry in entries]
        attributes = [entry.attributes or () for entry in entries]
        image.append(image_id)
        length.append(len(entries))
        number.extend(ids)
        name.extend([words[n[0] if isinstance(n, list) else n] if n else -1 for n in names])
        box.extend([side for entry in entries for side in (entry.x, entry.y, entry.w, entry.h)])
        mentions.extend(map(len, attributes))
        mention.extend([words[word] for listed in attributes for word in listed])
        merged.extend([i for e, id in zip(entries, ids, strict=True) for gone in e.merged for i in (gone, id)])
        if len(image) % STEP == 0:
            report(len(image))
    report(len(image))
    reject_repeated(f"{folder}: {file}.json", np.asarray(image))
    return Entries(
        image=np.repeat(image, length),
        id=np.asarray(number),
        place=np.arange(1, len(number) + 1) - np.repeat(np.cumsum(length) - length, length),
        name=np.asarray(name),
        box=np.asarray(box).reshape(-1, 4),
        owner=np.repeat(np.arange(len(mentions)), mentions),
        mention=np.asarray(mention),
        merged=np.asarray(merged).reshape(-1, 2),
    )


def read_splits(path: Path) -> tuple[np.ndarray, ...]:
    """Image ids (int64) for training, validation and test, from {"train": [ids], "validation": [ids], "test": [ids]}.

    Raises ValueError for a broken file, and for an image in two splits.
    """
    try:
        splits = msgspec.json.decode(path.read_bytes(), type=Splits)
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is no list of image ids for train, validation and test: {error}") from error
    ids = tuple(np.unique(np.array(part, np.int64)) for part in (splits.train, splits.validation, splits.test))
    reject_repeated(f"{path}: of the splits,", np.concatenate(ids))
    return ids


def reject_repeated(where: str, ids: np.ndarray) -> None:
    """Raises ValueError if an image is there more than once: which size, or which list, would count?"""
    images, count = np.unique(ids, return_counts=True)
    if len(images) < len(ids):
        worst = count.argmax()
        raise ValueError(f"{where}: image {images[worst]} is there {count[worst]} times, expected once; keep one")


def read_list(folder: Path, file: str, kind: type[T]) -> Iterator[tuple[int, T]]:
    """Id and content of each image in a file's list, decoded one by one; raises ValueError for a broken file."""
    path = find_file(folder, file)
    if path is None:
        raise ValueError(f"{folder} has neither {file}.json nor {file}.json.zip; give the folder with the annotations")
    try:
        parts = msgspec.json.decode(read_file(path), type=list[msgspec.Raw])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is broken: {error}; fetch it again") from error
    decoder = msgspec.json.Decoder(kind)
    for i, part in enumerate(parts):
        try:
            item = decoder.decode(part)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not as Visual Genome publishes it: $[{i}]: {error}") from error
        number = item.id if item.image_id == NONE else item.image_id
        if number == NONE:
            raise ValueError(f"{path}: $[{i}] has no image_id")
        yield number, item


def find_file(folder: Path, file: str) -> Path | None:
    """FILE.json or FILE.json.zip, whichever is there."""
    return next((path for path in (folder / f"{file}.json", folder / f"{file}.json.zip") if path.is_file()), None)


def read_file(path: Path) -> bytes:
    """A file's bytes, of a zip those of the one .json file in it; raises ValueError for a damaged zip."""
    if path.suffix == ".json":
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".json") and not name.startswith("__MACOSX")]
            if len(names) == 1 and archive.getinfo(names[0]).file_size <= MAX_JSON:
                return archive.read(names[0])
    except Exception as error:  # zipfile, zlib and lzma raise whatever a damaged archive runs into
        raise ValueError(f"as a zip it can't be read ({error})") from error
    raise ValueError(f"it must hold one .json file of at most {MAX_JSON:,} bytes, got {', '.join(names) or 'none'}")
