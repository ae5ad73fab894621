"""Questions with one right attribute: their answers, one row each, and the summary.

Legend: B images, K questions each, n answers, R rows (questions), A attributes.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor
from torch.nn.functional import nll_loss

from progressive_attention.data.questions import QuestionSet
from progressive_attention.evaluation.attention import (
    ATTENTION_COLUMNS,
    Target,
    best_ious,
    mean,
    mean_entropy,
    names_of,
)
from progressive_attention.maps.pixel_maps import PIXEL_MAPS
from progressive_attention.metrics.attention import wilson_interval
from progressive_attention.metrics.pointing import bounding_box
from progressive_attention.network.question_network import Prediction
from progressive_attention.processes import gathered

SCALE_BINS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)  # the papers' five


class OneOf:
    """Answers where one attribute is right: log-probabilities (n, A) beside ids (n,), taken in batch by batch."""

    score_name = "validation_accuracy"
    target_names = ("",)
    batch = 64  # images at once

    def __init__(self, questions: QuestionSet) -> None:
        self.questions = questions
        self.right = self.count = 0

    @staticmethod
    def loss(logit: Tensor, attribute: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of ids (B, K), -1 = not asked: its sum, and over how many questions."""
        total = nll_loss(logit.flatten(0, 1), attribute.flatten(), ignore_index=-1, reduction="sum")
        return total, (attribute >= 0).sum()

    def logit(self, prediction: Prediction) -> Tensor:
        """What answers are read from: (B, K, A)."""
        return prediction.log_prob

    def add(self, logit: np.ndarray, attribute: np.ndarray) -> None:
        """Take in n answers and what is known about them."""
        self.right += int((logit.argmax(1) == attribute).sum())
        self.count += len(attribute)

    def score(self) -> float:
        """Share of all processes' right answers; raises ValueError where no image can be read."""
        right, count = np.sum(gathered((self.right, self.count)), 0).tolist()
        if not count:
            raise ValueError(f"{self.questions.name}: none of its images can be read; 'pan data check' says why")
        return right / count

    def columns(self, logit: np.ndarray, attribute: np.ndarray) -> dict[str, np.ndarray]:
        """n answers as numbers: (n,) each."""
        probability = np.exp(logit)
        truth = probability[np.arange(len(attribute)), attribute]
        best = {"answer": probability.argmax(1), "probability": probability.max(1)}
        return {**best, "probability_of_truth": truth}

    def words(self, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
        """``columns`` of all R questions as they are written."""
        names = self.questions.attribute_names
        truth: np.ndarray = self.questions.attribute  # type: ignore[assignment] (one of all)
        answer = np.nan_to_num(numbers["answer"]).astype(int)
        scale = np.full(len(answer), np.nan) if self.questions.scale is None else self.questions.scale
        return {
            "image": self.questions.image,
            "query": names_of(self.questions.query, self.questions.query_names),
            "attribute": names_of(truth, names),
            "answer": names_of(answer, names),
            "correct": answer == truth,
            "probability": numbers["probability"],
            "probability_of_truth": numbers["probability_of_truth"],
            "scale": pa.array(scale, from_pandas=True),
        }

    def targets(self) -> dict[str, Target]:
        """What attention is measured against: the masks, if there are any."""
        masks = self.questions.masks
        return {} if masks is None else {"": Target(masks, self.questions.void, lambda rows, seen: bounding_box(seen))}

    def figures(self, table: pa.Table, curves: dict[str, Any], train: QuestionSet | None = None) -> dict[str, Any]:
        """``summarise``, each map's best IoU, and as "precision_recall" the ``curves`` of each map that there is."""
        return {**summarise(table), **best_ious(curves, PIXEL_MAPS), "precision_recall": curves}


def summarise(table: pa.Table) -> dict[str, Any]:
    """Count, accuracy with its 95 % Wilson interval, accuracy by scale bin, means of attention's scores; in [0, 1].

    ``entropy`` is a list, the mean of each layer. None stands where there is nothing to average: no rows, no scales,
    no masks, no such map. Bins are half open, the last closed.
    """
    correct, scale = table["correct"].to_numpy(), table["scale"].to_numpy()
    by_scale = {}
    for low, high in pairwise(SCALE_BINS):
        inside = (scale >= low) & ((scale < high) | (high == SCALE_BINS[-1]) & (scale == high))
        by_scale[f"{low}-{high}"] = correct[inside]
    intervals = {name: list(wilson_interval(int(rows.sum()), len(rows))) for name, rows in by_scale.items()}
    return {
        "count": len(table),
        "accuracy": mean(correct),
        "accuracy_ci95": list(wilson_interval(int(correct.sum()), len(table))),
        "accuracy_by_scale": {name: mean(rows) for name, rows in by_scale.items()},
        "accuracy_by_scale_ci95": intervals,
        "count_by_scale": {name: len(rows) for name, rows in by_scale.items()},
        **{name: mean(table[name].drop_null().to_numpy()) for name in ATTENTION_COLUMNS},
        "entropy": mean_entropy(table),
    }
