"""How well attention lies on its target: pure functions, one value an example; averaging happens once, elsewhere.

An empty mask has nothing to find: its values are NaN, to be left out of means.
Legend: R examples, H x W pixels, T thresholds.
"""

from typing import Any, NamedTuple

import numpy as np

THRESHOLDS = np.arange(101) / 100  # shares of a map's maximum; k / 100 exactly, as one would write it
# Sums of shares are whole numbers of these, so that they are the same in any order; 2**28 examples fit into int64.
UNITS = np.array([2.0**-26, 2.0**-62])
# Values closer than this share of the map's maximum are equal: rounding must not choose among a cell's pixels.
ROUNDING = 1e-6
Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def as_maps(attention: np.ndarray) -> np.ndarray:
    """Maps (R, H, W), contiguous, as float64; raises ValueError for other shapes, or values that are no map."""
    if attention.ndim != 3:
        raise ValueError(f"attention must have shape (R, H, W), got {attention.shape}")
    attention = np.ascontiguousarray(attention, np.float64)
    if not (attention.min(initial=0) >= 0 and attention.max(initial=0) < np.inf):
        got = f"values from {attention.min()} to {attention.max()}; of a signed map take the positive part"
        raise ValueError(f"attention must be finite and >= 0, got {got}")
    return attention


