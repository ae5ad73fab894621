"""The papers' figures, drawn from cells and maps: accuracy by scale, precision and recall, where networks look.

Every figure is written as PNG and SVG, 180 mm wide, in type of 6 points or more; the same input gives the same bytes.
Colours: Okabe and Ito (2008) and a grey, each with its own marker; those of ``shown_maps`` for maps.
Legend: h x w cells of a layer, H x W image pixels, L attended layers.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from progressive_attention.config import STYLES
from progressive_attention.files import replacing
from progressive_attention.maps.shown_maps import COLOUR_MAP, attended_image, light, over_image
from progressive_attention.pages.plots import OKABE_ITO, RIGHT, WRONG, bare, label, outline
from progressive_attention.reproduce import published
from progressive_attention.reproduce.published import SCALE_BINS
from progressive_attention.reproduce.runs import ROWS, Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 180 / 25.4  # inches: two columns of a journal
DPI = 200
GREY = "#8a8a8a"
LOOKS = {  # colour and marker of the papers' rows, the same in every figure
    "stn-s": (GREY, "v"),
    "stn-m": (OKABE_ITO[6], "^"),
    "san": (OKABE_ITO[3], "s"),
    "han": (OKABE_ITO[4], "D"),
    "pan-soft": (OKABE_ITO[5], "P"),
    "pan-hard": (OKABE_ITO[2], "X"),
    "pan-soft-ctx": (OKABE_ITO[1], "p"),
    "pan-hard-ctx": (OKABE_ITO[0], "o"),
}
OTHER_LOOKS = [(OKABE_ITO[1 + i % 6], marker) for i, marker in enumerate("<>hd*vd*v<>h")]  # no pair twice
ERRORS = (80, 60, 40, 30, 20, 10, 5, 2, 1, 0.5, 0.2)  # per cent; ticks of the accuracy axis
SMALLEST = 0.1  # per cent of errors: the top of the axis, where no error at all is drawn too
LEGEND = 48  # letters of a line of the legend
MODEL_GAP = 0.06  # between the models' markers, in bins


class Looked(NamedTuple):
    """What one network made of one question, on image pixels.

    ``before`` and ``after``: L x (H, W) >= 0, magnitude of the features before and behind each gate, spread by
    ``spread_over_fields``. ``shown``: (H, W) >= 0, the map of ``shown_map``.
    """

    answer: str
    before: Sequence[np.ndarray]
    after: Sequence[np.ndarray]
    shown: np.ndarray


class Example(NamedTuple):
    """One question about one image (H, W, 3) uint8; ``mask`` (H, W) bool is its target's, None if unknown."""

    image: np.ndarray
    mask: np.ndarray | None
    query: str
    truth: str
    networks: Mapping[str, Looked]  # by the network's name


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


def accuracy_by_scale_figure(shown: Sequence[Cell], folder: Path, name: str = "accuracy-by-scale") -> None:
    """Accuracy by the target's scale, a panel for each data set, with 95 % intervals; the papers' MBG values hollow.

    The axis is the logarithm of the errors, so that 98 % and 99 % stand as far apart as 80 % and 90 %. Intervals are
    over seeds (Student), or of the test questions for a single seed (Wilson). HAttNet 2016, Figure 5a.
    """

    def draw(axes: "Axes", dataset: str, of_set: list[Cell], looks: Mapping[str, tuple[str, str]]) -> None:
        places: list[float] = []
        for cell in of_set:
            colour, marker = looks[row_of(cell)]
            shift = MODEL_GAP * (list(looks).index(row_of(cell)) - (len(looks) - 1) / 2)
            style: dict[str, Any] = {"color": colour, "linewidth": 0.9}
            theirs = published_by_scale(cell)
            hollow = {
                "linewidth": 0.6,
                "linestyle": "--",
                "marker": marker,
                "markersize": 4.6,
                "mfc": "white",
                "mew": 0.6,
            }
            at = [k + shift for k in range(len(theirs))]
            axes.plot(at, on_axis([value / 100 for value in theirs]), **{**style, **hollow})
            known = [(k, found) for k, scale in enumerate(SCALE_BINS) if (found := cell.accuracy(scale))]
            x, y = [k + shift for k, _ in known], on_axis([found.value for _, found in known])
            low, high = on_axis([found.low for _, found in known]), on_axis([found.high for _, found in known])
            axes.vlines(x, low, high, **style)
            axes.plot(x, y, marker=marker, markersize=3.2, markeredgewidth=0, **style)
            places += [*low, *high, *on_axis([value / 100 for value in theirs])]
        axes.set_xticks(range(len(SCALE_BINS)), [scale.replace("-", "–") for scale in SCALE_BINS])
        axes.set_yticks(on_axis([1 - e / 100 for e in ERRORS]), [f"{100 - e:g}" for e in ERRORS])
        axes.set_xlim(-0.5, len(SCALE_BINS) - 0.5)
        axes.set_ylim(min(places or [-2]) - 0.1, max(places or [-1]) + 0.1)
        axes.set(xlabel="scale of the asked digit (1 = 28 px)", ylabel="accuracy [%], errors on a log scale")

    note = "bars: 95 % intervals"
    if any(map(published_by_scale, shown)):
        note += "\nhollow, dashed: the papers' values"
    save(in_panels(shown, draw, note), folder, name)


