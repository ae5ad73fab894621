"""Where a network looked: its maps against the targets, and how evenly they lie. One value a question.

Legend: R rows (questions), B images with K questions each, L attended layers, H x W pixels.
"""

# pyarrow.compute makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from progressive_attention.data.questions import Batch, Masks
from progressive_attention.maps.pixel_maps import PIXEL_MAPS, pixel_maps
from progressive_attention.maps.receptive_field import Geometry
from progressive_attention.metrics.attention import OverlapCurves, attention_entropy, pointing_game, true_positive_ratio
from progressive_attention.metrics.pointing import box_iou, highest_point, smallest_box
from progressive_attention.network.question_network import Prediction

MAPS = (*PIXEL_MAPS, "uniform")
SHOWN_FIRST = ("flow", "last")  # the answer's point and box are those of the first of these maps that there is
ATTENTION_COLUMNS = (
    *(f"tpr_{name}" for name in MAPS),
    "tpr_clipped",
    *(f"pointing_{name}" for name in PIXEL_MAPS),
    "point_on_target",
    "box_iou",
)


class Target(NamedTuple):
    """What attention is measured against: masks of rows, pixels that never count, and each row's true box."""

    masks: Masks
    void: Masks | None = None
    box_of: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None  # rows (n,), masks (n, H, W) -> (n, 4)


def looked(
    prediction: Prediction, asked: Batch, where: Geometry, targets: Mapping[str, Target], curves: OverlapCurves | None
) -> dict[str, np.ndarray]:
    """``attention_scores`` of n answered questions, as columns (n,), and ``layer_entropies``.

    ``targets`` by name, "" for the only one. ``curves``, if given, takes in the maps.
    """
    real = asked.row >= 0
    rows, columns = asked.row[real], {"entropy": layer_entropies(prediction, real)}
    maps = {}
    if targets:
        maps = {name: drawn.cpu().numpy()[real] for name, drawn in pixel_maps(prediction, where).items()}
    for what, target in targets.items():
        masks = target.masks[rows]
        void = None if target.void is None else target.void[rows]
        visible = masks if void is None else masks & ~void
        box = None if target.box_of is None else target.box_of(rows, visible)
        scores = attention_scores(maps, masks, beyond=bool(prediction.transform), void=void, box=box)
        columns |= {column_of(name, what): values for name, values in scores.items()}
        if curves is not None:
            for name, drawn in maps.items():
                curves.add(f"{what}_{name}" if what else name, drawn, masks, void)
    return columns


def layer_entropies(prediction: Prediction, real: np.ndarray) -> np.ndarray:
    """``attention_entropy`` of each layer's map on its own cells: (n, L) for the n questions ``real`` (B, K)."""
    layers = [attention_entropy(maps.double().cpu().numpy()[real]) for maps in prediction.attention]
    return np.stack(layers, 1) if layers else np.zeros((int(real.sum()), 0))


def column_of(name: str, what: str) -> str:
    """A score's column for a target: ``tpr_last`` -> ``tpr_box_last``, ``point_on_target`` -> ``point_on_box``."""
    if not what or name == "box_iou":
        return name
    kind, _, rest = name.partition("_")
    return f"point_on_{what}" if rest == "on_target" else f"{kind}_{what}_{rest}"


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
    given, x0 y0 x1 y1. ``beyond`` says that attention may lie outside the image, where it counts as missed; only in
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


def best_ious(curves: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> dict[str, float | None]:
    """``iou_NAME``: each map's IoU at the one threshold where its mean is highest; None where there is no such map."""
    return {f"iou_{name}": curves[name]["best_iou"] if name in curves else None for name in names}


def as_lists(values: np.ndarray) -> pa.Array:
    """(R, L) as a column of R lists of L numbers, null for NaN."""
    rows, length = values.shape
    starts = pa.array(length * np.arange(rows + 1), pa.int32())
    return pa.ListArray.from_arrays(starts, pa.array(values.ravel(), pa.float64(), from_pandas=True))


def entropies(table: pa.Table) -> np.ndarray:
    """The column ``entropy`` of an evaluation's rows: (R, L) float64, NaN for null."""
    values = pc.list_flatten(table["entropy"]).to_numpy()
    return values.reshape(len(table), len(values) // max(1, len(table)))


def mean_entropy(table: pa.Table) -> list[float | None]:
    """Of each layer, over the rows where it has one."""
    return [mean(layer[~np.isnan(layer)]) for layer in entropies(table).T]


def mean(values: np.ndarray) -> float | None:
    """Mean of a column, None if it is empty."""
    return float(values.mean()) if len(values) else None


def names_of(ids: np.ndarray, names: tuple[str, ...]) -> pa.Array:
    """Ids as their names."""
    return pa.DictionaryArray.from_arrays(pa.array(ids, pa.int32()), pa.array(names)).dictionary_decode()
