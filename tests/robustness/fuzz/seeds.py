"""Small valid files of each format, made in code: a seed is a folder, paths with their bytes."""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

Files = dict[str, bytes]

NOWHERE = {"mask": None, "mask_value": None}
ROWS: list[dict[str, Any]] = [
    {"image": "a.png", "query": "cat", "attribute": "red", "split": "train", "mask": "m.png", "mask_value": 1}
    | {"scale": 1.5},
    {"image": "a.png", "query": "07", "attribute": "old", "split": "train", **NOWHERE, "scale": 2.0},
    {"image": "b.jpg", "query": "cat", "attribute": "old", "split": "test", **NOWHERE, "scale": 3.0},
]
BOX, WHOLE = {"x0": 1.0, "y0": 1.0, "x1": 5.0, "y1": 6.0}, {"x0": 0.0, "y0": 0.0, "x1": 8.0, "y1": 8.0}
LABELS: list[dict[str, Any]] = [
    {"image": "a.png", "query": "cat", "attributes": ["red", "old"], "absent": ["big"], **BOX, "id": 7},
    {"image": "b.jpg", "query": "dog", "attributes": ["red"], "absent": [], **WHOLE, "id": 9},
]


def picture(form: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (12, 8), **options: Any) -> bytes:
    """A drawn picture's file."""
    pixels = np.arange(size[0] * size[1] * 4, dtype=np.uint32).reshape(size[1], size[0], 4)
    drawn = Image.fromarray((pixels * 7 % 256).astype(np.uint8), "RGBA")
    if mode.startswith("I;16"):
        drawn = Image.fromarray((pixels[..., 0] * 251 % 65536).astype(np.uint16))
    out = io.BytesIO()
    drawn.convert(mode).save(out, form, **options) if not mode.startswith("I;16") else drawn.save(out, form)
    return out.getvalue()


def blank(size: tuple[int, int]) -> bytes:
    """A black picture of few bytes, and of more pixels than are read if it is large."""
    out = io.BytesIO()
    Image.new("1", size).save(out, "PNG")
    return out.getvalue()


def mask(size: tuple[int, int] = (12, 8), value: int = 1) -> bytes:
    pixels = np.zeros(size[::-1], np.uint8)
    pixels[2:6, 1:5] = value
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def zipped(members: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


PICTURES = {"a.png": picture(), "b.jpg": picture("JPEG"), "m.png": mask()}


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    cells = [list(rows[0])]
    cells += [
        [";".join(v) or "[]" if isinstance(v, list) else "" if v is None else str(v) for v in row.values()]
        for row in rows
    ]
    return "".join(",".join(row) + "\n" for row in cells).encode()


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()[:-1]


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


FORMS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {"csv": as_csv, "jsonl": as_jsonl, "parquet": as_parquet}


def tables(form: str, name: str = "manifest", about: bool = True) -> list[Files]:
    """Folders with one answer a row, and with lists of them."""
    told = {"dataset.json": json.dumps({"format": 1, "images": ".", "masks": ".", "rows": 3}).encode()} if about else {}
    return [
        {f"{name}.{form}": FORMS[form](ROWS), **PICTURES, **told},
        {f"{name}.{form}": FORMS[form](LABELS), **PICTURES},
    ]


def hub_parquet() -> list[Files]:
    """Pictures inside of the table, and numbers of classes."""
    inside = [{"bytes": PICTURES[row["image"]], "path": row["image"]} for row in ROWS]
    rows = [{"image": one, "query": "cat", "attribute": i % 2} for i, one in enumerate(inside)]
    features = {"attribute": {"names": ["old", "red"], "_type": "ClassLabel"}}
    out = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), out
    )
    return [{"table.parquet": out.getvalue()}]


