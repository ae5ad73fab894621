"""Answers to questions with one right attribute, or with any number: one row each, and their figures. PAN, section 4.

Legend: B images, K questions each, n answers, R rows (questions), Q queries, A attributes.
"""
# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, nll_loss

from progressive_attention.data.images import BoxMasks
from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.data.sources import in_words_of, known_words
from progressive_attention.evaluation.attention import ATTENTION_COLUMNS, Target, entropies
from progressive_attention.maps.pixel_maps import PIXEL_MAPS
from progressive_attention.metrics.attention import wilson_interval
from progressive_attention.metrics.pointing import bounding_box
from progressive_attention.metrics.ranking import RankingScores
from progressive_attention.processes import gathered
from progressive_attention.saved import Trained

SCALE_BINS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)  # the papers' five
TOP = 5  # attributes a row that are written down, where any number may be true
WORDS, NUMBERS = pa.list_(pa.string()), pa.list_(pa.float64())


class OneOf:
    """Answers where one attribute is right: log-probabilities (n, A) beside ids (n,), taken in batch by batch."""

    score_name = "validation_accuracy"
    reads = "log_prob"  # of a prediction
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
        return {"answer": logit.argmax(1), "probability": probability.max(1), "probability_of_truth": truth}

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
        return {**summarise(table), **best_ious(curves, ""), "precision_recall": curves}


