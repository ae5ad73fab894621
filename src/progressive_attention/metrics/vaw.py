"""The metrics of VAW, Visual Attributes in the Wild: mA, mR@15 and F1@15 from counts of labels and predictions.

Pham et al., "Learning to Predict Visual Attributes in the Wild", CVPR 2021, by the rules of its published evaluator
(vaw_dataset, eval/evaluator.py). VAW's mAP is the mean of ranking.py's ``average_precision``.

A label is 1 (positive), 0 (negative) or -1 (unknown: left out, not a negative). A score is an attribute's log-odds.
Legend: R rows (an object of an image each), A attributes.
"""

from typing import NamedTuple

import numpy as np

TOP = 15  # predictions of a row that are taken as positive
HEAD_ABOVE, TAIL_UP_TO = 100, 25  # positive training labels of head and of tail attributes
SHAPES = {1: "(R,)", 2: "(R, A)"}


def as_labelled(score: np.ndarray, label: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 and int8; raises ValueError for other shapes, NaN, or labels other than 1, 0 and -1."""
    score, label = np.asarray(score, np.float64), np.asarray(label)
    if score.ndim != dimensions or score.shape != label.shape:
        shape = SHAPES[dimensions]
        raise ValueError(f"score and label must have one shape {shape}, got {score.shape} and {label.shape}")
    if lost := int(np.isnan(score).sum()):
        raise ValueError(f"score must be numbers, got {lost} NaN of {score.size}; did the training diverge?")
    strange = (label != 1) & (label != 0) & (label != -1)
    if strange.any():
        expected = "1 (positive), 0 (negative) or -1 (unknown, 2 in VAW's own files)"
        raise ValueError(f"label must be {expected}, got {label[strange][0]}")
    return score, label.astype(np.int8)


class LabelCounts(NamedTuple):
    """How labels and predictions meet, attribute by attribute: (A,) int64 each. Unknown labels count nowhere.

    An attribute without positives, or without negatives where they are needed, is NaN, to be left out of means.
    """

    positive: np.ndarray
    negative: np.ndarray
    true_positive: np.ndarray  # positives with a probability > 0.5
    true_negative: np.ndarray  # negatives with a probability <= 0.5
    top_true_positive: np.ndarray  # positives among the top 15 of their row
    top_false_positive: np.ndarray  # negatives among them

    @property
    def balanced_accuracy(self) -> np.ndarray:
        """(TPR + TNR) / 2 at a probability of 0.5: (A,) in [0, 1], NaN without positives or negatives; mean: mA."""
        return (share(self.true_positive, self.positive) + share(self.true_negative, self.negative)) / 2

    @property
    def recall_at_15(self) -> np.ndarray:
        """Share of the positives that are among the top 15: (A,) in [0, 1], NaN without positives; mean: mR@15."""
        return share(self.top_true_positive, self.positive)

    @property
    def f1_at_15(self) -> float:
        """Overall F1@15, 2 TP / (TP + FP + positives) over all labels at once: in [0, 1], NaN without positives."""
        right, wrong, positive = self.top_true_positive.sum(), self.top_false_positive.sum(), self.positive.sum()
        return float(2 * right / (right + wrong + positive)) if positive else np.nan

    def plus(self, other: "LabelCounts") -> "LabelCounts":
        """The counts of both."""
        return LabelCounts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def of(self, group: np.ndarray) -> "LabelCounts":
        """Those of some attributes, (A,) bool."""
        return LabelCounts(*(cells[group] for cells in self))


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def label_counts(score: np.ndarray, label: np.ndarray) -> LabelCounts:
    """(R, A) log-odds, (R, A) labels 1, 0 or -1 -> counts. Raises ValueError for other shapes, NaN, or other labels.

    Log-odds are > 0 where the probability is > 0.5; at exactly 0.5 the prediction is negative, as in the evaluator.
    """
    score, label = as_labelled(score, label, 2)
    positive, negative, likely, top = label == 1, label == 0, score > 0, among_top(score)
    cells = (positive, negative, positive & likely, negative & ~likely, positive & top, negative & top)
    return LabelCounts(*(cell.sum(0) for cell in cells))


def among_top(score: np.ndarray) -> np.ndarray:
    """Whether at most 15 of the row, itself included, score as high: (R, A) without NaN -> (R, A) bool.

    Over all attributes, those of unknown label too, as in the evaluator. Attributes that tie across the last place are
    all left out, so that equal scores win nothing (the evaluator takes any). Of 15 attributes or fewer all are in.
    """
    if score.shape[1] <= TOP:
        return np.ones(score.shape, np.bool_)
    return score > np.partition(score, -TOP - 1)[:, -TOP - 1, None]


def frequency_groups(train_count: np.ndarray) -> dict[str, np.ndarray]:
    """Head, medium and tail by positive training labels: (A,) >= 0 -> (A,) bool each; raises ValueError for others.

    VAW publishes lists of names and no rule: more than 100 and at most 25 are read off them with public counts.
    """
    train_count = np.asarray(train_count)
    if train_count.ndim != 1 or not (train_count >= 0).all():
        least = train_count.min() if train_count.size else "none"
        raise ValueError(f"train_count must be (A,) counts >= 0, got shape {train_count.shape}, least {least}")
    head, tail = train_count > HEAD_ABOVE, train_count <= TAIL_UP_TO
    return {"head": head, "medium": ~head & ~tail, "tail": tail}
