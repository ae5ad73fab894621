"""Questions with any number of attributes: their answers, one row each, and how well they rank. PAN, section 4.2.

Legend: n answers, R rows (questions), Q queries, A attributes.
"""
# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from progressive_attention.data.images import BoxMasks
from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.data.sources import in_words_of
from progressive_attention.evaluation.attention import Target, best_ious, mean_entropy, names_of
from progressive_attention.maps.pixel_maps import PIXEL_MAPS
from progressive_attention.metrics.ranking import AttributeScores, RankingScores
from progressive_attention.network.question_network import Prediction
from progressive_attention.processes import gathered
from progressive_attention.saved import Trained

TOP = 5  # attributes a row that are written down
WORDS, NUMBERS = pa.list_(pa.string()), pa.list_(pa.float64())


class AnyOf:
    """Answers where any number of attributes are true: log-odds (n, A) beside labels (n, A) of 1 and 0, -1 = unknown.

    ``scores`` has taken in those of this process, batch by batch.
    """

    score_name = "validation_weighted_mean_ap"
    target_names = ("box", "mask")
    batch = 32  # images at once

    def __init__(self, questions: QuestionSet) -> None:
        self.questions = questions
        self.scores = RankingScores(len(questions.attribute_names))

    @staticmethod
    def loss(logit: Tensor, attribute: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of labels (B, K, A), -1 = unknown or not asked: its sum, and over how many labels."""
        known, label = attribute >= 0, attribute.clamp(min=0).to(logit.dtype)
        each = binary_cross_entropy_with_logits(logit, label, reduction="none")
        return (each * known).sum(), known.sum()

    def logit(self, prediction: Prediction) -> Tensor:
        """What answers are read from: (B, K, A)."""
        return prediction.logit

    def add(self, logit: np.ndarray, attribute: np.ndarray) -> None:
        """Take in n answers and what is known about them."""
        self.scores.add(logit, attribute)

    def score(self) -> float:
        """mAP of all processes' answers, weighted by frequency; 0 where no attribute is true."""
        return self.scores.per_attribute(gathered).summary()["weighted_mean_ap"] or 0.0

    def columns(self, logit: np.ndarray, attribute: np.ndarray) -> dict[str, np.ndarray]:
        """The TOP likeliest attributes of n answers, and their log-odds: (n, TOP) each."""
        top = np.argsort(-logit, 1, kind="stable")[:, :TOP]
        return {"top": top, "log_odds": np.take_along_axis(logit, top, 1)}

    def words(self, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
        """``columns`` of all R questions as they are written; null where the image can't be read."""
        questions, read = self.questions, numbers["read"]
        names, top = np.array(questions.attribute_names, object), np.nan_to_num(numbers["top"]).astype(int)
        odds = [row if known else None for row, known in zip(numbers["log_odds"], read, strict=True)]
        paths = getattr(questions.images, "paths", None)
        return {
            "image": questions.image if paths is None else pa.array(list(paths)).take(pa.array(questions.image)),
            "query": names_of(questions.query, questions.query_names),
            "attributes": pa.array([names[ids] for ids in true_of(questions)], WORDS),
            "top": pa.array([names[ids] if known else None for ids, known in zip(top, read, strict=True)], WORDS),
            "log_odds": pa.array(odds, NUMBERS),
            "read": read,
        }

    def targets(self) -> dict[str, Target]:
        """What attention is measured against: boxes and masks, as far as there are any."""
        targets, box, masks = {}, self.questions.box, self.questions.masks
        if box is not None:
            targets["box"] = Target(BoxMasks(box, self.questions.images.shape[1]), box_of=lambda rows, seen: box[rows])
        if masks is not None:
            targets["mask"] = Target(masks, self.questions.void)
        return targets

    def figures(self, table: pa.Table, curves: dict[str, Any], train: QuestionSet | None = None) -> dict[str, Any]:
        """``summarise_labels``, each map's best IoU (``iou_box_last`` ...), mAPs and VAW's metrics, ``by_attribute``.

        ``train`` defines head, medium and tail, and adds ``query_prior_...``, the figures of its ``query_prior``.
        Shares in [0, 1], None where there is nothing to measure.
        """
        figures, prior, train_count = {}, None, None
        if train is not None:
            train_count = label_counts(train)[0].sum(0)
            prior = prior_scores(train, self.questions, np.flatnonzero(table["read"].to_numpy()))
            figures = {f"query_prior_{name}": value for name, value in prior.summary(train_count).items()}
        scores = self.scores.per_attribute(gathered)
        ious = best_ious(curves, [f"{what}_{name}" for what in self.target_names for name in PIXEL_MAPS])
        figures = {**summarise_labels(table), **ious, **scores.summary(train_count), **figures}
        return {**figures, "by_attribute": by_attribute(self.questions.attribute_names, scores, prior)}


def true_of(questions: QuestionSet) -> list[np.ndarray]:
    """The attributes that are true of each row, in order; never R x A values, gigabytes of Visual Genome."""
    labels: Labels = questions.attribute  # type: ignore[assignment]
    true = labels.where(labels.value == 1)
    return [np.sort(ids) for ids in np.split(true.attribute, true.start[1:-1])]


def askable(questions: QuestionSet, trained: Trained) -> tuple[QuestionSet, dict[str, int]]:
    """The questions in the network's words without those it never learnt, and how many rows and labels these were.

    Raises ValueError for a network that gives one attribute of all, for images of another size, or if nothing is left.
    """
    likelihood = trained.model.config.likelihood
    if likelihood != "bernoulli" or not isinstance(questions.attribute, Labels):
        raise ValueError(
            f"{questions.name} holds {questions.likelihood} answers, but this network was trained for {likelihood}; "
            "evaluate it on a data set with the same kind: one attribute a row, or a list of attributes"
        )
    known = np.array([name in trained.query_names for name in questions.query_names], bool)[questions.query]
    if not known.any():
        in_words_of(questions, trained.query_names, trained.attribute_names)  # says which words are unknown
    asked = questions.rows(known)
    labels: Labels = asked.attribute  # type: ignore[assignment]
    learnt = np.array([name in trained.attribute_names for name in asked.attribute_names], bool)[labels.attribute]
    asked = replace(asked, attribute=labels.where(learnt))
    lost = {"rows_with_unknown_query": int((~known).sum()), "labels_with_unknown_attribute": int((~learnt).sum())}
    return in_words_of(asked, trained.query_names, trained.attribute_names), lost


def label_counts(questions: QuestionSet) -> tuple[np.ndarray, np.ndarray]:
    """Of each query and attribute, labels that are true and labels that are known: (Q, A) int64 each."""
    labels: Labels = questions.attribute  # type: ignore[assignment]
    shape = len(questions.query_names), len(questions.attribute_names)
    row = np.repeat(np.arange(len(questions)), np.diff(labels.start))
    cell = questions.query[row] * shape[1] + labels.attribute
    true = np.bincount(cell[labels.value == 1], minlength=shape[0] * shape[1]).reshape(shape)
    if labels.unlisted == 0:
        return true, np.broadcast_to(np.bincount(questions.query, minlength=shape[0])[:, None], shape)
    return true, np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)


def query_prior(train: QuestionSet) -> np.ndarray:
    """What the query alone says: (Q, A) log-odds of P(attribute | query) in the training labels.

    What any attention must beat. Each query's counts are joined by one imaginary row with the attribute's overall
    share (itself joined by half a row of each kind), so that a rare query falls back to what is true of all.
    """
    true, known = label_counts(train)
    overall = (true.sum(0) + 0.5) / (known.sum(0) + 1)
    probability = (true + overall) / (known + 1)
    return np.log(probability) - np.log1p(-probability)


def summarise_labels(table: pa.Table) -> dict[str, Any]:
    """Rows, those whose image can't be read, means of attention's scores over rows and by query, and each layer's mean
    entropy; None for none.
    """
    measured = [name for name in table.column_names if name.startswith(("tpr_", "point", "box_iou"))]
    read = table.filter(table["read"])
    by_query = read.group_by("query").aggregate([("row", "count"), *((name, "mean") for name in measured)])
    queries = {
        row["query"]: {"count": row["row_count"], **{name: row[f"{name}_mean"] for name in measured}}
        for row in by_query.sort_by("query").to_pylist()
    }
    return {
        "count": len(read),
        "unread": len(table) - len(read),
        **{name: pc.mean(read[name]).as_py() for name in measured},
        "entropy": mean_entropy(read),
        "by_query": queries,
    }


def prior_scores(train: QuestionSet, asked: QuestionSet, rows: np.ndarray) -> AttributeScores:
    """Each attribute's figures if some rows (n,) of the questions were answered by ``query_prior`` of the training."""
    scores, odds = RankingScores(len(asked.attribute_names)), query_prior(train)
    for some in np.array_split(rows, max(1, len(rows) // 4096)):
        scores.add(odds[asked.query[some]], asked.attribute[some])
    return scores.per_attribute()


def by_attribute(
    names: tuple[str, ...], scores: AttributeScores, prior: AttributeScores | None = None
) -> dict[str, dict[str, Any]]:
    """Of each attribute the rows where it is true, VOC's 11-point AP and, from ``prior``, that of the query alone.

    APs are in [0, 1], None for an attribute that is true nowhere; those of ``prior`` None without one.
    """
    unknown = np.full(len(names), np.nan)
    aps = {"ap": scores.eleven_point_ap, "query_prior_ap": unknown if prior is None else prior.eleven_point_ap}
    return {
        name: {
            "count": int(scores.counts.positive[i]),
            **{key: None if np.isnan(values[i]) else float(values[i]) for key, values in aps.items()},
        }
        for i, name in enumerate(names)
    }
