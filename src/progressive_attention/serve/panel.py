"""Answers as HTML: probabilities, where each came from, each layer's attention and what it removed; side by side.

Nothing is fetched: pictures are inside. All text is escaped. How opaque the attention lies over the image is the style
sheet's variable ``--opacity``, so a slider needs no server. Legend: H x W image pixels.
"""

import io
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from progressive_attention.maps.shown_maps import (
    attended_image,
    largest_of,
    light,
    over_image,
    painted,
    scaled,
    striped,
)
from progressive_attention.pages.answer_plots import KEPT, RANKED, panels_of, point_of
from progressive_attention.predict.predictor import Answer

BARS = 8  # attributes shown, the likeliest


class Asked(NamedTuple):
    """One network's answer; ``trained_on`` names a data set, "" if unknown."""

    network: str
    trained_on: str
    answer: Answer


def notice(text: str) -> str:
    """A message instead of an answer."""
    return f"<p class='notice' role='status'>{escape(text)}</p>"


def answers(asked: list[Asked], truth: str | None) -> str:
    """What each network answers, side by side; ``truth`` as of ``scene.truth_of``."""
    return side_by_side([heading(each) + reply(each.answer, truth) + bars(each.answer) for each in asked])


def attention(asked: list[Asked]) -> str:
    """Where each network looked, layer by layer, and what each layer removed, side by side."""
    return side_by_side([(heading(each) if len(asked) > 1 else "") + tiles(each.answer) for each in asked])


def side_by_side(columns: list[str]) -> str:
    """Columns of HTML, one under the other where the page is narrow."""
    return f"<div class='columns'>{''.join(f'<section>{column}</section>' for column in columns)}</div>"


def heading(asked: Asked) -> str:
    """The network's name, and what it learnt from."""
    learnt = f" <span class='soft'>trained on {escape(asked.trained_on.upper())}</span>" if asked.trained_on else ""
    return f"<h3>{escape(asked.network)}{learnt}</h3>"


def reply(answer: Answer, truth: str | None) -> str:
    """The answer, and whether it is right as far as that is known."""
    if answer.likelihood == "softmax":
        text = f"<b>{escape(answer.attribute)}</b> {100 * answer.probability:.1f} %"
    else:
        text = ", ".join(f"<b>{escape(name)}</b> {100 * share:.0f} %" for name, share in answer.ranked[:RANKED])
    if answer.found is False:
        text = f"<b>not found</b>; if it is there, {text}"
    return f"<p class='said'>{escape(answer.query)} → {text}</p><p>{verdict(answer, truth)}</p>"


def verdict(answer: Answer, truth: str | None) -> str:
    """Right or wrong, as far as that is known."""
    query = escape(answer.query)
    if truth is None:
        return "<span class='soft'>your own picture: the right answer is unknown</span>"
    if not truth and answer.denied:
        return f"<span class='right'>✓ right, there is no {query} in this scene</span>"
    if not truth:
        always = "softmax attention always points somewhere"
        return f"<span class='wrong'>there is no {query} in this scene: {always}</span>"
    if answer.attribute == truth and answer.found is not False:
        return "<span class='right'>✓ right</span>"
    return f"<span class='wrong'>✗ wrong, the {query} is {escape(truth)}</span>"


def bars(answer: Answer) -> str:
    """The likeliest attributes with their probabilities."""
    rows = "".join(
        f"<span>{escape(name)}</span><i style='width:{100 * share:.1f}%'></i><span>{100 * share:.1f}&nbsp;%</span>"
        for name, share in answer.ranked[:BARS]
    )
    return f"<div class='bars'>{rows}</div>"


def tiles(answer: Answer) -> str:
    """Where the answer came from and what that lights; then each layer's attention, and what it removed.

    The attention of a network's only layer would show the first map again.
    """
    if not (panels := panels_of(answer)):
        return "<p class='soft'>This network has no attention map.</p>"
    (title, values), layers, ring = panels[0], panels[1:], ring_of(answer)
    shown = [
        overlay(answer.image, light(values), title, "ring: highest point" if ring else "", ring),
        tile(picture(as_pixels(attended_image(answer.image, values))), KEPT, "its light times that map"),
    ]
    for i, (share, part) in enumerate(removed(answer.image, answer.layers)):
        name = ""
        if layers:
            name, values = layers[i]
            shown.append(overlay(answer.image, values, name, largest_of(values)))
        shown.append(tile(picture(part), f"{name} removed".strip(), f"{100 * share:.0f} % of what reached it"))
    return f"<div class='tiles'>{''.join(shown)}</div>"


def overlay(image: np.ndarray, values: np.ndarray, title: str, note: str, ring: str = "") -> str:
    """A map over the grey image, as opaque as the slider says, and HTML above both."""
    below = f"<img class='grey' src='{uri(image)}' alt=''>"
    return tile(f"{below}<img class='heat' src='{uri(heat(values))}' alt='{escape(title)}'>{ring}", title, note)


def ring_of(answer: Answer) -> str:
    """A ring around the highest point of the map shown first; nothing where there is none."""
    if (point := point_of(answer)) is None:
        return ""
    left, top = (100 * point / answer.image.shape[1::-1]).tolist()
    return f"<i class='ring' style='left:{left:.2f}%;top:{top:.2f}%'></i>"


def picture(pixels: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 that its caption describes."""
    return f"<img src='{uri(pixels)}' alt=''>"


def tile(images: str, title: str, note: str) -> str:
    """A square picture with two lines under it."""
    return (
        f"<figure><div class='square'>{images}</div>"
        f"<figcaption>{escape(title)}<br><span class='soft'>{escape(note)}</span></figcaption></figure>"
    )


def uri(pixels: np.ndarray) -> str:
    """(H, W, 3) or (H, W, 4) uint8 as a data: address; made fast, a tenth larger than need be."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"


def legend() -> str:
    """How to read the maps."""
    ramp = as_pixels(over_image(np.full((1, 64, 3), 128, np.uint8), np.linspace(0, 1, 64)[None]))
    note = "each map’s largest; hatched: no cell of that layer"
    return f"<div class='legend'>0 <img src='{uri(ramp)}' alt='grey to yellow'> {note}</div>"


# --- pixels -----------------------------------------------------------------------------------------------------------


def as_pixels(shares: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8, 255 for one."""
    return (255 * shares + 0.5).astype(np.uint8)


def hatched(shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 stripes, for where a layer has no cell."""
    return np.where(striped(shape)[..., None], np.uint8(110), np.uint8(40)) * np.ones(3, np.uint8)


def heat(values: np.ndarray) -> np.ndarray:
    """A map (H, W) as paint to lay over an image: (H, W, 4) uint8, opaque stripes where it is NaN."""
    stripes = np.dstack([hatched(values.shape), np.full(values.shape, np.uint8(255))])
    return np.where(np.isnan(values)[..., None], stripes, as_pixels(painted(values)))


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
        through = scaled(layer)
        closed = left * (1 - through)
        known = ~np.isnan(closed)
        share = float(closed[known].sum() / (left[known].sum() or 1))
        seen = np.where(known[..., None], image * np.nan_to_num(closed)[..., None] + 0.5, hatched(closed.shape))
        parts.append((share, seen.astype(np.uint8)))
        left = left * through
    return parts
