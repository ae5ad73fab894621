"""Plots for reading runs: training curves, confusion, accuracy by scale, entropy by layer, each attribute's AP; as PNG.

First what is drawn, as plain numbers; then how. Looks are those of ``plots``.
Legend: R rows (questions), L attended layers, A attributes.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from progressive_attention.maps.shown_maps import COLOUR_MAP
from progressive_attention.pages.plots import MARKERS, OKABE_ITO, RIGHT, WRONG, finish, new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, DPI = 640, 140  # pixels: two such figures side by side on a desktop, one on a phone
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the rows, below the quantiles drawn
MOST_CONFUSED, MOST_RANKED = 12, 24  # attributes that fit into a figure
OTHERS = "others"
LETTERS = 14  # of a name beside an axis


class ScaleSeries(NamedTuple):
    """One network's accuracy in [0, 1] by scale bin ("0.5-1.0"), None where a bin is empty, with 95 % intervals.

    ``published`` is the papers' accuracy [%] by bin, or one number over all scales, or None.
    """

    name: str
    accuracy: Mapping[str, float | None]
    interval: Mapping[str, Sequence[float]]
    published: Mapping[str, float] | float | None = None


class Line(NamedTuple):
    """A curve over epochs; ``best`` is the place of the point to be marked, if any."""

    title: str
    y_label: str
    x: Sequence[float]
    y: Sequence[float]
    best: int | None = None
    name: str = ""


class Confusion(NamedTuple):
    """The attributes' names, and how many rows of each truth (down) got each answer (across): (A, A)."""

    names: list[str]
    rows: np.ndarray


def training_lines(log: Sequence[Mapping[str, Any]], score: str, called: str) -> list[Line]:
    """Loss, validation score and time of the log's lines, over epochs; ``score`` is its key, the best one is marked."""
    epochs = [line["epoch"] for line in log]
    scores = [100 * line[score] for line in log]
    best = int(np.argmax(scores)) if scores else None
    loss = Line("Training loss", "mean loss of the epoch", epochs, [line["loss"] for line in log])
    seconds = Line("Time", "seconds of training", epochs, [line["train_seconds"] for line in log])
    return [loss, Line(called[0].upper() + called[1:], f"{called} [%]", epochs, scores, best, "kept"), seconds]


def confusion(truth: Sequence[str], answer: Sequence[str], names: Sequence[str]) -> Confusion:
    """How often which attribute was taken for which; only those that occur, in the order of ``names``.

    Of more than MOST_CONFUSED those with the most rows are told apart, all else is OTHERS.
    """
    truths, answers = list(truth), list(answer)
    rows = {name: truths.count(name) for name in names}
    used = [name for name in names if rows[name] or name in set(answers)]
    if len(used) > MOST_CONFUSED:
        kept = set(sorted(used, key=lambda name: -rows[name])[: MOST_CONFUSED - 1])
        used = [*(name for name in used if name in kept), OTHERS]
    place = {name: used.index(name) if name in used else len(used) - 1 for name in names}
    count = np.zeros((len(used), len(used)), np.int64)
    np.add.at(count, ([place[one] for one in truths], [place[one] for one in answers]), 1)
    return Confusion(used, count)


def quantiles(entropy: np.ndarray) -> np.ndarray:
    """Each layer's entropies at SHARES of the rows that have one: (R, L) with NaN -> (5, L), NaN where none has."""
    found = np.full((len(SHARES), entropy.shape[1]), np.nan)
    for layer, values in enumerate(entropy.T):
        if len(known := values[~np.isnan(values)]):
            found[:, layer] = np.quantile(known, SHARES)
    return found


