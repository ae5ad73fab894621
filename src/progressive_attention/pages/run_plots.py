"""Plots for reading runs: training curves, confusion, accuracy by scale, entropy by layer, each attribute's AP; as PNG.

Legend: R rows (questions), L attended layers, A attributes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from progressive_attention.maps.shown_maps import COLOUR_MAP
from progressive_attention.pages.figures import (
    MARKERS,
    OKABE_ITO,
    RIGHT,
    WRONG,
    add_legend,
    finish,
    new_figure,
    plot_axes,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 640  # pixels: two such figures side by side on a desktop, one on a phone
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the rows, below the quantiles drawn
MOST_CONFUSED, MOST_RANKED = 12, 24  # attributes that fit into a figure
OTHERS = "others"
LETTERS = 14  # of a name beside an axis
ERRORS = (95, 80, 60, 40, 30, 20, 10, 5, 2, 1, 0.5, 0.2)  # per cent; ticks of the accuracy axis
SMALLEST = 0.1  # per cent of errors: the top of the axis, where no error at all is drawn too
SCALE_LABEL = "accuracy [%], errors on a log scale"


class ScaleSeries(NamedTuple):
    """One network's accuracy in [0, 1] by scale bin ("0.5-1.0"), None where a bin is empty, with 95 % intervals.

    ``published`` is the papers' accuracy [%] by bin, or one number over all scales, or None.
    """

    name: str
    accuracy: Mapping[str, float | None]
    interval: Mapping[str, Sequence[float | None]]
    published: Mapping[str, float] | float | None = None


def confusion(truth: Sequence[str], answer: Sequence[str], names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The attributes that occur, in the order of ``names``, and how many rows of each truth (down) got each answer.

    The counts are (A, A). Of more than MOST_CONFUSED those with the most rows stand alone, all others are OTHERS.
    """
    truths, answers = list(truth), set(answer)
    rows = {name: truths.count(name) for name in names}
    used = [name for name in names if rows[name] or name in answers]
    if len(used) > MOST_CONFUSED:
        kept = set(sorted(used, key=lambda name: -rows[name])[: MOST_CONFUSED - 1])
        used = [*(name for name in used if name in kept), OTHERS]
    place = {name: used.index(name) if name in used else len(used) - 1 for name in names}
    count = np.zeros((len(used), len(used)), np.int64)
    np.add.at(count, ([place[name] for name in truths], [place[name] for name in answer]), 1)
    return used, count


def quantiles(entropy: np.ndarray) -> np.ndarray:
    """Each layer's entropies at SHARES of the rows that have one: (R, L) with NaN -> (5, L), NaN where none has."""
    values = np.full((len(SHARES), entropy.shape[1]), np.nan)
    for layer, column in enumerate(entropy.T):
        if len(known := column[~np.isnan(column)]):
            values[:, layer] = np.quantile(known, SHARES)
    return values


