"""VAW's published JSON (Visual Attributes in the Wild, CVPR 2021) as a data set's folder, on Visual Genome's images.

A row is one instance. Its negative attributes become ``absent``, so what its authors did not label stays unknown.
Polygons become masks, a file each: a mask file holds one value a pixel, and instances overlap.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from PIL import Image

from progressive_attention.data.coco import decoded
from progressive_attention.data.file_checks import Progress, Rejection, in_threads, look
from progressive_attention.data.image_root import ImageRoot
from progressive_attention.data.images import upright_size
from progressive_attention.data.parquet_files import FOLDERS
from progressive_attention.data.rows import tidied, write_judged
from progressive_attention.data.table import BOX
from progressive_attention.files import temporary_for

SPLIT_OF = {"train_part1": "train", "train_part2": "train", "val": "validation", "test": "test"}  # by file
COLUMNS = ("image", "query", "attributes", "absent", "split", "id", *BOX, "mask")
THIN = "polygons left out, which no pixel's centre is in"
Id = int | Annotated[str, msgspec.Meta(pattern="^[0-9]{1,18}$")]  # the page says numbers, the files have text
Coordinate = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]
Polygons = list[list[tuple[Coordinate, Coordinate]]]  # x, y in pixels


class Instance(msgspec.Struct):
    """An entry: one object of an image."""

    image_id: Id
    instance_id: Id
    object_name: str
    positive_attributes: list[str]
    negative_attributes: list[str]
    instance_bbox: list[float] | None = None  # x, y, width, height in pixels
    instance_polygon: msgspec.Raw = msgspec.Raw(b"null")  # Polygons or null, decoded when it is drawn


Picture = tuple[str, tuple[int, int]]  # path below the images' folder, (width, height)


def import_vaw(annotations: Path, images: Path, out: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Write a data set from train_part1.json, train_part2.json, val.json, test.json; returns dataset.json's content.

    Images are looked up as ID.jpg below ``images``, also in Visual Genome's two zips. ``progress`` gets (instances
    done, all instances).

    Instances that can't be used go to rejected.parquet. Raises ValueError for a file that is broken or of another
    form, naming the place; if none of the four is there; if no instance can be used; and if ``out`` is there already.
    """
    out = out.resolve()
    root = ImageRoot(images)
    paths = [path for path in (annotations / f"{name}.json" for name in SPLIT_OF) if path.is_file()]
    if not paths:
        raise ValueError(
            f"{annotations} has none of {', '.join(f'{name}.json' for name in SPLIT_OF)}; see docs/visual-genome.md"
        )
    entries, rejected = read_entries(paths)
    pictures = open_pictures(root, sorted({int(instance.image_id) for _, instance in entries}))
    repaired, rows = Counter[str](), []
    with temporary_for(out, folder=True) as home:
        masks = home / FOLDERS["mask"]
        masks.mkdir()
        jobs = [partial(row_of, path, instance, pictures[int(instance.image_id)], masks) for path, instance in entries]
        for (path, instance), row in zip(entries, in_threads(jobs, progress), strict=True):
            if isinstance(row, Rejection):
                rejected.append(rejection(path, instance, row))
            else:
                rows.append(row)
                repaired[THIN] += row["mask"] is None and bytes(instance.instance_polygon) != b"null"
        missing = [f"{name}.json" for name in SPLIT_OF if annotations / f"{name}.json" not in paths]
        return write_judged(
            out,
            tidied(rows, COLUMNS, repaired),
            repaired,
            source="vaw",
            images=root,
            masks=ImageRoot(masks),
            settings={"annotations": str(annotations)},
            rejected=rejected,
            notes=[f"{annotations} has no {' and no '.join(missing)}"] if missing else [],
            home=home,
        )


def read_entries(paths: Sequence[Path]) -> tuple[list[tuple[Path, Instance]], list[dict[str, Any]]]:
    """All instances with their files, each once, and what is rejected as it was listed before."""
    entries: dict[int, tuple[Path, Instance]] = {}
    rejected = []
    for path in paths:
        for instance in decoded(path, list[Instance], "VAW"):
            before, _ = entries.setdefault(int(instance.instance_id), (path, instance))
            if entries[int(instance.instance_id)][1] is not instance:
                rejected.append(rejection(path, instance, Rejection("instance listed twice", f"in {before.name}, too")))
    return list(entries.values()), rejected


def open_pictures(root: ImageRoot, ids: Sequence[int]) -> dict[int, Picture | Rejection]:
    """Path and upright size of each image, by its id, or why it can't be used."""
    paths = [root.named(f"{image}.jpg") for image in ids]

    def picture(image: int, path: str | None) -> Picture:
        if path is None:
            raise Rejection("image file missing", f"no {image}.jpg below {root.root}")
        return path, look(root, "image", upright_size, path)

    jobs = [partial(picture, image, path) for image, path in zip(ids, paths, strict=True)]
    return dict(zip(ids, in_threads(jobs), strict=True))


def rejection(path: Path, instance: Instance, why: Rejection) -> dict[str, Any]:
    """A row of the rejected table."""
    known = {"image": f"{instance.image_id}.jpg", "query": instance.object_name, "id": int(instance.instance_id)}
    return {**known, "reason": why.reason, "detail": f"{path.name}: {why.detail}"}


def row_of(file: Path, instance: Instance, picture: Picture | Rejection, masks: Path) -> dict[str, Any]:
    """An instance's row, and its mask as a file; raises Rejection for one that can't be used."""
    if isinstance(picture, Rejection):
        raise Rejection(picture.reason, picture.detail)
    path, size = picture
    row: dict[str, Any] = {"image": path, "query": instance.object_name, "split": SPLIT_OF[file.stem]}
    row |= {"attributes": instance.positive_attributes, "absent": instance.negative_attributes}
    row |= {"id": int(instance.instance_id), "mask": None}
    if instance.instance_bbox and len(instance.instance_bbox) == len(BOX):
        x, y, width, height = instance.instance_bbox
        row |= dict(zip(BOX, (x, y, x + width, y + height), strict=True))
    elif instance.instance_bbox:
        row |= {BOX[0]: instance.instance_bbox[0]}  # half a box, which the rules leave out
    try:
        polygons = msgspec.json.decode(instance.instance_polygon, type=Polygons | None)
    except msgspec.ValidationError as error:
        raise Rejection("polygon unusable", str(error)) from error
    mask = filled(polygons or [], *size)
    if mask.any():
        row["mask"] = f"{instance.instance_id}.png"
        Image.fromarray(mask).save(masks / row["mask"])
    return row


def filled(polygons: Polygons, width: int, height: int) -> np.ndarray:
    """(height, width) bool: the pixels whose centre is inside a polygon (even-odd rule), or inside one of several."""
    mask, size = np.zeros((height, width), bool), (width, height)
    for polygon in filter(None, polygons):
        corners = np.array(polygon, float)
        left, top = np.floor(corners.min(0)).clip(0, size).astype(int)
        right, bottom = np.ceil(corners.max(0)).clip(0, size).astype(int)
        part, middle = mask[top:bottom, left:right], np.arange(top, bottom) + 0.5
        (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, 0).T
        edge, row = np.nonzero((y0[:, None] <= middle) != (y1[:, None] <= middle))
        x = x0[edge] + (middle[row] - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
        column = (np.ceil(x - 0.5) - left).clip(0, right - left).astype(int)  # the first pixel right of the crossing
        rows, columns = bottom - top, right - left + 1
        crossings = np.bincount(row * columns + column, minlength=rows * columns).reshape(rows, columns)
        part |= crossings.cumsum(1)[:, :-1] % 2 == 1
    return mask