def ranked_attributes(by_attribute: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The MOST_RANKED attributes that hold most often in the test rows, the most frequent first; none that never do."""
    known = [(name, figures) for name, figures in by_attribute.items() if figures["ap"] is not None]
    return sorted(known, key=lambda one: -one[1]["count"])[:MOST_RANKED]


def panel(height: int, left: int = 100, bottom: int = 76, top: int = 44) -> "tuple[Any, Axes]":
    """A figure of WIDTH x ``height`` pixels with one plot and so many pixels around it."""
    figure = new_figure(WIDTH, height, DPI)
    axes = figure.add_axes((left / WIDTH, bottom / height, 1 - (left + 24) / WIDTH, 1 - (bottom + top) / height))
    axes.tick_params(labelsize=9, length=3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def heading(figure: Any, text: str) -> None:
    """The figure's title, at its upper left."""
    height = figure.get_figheight() * DPI
    figure.text(12 / WIDTH, 1 - 10 / height, text, va="top", fontsize=11, weight="bold", parse_math=False)


def line_figure(line: Line, path: Path | None = None) -> bytes:
    """A curve over epochs; few points are drawn as such."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = panel(400)
    axes.plot(line.x, line.y, "-o" if len(line.x) <= 30 else "-", color=OKABE_ITO[0], markersize=5, linewidth=1.8)
    if line.best is not None:
        x, y = line.x[line.best], line.y[line.best]
        axes.plot([x], [y], "D", color=OKABE_ITO[1], markersize=8, mec="white")
        told = f"{line.name}: {y:.1f} at epoch {x:g}"
        axes.text(0.97, 0.06, told, ha="right", color=OKABE_ITO[1], fontsize=9, transform=axes.transAxes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.margins(0.06, 0.12)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_xlabel("epoch", fontsize=10)
    axes.set_ylabel(line.y_label, fontsize=10)
    heading(figure, line.title)
    return finish(figure, path)


def confusion_figure(found: Confusion, path: Path | None = None) -> bytes:
    """Truth down, answer across; colour is the share of the truth's rows, figures are rows."""
    size = len(found.names)
    few = size <= 5  # names fit below their columns
    left, bottom, cell = 130, 88 if few else 146, max(40, min(80, 486 // max(1, size)))
    figure, axes = panel(bottom + size * cell + 44, left, bottom)
    share = found.rows / np.maximum(found.rows.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    for (y, x), count in np.ndenumerate(found.rows):
        if count:
            colour = "black" if share[y, x] > 0.5 else "white"
            percent = f"{100 * share[y, x]:.1f} %" if share[y, x] >= 0.001 else "< 0.1 %"
            told = f"{count:,}" if size > 6 else f"{count:,}\n{percent}"
            axes.text(x, y, told, ha="center", va="center", fontsize=8.5 if size <= 8 else 7.5, color=colour)
    names = [shortened(name, LETTERS) for name in found.names]
    axes.set_xticks(range(size), names, rotation=0 if few else 50, ha="center" if few else "right")
    axes.set_yticks(range(size), names)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_parse_math(False)
    axes.tick_params(labelsize=9 if size <= 8 else 8, length=0)
    axes.spines[:].set_visible(False)
    figure.text(0.5, 16 / (bottom + size * cell + 44), "the network’s answer", ha="center", fontsize=10)
    axes.set_ylabel("truth", fontsize=10)
    heading(figure, "Which is taken for which")
    return finish(figure, path)


def entropy_figure(groups: Mapping[str, np.ndarray], kinds: Sequence[str], path: Path | None = None) -> bytes:
    """Each layer's entropy in per cent, by group of rows, the right ones first, then the wrong; ``kinds`` of layers.

    Point: median; thick line: the middle half of the rows; thin line: 90 % of them.
    """
    figure, axes = panel(460, bottom=96, top=80)
    for i, ((name, entropy), colour) in enumerate(zip(groups.items(), (RIGHT, WRONG), strict=False)):
        found = 100 * quantiles(entropy)
        x = np.arange(found.shape[1]) + 0.22 * (i - (len(groups) - 1) / 2)
        for low, high, width in ((0, 4, 1.5), (1, 3, 6)):
            axes.vlines(x, found[low], found[high], color=colour, linewidth=width)
        told = f"{name} (n = {len(entropy):,})"
        axes.plot(x, found[2], "oD"[i], color=colour, mec="white", markersize=9, label=told)
    axes.set_xticks(range(len(kinds)), [f"layer {i}\n{kind}" for i, kind in enumerate(kinds, 1)])
    axes.set_xlim(-0.5, len(kinds) - 0.5)
    axes.set_ylim(-4, 106)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_ylabel("entropy [% of an even map’s]", fontsize=10)
    where: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "ncols": 2, "frameon": False}
    axes.legend(fontsize=9, handletextpad=0.3, columnspacing=1, **where)
    heading(figure, "How evenly each layer attends")
    return finish(figure, path)


def ap_figure(ranked: Sequence[tuple[str, Mapping[str, Any]]], path: Path | None = None) -> bytes:
    """A line for each attribute: the network's AP, and that of the query alone where it is known."""
    line, left, bottom, top = 26, 190, 70, 80
    figure, axes = panel(bottom + top + line * len(ranked) + 20, left, bottom, top)
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
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xlim(-3, 103)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_xlabel("average precision [%]", fontsize=10)
    where: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.02, 1.0), "ncols": 2, "frameon": False}
    axes.legend(fontsize=9, handletextpad=0.2, columnspacing=1, **where)
    heading(figure, "Attribute by attribute")
    return finish(figure, path)


def scale_curve(
    series: Sequence[ScaleSeries],
    path: Path | None = None,
    title: str = "",
    count: Mapping[str, int] | None = None,
    width: int = 1000,
) -> bytes:
    """Accuracy by scale with 95 % intervals; the papers' values dashed, in the colour of the network they are of.

    ``count`` is the number of questions by bin; ``width`` that of the figure in pixels.
    """
    if not series:
        raise ValueError("no series to draw; give at least one network's accuracy by scale")
    bins = list(series[0].accuracy)
    columns = 2 if width >= 800 else 1  # of the legend
    lines = math.ceil(sum(2 if one.published is not None else 1 for one in series) / columns)
    bottom, plot, top = 110, 410, 26 * lines + 60  # pixels
    height = bottom + plot + top
    figure = new_figure(width, height, 140)
    axes = figure.add_axes((90 / width, bottom / height, 1 - 110 / width, plot / height))
    here, papers = [], []
    for i, one in enumerate(series):
        colour, marker = OKABE_ITO[i % len(OKABE_ITO)], MARKERS[i % len(MARKERS)]
        shift = 0.05 * (i - (len(series) - 1) / 2)
        known = [(k, 100 * value, name) for k, name in enumerate(bins) if (value := one.accuracy[name]) is not None]
        x = [k + shift for k, _, _ in known]
        y = [value for _, value, _ in known]
        ends = np.array([one.interval[name] for _, _, name in known]).reshape(-1, 2) * 100
        errors = np.abs(np.array(y)[:, None] - ends).T
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 6, "linewidth": 1.8, "capsize": 3}
        for k, value, low in zip(x, y, ends[:, 0], strict=True) if len(series) == 1 else ():
            axes.text(k, low - 3, f"{value:.1f}", ha="center", va="top", fontsize=9, color=colour)
        here.append(axes.errorbar(x, y, errors, label=f"{one.name}, here", **style))
        if isinstance(one.published, Mapping):
            at = [k for k, name in enumerate(bins) if name in one.published]
            values = [one.published[bins[k]] for k in at]
            style = {"color": colour, "marker": marker, "mfc": "white", "label": f"{one.name}, papers"}
            papers += axes.plot(at, values, "--", **style)
        elif one.published is not None:
            name = f"{one.name}, papers, all scales"
            papers.append(axes.axhline(one.published, ls="--", lw=1.4, color=colour, label=name))
    names = [name.replace("-", "–") + (f"\nn = {count[name]:,}" if count else "") for name in bins]
    axes.set_xticks(range(len(bins)), names, fontsize=9)
    axes.set_xlabel("scale of the asked digit (1 = 28 pixels)", fontsize=10)
    axes.set_ylabel("accuracy [%]", fontsize=10)
    axes.set_ylim(0, 103)
    axes.set_xlim(-0.4, len(bins) - 0.6)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.text(0.02, 1 - 12 / height, title, va="top", fontsize=11, weight="bold", parse_math=False)
    where: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "ncols": columns, "frameon": False}
    legend = axes.legend(handles=[*here, *papers], fontsize=9, **where)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return finish(figure, path)
