"""The papers' figures: accuracy by scale, precision and recall, and where networks look.

Legend: h x w cells of a layer, H x W image pixels, L attended layers, B examples.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from progressive_attention.config import STYLES
from progressive_attention.maps.shown_maps import attended_image, light, over_image, shown_map
from progressive_attention.pages.answer_plots import RANKED, Scene
from progressive_attention.pages.figures import (
    BLACK,
    OKABE_ITO,
    RIGHT,
    WRONG,
    Tile,
    coloured,
    finish,
    grid,
    new_figure,
    plot_axes,
)
from progressive_attention.reproduce import published
from progressive_attention.reproduce.published import SCALE_BINS
from progressive_attention.reproduce.runs import Cell, Estimate, models_in_order, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS = {  # of the papers' rows, the same in every figure
    "stn-s": ("#8a8a8a", "v"),
    "stn-m": (OKABE_ITO[6], "^"),
    "san": (OKABE_ITO[3], "s"),
    "han": (OKABE_ITO[4], "D"),
    "pan-soft": (OKABE_ITO[5], "P"),
    "pan-hard": (OKABE_ITO[2], "X"),
    "pan-soft-ctx": (OKABE_ITO[1], "p"),
    "pan-hard-ctx": (OKABE_ITO[0], "o"),
}
OTHER_LOOKS = [(OKABE_ITO[i % 7], marker) for i, marker in enumerate("hd<>*^vDPs")]  # no pair twice
LAST = 2  # attended layers drawn
SIDE = 150  # pixels of a picture
ERRORS = (95, 80, 60, 40, 30, 20, 10, 5, 2, 1, 0.5, 0.2)  # per cent; ticks of the accuracy axis
SMALLEST = 0.1  # per cent of errors: the top of the axis, where no error at all is drawn too
SCALE_LABEL = "accuracy [%], errors on a log scale"


class Looked(NamedTuple):
    """What one network made of one question, on image pixels.

    ``before`` and ``after``: L x (H, W) >= 0, magnitude of the features before and behind each gate, spread by
    ``spread_over_fields``. ``shown``: (H, W) >= 0, the map of ``shown_map``.
    """

    answer: str
    before: Sequence[np.ndarray]
    after: Sequence[np.ndarray]
    shown: np.ndarray


def accuracy_by_scale_figure(shown: Sequence[Cell], path: Path) -> None:
    """Accuracy by the target's scale, a panel for each data set. HAttNet 2016, Figure 5a.

    Intervals are over seeds (Student), or of the test questions for a single seed (Wilson).
    """

    note = "bars: 95 % intervals"
    if any(papers_by_scale(cell) for cell in shown):
        note += "\nhollow, dashed: the papers' values"
    in_panels(shown, draw_scales, note, ("scale of the asked digit (1 = 28 px)", SCALE_LABEL), path)


def papers_by_scale(cell: Cell) -> tuple[float, ...] | None:
    """The papers' accuracies, who publish those of their own networks, on MBG only."""
    return published.MBG_BY_SCALE.get(cell.model) if cell.dataset == "mbg" else None


def draw_scales(axes: "Axes", of_set: Sequence[Cell], looks: Sequence[tuple[str, str]]) -> None:
    """Accuracy by scale with 95 % intervals, each network in its colour and marker; the papers' values dashed, hollow.

    The axis is the logarithm of the errors, so that 98 % and 99 % stand as far apart as 80 % and 90 %.
    """
    drawn, unknown = [], Estimate(math.nan, math.nan, math.nan, 0)
    for i, (cell, (colour, marker)) in enumerate(zip(of_set, looks, strict=True)):
        x = np.arange(len(SCALE_BINS)) + 0.06 * (i - (len(of_set) - 1) / 2)
        known = [cell.accuracy(name) or unknown for name in SCALE_BINS]
        value, low, high = (on_axis([getattr(each, part) for each in known]) for part in ("value", "low", "high"))
        axes.vlines(x, low, high, color=colour, linewidth=1.2)
        axes.plot(x, value, color=colour, marker=marker, linewidth=1.2, markersize=5)
        drawn += [value, low, high]
        if theirs := papers_by_scale(cell):
            drawn.append(on_axis(np.array(theirs) / 100))
            axes.plot(x, drawn[-1], "--", color=colour, marker=marker, mfc="white", linewidth=0.8, markersize=5)
    axes.set_xticks(range(len(SCALE_BINS)), [name.replace("-", "–") for name in SCALE_BINS])
    axes.set_yticks(on_axis([1 - error / 100 for error in ERRORS]), [f"{100 - error:g}" for error in ERRORS])
    axes.set(xlim=(-0.5, len(SCALE_BINS) - 0.5), ylim=(np.nanmin(drawn) - 0.1, np.nanmax(drawn) + 0.1))


