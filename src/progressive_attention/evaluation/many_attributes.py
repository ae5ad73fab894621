"""Questions with any number of attributes: how well a network ranks them, and where it looked. PAN, section 4.2.

Legend: R rows (questions), Q queries, A attributes, H x W pixels.
"""
# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from progressive_attention.data.images import BoxMasks
from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.data.sources import in_words_of
from progressive_attention.evaluation.ask import predictions
from progressive_attention.evaluation.one_attribute import (
    ATTENTION_COLUMNS,
    as_lists,
    attention_scores,
    best_ious,
    layer_entropies,
    mean_entropy,
    names_of,
)
from progressive_attention.maps.pixel_maps import PIXEL_MAPS, pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.metrics.attention import OverlapCurves
from progressive_attention.metrics.ranking import AttributeScores, RankingScores
from progressive_attention.processes import gathered, merge_rows, world
from progressive_attention.saved.weights import Trained

TOP = 5  # attributes a row that are written down
LOOKED = ("box", "mask")  # what attention may be measured against
WORDS, NUMBERS = pa.list_(pa.string()), pa.list_(pa.float64())


def askable(questions: QuestionSet, trained: Trained) -> tuple[QuestionSet, dict[str, int]]:
    """The questions in the network's words without those it never learnt, and how many rows and labels these were.

    Raises ValueError for a network that tells one attribute of all, for images of another size, or if nothing is left.
    """
    if trained.model.config.likelihood != "bernoulli" or not isinstance(questions.attribute, Labels):
        raise ValueError(
            f"{questions.name} holds {questions.likelihood} answers, but this network was trained for "
            f"{trained.model.config.likelihood}; evaluate it on a data set with the same kind: one attribute a row, or "
            "a list of attributes"
        )
    size, side = questions.images.shape[1:3], trained.model.config.image_size
    if size != (side, side):
        raise ValueError(f"{questions.name}: images are {size[1]} x {size[0]}, this network takes {side} x {side}")
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
    """Of each query and attribute, labels that hold and labels that are known: (Q, A) int64 each."""
    labels: Labels = questions.attribute  # type: ignore[assignment]
    shape = len(questions.query_names), len(questions.attribute_names)
    row = np.repeat(np.arange(len(questions)), np.diff(labels.start))
    cell = questions.query[row] * shape[1] + labels.attribute
    holds = np.bincount(cell[labels.value == 1], minlength=shape[0] * shape[1]).reshape(shape)
    if labels.unlisted == 0:
        return holds, np.broadcast_to(np.bincount(questions.query, minlength=shape[0])[:, None], shape)
    return holds, np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)


def query_prior(train: QuestionSet) -> np.ndarray:
    """What the query alone tells: (Q, A) log-odds of P(attribute | query) in the training labels.

    What any attention must beat. Each query's counts are joined by one imaginary row with the attribute's overall
    share (itself joined by half a row of each kind), so that a rare query falls back to what holds of all.
    """
    holds, known = label_counts(train)
    overall = (holds.sum(0) + 0.5) / (known.sum(0) + 1)
    probability = (holds + overall) / (known + 1)
    return np.log(probability) - np.log1p(-probability)


def label_examples(
    trained: Trained,
    questions: QuestionSet,
    device: torch.device,
    scores: RankingScores,
    *,
    batch: int = 32,
    bf16: bool = False,
    progress: Callable[[int, int], None] | None = None,
    overlap: OverlapCurves | None = None,
) -> pa.Table:
    """Ask every question of ``askable``: a table of R rows in their order; ``scores`` takes in all log-odds and labels,
    ``overlap``, if given, the maps' precision, recall and IoU as "box_last", "mask_last", ...

    Of several processes each asks its part: all have the whole table and ``overlap``, ``scores`` its own part.
    Columns: row, image (its number, or its path), query, attributes (those that hold), top (the TOP likeliest),
    log_odds (theirs), read (false where the image can't be; all that follows from it is null), ``attention_scores``
    against the box (``tpr_box_last``, ``point_on_box``, ``box_iou``, ...) and the mask (``tpr_mask_last`` ...), null
    where there is none, and entropy, a list of ``layer_entropies``.
    """
    where = geometry(trained.model)
    side = trained.model.config.image_size
    targets = {"box": None if questions.box is None else BoxMasks(questions.box, side), "mask": questions.masks}
    looked = {column_of(name, what): np.full(len(questions), np.nan) for what in LOOKED for name in ATTENTION_COLUMNS}
    curves = OverlapCurves()
    top = np.zeros((len(questions), min(TOP, len(questions.attribute_names))), np.int64)
    odds, read = np.full(top.shape, np.nan), np.zeros(len(questions), bool)
    entropy = np.full((len(questions), len(where.fields)), np.nan)
    done = 0
    for asked, prediction in predictions(trained.model, questions, device, batch=batch, bf16=bf16):
        real = asked.row >= 0
        rows = asked.row[real]
        if len(rows):
            log_odds = prediction.logit.double().cpu().numpy()[real]
            scores.add(log_odds, asked.attribute[real])
            top[rows] = np.argsort(-log_odds, 1, kind="stable")[:, : top.shape[1]]
            odds[rows], read[rows] = np.take_along_axis(log_odds, top[rows], 1), True
            entropy[rows] = layer_entropies(prediction, real)
            maps = {name: drawn.cpu().numpy()[real] for name, drawn in pixel_maps(prediction, where).items()}
            for what, masks in targets.items():
                if masks is not None:
                    target, beyond = masks[rows], bool(prediction.transform)
                    void = questions.void[rows] if what == "mask" and questions.void is not None else None
                    box = questions.box[rows] if what == "box" and questions.box is not None else None
                    found = attention_scores(maps, target, beyond=beyond, void=void, box=box)
                    for name, values in found.items():
                        looked[column_of(name, what)][rows] = values
                    for name, drawn in maps.items() if overlap is not None else ():
                        curves.add(f"{what}_{name}", drawn, target, void)
        done = min(len(questions), done + int((asked.row >= 0).sum()) * world())
        if progress:
            progress(done, len(questions))
    merge_rows(read, top, odds, entropy, *looked.values())
    if overlap is not None:
        for each in gathered(curves):
            overlap.merge(each)
    paths = getattr(questions.images, "paths", None)
    words = np.array(questions.attribute_names, object)
    columns = {
        "row": np.arange(len(questions)),
        "image": questions.image if paths is None else pa.array(list(paths)).take(pa.array(questions.image)),
        "query": names_of(questions.query, questions.query_names),
        "attributes": pa.array([words[held] for held in holding(questions)], WORDS),
        "top": pa.array([words[row] if seen else None for row, seen in zip(top, read, strict=True)], WORDS),
        "log_odds": pa.array([row if seen else None for row, seen in zip(odds, read, strict=True)], NUMBERS),
        "read": read,
        **{name: pa.array(values, from_pandas=True) for name, values in looked.items()},
        "entropy": as_lists(entropy),
    }
    return pa.table(columns)


