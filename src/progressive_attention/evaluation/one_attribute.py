"""A trained network over questions: one row per question, then a summary. Any grouping can be made later.

Legend: R rows (questions), L attended layers, H x W pixels.
"""
# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from progressive_attention.data.questions import Labels, QuestionSet
from progressive_attention.data.sources import in_words_of
from progressive_attention.evaluation.ask import predictions
from progressive_attention.maps.pixel_maps import PIXEL_MAPS, pixel_maps
from progressive_attention.maps.receptive_field import geometry
from progressive_attention.metrics.attention import (
    OverlapCurves,
    attention_entropy,
    pointing_game,
    true_positive_ratio,
    wilson_interval,
)
from progressive_attention.metrics.pointing import bounding_box, box_iou, highest_point, smallest_box
from progressive_attention.network.question_network import Prediction
from progressive_attention.processes import gathered, merge_rows, world
from progressive_attention.saved.weights import Trained

SCALE_BINS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)  # the papers' five
MAPS = (*PIXEL_MAPS, "uniform")
SHOWN_FIRST = ("flow", "last")  # the answer's point and box are those of the first of these maps that there is
ATTENTION_COLUMNS = (
    *(f"tpr_{name}" for name in MAPS),
    "tpr_clipped",
    *(f"pointing_{name}" for name in PIXEL_MAPS),
    "point_on_target",
    "box_iou",
)


def examples(
    trained: Trained,
    questions: QuestionSet,
    device: torch.device,
    *,
    batch: int = 64,
    bf16: bool = False,
    progress: Callable[[int, int], None] | None = None,
    overlap: OverlapCurves | None = None,
) -> pa.Table:
    """Ask every question: a table of R rows in the questions' order, without those whose image can't be read.

    Columns: row, image, query, attribute (the truth), answer, correct, probability (of the answer),
    probability_of_truth, scale (null if unknown), those of ``attention_scores``, null without a mask, or where the
    network has no such map, and entropy, a list of ``layer_entropies``. ``overlap``, if given, takes in the maps'
    precision, recall and IoU. Of several processes each asks its part, and all have the whole. Raises ValueError for
    words that the network does not know, or images of another size than it was trained on.
    """
    questions = in_words_of(questions, trained.query_names, trained.attribute_names)
    size, side = questions.images.shape[1:3], trained.model.config.image_size
    if isinstance(questions.attribute, Labels):
        raise ValueError(f"{questions.name} holds lists of attributes; label_evaluation measures these")
    if size != (side, side):
        raise ValueError(
            f"{questions.name}: images are {size[1]} x {size[0]}, this network takes {side} x {side}; resize them"
        )
    where = geometry(trained.model)
    count = len(questions)
    answer, best, truth = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
    scores = {name: np.full(count, np.nan) for name in ATTENTION_COLUMNS}
    entropy = np.full((count, len(where.fields)), np.nan)
    read = np.zeros(count, bool)
    curves = OverlapCurves()
    done = 0
    for asked, prediction in predictions(trained.model, questions, device, batch=batch, bf16=bf16):
        real = asked.row >= 0
        rows = asked.row[real]
        read[rows] = True
        probability = prediction.log_prob.double().exp().cpu().numpy()[real]
        answer[rows] = probability.argmax(1)
        best[rows] = probability.max(1)
        truth[rows] = probability[np.arange(len(rows)), asked.attribute[real]]
        entropy[rows] = layer_entropies(prediction, real)
        if questions.masks is not None:
            masks = questions.masks[rows]
            maps = {name: drawn.cpu().numpy()[real] for name, drawn in pixel_maps(prediction, where).items()}
            void = None if questions.void is None else questions.void[rows]
            box = bounding_box(masks if void is None else masks & ~void)
            beyond = bool(prediction.transform)
            for name, values in attention_scores(maps, masks, beyond=beyond, void=void, box=box).items():
                scores[name][rows] = values
            if overlap is not None:
                for name, drawn in maps.items():
                    curves.add(name, drawn, masks, void)
        done = min(count, done + len(rows) * world())
        if progress:
            progress(done, count)
    merge_rows(read, answer, best, truth, entropy, *scores.values())
    if overlap is not None:
        for each in gathered(curves):
            overlap.merge(each)
    scale = np.full(count, np.nan) if questions.scale is None else questions.scale
    columns = {
        "row": np.arange(count),
        "image": questions.image,
        "query": names_of(questions.query, questions.query_names),
        "attribute": names_of(questions.attribute, questions.attribute_names),
        "answer": names_of(answer, questions.attribute_names),
        "correct": answer == questions.attribute,
        "probability": best,
        "probability_of_truth": truth,
        "scale": pa.array(scale, from_pandas=True),
        **{name: pa.array(values, from_pandas=True) for name, values in scores.items()},
        "entropy": as_lists(entropy),
    }
    return pa.table(columns).filter(pa.array(read))