class AnyOf:
    """Answers where any number of attributes are true: log-odds (n, A) beside labels (n, A) of 1 and 0, -1 = unknown.

    ``scores`` has taken in those of this process, batch by batch.
    """

    score_name = "validation_weighted_mean_ap"
    reads = "logit"  # of a prediction
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

    def add(self, logit: np.ndarray, attribute: np.ndarray) -> None:
        """Take in n answers and what is known about them."""
        self.scores.add(logit, attribute)

    def score(self) -> float:
        """mAP of all processes' answers, weighted by frequency; 0 where no attribute is true."""
        return self.scores.per_attribute(gathered).summary()["weighted_mean_ap"] or 0.0

    def columns(self, logit: np.ndarray, attribute: np.ndarray) -> dict[str, np.ndarray]:
        """The TOP most likely attributes of n answers, and their log-odds: (n, TOP) each."""
        top = np.argsort(-logit, 1, kind="stable")[:, :TOP]
        return {"top": top, "log_odds": np.take_along_axis(logit, top, 1)}

    def words(self, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
        """``columns`` of all R questions as they are written; null where the image can't be read."""
        questions, read = self.questions, numbers["read"]
        names, top = np.array(questions.attribute_names, object), np.nan_to_num(numbers["top"]).astype(int)
        labels: Labels = questions.attribute  # type: ignore[assignment]
        true = labels.where(labels.value == 1)  # never R x A values, gigabytes of Visual Genome
        of_rows = [names[np.sort(ids)] for ids in np.split(true.attribute, true.start[1:-1])]
        odds = [row if known else None for row, known in zip(numbers["log_odds"], read, strict=True)]
        paths = getattr(questions.images, "paths", None)
        return {
            "image": questions.image if paths is None else pa.array(list(paths)).take(pa.array(questions.image)),
            "query": names_of(questions.query, questions.query_names),
            "attributes": pa.array(of_rows, WORDS),
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
            of_mask = None if box is not None else lambda rows, seen: bounding_box(seen)
            targets["mask"] = Target(masks, self.questions.void, box_of=of_mask)
        return targets

    def figures(self, table: pa.Table, curves: dict[str, Any], train: QuestionSet | None = None) -> dict[str, Any]:
        """``summarise_labels``, each map's best IoU (``iou_box_last`` ...), mAPs and VAW's metrics, and by attribute.

        ``train`` defines head, medium and tail, and adds ``query_prior_...``, the figures of its ``query_prior``.
        ``by_attribute`` has the rows where each is true ("count"), attention's means over these, VOC's 11-point AP
        ("ap") and the query's alone.
        Shares in [0, 1], None where there is nothing to measure.
        """
        names, prior, train_count = self.questions.attribute_names, None, None
        scores, of_prior = self.scores.per_attribute(gathered), {}
        if train is not None:
            train_count, odds, answers = label_counts(train)[0].sum(0), query_prior(train), RankingScores(len(names))
            rows = np.flatnonzero(table["read"].to_numpy())
            for some in np.array_split(rows, max(1, len(rows) // 4096)):
                answers.add(odds[self.questions.query[some]], self.questions.attribute[some])
            prior = answers.per_attribute()
            of_prior = {f"query_prior_{name}": value for name, value in prior.summary(train_count).items()}
        unknown = np.full(len(names), np.nan)
        aps = {"ap": scores.eleven_point_ap, "query_prior_ap": unknown if prior is None else prior.eleven_point_ap}
        by_attribute, attended = {}, means_by_attribute(table.filter(table["read"]))
        for i, name in enumerate(names):
            known = {key: None if np.isnan(values[i]) else float(values[i]) for key, values in aps.items()}
            by_attribute[name] = attended.get(name, {}) | {"count": int(scores.counts.positive[i]), **known}
        ious = best_ious(curves, "box_") | best_ious(curves, "mask_")
        figures = summarise_labels(table) | ious | scores.summary(train_count) | of_prior
        return {**figures, "by_attribute": by_attribute}


def askable(questions: QuestionSet, trained: Trained) -> tuple[QuestionSet, dict[str, Any]]:
    """The questions in the network's words without those it never learnt, and how many rows and labels these were.

    ``queries_not_asked`` has the rows of each query that it knows no word for, ``queries_asked_as`` the words of those
    that it is asked by a synonym. Raises ValueError for a network that gives one attribute of all, or if nothing is
    left.
    """
    likelihood = trained.model.config.likelihood
    if likelihood != "bernoulli" or not isinstance(questions.attribute, Labels):
        raise ValueError(
            f"{questions.name} holds {questions.likelihood} answers, but this network was trained for {likelihood}; "
            "evaluate it on a data set with the same kind: one attribute a row, or a list of attributes"
        )
    words = known_words(questions, set(trained.query_names))
    known = np.array([name in words for name in questions.query_names], bool)[questions.query]
    if not known.any():
        in_words_of(questions, trained.query_names, trained.attribute_names)  # says which words are unknown
    asked = questions.rows(known)
    labels: Labels = asked.attribute  # type: ignore[assignment]
    learnt = np.array([name in trained.attribute_names for name in asked.attribute_names], bool)[labels.attribute]
    count = Counter(questions.query_names[query] for query in questions.query.tolist())
    lost = {
        "rows_with_unknown_query": int((~known).sum()),
        "labels_with_unknown_attribute": int((~learnt).sum()),
        "queries_not_asked": {query: count[query] for query in sorted(count) if query not in words},
        "queries_asked_as": {query: word for query, word in words.items() if query in count and word != query},
    }
    theirs = tuple(words.get(query, query) for query in questions.query_names)
    asked = replace(asked, attribute=labels.where(learnt), query_names=theirs)
    return in_words_of(asked, trained.query_names, trained.attribute_names), lost


def label_counts(questions: QuestionSet) -> tuple[np.ndarray, np.ndarray]:
    """Of each query and attribute, labels that are true and labels that are known: (Q, A) int64 each."""
    labels: Labels = questions.attribute  # type: ignore[assignment]
    shape = len(questions.query_names), len(questions.attribute_names)
    row = np.repeat(np.arange(len(questions)), np.diff(labels.start))
    cell = questions.query[row] * shape[1] + labels.attribute
    true, listed = (np.bincount(some, minlength=shape[0] * shape[1]) for some in (cell[labels.value == 1], cell))
    if labels.unlisted == 0:
        listed = np.repeat(np.bincount(questions.query, minlength=shape[0]), shape[1])
    return true.reshape(shape), listed.reshape(shape)


def query_prior(train: QuestionSet) -> np.ndarray:
    """What the query alone says: (Q, A) log-odds of P(attribute | query) in the training labels.

    What any attention must beat. Each query's counts are joined by one imaginary row with the attribute's overall
    share (itself joined by half a row of each kind), so that a rare query falls back to what is true of all.
    """
    true, known = label_counts(train)
    overall = (true.sum(0) + 0.5) / (known.sum(0) + 1)
    probability = (true + overall) / (known + 1)
    return np.log(probability) - np.log1p(-probability)


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


def summarise_labels(table: pa.Table) -> dict[str, Any]:
    """Rows, those whose image can't be read, means of attention's scores over rows and by query, and each layer's mean
    entropy; None for none.
    """
    read = table.filter(table["read"])
    means = {name: pc.mean(read[name]).as_py() for name in attention_columns(read)}
    count = {"count": len(read), "unread": len(table) - len(read)}
    return {**count, **means, "entropy": mean_entropy(read), "by_query": means_by(read, "query")}


def attention_columns(table: pa.Table) -> list[str]:
    """Its columns of attention's scores."""
    return [name for name in table.column_names if name.startswith(("tpr_", "point", "box_iou"))]


def means_by(table: pa.Table, key: str) -> dict[str, dict[str, Any]]:
    """Rows of each word in a column ("count"), and the means of attention's scores over them, None for none."""
    measured = attention_columns(table)
    groups = table.group_by(key).aggregate([([], "count_all"), *((name, "mean") for name in measured)])
    return {
        row[key]: {"count": row["count_all"], **{name: row[f"{name}_mean"] for name in measured}}
        for row in groups.sort_by(key).to_pylist()
    }


def means_by_attribute(table: pa.Table) -> dict[str, dict[str, Any]]:
    """``means_by`` each attribute, over the rows where it is true."""
    table = table.combine_chunks()
    lists = table["attributes"].combine_chunks()
    of_each = table.select(attention_columns(table)).take(pc.list_parent_indices(lists))
    return means_by(of_each.append_column("attribute", pc.list_flatten(lists)), "attribute")


def best_ious(curves: dict[str, Any], prefix: str) -> dict[str, float | None]:
    """``iou_NAME``: each map's IoU at the one threshold where its mean is highest; None where there is no such map."""
    names = [prefix + name for name in PIXEL_MAPS]
    return {f"iou_{name}": curves[name]["best_iou"] if name in curves else None for name in names}


def mean_entropy(table: pa.Table) -> list[float | None]:
    """Of each layer, over the rows where it has one."""
    return [mean(layer[~np.isnan(layer)]) for layer in entropies(table).T]


def mean(values: np.ndarray) -> float | None:
    """Mean of a column, None if it is empty."""
    return float(values.mean()) if len(values) else None


def names_of(ids: np.ndarray, names: tuple[str, ...]) -> pa.Array:
    """Ids as their names."""
    return pa.DictionaryArray.from_arrays(pa.array(ids, pa.int32()), pa.array(names)).dictionary_decode()
