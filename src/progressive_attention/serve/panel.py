"""Answers as HTML: probabilities, each layer's attention over the image, what it removed; networks side by side.

Nothing is fetched: pictures are inside. All text is escaped. How opaque the attention lies over the image is the style
sheet's variable ``--opacity``, so a slider needs no server.
"""

import io
from base64 import b64encode
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from progressive_attention.plots import COLOUR_MAP, RANKED, panels_of, range_of
from progressive_attention.predictor import Answer
from progressive_attention.serve.layers import heat, removed

BARS = 8  # attributes told, the likeliest


class Asked(NamedTuple):
    """One network's answer; ``trained_on`` names a data set, "" if unknown."""

    network: str
    trained_on: str
    answer: Answer


def notice(text: str) -> str:
    """A message instead of an answer."""
    return f"<p class='notice' role='status'>{escape(text)}</p>"


def panel(asked: list[Asked], truth: str | None) -> str:
    """All answers to one question side by side; ``truth`` as of ``scene.truth_of``."""
    return f"<div class='answers'>{''.join(column(one, truth) for one in asked)}</div>"


def column(one: Asked, truth: str | None) -> str:
    """One network's answer with all that led to it."""
    answer = one.answer
    about = f" <span class='soft'>trained on {escape(one.trained_on.upper())}</span>" if one.trained_on else ""
    return (
        f"<section class='answer'><h3>{escape(one.network)}{about}</h3>"
        f"<p class='said'>{escape(answer.query)} → {said(answer)}</p>"
        f"<p class='verdict'>{verdict(answer, truth)}</p>{bars(answer)}{tiles(answer)}</section>"
    )


def said(answer: Answer) -> str:
    """The answer itself."""
    if answer.likelihood == "softmax":
        told = f"<b>{escape(answer.attribute)}</b> {100 * answer.probability:.1f} %"
    else:
        told = ", ".join(f"<b>{escape(name)}</b> {100 * share:.0f} %" for name, share in answer.ranked[:RANKED])
    return f"<b>not found</b>; if it is there, {told}" if answer.found is False else told


def verdict(answer: Answer, truth: str | None) -> str:
    """Right or wrong, as far as that is known."""
    query = escape(answer.query)
    if truth is None:
        return "<span class='soft'>your own picture: nobody has told what is right</span>"
    if not truth:
        if answer.found is False:
            return f"<span class='right'>✓ right, there is no {query} in this scene</span>"
        return f"<span class='wrong'>there is no {query} in this scene: softmax attention always points somewhere</span>"
    if answer.attribute == truth and answer.found is not False:
        return "<span class='right'>✓ right</span>"
    return f"<span class='wrong'>✗ wrong, the {query} is {escape(truth)}</span>"


def bars(answer: Answer) -> str:
    """The likeliest attributes with their probabilities."""
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td><i style='width:{100 * share:.1f}%'></i></td>"
        f"<td class='number'>{100 * share:.1f} %</td></tr>"
        for name, share in answer.ranked[:BARS]
    )
    return f"<table class='bars'>{rows}</table>"


def tiles(answer: Answer) -> str:
    """Each layer's attention, what it removed, the accumulated map."""
    took = removed(answer.image, answer.layers)
    shown = []
    for i, (title, values, high) in enumerate(panels_of(answer)):
        note = f"{range_of(values)}; yellow is {high:.2g}"
        shown.append(overlay(answer.image, heat(values, high), title, note))
        if i < len(took):
            share = f"{100 * took[i].share:.0f} % of what reached it"
            shown.append(tile(f"<img src='{uri(took[i].picture)}' alt=''>", f"layer {i + 1} removed", share))
    if not shown:
        return "<p class='soft'>This network has no attention map.</p>"
    hatched = any(np.isnan(layer).any() for layer in answer.layers)
    note = "Hatched: this layer has no cell there." if hatched else ""
    return f"<div class='tiles'>{''.join(shown)}</div><p class='soft'>{note}</p>"


def overlay(image: np.ndarray, over: np.ndarray, title: str, note: str) -> str:
    """A map over the image, as opaque as the slider says."""
    layers = f"<img src='{uri(image)}' alt=''><img class='heat' src='{uri(over)}' alt='{escape(title)}'>"
    return tile(layers, title, note)


def tile(images: str, title: str, note: str) -> str:
    """A square picture with two lines under it."""
    return (
        f"<figure><div class='square'>{images}</div>"
        f"<figcaption>{escape(title)}<br><span class='soft'>{escape(note)}</span></figcaption></figure>"
    )


def uri(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 as a data: address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"


def legend() -> str:
    """The colours of a map from nothing to its largest value."""
    from matplotlib import colormaps

    ramp = colormaps[COLOUR_MAP](np.linspace(0, 1, 64)[None], bytes=True)[..., :3]
    return f"<div class='legend'>0 <img src='{uri(ramp)}' alt='dark blue to yellow'> highest</div>"
