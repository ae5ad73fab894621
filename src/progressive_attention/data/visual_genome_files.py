"""Visual Genome's JSON files, decoded one image at a time: of millions of objects, few are in Python at once.

Versions differ in keys. An image's id is ``image_id`` (v1.2, v1.4) or ``id`` (v1), an object's ``object_id`` or ``id``;
names are a list ``names`` or ``object_names``, or one ``name``; objects.json has ``merged_object_ids`` since v1.4; an
object may lack ``attributes``. All are read alike, and each file may lie in its .zip, as it is published.
"""

import zipfile
from math import nan
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import numpy as np

MAX_JSON = 2 * 2**30  # bytes of an unpacked JSON file; the largest one published has about a quarter
NONE = -(2**63)  # an id that is not stated

Id = Annotated[int, msgspec.Meta(gt=NONE, le=2**63 - 1)]
Side = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
T = TypeVar("T")


class Item(msgspec.Struct, gc=False):
    """One image of a file."""

    image_id: Id = NONE
    id: Id = NONE

    def __post_init__(self) -> None:
        if self.image_id == NONE:
            self.image_id = self.id
        if self.image_id == NONE:
            raise ValueError("an image without image_id")


class Record(Item, kw_only=True, gc=False):
    """One image of image_data.json."""

    width: Side
    height: Side
    url: str | None = None


class Entry(msgspec.Struct, gc=False):
    """One object, in attributes.json or objects.json; ``name`` is the first of its names, NaN a side that it lacks."""

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

    def __post_init__(self) -> None:
        if self.object_id == NONE:
            self.object_id = self.id
        if self.object_id == NONE:
            raise ValueError("an entry without object_id")
        if names := self.names or self.object_names:
            self.name = names if isinstance(names, str) else names[0]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x, y, w, h."""
        return self.x, self.y, self.w, self.h


class AttributeList(Item, kw_only=True):
    """One image of attributes.json."""

    attributes: list[Entry]


class ObjectList(Item, kw_only=True):
    """One image of objects.json."""

    objects: list[Entry]


class Splits(msgspec.Struct, forbid_unknown_fields=True):
    """Image ids of each split."""

    train: list[Id] = []
    validation: list[Id] = []
    test: list[Id] = []


class Listed:
    """FILE.json or FILE.json.zip: a list with one item an image, whose ids are ``parts``' keys, in the file's order.

    Raises ValueError for a missing or broken file, and for an image that is there twice.
    """

    def __init__(self, folder: Path, file: str) -> None:
        path = find_file(folder, file)
        if path is None:
            raise ValueError(f"{folder} has neither {file}.json nor {file}.json.zip; give the annotations' folder")
        self.path = path
        try:
            items = msgspec.json.decode(read_file(path), type=list[msgspec.Raw])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is broken: {error}; fetch it again") from error
        self.parts: dict[int, msgspec.Raw] = {}
        for i, item in enumerate(items):
            image = self.decode(item, Item, f"$[{i}]").image_id
            if image in self.parts:
                raise ValueError(f"{path}: image {image} is there twice, expected once; keep one")
            self.parts[image] = item

    def get(self, image: int, kind: type[T]) -> T:
        """What the file has of an image."""
        return self.decode(self.parts[image], kind, f"image {image}")

    def decode(self, item: msgspec.Raw, kind: type[T], where: str) -> T:
        """An item of the list; raises ValueError for what is not of that kind."""
        try:
            return msgspec.json.decode(item, type=kind)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path} is not as Visual Genome publishes it: {where}: {error}") from error


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


def read_splits(path: Path) -> tuple[np.ndarray, ...]:
    """Image ids (int64) of each split, from {"train": [ids], ...}; ValueError for a broken file, or an image in two."""
    try:
        splits = msgspec.json.decode(path.read_bytes(), type=Splits)
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is no list of image ids for train, validation and test: {error}") from error
    ids = tuple(np.unique(np.array(part, np.int64)) for part in (splits.train, splits.validation, splits.test))
    images, count = np.unique(np.concatenate(ids), return_counts=True)
    if (count > 1).any():
        raise ValueError(f"{path}: image {images[count.argmax()]} is in several splits, expected in one")
    return ids