def holding(questions: QuestionSet) -> list[np.ndarray]:
    """The attributes that hold of each row, in order; never as rows times attributes, gigabytes of Visual Genome."""
    labels: Labels = questions.attribute  # type: ignore[assignment]
    held = labels.where(labels.value == 1)
    return [np.sort(ids) for ids in np.split(held.attribute, held.start[1:-1])]


def column_of(name: str, what: str) -> str:
    """A score's column for one of LOOKED: ``tpr_last`` -> ``tpr_box_last``, ``point_on_target`` -> ``point_on_box``."""
    if name == "box_iou":
        return name
    kind, _, rest = name.partition("_")
    return f"point_on_{what}" if rest == "on_target" else f"{kind}_{what}_{rest}"


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


def evaluate_labels(
    trained: Trained, questions: QuestionSet, train: QuestionSet | None, device: torch.device, **options: Any
) -> tuple[dict[str, Any], pa.Table]:
    """Everything measured, and the rows behind it; ``options`` are those of ``label_examples``.

    ``RankingScores.summary`` of the network and, as ``query_prior_...``, of ``query_prior`` from the training labels,
    which also tell head, medium and tail; ``by_attribute`` of both; ``summarise_labels``, and each map's best IoU with
    the boxes (``iou_box_last`` ...) and masks; what was left out. Shares in [0, 1], None where there is nothing to
    measure.
    """
    asked, lost = askable(questions, trained)
    learnt = None if train is None else askable(train, trained)[0]  # what is wrong is told before all are asked
    scores, overlap = RankingScores(len(trained.attribute_names)), OverlapCurves()
    table = label_examples(trained, asked, device, scores, overlap=overlap, **options)
    found, of_prior = scores.per_attribute(gathered), None
    before: dict[str, Any] = {}
    train_count = None
    if learnt is not None:
        train_count = label_counts(learnt)[0].sum(0)
        read = np.flatnonzero(table["read"].to_numpy())
        prior, known = RankingScores(len(trained.attribute_names)), query_prior(learnt)
        for rows in np.array_split(read, max(1, len(read) // 4096)):
            prior.add(known[asked.query[rows]], asked.attribute[rows])
        of_prior = prior.per_attribute()
        before = {f"query_prior_{name}": value for name, value in of_prior.summary(train_count).items()}
    each = by_attribute(trained.attribute_names, found, of_prior)
    ious = best_ious(overlap.summary(), [f"{what}_{name}" for what in LOOKED for name in PIXEL_MAPS])
    figures = {**summarise_labels(table), **ious, **lost, **found.summary(train_count), **before, "by_attribute": each}
    return figures, table


def by_attribute(
    names: tuple[str, ...], scores: AttributeScores, prior: AttributeScores | None = None
) -> dict[str, dict[str, Any]]:
    """Of each attribute the rows where it holds, VOC's 11-point AP and, from ``prior``, that of the query alone.

    APs are in [0, 1], None for an attribute that holds nowhere; those of ``prior`` None without one.
    """
    aps = {"ap": scores.eleven_point_ap}
    aps["query_prior_ap"] = np.full(len(names), np.nan) if prior is None else prior.eleven_point_ap
    return {
        name: {
            "count": int(scores.counts.positive[i]),
            **{key: None if np.isnan(values[i]) else float(values[i]) for key, values in aps.items()},
        }
        for i, name in enumerate(names)
    }
