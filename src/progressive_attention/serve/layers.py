"""What each layer did, as pictures: attention to lay over the image, and what a layer took out of it.

Legend: L attended layers, H x W image pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from progressive_attention.maps.shown_maps import painted, scaled, striped


class Removed(NamedTuple):
    """``share`` of what reached a layer that it closed, in [0, 1]; ``picture`` (H, W, 3) uint8, that part."""

    share: float
    picture: np.ndarray


def hatched(shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 stripes, for where a layer has no cell."""
    return np.where(striped(shape)[..., None], np.uint8(110), np.uint8(40)) * np.ones(3, np.uint8)


def as_pixels(shares: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8, 255 for one."""
    return (255 * shares + 0.5).astype(np.uint8)


def heat(values: np.ndarray) -> np.ndarray:
    """A map (H, W) as paint to lay over an image: (H, W, 4) uint8, opaque stripes where it is NaN."""
    stripes = np.dstack([hatched(values.shape), np.full(values.shape, np.uint8(255))])
    return np.where(np.isnan(values)[..., None], stripes, as_pixels(painted(values)))


def removed(image: np.ndarray, layers: Sequence[np.ndarray]) -> list[Removed]:
    """What each layer took away of the image (H, W, 3) uint8 that the layers before had left, hatched without a cell.

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
        parts.append(Removed(share, seen.astype(np.uint8)))
        left = left * through
    return parts
