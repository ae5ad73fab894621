"""A few objects in Visual Genome's forms, written by hand, and their import, that its tests share."""

import json
from pathlib import Path

import pyarrow.parquet as parquet

from progressive_attention.data.visual_genome import import_visual_genome

FILES = ("image_data", "attributes", "objects")


def write_files(folder, images, attributes, objects=None):
    """The three files, as they are given: lists as JSON, text as it is."""
    for file, content in zip(FILES, (images, attributes, objects), strict=True):
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / f"{file}.json").write_text(text)


def read(folder):
    """Rows and rejected rows of a data set, as lists of dicts."""
    return [parquet.read_table(folder / f"{name}.parquet").to_pylist() for name in ("manifest", "rejected")]


def image(number, width=100, height=80, **more):
    return {"image_id": number, "width": width, "height": height, "url": f"VG_100K/{number}.jpg", **more}


def thing(number, name="cow", attributes=("red",), box=(10, 20, 30, 40), **more):
    x, y, w, h = box
    names = {} if name is None else {"names": [name]}
    return {"object_id": number, **names, "attributes": list(attributes), "x": x, "y": y, "w": w, "h": h, **more}


def listed(things, key):
    return [{"image_id": number, key: entries} for number, entries in things.items()]


def write_photos(folder: Path) -> Path:
    """A folder with a file for each of the images 1 to 9."""
    folder.mkdir()
    for number in range(1, 10):
        (folder / f"{number}.jpg").touch()
    return folder


def importer(tmp_path: Path, photos: Path):
    """Import a hand-made genome with everything kept; gives dataset.json, rows and rejected rows."""

    def take(things, images=None, objects=None, **more):
        folder = tmp_path / "annotations"
        folder.mkdir(exist_ok=True)
        write_files(folder, images or [image(n) for n in things], listed(things, "attributes"), objects)
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        about = import_visual_genome(folder, photos, out, **{"setting": "all", **more})
        return about, *read(out)

    return take
