"""Pictures of plain results: answers with their attention, contact sheets, accuracy by scale.

Every function returns the PNG's bytes, and writes them too, whole or not at all, where a path is given. Figures are
drawn by Agg without pyplot's global state, and matplotlib is imported when the first one is. The same input gives
the same bytes. Colours: Okabe and Ito (2008) for lines, viridis for maps; both stay readable to the colour-blind.

Legend: H x W image pixels, L attended layers.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from progressive_attention.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*"
RIGHT, WRONG = OKABE_ITO[0], OKABE_ITO[1]  # blue and vermilion, always beside the word
COLOUR_MAP = "viridis"
RANKED = 3  # attributes told where several may hold
CAPTION = 16  # letters that fit under a scene


class Answered(Protocol):
    """What the pictures need of an answer; ``predictor.Answer`` has it."""

    @property
    def query(self) -> str: ...
    @property
    def attribute(self) -> str: ...
    @property
    def probability(self) -> float: ...
    @property
    def likelihood(self) -> str: ...  # "bernoulli" where several attributes may hold
    @property
    def found(self) -> bool | None: ...  # False where the asked object seems not to be there, None where nobody knows
    @property
    def ranked(self) -> list[tuple[str, float]]: ...  # attributes, the likeliest first, as ``Answer.ranked``
    @property
    def image(self) -> np.ndarray: ...  # (H, W, 3) uint8
    @property
    def layers(self) -> list[np.ndarray]: ...  # L >= 0 x (H, W) in [0, 1], NaN where no cell is; the last is a softmax
    @property
    def maps(self) -> dict[str, np.ndarray]: ...  # (H, W) each, with "accumulated"; none of a network without attention


class Scene(NamedTuple):
    """One test scene with several networks' answers; ``mask`` (H, W) bool is the target's, None if unknown.

    ``truth`` is the attribute that holds, or all that do.
    """

    image: np.ndarray
    mask: np.ndarray | None
    query: str
    truth: str | Sequence[str]
    answers: Mapping[str, Answered]  # by the network's name


def truths_of(scene: Scene) -> tuple[str, ...]:
    """The attributes that hold."""
    return (scene.truth,) if isinstance(scene.truth, str) else tuple(scene.truth)


class ScaleSeries(NamedTuple):
    """One network's accuracy in [0, 1] by scale bin ("0.5-1.0"), None where a bin is empty, with 95 % intervals.

    ``published`` is the papers' accuracy [%] by bin, or one number over all scales, or None.
    """

    name: str
    accuracy: Mapping[str, float | None]
    interval: Mapping[str, Sequence[float]]
    published: Mapping[str, float] | float | None = None


def new_figure(width: float, height: float, dpi: int) -> "Figure":
    """An empty white figure of so many pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width / dpi, height / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def finish(figure: "Figure", path: Path | None) -> bytes:
    """The figure as PNG, written to ``path`` if there is one."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    content = buffer.getvalue()
    if path is not None:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return content


def label(axes: "Axes", text: str, **style: Any) -> None:
    """A title whose text is taken as it is: a dollar sign starts no formula."""
    axes.set_title(text, **{"fontsize": 9, "pad": 4, "parse_math": False, **style})


def bare(axes: "Axes") -> None:
    """No ticks, a thin grey frame."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="#888888", linewidth=0.6)


def over_image(image: np.ndarray, values: np.ndarray, high: float) -> np.ndarray:
    """A map (H, W) from 0 to ``high`` in colour over the dimmed grey image: (H, W, 3) in [0, 1].

    Where the map is NaN the dimmed image is hatched instead: the layer has no cell there.
    """
    from matplotlib import colormaps

    grey = np.repeat((image @ np.array([0.299, 0.587, 0.114]) / 255)[..., None], 3, -1)
    scaled = np.clip(np.nan_to_num(values) / (high or 1), 0, 1)
    blend = 0.8 * colormaps[COLOUR_MAP](scaled)[..., :3] + 0.2 * grey
    row, column = np.indices(values.shape)
    hatched = 0.2 * grey + 0.3 * np.less((row + column) % 6, 2)[..., None]
    return np.where(np.isnan(values)[..., None], hatched, blend)


