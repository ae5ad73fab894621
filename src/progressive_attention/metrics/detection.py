"""How well one score separates positives from negatives, and where to draw the line: pure functions.

Legend: P positives and N negatives, each a score; the higher, the surer that it is a positive. For us: asked objects
that are in their pictures, and others.
"""

import math

import numpy as np

from progressive_attention.metrics.attention import Z95


def as_scores(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64; raises ValueError for other shapes than (P,) and (N,), none of either, or NaN."""
    both = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    for name, values in zip(("positive", "negative"), both, strict=True):
        if values.ndim != 1 or not len(values) or np.isnan(values).any():
            raise ValueError(f"{name} must be at least one score, none of them NaN, got {values!r}")
    return both


def wins(score: np.ndarray, rivals: np.ndarray) -> np.ndarray:
    """Share of the rivals (N,) that each score (P,) exceeds, a tie counting half: (P,) in [0, 1]."""
    rivals = np.sort(rivals)
    return (np.searchsorted(rivals, score, "left") + np.searchsorted(rivals, score, "right")) / (2 * len(rivals))


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive (P,) scores above a negative (N,), a tie counting half."""
    return float(wins(*as_scores(positive, negative)).mean())


def auroc_interval(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """95 % interval of ``auroc`` in [0, 1]; (0, 1) for a single score of either. DeLong et al., Biometrics 1988."""
    positive, negative = as_scores(positive, negative)
    if min(len(positive), len(negative)) < 2:
        return 0.0, 1.0
    # The paper takes how often a negative loses; how often it wins has the same spread.
    of_positive, of_negative = wins(positive, negative), wins(negative, positive)
    variance = of_positive.var(ddof=1) / len(positive) + of_negative.var(ddof=1) / len(negative)
    middle, half = float(of_positive.mean()), Z95 * math.sqrt(variance)
    return max(0.0, middle - half), min(1.0, middle + half)


def keeping_threshold(positive: np.ndarray, keep: float) -> float:
    """The highest threshold that at least the share ``keep``, in (0, 1], of the positives (P,) reaches."""
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be a share in (0, 1], got {keep}; 0.95 keeps 95 %")
    positive, _ = as_scores(positive, positive)
    reached = max(1, math.ceil(keep * len(positive) - 1e-9))  # 0.07 x 100 is a little more than 7
    return float(np.sort(positive)[len(positive) - reached])
