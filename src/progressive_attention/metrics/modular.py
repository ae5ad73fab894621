"""The metrics of attention.py and ranking.py as torchmetrics' classes: update, compute, reset, merged over processes.

Examples go through the pure functions, and only sums (for ranking, scores) are kept. Each works alone, in a
``torchmetrics.MetricCollection`` and in Lightning's ``self.log``.
Legend: ... any leading axes, H x W pixels, A attributes, T thresholds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progressive_attention.metrics.attention import THRESHOLDS, OverlapCurves, pointing_game, true_positive_ratio
from progressive_attention.metrics.ranking import RankingScores
from progressive_attention.metrics.vaw import as_labelled

try:
    from torchmetrics import Metric
    from torchmetrics.utilities import dim_zero_cat
except ImportError as error:
    raise ValueError("torchmetrics is not installed; pip install 'progressive-attention[metrics]'") from error


def examples(values: Tensor, target: Tensor, axes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Both (..., H, W) -> (R, H, W), values in float64; of one axis (..., A) -> (R, A). ValueError for other shapes."""
    if values.shape != target.shape or values.ndim < axes:
        wanted = "(..., H, W)" if axes == 2 else "(..., A)"
        raise ValueError(f"both must have one shape {wanted}, got {tuple(values.shape)} and {tuple(target.shape)}")
    first, second = (rows.detach().cpu().reshape(-1, *rows.shape[-axes:]) for rows in (values.double(), target))
    return first.numpy(), second.numpy()


class MeanOverExamples(Metric):
    """Mean of one value an example, NaN left out; NaN where none is left. A subclass adds ``update``."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("total", torch.zeros((), dtype=torch.float64), "sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), "sum")

    def take(self, values: np.ndarray) -> None:
        """Add examples' values (R,)."""
        known = values[~np.isnan(values)]
        self.total += known.sum()
        self.count += len(known)

    def compute(self) -> Tensor:
        """A float64 scalar in [0, 1]."""
        return self.total / self.count


class TruePositiveRatio(MeanOverExamples):
    """Mean share of the attention that lies on the target; ``attention.true_positive_ratio``. Options: Metric's."""

    def update(self, attention: Tensor, mask: Tensor, total: Tensor | None = None) -> None:
        """Maps (..., H, W) >= 0 and targets (..., H, W) bool; empty targets (nothing asked) are left out.

        ``total`` (...) is all attention where some lies outside the image, as a spatial transformer's; then ones.
        """
        whole = None if total is None else total.detach().double().cpu().flatten().numpy()
        self.take(true_positive_ratio(*examples(attention, mask), whole))


class PointingGame(MeanOverExamples):
    """Mean share of maxima within ``tolerance`` pixels of the target; ``attention.pointing_game``; Metric's options."""

    tolerance: Tensor

    def __init__(self, tolerance: float = 0, **options: Any) -> None:
        super().__init__(**options)
        # A state, since a collection lets metrics share theirs when these are alike after the first batch.
        self.add_state("tolerance", torch.tensor(tolerance, dtype=torch.float64), "max")

    def update(self, attention: Tensor, mask: Tensor) -> None:
        """Maps (..., H, W) >= 0 and targets (..., H, W) bool; empty targets (nothing asked) are left out."""
        self.take(pointing_game(*examples(attention, mask), float(self.tolerance)))


class AttentionOverlap(Metric):
    """Mean precision, recall and IoU of maps binarised at each threshold; ``attention.OverlapCurves``."""

    is_differentiable = False
    full_state_update = False
    sums: Tensor
    count: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("sums", torch.zeros(3, len(THRESHOLDS), 2, dtype=torch.int64), "sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), "sum")

    def update(self, attention: Tensor, mask: Tensor) -> None:
        """Maps (..., H, W) >= 0 and targets (..., H, W) bool; empty targets (nothing asked) are left out."""
        curves = OverlapCurves()
        curves.add("map", *examples(attention, mask))
        self.sums += torch.from_numpy(curves.sums["map"]).to(self.device)
        self.count += curves.count["map"]

    def compute(self) -> dict[str, Tensor]:
        """``threshold``, ``precision``, ``recall``, ``iou`` (T,), ``best_iou``, ``best_threshold``; none of nothing."""
        curves = OverlapCurves()
        curves.count, curves.sums = {"map": int(self.count)}, {"map": self.sums.cpu().numpy()}
        summary = curves.summary().get("map", {})
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in summary.items() if name != "count"}


class AttributeRanking(Metric):
    """How well attributes are ranked: both VOC APs' means, weighted and not, and VAW's; ``ranking.RankingScores``.

    ``train_count`` (A,), the attributes' positive training labels, adds VAW's figures of head, medium and tail. Every
    score is kept, 16 bytes each, on the metric's device; RankingScores itself keeps them in a file.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    rows: list[Tensor] | Tensor

    def __init__(self, num_attributes: int, train_count: Tensor | Sequence[int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.num_attributes = num_attributes
        self.train_count = None if train_count is None else torch.as_tensor(train_count).cpu().numpy()
        # Flat and float64, as is what torchmetrics gathers from a process that saw nothing.
        self.add_state("rows", [], "cat")  # scores and labels, (R x A x 2,)
        self.set_dtype(torch.float64)

    def update(self, score: Tensor, label: Tensor) -> None:
        """Log-odds (..., A), labels (..., A) 1 (true), 0 (not) or -1 (unknown, not asked); ValueError for others."""
        if score.shape[-1:] != (self.num_attributes,):
            raise ValueError(f"score must be (..., {self.num_attributes}), got {tuple(score.shape)}")
        as_labelled(*examples(score, label, 1), 2)
        assert isinstance(self.rows, list)
        self.rows.append(torch.stack([score.detach().double(), label.double()], -1).flatten())

    def compute(self) -> dict[str, Tensor]:
        """``RankingScores.summary`` in float64 scalars, NaN where there is nothing to average."""
        scores = RankingScores(self.num_attributes)
        if len(self.rows):
            score, label = dim_zero_cat(self.rows).reshape(-1, self.num_attributes, 2).cpu().numpy().T
            scores.add(score.T, label.T)
        summary = scores.summary(self.train_count).items()
        return {name: torch.tensor(np.nan if v is None else v, dtype=torch.float64) for name, v in summary}
