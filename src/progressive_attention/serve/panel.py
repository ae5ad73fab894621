"""Answers as HTML: probabilities, where each came from, each layer's attention and what it removed; side by side.

The HTML is in panel.html.j2, which escapes all text; pictures are inside, nothing is fetched. How opaque the attention
is over the image is the style sheet's variable ``--opacity``, so a slider needs no server. Legend: H x W image pixels.
"""

import io
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from progressive_attention.maps import shown_maps
from progressive_attention.pages.answer_plots import KEPT, most_likely, panels_of, point_of, smooth_layers
from progressive_attention.predict.predictor import Answer

ASSETS = Path(__file__).parents[1] / "assets" / "serve"


class Asked(NamedTuple):
    """One network's answer; ``trained_on`` names a data set, "" if unknown."""

    network: str
    trained_on: str
    answer: Answer


class Tile(NamedTuple):
    """A square picture with two lines under it; ``heat`` lies over it, which is then grey, and a ring at per cents."""

    image: str
    title: str
    note: str = ""
    heat: str = ""
    ring: Sequence[float] = ()


def notice(text: str) -> str:
    """A message instead of an answer."""
    return f"<p class='notice' role='status'>{escape(text)}</p>"


def answers(asked: list[Asked], truth: str | None) -> str:
    """What each network answers, side by side; ``truth`` as of ``scene.truth_of``."""
    return str(panel().answers(asked, truth))


def attention(asked: list[Asked]) -> str:
    """Where each network looked, layer by layer, and what each layer removed, side by side."""
    return str(panel().attention(asked))


def panel() -> Any:
    """The template's macros."""
    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True)
    environment.globals.update(most_likely=most_likely, verdict=verdict, tiles_of=tiles_of)
    return environment.get_template("panel.html.j2").module


def verdict(answer: Answer, truth: str | None) -> tuple[str, str]:
    """The style sheet's class for it, and right or wrong in words, as far as that is known."""
    if truth is None:
        return "soft", "your own picture, or a photograph: the right answer is unknown"
    if not truth and answer.denied:
        return "right", f"✓ right, there is no {answer.query} in this scene"
    if not truth:
        return "wrong", f"there is no {answer.query} in this scene: softmax attention always points somewhere"
    if answer.attribute == truth and answer.found is not False:
        return "right", "✓ right"
    return "wrong", f"✗ wrong, the {answer.query} is {truth}"


def tiles_of(answer: Answer) -> list[Tile]:
    """Where the answer came from and what that lights; then each layer's attention, and what it removed.

    The attention of a network's only layer would show the first map again.
    """
    if not (panels := panels_of(answer)):
        return []
    (title, values, _), layers, point = panels[0], panels[1:], point_of(answer)
    image, ring = uri(answer.image), () if point is None else 100 * point / answer.image.shape[1::-1]
    shown = [
        Tile(
            image,
            title,
            "" if point is None else "ring: highest point",
            uri(heat(shown_maps.light(values))),
            tuple(ring),
        ),
        Tile(uri(as_pixels(shown_maps.attended_image(answer.image, values))), KEPT, "its light times that map"),
    ]
    shares = [share for share, _ in removed(answer.image, answer.layers)]  # of the exact maps
    parts = [part for _, part in removed(answer.image, smooth_layers(answer))]
    for i, (share, part) in enumerate(zip(shares, parts, strict=True)):
        name = ""
        if layers:
            name, values, largest = layers[i]
            shown.append(Tile(image, name, largest, uri(heat(values))))
        shown.append(Tile(uri(part), f"{name} removed".strip(), f"{100 * share:.0f} % of what reached it"))
    return shown


def uri(pixels: np.ndarray) -> str:
    """(H, W, 3) or (H, W, 4) uint8 as a data: address; made fast, a tenth larger than need be."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"


def legend() -> str:
    """How to read the maps."""
    ramp = as_pixels(shown_maps.over_image(np.full((1, 64, 3), 128, np.uint8), np.linspace(0, 1, 64)[None]))
    note = "each map’s largest; hatched: no cell of that layer"
    return f"<div class='legend'>0 <img src='{uri(ramp)}' alt='grey to yellow'> {note}</div>"


# --- pixels -----------------------------------------------------------------------------------------------------------


def as_pixels(shares: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8, 255 for one."""
    return (255 * shares + 0.5).astype(np.uint8)


def hatched(shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 stripes, for where a layer has no cell."""
    return np.where(shown_maps.striped(shape)[..., None], np.uint8(110), np.uint8(40)) * np.ones(3, np.uint8)


def heat(values: np.ndarray) -> np.ndarray:
    """A map (H, W) as paint to lay over an image: (H, W, 4) uint8, opaque stripes where it is NaN."""
    stripes = np.dstack([hatched(values.shape), np.full(values.shape, np.uint8(255))])
    return np.where(np.isnan(values)[..., None], stripes, as_pixels(shown_maps.painted(values)))


def removed(image: np.ndarray, layers: Sequence[np.ndarray]) -> list[tuple[float, np.ndarray]]:
    """What each layer took away of the image (H, W, 3) uint8 that the layers before had left: its share of what reached
    the layer, in [0, 1], and that part as a picture (H, W, 3) uint8, hatched without a cell.

    A layer lets through the share that its attention has of its largest: only that counts, since a batch norm follows
    each gate, and the last map is a choice among all locations. Attention multiplies the features, so of a pixel the
    product of what all layers let through is left; layer l removes what passed the layers before and does not pass l.
    """
    left = np.ones(image.shape[:2])
    parts = []
    for layer in layers:
        through = shown_maps.scaled(layer)
        closed = left * (1 - through)
        known = ~np.isnan(closed)
        share = float(closed[known].sum() / (left[known].sum() or 1))
        seen = np.where(known[..., None], image * np.nan_to_num(closed)[..., None] + 0.5, hatched(closed.shape))
        parts.append((share, seen.astype(np.uint8)))
        left = left * through
    return parts