def layer_entropies(prediction: Prediction, real: np.ndarray) -> np.ndarray:
    """``attention_entropy`` of each layer's map on its own cells: (R, L) for the R questions ``real`` (B, K)."""
    found = [attention_entropy(maps.double().cpu().numpy()[real]) for maps in prediction.attention]
    return np.stack(found, 1) if found else np.zeros((int(real.sum()), 0))


def as_lists(values: np.ndarray) -> pa.Array:
    """(R, L) as a column of R lists of L numbers, null for NaN."""
    rows, length = values.shape
    starts = pa.array(length * np.arange(rows + 1), pa.int32())
    return pa.ListArray.from_arrays(starts, pa.array(values.ravel(), pa.float64(), from_pandas=True))


def entropies(table: pa.Table) -> np.ndarray:
    """The column ``entropy`` of an evaluation's rows: (R, L) float64, NaN for null."""
    values = pc.list_flatten(table["entropy"]).to_numpy()
    return values.reshape(len(table), len(values) // max(1, len(table)))


def attention_scores(
    maps: dict[str, np.ndarray],
    masks: np.ndarray,
    *,
    beyond: bool,
    void: np.ndarray | None = None,
    box: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The maps (R, H, W) there are against the targets (R, H, W) bool: (R,) in [0, 1] each, NaN for an empty mask.

    ``tpr_*`` for true-positive ratios, of the uniform map over the whole image too; ``pointing_*`` for the pointing
    game; ``point_on_target`` for the answer's point, and ``box_iou`` for its box where the true ``box`` (R, 4) is
    given, x0 y0 x1 y1. ``beyond`` tells that attention may lie outside the image, where it counts as missed; only in
    ``tpr_clipped``, otherwise equal to ``tpr_last``, it counts as nothing. What lies on ``void`` pixels (R, H, W)
    never counts.
    """
    everywhere = np.ones(len(masks)) if beyond else None
    uniform = np.ones(masks.shape)
    if void is not None:
        lost = (maps["last"] * void).sum((-2, -1)) if beyond else 0.0
        maps = {name: drawn * ~void for name, drawn in maps.items()}
        if beyond:  # what looks at void pixels alone has no attention left, whatever rounding says
            everywhere = np.where(lost < 1 - 1e-6, 1 - lost, maps["last"].sum((-2, -1)))
        uniform, masks = uniform * ~void, masks & ~void
    scores = {"tpr_uniform": true_positive_ratio(uniform, masks)}
    for name, drawn in maps.items():
        scores[f"tpr_{name}"] = true_positive_ratio(drawn, masks, everywhere)
        scores[f"pointing_{name}"] = pointing_game(drawn, masks)
    if "last" in maps:
        scores["tpr_clipped"] = true_positive_ratio(maps["last"], masks) if beyond else scores["tpr_last"]
        first = next(maps[name] for name in SHOWN_FIRST if name in maps)
        scores["point_on_target"] = point_on_target(first, masks, void)
        if box is not None:
            scores["box_iou"] = answer_box_iou(first, masks, box)
    return scores


def point_on_target(drawn: np.ndarray, masks: np.ndarray, void: np.ndarray | None = None) -> np.ndarray:
    """Whether each map's ``highest_point`` lies on its target: two (R, H, W) -> (R,), 1 or 0.

    0 for a map of zeros, which has no point; NaN for an empty mask, and for a point on a ``void`` pixel.
    """
    points = highest_point(drawn)
    column, row = np.nan_to_num(points).astype(int).T
    at = np.arange(len(points)), row, column
    hit = masks[at] & ~np.isnan(points[:, 0])
    known = masks.any((-2, -1)) if void is None else masks.any((-2, -1)) & ~void[at]
    return np.where(known, hit, np.nan)


def answer_box_iou(drawn: np.ndarray, masks: np.ndarray, box: np.ndarray) -> np.ndarray:
    """``box_iou`` of each map's ``smallest_box`` and what of the true ``box`` (R, 4) lies in the image: (R,) in [0, 1].

    0 for a map of zeros, which has no box; NaN for an empty mask (R, H, W).
    """
    height, width = masks.shape[1:]
    true = box.clip(0, [width, height, width, height])
    return np.where(masks.any((-2, -1)), np.nan_to_num(box_iou(smallest_box(drawn), true)), np.nan)


def names_of(ids: np.ndarray, names: tuple[str, ...]) -> pa.Array:
    """Ids as their names."""
    return pa.DictionaryArray.from_arrays(pa.array(ids, pa.int32()), pa.array(names)).dictionary_decode()


def summarise(table: pa.Table) -> dict[str, Any]:
    """Count, accuracy with its 95 % Wilson interval, accuracy by scale bin, means of attention's scores; in [0, 1].

    ``entropy`` is a list, the mean of each layer. None stands where there is nothing to average: no rows, no scales,
    no masks, no such map. Bins are half open, the last closed.
    """
    correct = table["correct"].to_numpy()
    right = int(correct.sum())
    scale = table["scale"].to_numpy()
    by_scale: dict[str, Any] = {}
    for low, high in pairwise(SCALE_BINS):
        inside = correct[(scale >= low) & ((scale < high) | (high == SCALE_BINS[-1]) & (scale == high))]
        by_scale[f"{low}-{high}"] = inside
    return {
        "count": len(table),
        "accuracy": mean(correct),
        "accuracy_ci95": list(wilson_interval(right, len(table))),
        "accuracy_by_scale": {name: mean(rows) for name, rows in by_scale.items()},
        "accuracy_by_scale_ci95": {
            name: list(wilson_interval(int(rows.sum()), len(rows))) for name, rows in by_scale.items()
        },
        "count_by_scale": {name: len(rows) for name, rows in by_scale.items()},
        **{name: mean(table[name].drop_null().to_numpy()) for name in ATTENTION_COLUMNS},
        "entropy": mean_entropy(table),
    }


def mean_entropy(table: pa.Table) -> list[float | None]:
    """Of each layer, over the rows where it has one."""
    return [mean(layer[~np.isnan(layer)]) for layer in entropies(table).T]


def mean(values: np.ndarray) -> float | None:
    """Mean of a column, None if it is empty."""
    return float(values.mean()) if len(values) else None


def with_curves(summary: dict[str, Any], overlap: OverlapCurves) -> dict[str, Any]:
    """``summarise``'s figures, each map's best IoU and, as "precision_recall", the curves of each map that there is."""
    curves = overlap.summary()
    return {**summary, **best_ious(curves, PIXEL_MAPS), "precision_recall": curves}


def best_ious(curves: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> dict[str, float | None]:
    """``iou_NAME``: each map's IoU at the one threshold where its mean is highest; None where there is no such map."""
    return {f"iou_{name}": curves[name]["best_iou"] if name in curves else None for name in names}


def evaluate(
    trained: Trained, questions: QuestionSet, device: torch.device | str = "cpu", **options: Any
) -> dict[str, Any]:
    """``summarise`` of ``examples``, with the attention maps' precision-recall curves; raises ValueError for what is no
    ``Trained``.
    """
    if not isinstance(trained, Trained):
        raise ValueError(
            "expected a trained network with the words it knows, weights.load(name_or_folder) or Trained(model, "
            f"query_names, attribute_names, about); got {type(trained).__name__}"
        )
    overlap = OverlapCurves()
    table = examples(trained, questions, torch.device(device), overlap=overlap, **options)
    return with_curves(summarise(table), overlap)