def published_by_scale(cell: Cell) -> Sequence[float]:
    """The papers' accuracy of each scale bin, in per cent: they tell that of their own networks, on MBG only."""
    return published.MBG_BY_SCALE.get(cell.model, ()) if cell.dataset == "mbg" and not cell.variant else ()


def on_axis(shares: Sequence[float | None]) -> np.ndarray:
    """Place of accuracies in [0, 1] on the axis: minus the logarithm of the errors, which end at ``SMALLEST``."""
    return -np.log10(np.maximum(100 * (1 - np.array(shares, float)), SMALLEST))


def precision_recall_figure(
    shown: Sequence[Cell], folder: Path, name: str = "precision-recall", of_maps: Sequence[str] = ("flow", "last")
) -> None:
    """Precision over recall of the thresholded map against the target's mask, a panel for each data set.

    A row's map is the first of ``of_maps`` that it has. Seeds are averaged threshold by threshold; a marker shows the
    threshold of the best mean IoU. Rows without such a map, which would be sought in vain, are named below the legend.
    HAttNet 2016, Figure 5b.
    """

    def curve_of(cell: Cell) -> dict[str, list[float | None]] | None:
        return next((curve for name in of_maps if (curve := cell.curve(name))), None)

    def draw(axes: "Axes", dataset: str, of_set: list[Cell], looks: Mapping[str, tuple[str, str]]) -> None:
        for cell in of_set:
            curve = curve_of(cell)
            if curve is None:
                continue
            colour, marker = looks[row_of(cell)]
            recall, precision, iou = (100 * np.array(curve[key], float) for key in ("recall", "precision", "iou"))
            axes.plot(recall, precision, color=colour, linewidth=1)
            if not np.isnan(iou).all():
                best = np.nanargmax(iou)
                axes.plot(recall[best], precision[best], marker, color=colour, markersize=5, mec="white", mew=0.5)
        axes.set(xlabel="recall [%]", ylabel="precision [%]", xlim=(0, 101), ylim=(0, None))

    note = f"{', else '.join(of_maps)} map\nmarker: threshold of the best IoU"
    if missing := dict.fromkeys(row_of(cell) for cell in shown if curve_of(cell) is None):
        note += "\n" + fill(f"no such map: {', '.join(missing)}", LEGEND)
    save(in_panels(shown, draw, note), folder, name)


def row_of(cell: Cell) -> str:
    """A row's name in the legend: the model's, and the variant if it is not plain."""
    return ROWS[cell.model] + (f", {cell.variant}" if cell.variant else "")


