"""What each layer did, as pictures: attention to lay over the image, and what a layer took out of it.

Legend: L attended layers, H x W image pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from progressive_attention.plots import COLOUR_MAP, highest


class Removed(NamedTuple):
    """``share`` of what reached a layer that it closed, in [0, 1]; ``picture`` (H, W, 3) uint8 that part of the image."""

    share: float
    picture: np.ndarray


def hatched(shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 stripes, for where a layer has no cell."""
    row, column = np.indices(shape)
    return np.where(((row + column) % 6 < 2)[..., None], np.uint8(110), np.uint8(40)) * np.ones(3, np.uint8)


def heat(values: np.ndarray, high: float) -> np.ndarray:
    """A map (H, W) from 0 to ``high`` in colour, to lie over the image: (H, W, 3) uint8, hatched where it is NaN."""
    from matplotlib import colormaps

    coloured = colormaps[COLOUR_MAP](np.clip(np.nan_to_num(values) / (high or 1), 0, 1), bytes=True)[..., :3]
    return np.where(np.isnan(values)[..., None], hatched(values.shape), coloured)


def passed(layers: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What share each layer lets through at each pixel, L x (H, W) in [0, 1]: a gate itself; of the last map, which
    chooses among all locations, a location's probability beside the likeliest's.
    """
    return [*layers[:-1], *(last / (highest(last) or 1) for last in layers[-1:])]


def removed(image: np.ndarray, layers: Sequence[np.ndarray]) -> list[Removed]:
    """What each layer took away of the image (H, W, 3) uint8 that the layers before had left, hatched without a cell.

    A layer's attention multiplies the features, so a pixel is left to the product of what all layers let through; layer
    l removes the part that passed 1 .. l - 1 and does not pass l.
    """
    left = np.ones(image.shape[:2])
    parts = []
    for through in passed(layers):
        closed = left * (1 - through)
        known = ~np.isnan(closed)
        share = float(closed[known].sum() / (left[known].sum() or 1))
        seen = np.where(known[..., None], image * np.nan_to_num(closed)[..., None] + 0.5, hatched(closed.shape))
        parts.append(Removed(share, seen.astype(np.uint8)))
        left = left * through
    return parts
