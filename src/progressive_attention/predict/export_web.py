"""One HTML file that asks a network in the browser: page, network, scenes and onnxruntime-web, nothing to be fetched.

The page's sources lie in assets/web, onnxruntime-web as published, but compressed, in assets/onnxruntime-web.
Legend: h x w cells of a layer, H x W image pixels.
"""

import csv
import gzip
import json
import lzma
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from progressive_attention.config import PROTOCOLS, STYLES
from progressive_attention.data.backgrounds import PACK
from progressive_attention.data.scenes import COLOURS, Scene, SceneSource
from progressive_attention.maps.pixel_maps import coverage
from progressive_attention.maps.receptive_field import Geometry
from progressive_attention.maps.shown_maps import COLOUR_MAP
from progressive_attention.predict.open_photographs import open_photographs

ASSETS = Path(__file__).parents[1] / "assets"
SOURCES, RUNTIME = ASSETS / "web", ASSETS / "onnxruntime-web"
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
SCENES = 12  # the first of the test split, or of our photographs: chosen before anybody looked
LARGEST = 100_000_000  # bytes of a network; browsers hold no text of several hundred MB
INCLUDED = re.compile(r'<link rel="stylesheet" href="([\w.]+)">|<script src="([\w.]+)"></script>')


def render(about: Mapping[str, Any], model: bytes) -> str:
    """The page; ``about`` is what its script reads, ``model`` an .onnx file's bytes. Raises ValueError if too large."""
    if len(model) > LARGEST:
        raise ValueError(
            f"a page holds a network of at most {LARGEST:,} bytes, this one has {len(model):,}; use --format onnx"
        )
    module, wasm = (lzma.decompress((RUNTIME / f"{name}.xz").read_bytes()) for name in RUNTIME_FILES)
    notices = [(RUNTIME / name).read_text(encoding="utf-8") for name in ("LICENSE", "ThirdPartyNotices.txt")]
    data = {
        "about": json.dumps(about, separators=(",", ":")).encode(),
        "model": model,
        "runtime-module": module,
        "runtime-wasm": wasm,
        "licence-texts": "\n\n".join(notices).encode(),
    }
    # gzip, which browsers unpack, in base64
    packed = {name: b64encode(gzip.compress(content, mtime=0)).decode() for name, content in data.items()}
    scripts = [f'<script type="text/plain" id="{name}">{text}</script>' for name, text in packed.items()]
    page = INCLUDED.sub(included, (SOURCES / "page.html").read_text(encoding="utf-8"))
    return page.replace("<!-- data -->", "\n".join(scripts))


def included(reference: re.Match[str]) -> str:
    """A style sheet or script inside the page, instead of the reference to it."""
    style, script = reference.groups()
    text = (SOURCES / (style or script)).read_text(encoding="utf-8")
    return f"<style>\n{text}</style>" if style else f"<script>\n{text}</script>"


def unpack(page: str, name: str) -> bytes:
    """The bytes that a page holds under a name."""
    (text,) = re.findall(rf'<script type="text/plain" id="{name}">([^<]*)</script>', page)
    return gzip.decompress(b64decode(text))


def page_data(geometry: Geometry, cells: Sequence[tuple[int, int]], about: Mapping[str, Any]) -> dict[str, Any]:
    """What a page needs besides the words, by config.json; a layer on pixels is rows @ (h, w) cells @ columns.T."""
    from matplotlib import colormaps

    height, width = geometry.image_size
    layers = [
        {
            "rows": coverage(rows, h, height).tolist(),
            "columns": coverage(columns, w, width).tolist(),
            "cell": [rows.stride, columns.stride],
        }
        for (rows, columns), (h, w) in zip(geometry.fields, cells, strict=True)
    ]
    colours = np.asarray(colormaps[COLOUR_MAP](range(256), bytes=True))[:, :3].tolist()
    runtime = json.loads((RUNTIME / "onnxruntime-web.json").read_text(encoding="utf-8"))
    return {
        "layers": layers,
        "colours": colours,
        "scenes": scenes(about) if about.get("data") in STYLES else photographs(about),
        "runtime_version": runtime["version"],
        "model": about.get("name") or "a network",
        "data": about.get("data") if about.get("data") in STYLES else None,  # else a path of somebody's machine
        "accuracy": (about.get("test") or {}).get("accuracy"),
    }


def photographs(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first of our photographs with a question that a network knows, as files; none outside a clone."""
    shown = []
    for photograph in open_photographs(about["query_names"])[:SCENES]:
        picture, query = b64encode(photograph.path.read_bytes()).decode(), photograph.questions[0].query
        shown.append({"picture": picture, "digits": [], "credit": f"Photograph: {photograph.credit}", "query": query})
    return shown


def scenes(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first test scenes of the synthetic set that a network learnt, with each digit's question, answer and box.

    Under protocol ``authors`` the last of its one pool, which begins with the scenes of the training.
    """
    shown, source = [], SceneSource(about["data"], "test", about.get("protocol", PROTOCOLS[0]), about.get("seed", 0))
    first = max(0, about.get("images", 15_000) - SCENES) if source.split == "pool" else 0
    for scene in map(source.scene, range(first, first + SCENES)):
        file, digits = BytesIO(), digits_of(scene)
        Image.fromarray(source.render(scene)[0]).save(file, "PNG", optimize=True)
        picture, whose = b64encode(file.getvalue()).decode(), credit(scene, source)
        shown.append({"picture": picture, "digits": digits, "credit": whose, "query": digits[0]["query"]})
    return shown


def digits_of(scene: Scene) -> list[dict[str, Any]]:
    """What can be asked of a scene and what is right, in the order drawn, ready for JSON; boxes x0 y0 x1 y1."""
    return [
        {"query": str(d.number), "attribute": COLOURS[d.colour], "box": [d.x, d.y, d.x + d.size, d.y + d.size]}
        for d in scene.digits
    ]


def credit(scene: Scene, source: SceneSource) -> str:
    """Whose photograph is behind a scene; empty where none is."""
    if scene.background is None or source.photographs is None:
        return ""
    name = source.photographs.paths[scene.background[0]].name
    with open(PACK / "ATTRIBUTION.csv", newline="", encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["file"] == name)
    return f"Background: {row['title_or_subject']} by {row['author']}, {row['licence']}, cropped"
