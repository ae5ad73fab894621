"""Photographs of every kind through every importer: grey, CMYK, 16 bit, turned by the camera, huge, tiny, long.

Each is black with a white rectangle, whose box (and mask) is given in the upright picture, as people see it.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progressive_attention.data.coco import import_coco
from progressive_attention.data.manifest import from_folder, read_manifest
from progressive_attention.data.rows import import_table
from progressive_attention.data.vaw import import_vaw
from progressive_attention.data.visual_genome import import_visual_genome
from progressive_attention.data.voc import CLASSES, import_voc

SIDE = 120  # every picture below is a whole number of times as large, or as small
TURNED = Image.Exif()
TURNED[0x0112] = 6  # the camera was held upright: turn the stored picture by a quarter, clockwise
Box = tuple[int, int, int, int]
KINDS: dict[str, tuple[tuple[int, int], Box]] = {  # (width, height) upright, and the rectangle in it
    "grey": ((40, 30), (4, 6, 20, 24)),
    "cmyk": ((40, 30), (20, 6, 36, 24)),
    "sixteen bits": ((30, 40), (3, 20, 27, 38)),
    "transparent": ((40, 40), (8, 8, 30, 20)),
    "turned": ((60, 120), (30, 80, 55, 115)),  # wrong in place and in shape where it is not turned
    "turned png": ((60, 120), (30, 80, 55, 115)),
    "huge": ((3000, 2000), (1500, 200, 2900, 900)),
    "long": ((600, 60), (200, 20, 400, 50)),
    "tiny": ((1, 1), (0, 0, 1, 1)),
}


def save(kind: str, path: Path) -> None:
    """A photograph of this kind; its content says the format, whatever its name."""
    (width, height), (x0, y0, x1, y1) = KINDS[kind]
    pixels = np.zeros((height, width), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    picture = Image.fromarray(pixels)
    lying = picture.convert("RGB").transpose(Image.Transpose.ROTATE_90)
    match kind:
        case "cmyk":
            picture.convert("CMYK").save(path, "JPEG", quality=95)
        case "sixteen bits":
            dark = 8 << 8  # nearly black, but beyond 255
            Image.fromarray(np.where(pixels, 65535, dark).astype(np.uint16)).save(path, "PNG")
        case "transparent":
            Image.merge("LA", (Image.new("L", picture.size, 255), picture)).save(path, "PNG")
        case "turned":
            lying.save(path, "JPEG", exif=TURNED, quality=95)
        case "turned png":
            lying.save(path, "PNG", exif=TURNED)
        case _:
            picture.save(path, "JPEG", quality=95)


def write_pictures(folder: Path) -> dict[str, int]:
    """ID.jpg of each kind; returns the ids."""
    folder.mkdir(parents=True)
    ids = {kind: 101 + at for at, kind in enumerate(KINDS)}
    for kind, number in ids.items():
        save(kind, folder / f"{number}.jpg")
    return ids


def corners(kind: str) -> list[list[int]]:
    x0, y0, x1, y1 = KINDS[kind][1]
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def write_mask(kind: str, path: Path, value: int) -> None:
    (width, height), (x0, y0, x1, y1) = KINDS[kind]
    pixels = np.zeros((height, width), np.uint8)
    pixels[y0:y1, x0:x1] = value
    Image.fromarray(pixels).save(path)


def extents(kind: str) -> tuple[int, int, int, int]:
    """x, y, width, height of the rectangle."""
    x0, y0, x1, y1 = KINDS[kind][1]
    return x0, y0, x1 - x0, y1 - y0


# --- each importer ----------------------------------------------------------------------------------------------------


def own_table(folder: Path) -> None:
    ids = write_pictures(folder)
    rows = []
    for kind, number in ids.items():
        write_mask(kind, folder / f"{number}-mask.png", 1)
        box = dict(zip(("x0", "y0", "x1", "y1"), KINDS[kind][1], strict=True))
        row = {"image": f"{number}.jpg", "query": kind, "attributes": ["old"], "split": "train", **box}
        rows.append(json.dumps({**row, "mask": f"{number}-mask.png"}))
    (folder / "table.jsonl").write_text("\n".join(rows))
    import_table(folder / "table.jsonl", folder / "out")


def coco(folder: Path) -> None:
    ids = write_pictures(folder)
    sizes = {kind: dict(zip(("width", "height"), size, strict=True)) for kind, (size, _) in KINDS.items()}
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg", **sizes[kind]} for kind, number in ids.items()],
        "categories": [{"id": number, "name": kind} for kind, number in ids.items()],
        "annotations": [
            {"id": number, "image_id": number, "category_id": number, "bbox": extents(kind), "attributes": ["old"]}
            for kind, number in ids.items()
        ],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    import_coco(folder / "instances.json", folder, folder / "out")


def visual_genome(folder: Path) -> None:
    ids = write_pictures(folder / "VG_100K")
    records, objects = [], []
    for kind, number in ids.items():
        (width, height), (x, y, w, h) = KINDS[kind][0], extents(kind)
        records.append({"image_id": number, "width": width, "height": height, "url": f"VG_100K/{number}.jpg"})
        thing = {"object_id": number, "names": [kind], "x": x, "y": y, "w": w, "h": h, "attributes": ["old"]}
        objects.append({"image_id": number, "attributes": [thing]})
    (folder / "image_data.json").write_text(json.dumps(records))
    (folder / "attributes.json").write_text(json.dumps(objects))
    splits = folder / "lists.json"
    splits.write_text(json.dumps({"train": list(ids.values())}))
    import_visual_genome(folder, folder, folder / "out", setting="all", splits=splits)


def voc(folder: Path) -> None:
    ids = write_pictures(folder / "JPEGImages")
    for name in ("SegmentationClass", "Annotations", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for value, (kind, number) in enumerate(ids.items(), 1):
        write_mask(kind, folder / "SegmentationClass" / f"{number}.png", value)
        x0, y0, x1, y1 = KINDS[kind][1]
        box = f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        thing = f"<object><name>{CLASSES[value - 1]}</name><bndbox>{box}</bndbox></object>"
        (folder / "Annotations" / f"{number}.xml").write_text(f"<annotation>{thing}</annotation>")
    (folder / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(map(str, ids.values())))
    import_voc(folder, folder / "out")


def vaw(folder: Path) -> None:
    ids = write_pictures(folder / "VG_100K")
    entries = [
        {
            "image_id": str(number),
            "instance_id": str(number),
            "instance_bbox": extents(kind),
            "instance_polygon": [corners(kind)],
            "object_name": kind,
            "positive_attributes": ["old"],
            "negative_attributes": [],
        }
        for kind, number in ids.items()
    ]
    (folder / "train_part1.json").write_text(json.dumps(entries))
    import_vaw(folder, folder, folder / "out")


@pytest.mark.parametrize("write", [own_table, coco, visual_genome, voc, vaw])
def test_the_box_and_the_mask_lie_on_the_rectangle(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "set")
    manifest = read_manifest(tmp_path / "set" / "out")
    table = manifest.table.to_pydict()
    sizes = dict(zip(table["image"], zip(table["width"], table["height"], strict=True), strict=True))
    kinds = {path: list(KINDS)[int(Path(path).stem) - 101] for path in sizes}
    assert {kinds[path]: size for path, size in sizes.items()} == {kind: size for kind, (size, _) in KINDS.items()}
    assert not sum(manifest.about["rejected"].values())
    assert not sum(manifest.about["mended"].values())

    questions = from_folder(tmp_path / "set" / "out", "train", SIDE)
    paths = np.array(questions.images.paths)[questions.image]
    pixels, rows = questions.images[questions.image].mean(-1), np.arange(len(questions))
    masks = None if questions.masks is None else questions.masks[rows]
    assert not questions.images.unreadable
    assert questions.box is not None
    for row, path in enumerate(paths):
        x0, y0, x1, y1 = np.round(questions.box[row]).astype(int)
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        inside = np.zeros((SIDE, SIDE), bool)
        inside[y0:y1, x0:x1] = True
        assert pixels[row][inside].mean() > 180, f"{kinds[path]}: the box is elsewhere"
        assert pixels[row][~inside].sum() < 0.25 * pixels[row].sum(), f"{kinds[path]}: the box misses a part"
        if masks is not None:
            overlap = (masks[row] & inside).sum() / (masks[row] | inside).sum()
            assert overlap > 0.7, f"{kinds[path]}: the mask is elsewhere"
    assert (masks is None) == (write in (coco, visual_genome))