def on_axis(shares: Any) -> np.ndarray:
    """Place of accuracies in [0, 1] on the axis: minus the logarithm of the errors, which end at ``SMALLEST``."""
    return -np.log10(np.maximum(100 * (1 - np.array(shares, float)), SMALLEST))


def precision_recall_figure(shown: Sequence[Cell], path: Path) -> None:
    """Precision over recall of the thresholded map against the target's mask, a panel for each data set.

    Seeds are averaged threshold by threshold; a marker shows the threshold of the best mean IoU. Rows without a map are
    named below the legend. HAttNet 2016, Figure 5b.
    """

    def draw(axes: "Axes", of_set: Sequence[Cell], looks: Sequence[tuple[str, str]]) -> None:
        for cell, (colour, marker) in zip(of_set, looks, strict=True):
            if curve := curve_of(cell):
                recall, precision, iou = (100 * np.array(curve[key], float) for key in ("recall", "precision", "iou"))
                best = np.argmax(np.nan_to_num(iou))
                axes.plot(recall, precision, color=colour, lw=1.2)
                axes.plot(recall[best], precision[best], marker, color=colour, ms=6, mec="white", mew=0.5)
        axes.set(xlim=(0, 101), ylim=(0, None))

    note = "flow, else last map\nmarker: threshold of the best IoU"
    if missing := dict.fromkeys(title_of(cell.model) for cell in shown if curve_of(cell) is None):
        note += "\n" + fill(f"no such map: {', '.join(missing)}", 48)
    in_panels(shown, draw, note, ("recall [%]", "precision [%]"), path)


def curve_of(cell: Cell) -> dict[str, list[float | None]] | None:
    """Precision over recall of the flow map, else of the last (spatial transformers have no other); None without."""
    return cell.curve("flow") or cell.curve("last")


