"""What each layer did, as pictures: attention to lay over the image, and what a layer took out of it.

Legend: L attended layers, H x W image pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from progressive_attention.plots import COLOUR_MAP, highest


class Removed(NamedTuple):
    """``share`` of what reached a layer that it closed, in [0, 1]; ``picture`` (H, W, 3) uint8, that part."""

    share: float
    picture: np.ndarray


def hatched(shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 stripes, for where a layer has no cell."""
    row, column = np.indices(shape)
    return np.where(((row + column) % 6 < 2)[..., None], np.uint8(110), np.uint8(40)) * np.ones(3, np.uint8)


def passed(layer: np.ndarray) -> np.ndarray:
    """What share a layer lets through at each pixel, (H, W) in [0, 1], beside its most open place.

    Only that counts: a batch norm follows each gate, and the last map is a choice among all locations.
    """
    return layer / (highest(layer) or 1)


def heat(values: np.ndarray) -> np.ndarray:
    """A map (H, W) from 0 to its largest value in colour: (H, W, 3) uint8, hatched where it is NaN."""
    from matplotlib import colormaps

    coloured = colormaps[COLOUR_MAP](np.nan_to_num(passed(values)), bytes=True)[..., :3]
    return np.where(np.isnan(values)[..., None], hatched(values.shape), coloured)


def removed(image: np.ndarray, layers: Sequence[np.ndarray]) -> list[Removed]:
    """What each layer took away of the image (H, W, 3) uint8 that the layers before had left, hatched without a cell.

    Attention multiplies the features, so of a pixel the product of what all layers let through is left; layer l removes
    what passed the layers before and does not pass l.
    """
    left = np.ones(image.shape[:2])
    parts = []
    for layer in layers:
        through = passed(layer)
        closed = left * (1 - through)
        known = ~np.isnan(closed)
        share = float(closed[known].sum() / (left[known].sum() or 1))
        seen = np.where(known[..., None], image * np.nan_to_num(closed)[..., None] + 0.5, hatched(closed.shape))
        parts.append(Removed(share, seen.astype(np.uint8)))
        left = left * through
    return parts
