"""A small VOCdevkit in the official layout: drawn pictures, palette masks with void borders, XML; and its import."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pyarrow import parquet

from progressive_attention.data.table import MANIFEST, REJECTED_TABLE
from progressive_attention.data.voc import CLASSES, VOID, import_voc

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = {TRAIN: "train", VAL: "validation", TEST: "test"}  # as an import names them
BOX = ("x0", "y0", "x1", "y1")


class Scene(NamedTuple):
    """An image: its list, (width, height), and objects (class, box half open from 0, difficult)."""

    list: str
    size: tuple[int, int]
    objects: list[tuple[str, tuple[int, int, int, int], bool]]


SCENES = {
    "000005": Scene(TRAIN, (50, 40), [("chair", (2, 3, 20, 30), False), ("chair", (25, 10, 48, 38), False)]),
    "000007": Scene(TRAIN, (40, 50), [("aeroplane", (5, 5, 35, 25), False), ("person", (8, 28, 20, 49), False)]),
    "000009": Scene(VAL, (60, 30), [("tvmonitor", (0, 0, 60, 30), False), ("diningtable", (4, 20, 30, 29), True)]),
    "000012": Scene(VAL, (30, 30), [("sofa", (1, 2, 29, 28), False)]),
    "000021": Scene(TEST, (45, 35), [("motorbike", (3, 3, 22, 33), False), ("pottedplant", (24, 6, 44, 30), False)]),
}


def draw_mask(scene: Scene) -> np.ndarray:
    """(H, W) uint8 as in SegmentationClass: the class's index inside an object, void on its one-pixel border."""
    pixels = np.zeros(scene.size[::-1], np.uint8)
    for name, (x0, y0, x1, y1), _ in scene.objects:
        pixels[y0:y1, x0:x1] = VOID
        pixels[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = CLASSES.index(name) + 1
    return pixels


def save_palette(pixels: np.ndarray, path: Path) -> None:
    """A palette PNG whose indices are the values, as VOC's are; its colours are of no account."""
    picture = Image.fromarray(pixels).convert("P")
    picture.putdata(pixels.ravel().tolist())
    picture.putpalette([value * 37 % 256 for value in range(768)])
    picture.save(path)


def write_xml(stem: str, scene: Scene) -> str:
    """The annotation's XML; corners count from 1 and are both inside."""
    width, height = scene.size
    objects = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult:d}</difficult>"
        f"<bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
        # VOC has parts of persons, with names and boxes of their own: they are no objects
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
        "</object>\n"
        for name, (x0, y0, x1, y1), difficult in scene.objects
    )
    return (
        f"<annotation><folder>VOC2007</folder><filename>{stem}.jpg</filename>"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size><segmented>1</segmented>\n"
        f"{objects}</annotation>\n"
    )


def write_devkit(folder: Path, scenes: dict[str, Scene] = SCENES) -> Path:
    """``folder``/VOCdevkit with VOC2007 inside; returns it."""
    root = folder / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for stem, scene in scenes.items():
        pixels = draw_mask(scene)
        palette = rng.integers(0, 256, (256, 3), np.uint8)
        Image.fromarray(palette[pixels]).save(root / "JPEGImages" / f"{stem}.jpg")
        save_palette(pixels, root / "SegmentationClass" / f"{stem}.png")
        (root / "Annotations" / f"{stem}.xml").write_text(write_xml(stem, scene))
    for name in (TRAIN, VAL, TEST):
        stems = [f"{stem}\n" for stem, scene in scenes.items() if scene.list == name]
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("".join(stems))
    return root.parent


def imported(devkit: Path, **options):
    """dataset.json's content, the rows and the rejected ones."""
    out = devkit.parent / "out"
    told = import_voc(devkit, out, **options)
    return told, *(parquet.read_table(out / name).to_pylist() for name in (MANIFEST, REJECTED_TABLE))