def ranked_attributes(by_attribute: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The MOST_RANKED attributes that are true of most test rows, the most frequent first; none that never are."""
    known = [(name, figures) for name, figures in by_attribute.items() if figures["ap"] is not None]
    return sorted(known, key=lambda pair: -pair[1]["count"])[:MOST_RANKED]


def line_figure(title: str, label: str, values: Sequence[float], best: int | None = None) -> bytes:
    """A curve over epochs 1, 2, ...; few points are drawn as such, and the point at the place ``best`` is marked."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(WIDTH, 400)
    axes = plot_axes(figure, (100, 44, 516, 280), title, "epoch", label)
    epochs = range(1, len(values) + 1)
    axes.plot(epochs, values, "-o" if len(values) <= 30 else "-", color=OKABE_ITO[0], markersize=5, linewidth=1.8)
    if best is not None:
        axes.plot([best + 1], [values[best]], "D", color=OKABE_ITO[1], markersize=8, mec="white")
        words = f"kept: {values[best]:.1f} at epoch {best + 1}"
        axes.text(0.97, 0.06, words, ha="right", color=OKABE_ITO[1], fontsize=9, transform=axes.transAxes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.margins(0.06, 0.12)
    return finish(figure)


def confusion_figure(names: Sequence[str], rows: np.ndarray) -> bytes:
    """Truth down, answer across; colour is the share of the truth's rows, figures are rows."""
    size = len(names)
    few = size <= 5  # names fit below their columns
    side = size * max(40, min(80, 486 // max(1, size)))
    figure = new_figure(WIDTH, side + (132 if few else 190))
    place = (130, 44, WIDTH - 154, side)
    axes = plot_axes(figure, place, "Which is taken for which", "the network’s answer", "truth")
    axes.grid(False)
    share = rows / np.maximum(rows.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    for y, x in np.argwhere(rows):
        percent = f"{share[y, x]:.1%}".replace("%", " %") if share[y, x] >= 0.001 else "< 0.1 %"
        words = f"{rows[y, x]:,}" if size > 6 else f"{rows[y, x]:,}\n{percent}"
        colour = "black" if share[y, x] > 0.5 else "white"
        axes.text(x, y, words, ha="center", va="center", fontsize=8.5 if size <= 8 else 7.5, color=colour)
    shown = [shortened(name, LETTERS) for name in names]
    axes.set_xticks(range(size), shown, rotation=0 if few else 50, ha="center" if few else "right")
    axes.set_yticks(range(size), shown)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_parse_math(False)
    axes.tick_params(labelsize=9 if size <= 8 else 8, length=0)
    axes.spines[:].set_visible(False)
    return finish(figure)


def entropy_figure(groups: Mapping[str, np.ndarray], kinds: Sequence[str]) -> bytes:
    """Each layer's entropy in per cent, by group of rows, the right ones first, then the wrong; ``kinds`` of layers.

    Point: median; thick line: the middle half of the rows; thin line: 90 % of them.
    """
    figure = new_figure(WIDTH, 460)
    title, label = "How evenly each layer attends", "entropy [% of an even map’s]"
    axes = plot_axes(figure, (100, 80, 516, 284), title, y_label=label, above=34)
    for i, ((name, entropy), colour) in enumerate(zip(groups.items(), (RIGHT, WRONG), strict=False)):
        values = 100 * quantiles(entropy)
        x = np.arange(values.shape[1]) + 0.22 * (i - (len(groups) - 1) / 2)
        for low, high, width in ((0, 4, 1.5), (1, 3, 6)):
            axes.vlines(x, values[low], values[high], color=colour, linewidth=width)
        name = f"{name} (n = {len(entropy):,})"
        axes.plot(x, values[2], "oD"[i], color=colour, mec="white", markersize=9, label=name)
    axes.set_xticks(range(len(kinds)), [f"layer {i}\n{kind}" for i, kind in enumerate(kinds, 1)])
    axes.set(xlim=(-0.5, len(kinds) - 0.5), ylim=(-4, 106))
    add_legend(axes)
    return finish(figure)


def ap_figure(ranked: Sequence[tuple[str, Mapping[str, Any]]]) -> bytes:
    """A line for each attribute: the network's AP, and that of the query alone where it is known."""
    height = 26 * len(ranked) + 20
    figure = new_figure(WIDTH, height + 150)
    title, place = "Attribute by attribute", (190, 80, WIDTH - 214, height)
    axes = plot_axes(figure, place, title, "average precision [%]", ruled="x", above=34)
    y = np.arange(len(ranked))
    ours = np.array([100 * figures["ap"] for _, figures in ranked])
    alone = np.array([figures["query_prior_ap"] for _, figures in ranked], float) * 100
    axes.hlines(y, alone, ours, color="#aaaaaa", linewidth=1.5)
    if not np.isnan(alone).all():
        axes.plot(alone, y, "D", color=OKABE_ITO[1], mfc="white", markersize=6, label="query alone")
    axes.plot(ours, y, "o", color=OKABE_ITO[0], markersize=7, label="network")
    names = [f"{shortened(name, LETTERS)} ({figures['count']:,})" for name, figures in ranked]
    for tick in axes.set_yticks(y, names):
        tick.label1.set_parse_math(False)
    axes.set(xlim=(-3, 103), ylim=(len(ranked) - 0.4, -0.6))
    add_legend(axes)
    return finish(figure)


def scale_curve(series: Sequence[ScaleSeries], title: str, count: Mapping[str, int]) -> bytes:
    """Accuracy by scale as ``draw_scales``, with names above; ``count`` is the number of questions by bin."""
    legend = 26 * sum(2 if one.published is not None else 1 for one in series)
    figure = new_figure(WIDTH, legend + 476)
    place, label = (90, legend + 52, 530, 314), "scale of the asked digit (1 = 28 pixels)"
    axes = plot_axes(figure, place, title, label, SCALE_LABEL, above=legend + 10)
    draw_scales(axes, series, [*zip(OKABE_ITO, MARKERS, strict=True)])
    names = [f"{name.replace('-', '–')}\nn = {count[name]:,}" for name in series[0].accuracy]
    axes.set_xticks(range(len(names)), names)
    add_legend(axes, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=1)
    return finish(figure)


def draw_scales(axes: "Axes", series: Sequence[ScaleSeries], looks: Sequence[tuple[str, str]]) -> None:
    """Accuracy by scale with 95 % intervals, each network in its colour and marker; the papers' values dashed, hollow.

    The axis is the logarithm of the errors, so that 98 % and 99 % stand as far apart as 80 % and 90 %.
    """
    places, bins = [], [*series[0].accuracy]
    for i, (network, (colour, marker)) in enumerate(zip(series, looks, strict=False)):
        x = np.arange(len(bins)) + 0.06 * (i - (len(series) - 1) / 2)
        low, high = on_axis([[*network.interval[name]] for name in bins]).T
        axes.vlines(x, low, high, color=colour, linewidth=1.2)
        value, theirs = on_axis([network.accuracy[name] for name in bins]), on_axis([])
        axes.plot(x, value, color=colour, marker=marker, linewidth=1.2, markersize=5, label=f"{network.name}, here")
        style: dict[str, Any] = {"color": colour, "linestyle": "--", "linewidth": 0.8}
        if isinstance(network.published, Mapping):
            theirs = on_axis([network.published[name] / 100 for name in bins])
            axes.plot(x, theirs, marker=marker, mfc="white", markersize=5, label=f"{network.name}, papers", **style)
        elif network.published is not None:
            theirs = on_axis([network.published / 100])
            axes.axhline(theirs[0], label=f"{network.name}, papers, all scales", **style)
        places += [*low, *high, *value, *theirs]
    axes.set_xticks(range(len(bins)), [name.replace("-", "–") for name in bins])
    axes.set_yticks(on_axis([1 - error / 100 for error in ERRORS]), [f"{100 - error:g}" for error in ERRORS])
    axes.set(xlim=(-0.5, len(bins) - 0.5), ylim=(np.nanmin(places) - 0.1, np.nanmax(places) + 0.1))


def on_axis(shares: Any) -> np.ndarray:
    """Place of accuracies in [0, 1] on the axis: minus the logarithm of the errors, which end at ``SMALLEST``."""
    return -np.log10(np.maximum(100 * (1 - np.array(shares, float)), SMALLEST))
