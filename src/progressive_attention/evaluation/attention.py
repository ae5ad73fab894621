"""Where a network looked: its maps against the targets, and how evenly they lie. One value a question.

Legend: R rows (questions), B images with K questions each, L attended layers, H x W pixels.
"""

# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from progressive_attention.data.questions import Batch, Masks
from progressive_attention.maps.pixel_maps import PIXEL_MAPS, pixel_maps
from progressive_attention.maps.receptive_field import Geometry
from progressive_attention.maps.shown_maps import shown_map
from progressive_attention.metrics.attention import OverlapCurves, attention_entropy, pointing_game, true_positive_ratio
from progressive_attention.metrics.pointing import box_iou, highest_point, smallest_box
from progressive_attention.network.question_network import Prediction

MAPS = (*PIXEL_MAPS, "uniform")
ATTENTION_COLUMNS = (
    *(f"tpr_{name}" for name in MAPS),
    "tpr_clipped",
    *(f"pointing_{name}" for name in PIXEL_MAPS),
    "point_on_target",
    "box_iou",
)
OF_EACH_MAP = tuple(f"{score}_{name}" for score in ("point_on_target", "box_iou") for name in PIXEL_MAPS)


class Target(NamedTuple):
    """What attention is measured against: masks of rows, pixels that never count, and each row's true box."""

    masks: Masks
    void: Masks | None = None
    box_of: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None  # rows (n,), masks (n, H, W) -> (n, 4)


def looked(
    prediction: Prediction, asked: Batch, where: Geometry, targets: Mapping[str, Target], curves: OverlapCurves
) -> dict[str, np.ndarray]:
    """``attention_scores`` of n answered questions, as columns (n,), and ``entropy`` (n, L) of each layer's map.

    ``targets`` by name, "" for the only one; of a named one, point and box are those of each map. ``curves`` takes in
    the maps. Of a question without a target all is NaN, and nothing is drawn.
    """
    real = asked.row >= 0
    rows = asked.row[real]
    layers = [attention_entropy(layer.double().cpu().numpy()[real]) for layer in prediction.attention]
    columns = {"entropy": np.stack(layers, 1) if layers else np.zeros((len(rows), 0))}
    masks_of = {what: target.masks[rows] for what, target in targets.items()}
    place = np.flatnonzero(sum(masks.any((-2, -1)) for masks in masks_of.values()))
    if not len(place):
        return columns
    at = torch.from_numpy(np.argwhere(real)[place].T).to(prediction.logit.device)
    drawn_for = prediction.rearranged(lambda each: each[at[0], at[1]][:, None], prediction.likelihood)
    maps = {name: drawn[:, 0].cpu().numpy() for name, drawn in pixel_maps(drawn_for, where).items()}
    for what, target in targets.items():
        masks = masks_of[what][place]
        void = None if target.void is None else target.void[rows[place]]
        box = None if target.box_of is None else target.box_of(rows[place], masks if void is None else masks & ~void)
        beyond = bool(prediction.transform)
        likelihood = prediction.likelihood
        scores = attention_scores(maps, masks, likelihood, beyond=beyond, void=void, box=box, every_map=bool(what))
        for name, values in scores.items():
            column = columns.setdefault(column_of(name, what), np.full(len(rows), np.nan))
            column[place] = values
        for name, drawn in maps.items():
            curves.add(f"{what}_{name}" if what else name, drawn, masks, void)
    return columns


def columns_of(what: str) -> list[str]:
    """The columns of a target of this name, as far as they can be measured."""
    return [column_of(name, what) for name in (*ATTENTION_COLUMNS, *(OF_EACH_MAP if what else ()))]


def column_of(name: str, what: str) -> str:
    """A score's column for a target: ``tpr_last`` -> ``tpr_box_last``, ``point_on_target`` -> ``point_on_box``."""
    if not what or name.startswith("box_iou"):
        return name
    if name.startswith("point_on_target"):
        return name.replace("target", what)
    kind, _, rest = name.partition("_")
    return f"{kind}_{what}_{rest}"