def as_maps_with_targets(attention: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``as_maps``, and their targets (R, H, W) as bool: where the mask is not zero. ValueError for other shapes."""
    if attention.shape != mask.shape:
        raise ValueError(f"attention and mask must have one shape (R, H, W), got {attention.shape} and {mask.shape}")
    return as_maps(attention), np.ascontiguousarray(mask, np.bool_)


def true_positive_ratio(attention: np.ndarray, mask: np.ndarray, total: np.ndarray | None = None) -> np.ndarray:
    """Attention inside the target over all attention: (R, H, W) >= 0, (R, H, W) bool -> (R,) in [0, 1]. PAN, 4.1.

    ``total`` (R,) is all attention, what lies outside the image included (default: the map's own sum). NaN for an empty
    mask, and where there is no attention. Raises ValueError for a total below the map's sum.
    """
    attention, mask = as_maps_with_targets(attention, mask)
    seen = attention.sum((-2, -1))
    whole = seen if total is None else np.asarray(total, np.float64)
    if whole.shape != seen.shape:
        raise ValueError(f"total must have shape {seen.shape}, one value a map, got {whole.shape}")
    low = ~((whole >= 0) & (whole >= 0.999 * seen))  # 0.999: sums of float32 networks
    if low.any():
        row = int(low.argmax())
        least = f">= 0 and at least the map's sum {seen[row]}"
        raise ValueError(f"total of map {row} must be {least}, got {whole[row]}; it is that outside the image, too")
    whole = np.maximum(whole, seen)
    inside = np.where(mask, attention, 0).sum((-2, -1))  # added up in the same order: never above what is seen
    known = mask.any((-2, -1)) & (whole > 0)
    return np.divide(inside, whole, out=np.full(seen.shape, np.nan), where=known)


class Overlap(NamedTuple):
    """Pixel counts of maps binarised at each of THRESHOLDS against targets; R examples, T thresholds.

    The shares are (R, T) float64 in [0, 1], NaN for empty masks, 0 where nothing is marked (only a map of zeros).
    """

    marked: np.ndarray  # (R, T) pixels at or above the threshold
    hit: np.ndarray  # (R, T) those of them in the target
    target: np.ndarray  # (R,) pixels of the target

    @property
    def shares(self) -> np.ndarray:
        """Precision, recall and IoU: hits over the marked pixels, the target's, and those of either, (3, R, T)."""
        target = np.broadcast_to(self.target[:, None], self.hit.shape)
        pixels = np.stack([self.marked, target, self.marked + target - self.hit])
        return np.where(target > 0, self.hit / np.maximum(pixels, 1), np.nan)

    precision = property(lambda self: self.shares[0], doc="Share of the marked pixels that lie in the target.")
    recall = property(lambda self: self.shares[1], doc="Share of the target's pixels that are marked.")
    iou = property(lambda self: self.shares[2], doc="Intersection over union of the marked pixels and the target's.")


def overlap(attention: np.ndarray, mask: np.ndarray, void: np.ndarray | None = None) -> Overlap:
    """Maps binarised at THRESHOLDS against targets: (R, H, W) >= 0, (R, H, W) bool -> counts. HAttNet, 5.1, Figure 5b.

    A pixel is marked where its value, as a share of the map's maximum, is at least the threshold; a map of zeros marks
    nothing. ``void`` pixels (R, H, W) are left out.
    """
    attention, mask = as_maps_with_targets(attention, mask)
    counted = np.ones_like(mask) if void is None else ~np.asarray(void, np.bool_)
    steps = len(THRESHOLDS)
    stopping = np.zeros((2, len(attention), steps), np.int64)
    for row in range(len(attention)):  # one map stays in the cache
        values, target = attention[row][counted[row]], mask[row][counted[row]]
        if peak := values.max(initial=0):
            level = ((values / peak + ROUNDING) * (steps - 1)).astype(np.intp)  # the last threshold a pixel reaches
            stopping[:, row] = np.bincount(level, minlength=steps), np.bincount(level[target], minlength=steps)
    marked, hit = stopping[..., ::-1].cumsum(-1)[..., ::-1]
    return Overlap(marked, hit, (mask & counted).sum((-2, -1)))


class OverlapCurves:
    """Means over examples of precision, recall and IoU at each threshold, batch by batch, empty masks left out.

    Only sums are kept. Merged in any order, the figures are the same to the last bit.
    """

    def __init__(self) -> None:
        self.count: dict[str, int] = {}
        self.sums: dict[str, np.ndarray] = {}  # (3, T, 2) int64 each: precision, recall, IoU in coarse and fine UNITS

    def add(self, name: str, attention: np.ndarray, mask: np.ndarray, void: np.ndarray | None = None) -> None:
        """Examples of the map of this name; arguments as ``overlap``."""
        counts = overlap(attention, mask, void)
        known = counts.target > 0
        shares = counts.shares[:, known]
        coarse = np.rint(shares / UNITS[0])
        fine = np.rint((shares - coarse * UNITS[0]) / UNITS[1])
        self._add(name, int(known.sum()), np.stack([coarse, fine], -1).astype(np.int64).sum(1))

    def merge(self, other: "OverlapCurves") -> None:
        """Take in the examples of another one, e.g. another process's."""
        for name, count in other.count.items():
            self._add(name, count, other.sums[name])

    def _add(self, name: str, count: int, sums: np.ndarray) -> None:
        self.count[name] = self.count.get(name, 0) + count
        self.sums[name] = self.sums.get(name, 0) + sums

    def summary(self) -> dict[str, dict[str, Any]]:
        """Each map's curves as lists, and the threshold of the highest mean IoU, of several the lowest."""
        return {name: self._curves(name) for name, count in self.count.items() if count}

    def _curves(self, name: str) -> dict[str, Any]:
        shares = (self.sums[name] @ UNITS / self.count[name]).tolist()
        best = int(np.argmax(shares[2]))
        return {
            "count": self.count[name],
            "threshold": THRESHOLDS.tolist(),
            **dict(zip(("precision", "recall", "iou"), shares, strict=True)),
            "best_iou": shares[2][best],
            "best_threshold": float(THRESHOLDS[best]),
        }


def pointing_game(attention: np.ndarray, mask: np.ndarray, tolerance: float = 0) -> np.ndarray:
    """Whether the map's maximum lies on the target or within ``tolerance`` pixels of it: two (R, H, W) -> (R,).

    Of several equal maxima (a cell's pixels) the share that hits, so in [0, 1]; 0 for a map of zeros; NaN for an empty
    mask. Raises ValueError for a negative tolerance. Zhang et al., "Top-down Neural Attention by Excitation Backprop",
    ECCV 2016, with 15 pixels on photographs.
    """
    attention, mask = as_maps_with_targets(attention, mask)
    peak = attention.max((-2, -1), keepdims=True, initial=0)
    highest = (attention >= peak * (1 - ROUNDING)) & (peak > 0)
    hit = (highest & dilated(mask, tolerance)).sum((-2, -1))
    share = hit / np.maximum(highest.sum((-2, -1)), 1)
    return np.where(mask.any((-2, -1)), share, np.nan)


def dilated(mask: np.ndarray, radius: float) -> np.ndarray:
    """Pixels whose centre is at most ``radius`` from a mask pixel's: (R, H, W) bool -> the same; ValueError if < 0."""
    if not 0 <= radius < np.inf:
        raise ValueError(f"tolerance must be >= 0 pixels and finite, got {radius}; 0 means the target itself")
    height, width = mask.shape[1:]
    radius = min(radius, height + width)  # farther lies no pixel
    grown, wide, half = np.zeros_like(mask), mask.copy(), 0
    # The disc row by row, from its rim to its middle: rows get wider, so that each one grows out of the last.
    for y in range(min(int(radius), height - 1), -1, -1):
        while half + 1 < width and (half + 1) ** 2 + y**2 <= radius**2:
            half += 1
            wide[:, :, half:] |= mask[:, :, : width - half]
            wide[:, :, : width - half] |= mask[:, :, half:]
        grown[:, y:] |= wide[:, : height - y]
        grown[:, : height - y] |= wide[:, y:]
    return grown


def attention_entropy(attention: np.ndarray) -> np.ndarray:
    """How evenly a layer's map lies over its N = H W cells: (R, H, W) >= 0 -> (R,) in [0, 1]. Shannon, 1948.

    −Σ p ln p / ln N, where p is the map divided by its sum: 0 where all lies on one cell, 1 where all cells have the
    same. NaN for a map of zeros and of a single cell. Raises ValueError for other shapes, or values that are no map.
    """
    attention = as_maps(attention)
    rows, cells = len(attention), attention.shape[1] * attention.shape[2]
    values = attention.reshape(rows, cells)
    peak = values.max(1, initial=0)
    known = (peak > 0) & (cells > 1)
    share = values[known] / peak[known, None]  # first by the peak: a sum of denormal numbers would have few digits
    share /= share.sum(1, keepdims=True)
    information = 0 - (share * np.log(np.where(share > 0, share, 1))).sum(1)  # of a single cell 0, and not -0.0
    entropy = np.full(rows, np.nan)
    entropy[known] = np.minimum(information / np.log(max(cells, 2)), 1)  # rounding may leave it above
    return entropy


def wilson_interval(right: int, count: int, z: float = Z95) -> tuple[float, float]:
    """95 % interval of a share, in [0, 1] and around it; (0, 1) for no examples. Wilson, 1927."""
    if count == 0:
        return 0.0, 1.0
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    # Rounding may not leave the share outside, e.g. 41 of 41 above its own interval.
    return max(0.0, min(share, float(middle - half))), min(1.0, max(share, float(middle + half)))