def coco() -> list[Files]:
    box = {"bbox": [1, 1, 4, 5], "iscrowd": 0}
    words = {"red": True, "old": False, "color": "blue"}
    first = {"id": 1, "image_id": 1, "category_id": 3, "attributes": words, **box}
    second = {"id": 2, "image_id": 2, "category_id": 4, "attribute_ids": [5], **box}
    told = {
        "images": [{"id": 1, "file_name": "a.png", "width": 12, "height": 8}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [first, second],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
        "attributes": [{"id": 5, "name": "red"}],
    }
    return [{"coco.json": json.dumps(told).encode(), **PICTURES}]


def genome() -> list[Files]:
    thing = {"object_id": 11, "names": ["cat"], "x": 1, "y": 1, "w": 4, "h": 5}
    other = {"object_id": 12, "names": ["Dog."], "x": 0, "y": 0, "w": 8, "h": 8, "merged_object_ids": [13]}
    size = {"width": 12, "height": 8}
    files: dict[str, Any] = {
        "image_data.json": [{"image_id": 1, "url": "https://x/a.png", **size}, {"image_id": 2, "url": "b.jpg", **size}],
        "attributes.json": [
            {"image_id": 1, "attributes": [{**thing, "attributes": ["red", " Old"]}]},
            {"image_id": 2, "attributes": [{**other, "attributes": ["red"]}, {**thing, "object_id": 13}]},
        ],
        "objects.json": [{"image_id": 1, "objects": [thing]}, {"image_id": 2, "objects": [other]}],
        "splits.json": {"train": [1], "test": [2]},
    }
    plain = {name: json.dumps(tree).encode() for name, tree in files.items()}
    packed = {f"{name}.zip": zipped({name: content}) for name, content in plain.items() if name != "splits.json"}
    images = {f"images/{name}": content for name, content in PICTURES.items()}
    masks = {"masks/1.png": mask(value=1), "masks/2.png": mask(value=1)}
    return [{**plain, **images}, {**packed, **images, **masks}]


def voc() -> list[Files]:
    box = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>6</xmax><ymax>7</ymax></bndbox>"
    size = "<size><width>12</width><height>8</height><depth>3</depth></size>"
    files: Files = {}
    for stem, name, value in (("000005", "chair", 9), ("000007", "person", 15)):
        thing = f"<object><name>{name}</name><difficult>0</difficult>{box}</object>"
        xml = f"<annotation><filename>{stem}.jpg</filename>{size}{thing}</annotation>"
        files[f"Annotations/{stem}.xml"] = xml.encode()
        files[f"JPEGImages/{stem}.jpg"] = picture("JPEG")
        files[f"SegmentationClass/{stem}.png"] = mask(value=value)
    files |= {"ImageSets/Segmentation/train.txt": b"000005\n", "ImageSets/Segmentation/test.txt": b"000007\n"}
    return [files]


def npz() -> list[Files]:
    rng = np.random.default_rng(0)
    arrays = {"images": rng.integers(0, 256, (3, 4, 4, 3), np.uint8), "query": np.array([0, 1, 0]), "scale": np.ones(3)}
    arrays |= {"attribute": np.array(["red", "old", "red"]), "attribute_names": np.array(["old", "red"])}
    arrays |= {"mask": rng.random((3, 4, 4)) < 0.5, "query_names": np.array(["cat", "dog"])}
    out, pickled = io.BytesIO(), io.BytesIO()
    np.savez(out, **arrays)
    np.savez(pickled, **{**arrays, "scale": np.array([Path, 1, 2], object)})
    return [*3 * [{"scenes.npz": out.getvalue()}], {"scenes.npz": pickled.getvalue()}]


def read_back(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights() -> list[Files]:
    import torch

    from progressive_attention.network.build import build_model
    from progressive_attention.saved import network_folder

    torch.manual_seed(0)
    made = []
    for name in ("pan-soft-ctx", "film"):
        model = build_model(name, num_queries=2, num_attributes=3, hidden=2, image_size=62)
        with tempfile.TemporaryDirectory() as folder:
            about = network_folder.describe(model.config, ("cat", "dog"), ("a", "b", "c"), name=name, data="mref")
            network_folder.save(Path(folder), model.state_dict(), about)
            made.append(read_back(Path(folder)))
    return made


def pictures() -> list[Files]:
    """Of many formats: grey, palette, 16 bits, CMYK, transparent, animated, turned, polyglot, too large, empty."""
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = [Image.new("P", (12, 8), i) for i in range(3)]
    grey16 = picture("PNG", "I;16")
    made = [picture("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    made += [picture("JPEG", "CMYK"), picture("JPEG", exif=turned), picture("JPEG", progressive=True)]
    made += [picture("TIFF", mode) for mode in ("I;16", "CMYK", "LAB", "F")] + [picture("TIFF", compression="tiff_lzw")]
    made += [
        picture("GIF", "P", save_all=True, append_images=frames),
        picture("WEBP", save_all=True, append_images=frames),
    ]
    made += [picture(form) for form in ("WEBP", "BMP", "PPM", "ICO", "TGA", "PCX", "SGI", "DDS", "JPEG2000")]
    made += [
        grey16,
        picture("GIF", "P") + zipped({"a.txt": b"a"}),
        b"GIF89a/*<html>*/",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"",
    ]
    made += [blank((10_001, 10_000)), blank((1, 30_000))]
    return [{"picture.png" if one[:4] == b"\x89PNG" else "picture.bin": one} for one in made]