def looks_of(found: Sequence[Cell]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each row, in the tables' order: the papers' plain rows have theirs, others take turns."""
    rows = sorted({(list(ROWS).index(cell.model), cell.variant): cell for cell in found}.items())
    others = iter(OTHER_LOOKS * len(rows))
    return {
        row_of(cell): LOOKS[cell.model] if cell.model in LOOKS and not cell.variant else next(others)
        for _, cell in rows
    }


def in_panels(shown: Sequence[Cell], draw: Callable[..., None], note: str) -> "Figure":
    """A panel for each data set that has runs, and the legend in the last place.

    Raises ValueError for no runs, and for runs of several budgets: lines in one panel must be comparable.
    """
    if len(budgets := {cell.budget for cell in shown}) != 1:
        raise ValueError(f"a figure shows runs of one budget, got {len(budgets)}; draw one figure for each")
    looks = looks_of(shown)
    datasets = [name for name in STYLES if any(cell.dataset == name for cell in shown)]
    lines = 1 + (len(datasets) > 1)
    figure = blank(WIDTH, 0.39 * WIDTH * lines)
    grid = {
        "left": 0.075,
        "right": 0.985,
        "top": 1 - 0.08 / lines,
        "bottom": 0.15 / lines,
        "wspace": 0.2,
        "hspace": 0.28,
    }
    panels = figure.subplots(lines, 2, squeeze=False, gridspec_kw=grid).ravel()
    for axes in panels[len(datasets) :]:
        axes.set_axis_off()
    for axes, dataset in zip(panels, datasets, strict=False):
        draw(axes, dataset, [cell for cell in shown if cell.dataset == dataset], looks)
        label(axes, dataset.upper(), fontsize=8, weight="bold", loc="left")
        axes.tick_params(labelsize=6.5, length=2)
        axes.xaxis.label.set_size(7)
        axes.yaxis.label.set_size(7)
        axes.grid(axis="y", color="#e2e2e2", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    legend_panel(panels[-1], looks, note)
    return figure


def legend_panel(axes: "Axes", looks: Mapping[str, tuple[str, str]], note: str) -> None:
    """Each row's line and name, and what the signs mean."""
    from matplotlib.lines import Line2D

    axes.set_axis_off()
    style: dict[str, Any] = {"markersize": 4.5, "linewidth": 1.2}
    lines = [Line2D([], [], color=c, marker=m, label=fill(row, LEGEND), **style) for row, (c, m) in looks.items()]
    where: dict[str, Any] = {"loc": "upper left", "frameon": False, "borderaxespad": 0, "labelspacing": 0.6}
    legend = axes.legend(handles=lines, fontsize=7.5, ncols=1 + (len(lines) > 9), **where)
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.text(0, 0, note, fontsize=7, color="#444444", va="bottom", transform=axes.transAxes)


def qualitative_figure(scenes: Sequence[Example], folder: Path, name: str, last: int = 2) -> None:
    """Examples in blocks of two rows, as the papers' Figure 6; networks side by side, each with its answer.

    For each network the ``last`` attended layers: magnitude of the features (a) before the gate and (b) behind it,
    each map rescaled to [0, 1]; then the attended image (HAttNet 2016, Figures 6 and 7), and above it, which is ours,
    where the answer came from.
    """
    if not scenes or last < 1:
        raise ValueError(f"expected at least one example and one layer, got {len(scenes)} and {last}")
    names = list(scenes[0].networks)
    if wrong := [list(scene.networks) for scene in scenes if list(scene.networks) != names]:
        raise ValueError(f"every example must have the same networks: {names}, got {wrong[0]}")
    shown = {name: min(last, len(look.after)) for name, look in scenes[0].networks.items()}
    # Everything in units of one picture's side: a left column, then each network's layers and its attended image.
    gap, between, head, answer = 0.06, 0.3, 0.55, 0.3
    starts, x = {}, 1.0
    for network, layers in shown.items():
        starts[network] = x + between
        x = starts[network] + (layers + 1) * (1 + gap) - gap
    block = answer + 2 + gap + 0.14
    height = head + len(scenes) * block
    figure = blank(WIDTH, WIDTH * height / x)

    def place(left: float, top: float, size: float = 1.0) -> "Axes":
        axes = figure.add_axes((left / x, 1 - (top + size) / height, size / x, size / height))
        bare(axes)
        return axes

    def write(left: float, top: float, text: str, **style: Any) -> None:
        style = {"fontsize": 6.5, "va": "center", "parse_math": False, **style}
        figure.text(left / x, 1 - top / height, text, **style)

    for network, start in starts.items():
        write(start, 0.15, network, weight="bold", fontsize=7.5)
        for i in range(shown[network]):
            count = len(scenes[0].networks[network].after)
            layer = f"layer {count - shown[network] + i + 1}" if count > 1 else "last layer"
            write(start + i * (1 + gap) + 0.5, 0.42, layer, ha="center", fontsize=6)
        write(start + shown[network] * (1 + gap) + 0.5, 0.42, "flow,\nattended", ha="center", fontsize=6)
    for k, scene in enumerate(scenes):
        top = head + k * block + answer
        write(0, top - 0.13, f"{scene.query}? {scene.truth}", weight="bold")
        axes = place(0, top)
        axes.imshow(scene.image)
        outline(axes, scene.mask)
        for row, letter in enumerate(("(a)", "(b)")):
            write(1 + between / 2, top + row * (1 + gap) + 0.5, letter, ha="center", fontsize=6)
        for network, look in scene.networks.items():
            right = look.answer == scene.truth
            told = f"{look.answer} {'✓' if right else '✗'}"
            write(starts[network], top - 0.13, told, weight="bold", color=RIGHT if right else WRONG)
            for row, maps in enumerate((look.before, look.after)):
                for i, values in enumerate(maps[-shown[network] :]):
                    axes = place(starts[network] + i * (1 + gap), top + row * (1 + gap))
                    axes.imshow(rescaled(values), cmap=COLOUR_MAP, vmin=0, vmax=1)
            left = starts[network] + shown[network] * (1 + gap)
            place(left, top).imshow(over_image(scene.image, light(look.shown)))
            place(left, top + 1 + gap).imshow(attended_image(scene.image, look.after[-1]))
    save(figure, folder, name)


def blank(width: float, height: float) -> "Figure":
    """An empty white figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", folder: Path, name: str) -> None:
    """Write ``folder``/``name``.png and .svg, whole or not at all, without a date."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": name}):
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            with replacing(folder / f"{name}.{kind}") as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