def attention_scores(
    maps: dict[str, np.ndarray],
    masks: np.ndarray,
    likelihood: str = "softmax",
    *,
    beyond: bool,
    void: np.ndarray | None = None,
    box: np.ndarray | None = None,
    every_map: bool = False,
) -> dict[str, np.ndarray]:
    """The maps (R, H, W) there are against the targets (R, H, W) bool: (R,) in [0, 1] each, NaN for an empty mask.

    ``tpr_*`` for true-positive ratios, of the uniform map over the whole image too; ``pointing_*`` for the pointing
    game; ``point_on_target`` for the answer's point, in the ``shown_map`` of this ``likelihood``, and ``box_iou`` for
    its box where the true ``box`` (R, 4) is given, x0 y0 x1 y1: 0 for a map of zeros, which has neither. ``beyond``
    says that attention may lie outside the image, where it counts as missed; only in ``tpr_clipped``, otherwise equal
    to ``tpr_last``, it counts as nothing.
    What lies on ``void`` pixels (R, H, W) never counts, and of a point there nothing is known. ``every_map`` adds
    ``point_on_target_*`` and ``box_iou_*`` of each map.
    """
    everywhere = np.ones(len(masks)) if beyond else None
    void = np.zeros_like(masks) if void is None else void
    if beyond and void.any():  # what looks at void pixels alone has no attention left, whatever rounding says
        lost = (maps["last"] * void).sum((-2, -1))
        everywhere = np.where(lost < 1 - 1e-6, 1 - lost, (maps["last"] * ~void).sum((-2, -1)))
    maps, masks = {name: drawn * ~void for name, drawn in maps.items()}, masks & ~void
    scores = {"tpr_uniform": true_positive_ratio(np.ones(masks.shape) * ~void, masks)}
    for name, drawn in maps.items():
        scores[f"tpr_{name}"] = true_positive_ratio(drawn, masks, everywhere)
        scores[f"pointing_{name}"] = pointing_game(drawn, masks)
    if "last" in maps:
        scores["tpr_clipped"] = true_positive_ratio(maps["last"], masks) if beyond else scores["tpr_last"]
        shown, _ = shown_map(maps, likelihood)  # type: ignore[misc] (there are maps)
        of_map = {name: point_and_box(maps[name], masks, void, box) for name in (maps if every_map else [shown])}
        scores |= of_map[shown]
        if every_map:
            scores |= {f"{score}_{name}": values for name in maps for score, values in of_map[name].items()}
    return scores


def point_and_box(
    maps: np.ndarray, masks: np.ndarray, void: np.ndarray, box: np.ndarray | None
) -> dict[str, np.ndarray]:
    """``point_on_target`` and ``box_iou`` of one map a row, (R, H, W) as the others; see ``attention_scores``."""
    known, points = masks.any((-2, -1)), highest_point(maps)
    column, row = np.nan_to_num(points).astype(int).T
    at = np.arange(len(points)), row, column
    scores = {"point_on_target": np.where(known & ~void[at], masks[at] & ~np.isnan(points[:, 0]), np.nan)}
    if box is not None:
        height, width = masks.shape[1:]
        iou = box_iou(smallest_box(maps), box.clip(0, [width, height, width, height]))
        scores["box_iou"] = np.where(known, np.nan_to_num(iou), np.nan)
    return scores


def as_lists(values: np.ndarray) -> pa.Array:
    """(R, L) as a column of R lists of L numbers, null for NaN."""
    rows, length = values.shape
    starts = pa.array(length * np.arange(rows + 1), pa.int32())
    return pa.ListArray.from_arrays(starts, pa.array(values.ravel(), pa.float64(), from_pandas=True))


def entropies(table: pa.Table) -> np.ndarray:
    """The column ``entropy`` of an evaluation's rows: (R, L) float64, NaN for null."""
    values = pc.list_flatten(table["entropy"]).to_numpy()
    return values.reshape(len(table), len(values) // max(1, len(table)))
