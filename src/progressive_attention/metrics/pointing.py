"""Where one map points: the centre of its highest cell, and the box around most of it. Pure functions, one row a map.

Coordinates are those of boxes everywhere here: pixel i reaches from i to i + 1, so its centre is at i + 1/2.
Legend: R maps, H x W pixels.
"""

import numpy as np

from progressive_attention.metrics.attention import ROUNDING, as_maps


def highest_point(attention: np.ndarray) -> np.ndarray:
    """Centre of the highest cell: (R, H, W) >= 0 -> (R, 2) float64, x in [0, W] and y in [0, H].

    The cell is the connected pixels (by their edges) of the highest value, up to ROUNDING, around the first of them in
    row order. NaN for a map of zeros. Raises ValueError for other shapes, and for values that are no map.
    """
    attention = as_maps(attention)
    points = np.full((len(attention), 2), np.nan)
    for point, values in zip(points, attention, strict=True):  # one map stays in the cache
        if peak := values.max(initial=0):
            highest = values >= peak * (1 - ROUNDING)
            rows, columns = np.nonzero(highest)
            top, left = rows.min(), columns.min()
            few = highest[top : rows.max() + 1, left : columns.max() + 1]  # mostly one small cell
            rows, columns = np.nonzero(connected(few, rows[0] - top, columns[0] - left))
            point[:] = left + columns.mean() + 0.5, top + rows.mean() + 0.5
    return points


def connected(inside: np.ndarray, row: int, column: int) -> np.ndarray:
    """Pixels of ``inside`` (H, W) bool that edges connect to one of them: (H, W) bool."""
    if inside.all():  # a whole cell, as mostly: nothing to search
        return inside
    reached, before = np.zeros_like(inside), 0
    reached[row, column] = True
    while (count := int(reached.sum())) > before:
        before = count
        for _ in range(4):  # to the right, and so to each side in turn
            reached, inside = np.rot90(reached_rightwards(reached, inside)), np.rot90(inside)
    return reached


def reached_rightwards(reached: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Pixels of ``inside`` that are ``reached`` (both (H, W) bool), or lie behind such without a gap between."""
    place = np.arange(1, inside.shape[1] + 1)
    last, gap = (np.maximum.accumulate(np.where(pixels, place, 0), 1) for pixels in (reached, ~inside))
    return last > gap


def smallest_box(attention: np.ndarray, share: float = 0.9) -> np.ndarray:
    """Box around the fewest pixels that hold this ``share`` of the map: (R, H, W) >= 0 -> (R, 4) float64 x0 y0 x1 y1.

    In whole pixels, half open. Of pixels of one value, up to ROUNDING, the first in row order are taken. NaN for a map
    of zeros. Raises ValueError for a share outside (0, 1], other shapes, and values that are no map.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}; 0.9 is nine tenths of the map")
    attention = as_maps(attention)
    boxes = np.full((len(attention), 4), np.nan)
    for box, values in zip(boxes, attention, strict=True):
        if peak := values.max(initial=0):
            shares = values.ravel() / peak
            place = np.flatnonzero(shares > (1 - share) * shares.mean())  # the others hold too little to matter
            order = place[np.argsort(-np.rint(shares[place] / ROUNDING), kind="stable")]
            held = np.cumsum(shares[order])
            count = int(np.searchsorted(held, shares.sum() * share * (1 - ROUNDING))) + 1
            rows, columns = np.unravel_index(order[:count], values.shape)
            box[:] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return boxes


def box_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of boxes x0 y0 x1 y1: two (R, 4) -> (R,) in [0, 1], NaN without an area; ValueError for other shapes."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.ndim != 2 or one.shape[1] != 4 or one.shape != other.shape:
        raise ValueError(f"boxes must have one shape (R, 4), x0 y0 x1 y1, got {one.shape} and {other.shape}")
    both = area(np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:]))
    union = area(one[:, :2], one[:, 2:]) + area(other[:, :2], other[:, 2:]) - both
    return np.divide(both, union, out=np.full(union.shape, np.nan), where=union > 0)


def area(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Area (R,) of boxes from their corners (R, 2); zero where one is not above the other."""
    return (high - low).clip(min=0).prod(1)


def bounding_box(mask: np.ndarray) -> np.ndarray:
    """Box around each mask's pixels: (R, H, W) bool -> (R, 4) float64 x0 y0 x1 y1, half open; NaN for an empty mask."""
    lines = [np.asarray(mask.any(axis)) for axis in (1, 2)]  # columns, then rows
    low = [line.argmax(1) for line in lines]
    high = [line.shape[1] - line[:, ::-1].argmax(1) for line in lines]
    boxes = np.stack([*low, *high], 1).astype(np.float64)
    boxes[~mask.any((1, 2))] = np.nan
    return boxes
