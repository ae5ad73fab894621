"""How well attention lies on its target: pure functions, one value an example; averaging happens once, elsewhere.

Legend: R examples, H x W pixels.
"""

import numpy as np


def true_positive_ratio(attention: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Attention inside the target over all attention: (R, H, W) >= 0, (R, H, W) bool -> (R,) in [0, 1]. PAN, 4.1.

    NaN for an empty mask (there is nothing to hit) and for a map of zeros (there is no attention); leave both out of
    means. Elsewhere known as energy pointing game, or relevance mass accuracy.
    """
    if attention.shape != mask.shape:
        raise ValueError(f"attention and mask must have one shape (R, H, W), got {attention.shape} and {mask.shape}")
    attention = np.ascontiguousarray(attention, np.float64)
    total = attention.sum((-2, -1))
    inside = np.where(mask, attention, 0).sum((-2, -1))  # added up in the same order: never above the total
    known = mask.any((-2, -1)) & (total > 0)
    return np.divide(inside, total, out=np.full(total.shape, np.nan), where=known)


def wilson_interval(right: int, count: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """95 % interval of a share, in [0, 1] and around it; (0, 1) for no examples. Wilson, 1927."""
    if count == 0:
        return 0.0, 1.0
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    # Rounding may not leave the share outside, e.g. 41 of 41 above its own interval.
    return max(0.0, min(share, float(middle - half))), min(1.0, max(share, float(middle + half)))
