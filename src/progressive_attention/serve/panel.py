"""Answers as HTML: probabilities, where each came from, each layer's attention and what it removed; side by side.

Nothing is fetched: pictures are inside. All text is escaped. How opaque the attention lies over the image is the style
sheet's variable ``--opacity``, so a slider needs no server.
"""

import io
from base64 import b64encode
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from progressive_attention.maps.shown_maps import attended_image, largest_of, light, over_image
from progressive_attention.pages.plots import KEPT, RANKED, panels_of, point_of
from progressive_attention.predict.predictor import Answer
from progressive_attention.serve.layers import as_pixels, heat, removed

BARS = 8  # attributes told, the likeliest


class Asked(NamedTuple):
    """One network's answer; ``trained_on`` names a data set, "" if unknown."""

    network: str
    trained_on: str
    answer: Answer


def notice(text: str) -> str:
    """A message instead of an answer."""
    return f"<p class='notice' role='status'>{escape(text)}</p>"


def answers(asked: list[Asked], truth: str | None) -> str:
    """What each network says, side by side; ``truth`` as of ``scene.truth_of``."""
    return side_by_side([heading(one) + said(one.answer, truth) + bars(one.answer) for one in asked])


def attention(asked: list[Asked]) -> str:
    """Where each network looked, layer by layer, and what each layer removed, side by side."""
    return side_by_side([(heading(one) if len(asked) > 1 else "") + tiles(one.answer) for one in asked])


def side_by_side(columns: list[str]) -> str:
    """Columns of HTML, one under the other where the page is narrow."""
    return f"<div class='columns'>{''.join(f'<section>{column}</section>' for column in columns)}</div>"


def heading(one: Asked) -> str:
    """The network's name, and what it learnt from."""
    about = f" <span class='soft'>trained on {escape(one.trained_on.upper())}</span>" if one.trained_on else ""
    return f"<h3>{escape(one.network)}{about}</h3>"


def said(answer: Answer, truth: str | None) -> str:
    """The answer, and whether it is right as far as that is known."""
    if answer.likelihood == "softmax":
        told = f"<b>{escape(answer.attribute)}</b> {100 * answer.probability:.1f} %"
    else:
        told = ", ".join(f"<b>{escape(name)}</b> {100 * share:.0f} %" for name, share in answer.ranked[:RANKED])
    if answer.found is False:
        told = f"<b>not found</b>; if it is there, {told}"
    return f"<p class='said'>{escape(answer.query)} → {told}</p><p>{verdict(answer, truth)}</p>"


def verdict(answer: Answer, truth: str | None) -> str:
    """Right or wrong, as far as that is known."""
    query = escape(answer.query)
    if truth is None:
        return "<span class='soft'>your own picture: nobody has told what is right</span>"
    if not truth:
        if answer.denied:
            return f"<span class='right'>✓ right, there is no {query} in this scene</span>"
        return (
            f"<span class='wrong'>there is no {query} in this scene: softmax attention always points somewhere</span>"
        )
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
    below, (title, values), layers, ring = uri(answer.image), panels[0], panels[1:], ring_of(answer)
    shown = [
        overlay(below, light(values), title, "ring: highest point" if ring else "", ring),
        tile(drawn(as_pixels(attended_image(answer.image, values))), KEPT, "its light times that map"),
    ]
    for i, part in enumerate(removed(answer.image, answer.layers)):
        if layers:
            shown.append(overlay(below, layers[i][1], layers[i][0], largest_of(layers[i][1])))
        took = f"{layers[i][0]} removed" if layers else "removed"
        shown.append(tile(drawn(part.picture), took, f"{100 * part.share:.0f} % of what reached it"))
    return f"<div class='tiles'>{''.join(shown)}</div>"


def overlay(below: str, values: np.ndarray, title: str, note: str, ring: str = "") -> str:
    """A map over the grey image of an address, as opaque as the slider says, and HTML above both."""
    below, over = f"<img class='grey' src='{below}' alt=''>", uri(heat(values))
    return tile(f"{below}<img class='heat' src='{over}' alt='{escape(title)}'>{ring}", title, note)


def ring_of(answer: Answer) -> str:
    """A ring around the highest point of the map shown first; nothing where there is none."""
    if (point := point_of(answer)) is None:
        return ""
    left, top = (100 * point / answer.image.shape[1::-1]).tolist()
    return f"<i class='ring' style='left:{left:.2f}%;top:{top:.2f}%'></i>"


def drawn(pixels: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 that its caption describes."""
    return f"<img src='{uri(pixels)}' alt=''>"


def tile(images: str, title: str, note: str) -> str:
    """A square picture with two lines under it."""
    return (
        f"<figure><div class='square'>{images}</div>"
        f"<figcaption>{escape(title)}<br><span class='soft'>{escape(note)}</span></figcaption></figure>"
    )


def uri(pixels: np.ndarray) -> str:
    """(H, W, 3) or (H, W, 4) uint8 as a data: address."""
    return f"data:image/png;base64,{b64encode(png(pixels)).decode()}"


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) or (H, W, 4) uint8 as a PNG file, made fast: a tenth larger than need be."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def legend() -> str:
    """How to read the maps."""
    ramp = as_pixels(over_image(np.full((1, 64, 3), 128, np.uint8), np.linspace(0, 1, 64)[None]))
    note = "each map’s largest; hatched: no cell of that layer"
    return f"<div class='legend'>0 <img src='{uri(ramp)}' alt='grey to yellow'> {note}</div>"