def looks_of(models: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each model: the papers' have theirs, others take turns."""
    others = iter(OTHER_LOOKS * len(models))
    return {model: LOOKS[model] if model in LOOKS else next(others) for model in models}


def in_panels(shown: Sequence[Cell], draw: Callable[..., None], note: str, labels: tuple[str, str], path: Path) -> None:
    """Plain cells of one budget: a panel for each data set that has any, and the legend in the last place."""
    from matplotlib.lines import Line2D

    looks = looks_of([model for model in models_in_order() if any(cell.model == model for cell in shown)])
    datasets = [name for name in STYLES if any(cell.dataset == name for cell in shown)]
    figure = new_figure(1400, 1100 if len(datasets) > 1 else 550)
    places = [(90 + column * 700, 40 + row * 550, 580, 430) for row in range(2) for column in range(2)]
    for dataset, place in zip(datasets, places, strict=False):
        of_set = [cell for model in looks for cell in shown if (cell.model, cell.dataset) == (model, dataset)]
        draw(plot_axes(figure, place, dataset.upper(), *labels), of_set, [looks[cell.model] for cell in of_set])
    axes = plot_axes(figure, places[len(datasets)])
    axes.set_axis_off()
    lines = [
        Line2D([], [], color=colour, marker=sign, label=title_of(model)) for model, (colour, sign) in looks.items()
    ]
    style: dict[str, Any] = {"fontsize": 9, "frameon": False, "handletextpad": 0.4, "columnspacing": 1}
    axes.legend(handles=lines, loc="upper left", bbox_to_anchor=(0, 1), ncols=1 + (len(lines) > 9), **style)
    axes.text(0, 0, note, fontsize=9, color="#444444", va="bottom", transform=axes.transAxes)
    finish(figure, path)


def spread_over_fields(
    values: np.ndarray, field: tuple[tuple[int, int, int], tuple[int, int, int]], image_size: tuple[int, int]
) -> np.ndarray:
    """Mean over the cells that see each pixel: (..., h, w) -> (..., H, W) float64. PAN, Figure 6.

    ``field``: (stride, low, high) of rows and of columns; cell i sees pixels low + i stride to high + i stride, and
    stride 0 is one cell that sees everything. A cell counts most for the pixels in the middle of its field, falling
    linearly to its ends: effective receptive fields are like that (Luo et al., NeurIPS 2016), and flat ones would
    draw seams. The paper only says that activations are spread. A pixel that no cell sees is 0.
    """
    rows = seen(field[0], values.shape[-2], image_size[0])
    columns = seen(field[1], values.shape[-1], image_size[1])
    count = np.outer(rows.sum(1), columns.sum(1))
    return rows @ np.asarray(values, np.float64) @ columns.T / np.where(count, count, 1)


def seen(field: tuple[int, int, int], count: int, pixels: int) -> np.ndarray:
    """How much each cell sees of each pixel along one axis: (pixels, count) in [0, 1]."""
    stride, low, high = field
    if not stride:
        return np.ones((pixels, count))
    from_centre = np.arange(pixels)[:, None] - (low + high) / 2 - stride * np.arange(count)
    return np.clip(1 - np.abs(from_centre) / ((high - low) / 2 + 1), 0, None)


def rescaled(values: np.ndarray) -> np.ndarray:
    """(x - min) / (max - min), in [0, 1]; a constant map becomes 0. PAN, Figure 6."""
    span = float(np.ptp(values))
    return (values - values.min()) / span if span > 0 else np.zeros(values.shape)


def so_far(layers: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each layer's attention times that of all before it: L x (H, W), zero where a layer has no cell. PAN, Figure 7."""
    return list(np.cumprod([np.nan_to_num(layer) for layer in layers], 0))


def qualitative_figure(scenes: Sequence[Scene], path: Path) -> None:
    """Scenes in blocks of two rows, as the papers' Figure 6; networks side by side, each with its answer, a ``Looked``.

    For each network the last LAST attended layers: magnitude of the features (a) before the gate and (b) behind it,
    each map rescaled to [0, 1]; then the attended image (HAttNet 2016, Figures 6 and 7), and above it, which is ours,
    where the answer came from.
    """
    rows = []
    for scene in scenes:
        question = [("", BLACK), (f"{scene.query}? {', '.join(scene.truth)}", BLACK)]
        above, below = [Tile(scene.image, heading=question, mask=scene.mask)], [Tile(None)]
        for name, look in scene.answers.items():
            before, after = layer_tiles(look.before, "(a) layer"), layer_tiles(look.after, "(b) layer")
            answer = marked(look.answer, look.answer in scene.truth)
            before[0] = before[0]._replace(heading=[(name, BLACK), answer])
            above += [*before, Tile(over_image(scene.image, light(look.shown)), "flow")]
            below += [*after, Tile(attended_image(scene.image, look.after[-1]), "attended")]
        rows += [above, below]
    grid(rows, SIDE, path=path)


def layer_tiles(values: Sequence[np.ndarray], kind: str) -> list[Tile]:
    """The last LAST layers' maps, each rescaled to [0, 1]."""
    layers = [*enumerate(values, 1)][-LAST:]
    return [Tile(coloured(rescaled(layer)), f"{kind} {i} of {len(values)}") for i, layer in layers]


def marked(answer: str, right: bool) -> tuple[str, str]:
    """An answer with the sign and the colour of right or wrong."""
    return (f"{answer} ✓", RIGHT) if right else (f"{answer} ✗", WRONG)


def attribute_figure(scenes: Sequence[Scene], path: Path) -> None:
    """A row of each question about a photograph; networks side by side, each with its ``Answer``.

    Of each network the attended image (the photograph lit by the accumulated attention, the target outlined), the
    accumulated maps of the last LAST layers, each rescaled to [0, 1], and the most likely attributes, true ones
    marked. PAN 2018, Figure 7; HAttNet 2016, Figure 8. Before them, which is ours, the map of ``shown_map`` over
    the photograph.
    """
    rows = []
    for scene in scenes:
        words = [(f"{scene.query}?", BLACK), *((word, BLACK) for word in scene.truth[:RANKED])]
        row = [Tile(scene.image, "question", [("", BLACK)], words, mask=scene.mask)]
        for name, answer in scene.answers.items():
            maps, shown = so_far(answer.layers), shown_map(answer.maps, answer.likelihood)
            notes = [marked(f"{word} {share:.0%}", word in scene.truth) for word, share in answer.ranked[:RANKED]]
            source = over_image(scene.image, light(shown[1])) if shown else None
            row.append(Tile(source, "came from", [(name, BLACK)], notes, mask=scene.mask))
            row.append(Tile(attended_image(scene.image, maps[-1]), "attended", mask=scene.mask))
            row += layer_tiles(maps, "product to")
        rows.append(row)
    grid(rows, SIDE, path=path)
