"""Which attention map is shown first, and how all are: smooth, one scale, in colour over the image, or as light on it.

Legend: H x W image pixels.
"""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

COLOUR_MAP = "plasma"  # from dark blue to yellow: perceptually uniform, and readable to the colour-blind
WARM = 0.35  # over an image a map's colours start here, at purple, since dark ones would be lost on a dark image
# The map shown first is the first of these that there is: chosen on validation scenes where one attribute is true, on
# the training half of VOC 2007 where any number are, as of photographs (docs/attention-maps.md).
FIRST = {"softmax": ("flow", "accumulated", "last"), "bernoulli": ("activation", "accumulated", "last")}
OPACITY = 0.75  # of a map's largest value over the image
FAINT = 0.7  # opacity grows by this power of the map: in proportion, faint values would be lost
GREY = 0.7  # how bright the image is under a map
GAMMA = 2.2  # a pixel's stored value is about the 1 / GAMMA th power of its light

Map = TypeVar("Map")


def shown_map(maps: Mapping[str, Map], likelihood: str) -> tuple[str, Map] | None:
    """Name and values of the map that a network of this ``likelihood`` shows first; None without maps.

    The flow, or the activation where any number of attributes may be true; of a transformer its region.
    """
    return next(((name, maps[name]) for name in FIRST[likelihood] if name in maps), None)


def smoothed(values: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """A map (H, W) whose cells are so many pixels high and wide, bilinear between their centres; NaN stays. To look at.

    The mean over a window of a cell's size, which within cells of one value each is linear from centre to centre; near
    an edge the part of the window that is inside.
    """
    known = ~np.isnan(values)
    away = [np.abs(np.subtract.outer(np.arange(pixels), np.arange(pixels))) for pixels in values.shape]
    down, across = (np.clip((size + 1) / 2 - distance, 0, 1) for size, distance in zip(cell, away, strict=True))
    total, part = (down @ each @ across for each in (np.nan_to_num(values), known.astype(float)))
    return np.divide(total, part, out=np.full(values.shape, np.nan), where=known)


def scaled(values: np.ndarray) -> np.ndarray:
    """A map (H, W) >= 0 over its own largest value, which ``largest_of`` states beside it: (H, W) in [0, 1] or NaN."""
    return values / (np.nan_to_num(values).max() or 1)


def light(values: np.ndarray) -> np.ndarray:
    """A map (H, W) >= 0 as pixels store light: ``scaled`` to the power 1 / GAMMA, in [0, 1], 0 where it is NaN."""
    return np.nan_to_num(scaled(values)) ** (1 / GAMMA)


def largest_of(values: np.ndarray) -> str:
    """The largest value of a map, for a reader: "largest 0.97"; "no cell" for a map of NaN only."""
    return "no cell" if np.isnan(values).all() else f"largest {np.nanmax(values):.2g}"


def painted(values: np.ndarray) -> np.ndarray:
    """A map (H, W) as paint to lay over an image: (H, W, 4) in [0, 1], red, green, blue and opacity; none where NaN."""
    from matplotlib import colormaps

    scale = np.nan_to_num(scaled(values))
    paint = colormaps[COLOUR_MAP](WARM + (1 - WARM) * scale)
    paint[..., 3] = OPACITY * scale**FAINT
    return paint


def striped(shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool stripes, for where a layer has no cell."""
    return np.indices(shape).sum(0) % 6 < 2


def over_image(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map (H, W) in colour over the grey image (H, W, 3) uint8: (H, W, 3) in [0, 1].

    The higher the map, the more opaque its colour. Where it is NaN, as a layer has no cell there, the image is hatched.
    """
    colour, opacity = np.split(painted(values), [3], -1)
    grey = GREY * (image @ np.array([0.299, 0.587, 0.114]) / 255)[..., None]
    hatched = 0.3 * grey + 0.3 * striped(values.shape)[..., None]
    return np.where(np.isnan(values)[..., None], hatched, (1 - opacity) * grey + opacity * colour)


def attended_image(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) uint8, its light times the scaled map (H, W), NaN as 0, in [0, 1]. PAN, Figure 1."""
    return image / 255 * light(values)[..., None]