def outline(axes: "Axes", mask: np.ndarray | None) -> None:
    """A line around the target, one pixel off it, white on black so that it shows on any ground."""
    if mask is None or not mask.any():
        return
    padded = np.pad(mask, 2)
    shifts = [np.roll(padded, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    around = np.logical_or.reduce(shifts)[1:-1, 1:-1].astype(float)  # one pixel wider than the image on each side
    rows, columns = (np.arange(n) - 1 for n in around.shape)
    for colour, width in (("black", 2.2), ("white", 1.0)):
        axes.contour(columns, rows, around, [0.5], colors=colour, linewidths=width)
    axes.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def highest(values: np.ndarray) -> float:
    """The largest value, 0 for a map of NaN only."""
    known = values[~np.isnan(values)]
    return float(known.max()) if known.size else 0.0


def panels_of(answer: Answered) -> list[tuple[str, np.ndarray, float]]:
    """Title, map and top of its colour scale: gates 0 to 1, the softmax and the product 0 to their largest.

    Of a spatial transformer the one region that it looks at; nothing of a network without attention.
    """
    layers = answer.layers
    last = len(layers)
    panels = [(f"layer {i}, gate", layer, 1.0) for i, layer in enumerate(layers[:-1], 1)]
    if layers:
        panels.append((f"layer {last}, softmax" if last > 1 else "softmax", layers[-1], highest(layers[-1])))
    if answer.maps:
        accumulated = answer.maps["accumulated"]
        panels.append(("accumulated" if layers else "attended region", accumulated, highest(accumulated)))
    return panels


def range_of(values: np.ndarray) -> str:
    """The values that a map takes, for a reader: "0.02 to 0.97"."""
    known = values[~np.isnan(values)]
    return f"{known.min():.2g} to {known.max():.2g}" if known.size else "no cell"


def answer_figure(answer: Answered, path: Path | None = None) -> bytes:
    """One answer: the image, each layer's attention over it, the accumulated map; each with its own colour bar.

    A network without attention has the image alone, and a line that says so.
    """
    panels = panels_of(answer)
    columns = min(3, max(1, len(panels)) + 1)
    lines = math.ceil((len(panels) + 1) / columns)
    side, gap, top, bottom = 280, 12, 30, 46  # pixels; top and bottom of each panel hold its title and colour bar
    width, height = columns * (side + gap) + gap, lines * (top + side + bottom) + 72
    figure = new_figure(width, height, 120)
    if any(np.isnan(values).any() for _, values, _ in panels):
        note = "hatched: this layer has no cell there"
        figure.text(0.5, 6 / height, note, ha="center", va="bottom", fontsize=8, color="#555555")
    if not panels:
        figure.text(0.75, 0.5, "this network has no attention map", ha="center", fontsize=9, color="#555555")
    head = f"query {answer.query} → {told(answer)}"
    figure.text(0.5, 1 - 12 / height, head, ha="center", va="top", fontsize=14, weight="bold", parse_math=False)
    for i, (title, values, high) in enumerate([("the image", answer.image, 0.0), *panels]):
        x, y = gap + i % columns * (side + gap), 44 + i // columns * (top + side + bottom) + top
        axes = figure.add_axes((x / width, 1 - (y + side) / height, side / width, side / height))
        bare(axes)
        label(axes, title, fontsize=10)
        axes.imshow(over_image(answer.image, values, high) if i else values)
        if i:
            colour_bar(axes, high, f"values {range_of(values)}")
    return finish(figure, path)


def told(answer: Answered) -> str:
    """The answer and its probability; where several attributes may hold, the likeliest ones; or "not found"."""
    said = [(answer.attribute, answer.probability)] if answer.likelihood == "softmax" else answer.ranked[:RANKED]
    words = ", ".join(f"{word} ({100 * probability:.1f} %)" for word, probability in said)
    return f"not found; else {words}" if answer.found is False else words


def colour_bar(axes: "Axes", high: float, note: str) -> None:
    """A bar from 0 to ``high`` under the axes, with a note."""
    bar = axes.inset_axes((0.0, -0.09, 1.0, 0.04))
    bar.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=COLOUR_MAP, extent=(0, 1, 0, 1))
    bar.set_yticks([])
    bar.set_xticks([0, 1], ["0", f"{high:.2g}"], fontsize=8)
    bar.tick_params(length=2, pad=1)
    bar.get_xticklabels()[0].set_horizontalalignment("left")
    bar.get_xticklabels()[1].set_horizontalalignment("right")
    bar.text(0.5, -0.9, note, ha="center", va="top", fontsize=8, color="#555555", transform=bar.transAxes)


def attention_row(scene: Scene, path: Path | None = None) -> bytes:
    """One scene, its target outlined; then of each network: the answer, right or wrong, every layer's map, the product.

    A network of one layer has one map: the product would show it again. One without attention has the image instead.
    """
    shown = {name: panels_of(answer) for name, answer in scene.answers.items()}
    shown = {name: panels if len(panels) > 2 else panels[:1] for name, panels in shown.items()}
    side, gap, top = 200, 8, 92
    x = gap + side  # pixels from the left
    places = [[gap]]
    for panels in shown.values():
        places.append([x + 3 * gap + i * (side + gap) for i in range(len(panels) or 1)])
        x = places[-1][-1] + side
    width, height = x + gap, top + side + gap
    figure = new_figure(width, height, 100)
    title = "the image" if scene.mask is None or not scene.mask.any() else "target outlined"
    truth = shortened(", ".join(truths_of(scene)), CAPTION - 2)
    looks = [(shortened(f"{scene.query}?", CAPTION - 2), truth, "black", [(title, scene.image)])]
    for name, panels in shown.items():
        answer = scene.answers[name]
        right = answer.attribute in truths_of(scene)
        verdict = f"{answer.attribute} {'✓ right' if right else '✗ wrong'}"
        drawn = [(title, over_image(scene.image, values, high)) for title, values, high in panels]
        looks.append((name, verdict, RIGHT if right else WRONG, drawn or [("no attention map", scene.image)]))
    for (name, verdict, colour, drawn), at in zip(looks, places, strict=True):
        style: dict[str, Any] = {"va": "top", "fontsize": 15, "parse_math": False}
        figure.text(at[0] / width, 1 - 6 / height, name, **style)
        figure.text(at[0] / width, 1 - 32 / height, verdict, color=colour, weight="bold", **style)
        for x, (title, pixels) in zip(at, drawn, strict=True):
            axes = figure.add_axes((x / width, gap / height, side / width, side / height))
            bare(axes)
            axes.imshow(pixels)
            outline(axes, scene.mask)
            label(axes, title, fontsize=13)
    return finish(figure, path)


def shortened(text: str, letters: int = CAPTION) -> str:
    """At most so many letters of a text."""
    return text if len(text) <= letters else text[: letters - 1] + "…"


def contact_sheet(
    images: Sequence[np.ndarray] | np.ndarray, captions: Sequence[str], path: Path | None = None, title: str = ""
) -> bytes:
    """Images (H, W, 3) uint8 of one size in a grid, each with its caption ("7? red") under it."""
    if not len(images) or len(images) != len(captions):
        raise ValueError(f"expected as many captions as images, at least one; got {len(captions)} and {len(images)}")
    height, width = images[0].shape[:2]
    zoom = max(1, round(150 / width))
    columns = min(len(images), math.ceil(math.sqrt(1.6 * len(images))))
    lines = math.ceil(len(images) / columns)
    cell_w, cell_h, top = zoom * width + 10, zoom * height + 30, 44 if title else 6
    sheet = np.full((top + lines * cell_h, columns * cell_w, 3), 255, np.uint8)
    figure = new_figure(sheet.shape[1], sheet.shape[0], 100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = i % columns * cell_w + 5, top + i // columns * cell_h
        sheet[y : y + zoom * height, x : x + zoom * width] = image.repeat(zoom, 0).repeat(zoom, 1)
        middle = x + zoom * width / 2
        axes.text(
            middle, y + zoom * height + 4, shortened(caption), ha="center", va="top", fontsize=11, parse_math=False
        )
    if title:
        axes.text(sheet.shape[1] / 2, 10, title, ha="center", va="top", fontsize=13, weight="bold", parse_math=False)
    axes.imshow(sheet, interpolation="none", aspect="auto")
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
