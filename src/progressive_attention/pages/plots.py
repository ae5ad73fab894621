"""Pictures of plain results: answers with their attention, contact sheets.

Every function returns the PNG's bytes, and writes them too, whole or not at all, where a path is given. Figures are
drawn by Agg without pyplot's global state, and matplotlib is imported when the first one is. The same input gives
the same bytes. Colours: Okabe and Ito (2008) for lines, those of ``shown_maps`` for maps; both stay readable to the
colour-blind.

Legend: H x W image pixels, L attended layers.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from progressive_attention.files import replacing
from progressive_attention.maps.shown_maps import attended_image, largest_of, light, over_image, shown_map
from progressive_attention.metrics.pointing import highest_point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*"
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
RIGHT, WRONG = OKABE_ITO[0], OKABE_ITO[1]  # blue and vermilion, always beside the word
RANKED = 3  # attributes told where several may hold
CAPTION = 16  # letters that fit under a scene
SOURCE, KEPT = "where the answer came from", "what the network kept"
RING = 0.07  # radius around a point, in widths of the image
TITLE = 30  # pixels above a picture, for its title


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
    def maps(self) -> dict[str, np.ndarray]: ...  # (H, W) each, for ``shown_map``


class Tile(NamedTuple):
    """A picture (H, W, 3) under its title and a note; a ring is drawn around its ``point`` (x, y), None for none."""

    title: str
    pixels: np.ndarray
    note: str = ""
    point: np.ndarray | None = None


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


def ring(axes: "Axes", point: np.ndarray) -> None:
    """A ring around a point (x, y) of the image, sky blue on black: no colour of maps, nor that of ``outline``."""
    from matplotlib.patches import Circle

    radius = RING * (axes.get_xlim()[1] + 0.5)
    for colour, width in (("black", 3.6), (OKABE_ITO[5], 2.0)):
        axes.add_patch(Circle(tuple(point - 0.5), radius, fill=False, ec=colour, lw=width))  # centres lie at whole x, y


def point_of(answer: Answered) -> np.ndarray | None:
    """Centre (x, y) of the highest cell of the map shown first, in pixels; None without one, or if not found."""
    shown = shown_map(answer.maps)
    if shown is None or answer.found is False or not shown[1].any():
        return None
    return highest_point(shown[1][None])[0]


def panels_of(answer: Answered) -> list[tuple[str, np.ndarray]]:
    """Title and map: the one shown first, the gates, the choice; nothing of a network without attention.

    Of a network of one layer the first alone, which is that layer's.
    """
    shown = shown_map(answer.maps)
    if shown is None:
        return []
    first = SOURCE if shown[0] == "flow" and answer.found is not False else "where the network looked"
    layers = [*(f"gate {i}" for i in range(1, len(answer.layers))), "choice"]
    return [(first, shown[1]), *(zip(layers, answer.layers, strict=True) if len(answer.layers) > 1 else [])]


def tiles_of(answer: Answered) -> list[Tile]:
    """The answer's maps over its image: the first as light, with its highest point; the layers with their largest."""
    image, panels = answer.image, panels_of(answer)
    first = [Tile(title, over_image(image, light(values)), point=point_of(answer)) for title, values in panels[:1]]
    return first + [Tile(title, over_image(image, layer), largest_of(layer)) for title, layer in panels[1:]]


def answer_figure(answer: Answered, path: Path | None = None) -> bytes:
    """One answer: the image, where the answer came from, what of the image was kept; below them the layers.

    A ring marks the first map's highest point. A network without attention has the image alone, and a line that says
    so.
    """
    tiles, shown = tiles_of(answer), shown_map(answer.maps)
    above = [Tile("the image", answer.image), *tiles[:1]]
    if shown:
        above.append(Tile(KEPT, attended_image(answer.image, shown[1])))
    across = math.ceil(len(tiles[1:]) / math.ceil(len(tiles[1:]) / 4)) if len(tiles) > 4 else 3
    below = [tiles[i : i + across] for i in range(1, len(tiles), across)]
    gap, wide, head, foot = 12, 888, 44, 40 if shown else 0  # pixels
    sides = [(wide - gap) // 3 - gap, *[(wide - gap) // across - gap] * len(below)]
    height = head + sum(side + TITLE for side in sides) + gap + foot
    figure = new_figure(wide, height, 120)
    words = f"{answer.query}? {told(answer)}"
    figure.text(0.5, 1 - 12 / height, words, ha="center", va="top", fontsize=14, weight="bold", parse_math=False)
    y = head
    for line, side in zip([above, *below], sides, strict=True):
        y += side + TITLE
        for i, tile in enumerate(line):
            x = gap + i * (side + gap)
            axes = figure.add_axes((x / wide, 1 - y / height, side / wide, side / height))
            title = f"{tile.title} ({tile.note})" if tile.note else tile.title
            draw_tile(axes, tile, title, 10 if side > 250 else 9)
    if shown:
        hatched = len(tiles) > 1 and any(np.isnan(layer).any() for layer in answer.layers)
        notes = {"ring: its highest point": tiles[0].point is not None, "hatched: no cell of that layer": hatched}
        legend(figure, foot / height, [note for note, holds in notes.items() if holds])
    else:
        figure.text(0.67, 0.5, "this network has no attention map", ha="center", fontsize=9, color="#555555")
    return finish(figure, path)


def draw_tile(axes: "Axes", tile: Tile, title: str, size: float) -> None:
    """A picture under a title in type of so many points, with a ring around its point if it has one."""
    bare(axes)
    label(axes, title, fontsize=size)
    axes.imshow(tile.pixels)
    if tile.point is not None:
        ring(axes, tile.point)


def legend(figure: "Figure", height: float, notes: Sequence[str]) -> None:
    """How to read maps, in the lowest ``height`` of a figure: their colours over a grey ground, and notes."""
    ramp = over_image(np.full((1, 256, 3), 128, np.uint8), np.linspace(0, 1, 256)[None])
    axes = figure.add_axes((0.09, 0.4 * height, 0.16, 0.3 * height))
    axes.imshow(ramp, aspect="auto")
    bare(axes)
    style: dict[str, Any] = {"va": "center", "fontsize": 9, "color": "#555555"}
    figure.text(0.08, 0.55 * height, "0", ha="right", **style)
    figure.text(0.26, 0.55 * height, "     ".join(["each map’s largest value", *notes]), **style)


def told(answer: Answered) -> str:
    """The answer and its probability; where several attributes may hold, the likeliest ones; or "not found"."""
    said = [(answer.attribute, answer.probability)] if answer.likelihood == "softmax" else answer.ranked[:RANKED]
    words = ", ".join(f"{word} ({100 * probability:.1f} %)" for word, probability in said)
    return f"not found; if it is there, {words}" if answer.found is False else words


def attention_row(scene: Scene, path: Path | None = None) -> bytes:
    """One scene, its target outlined; then of each network the answer, right or wrong, and its maps as ``panels_of``.

    One without attention has the image instead.
    """
    none = "no attention map"
    shown = {name: tiles_of(answer) or [Tile(none, scene.image)] for name, answer in scene.answers.items()}
    side, gap, top = 200, 8, 108
    x = gap + side  # pixels from the left
    places = [[gap]]
    for tiles in shown.values():
        places.append([x + 3 * gap + i * (side + gap) for i in range(len(tiles))])
        x = places[-1][-1] + side
    width, height = x + gap, top + side + gap
    figure = new_figure(width, height, 100)
    title = "the image" if scene.mask is None or not scene.mask.any() else "target outlined"
    truth = shortened(", ".join(truths_of(scene)), CAPTION - 2)
    looks = [(shortened(f"{scene.query}?", CAPTION - 2), truth, "black", [Tile(title, scene.image)])]
    for name, tiles in shown.items():
        answer = scene.answers[name]
        right = answer.attribute in truths_of(scene)
        verdict = f"{answer.attribute} {'✓ right' if right else '✗ wrong'}"
        looks.append((name, verdict, RIGHT if right else WRONG, tiles))
    for (name, verdict, colour, tiles), at in zip(looks, places, strict=True):
        style: dict[str, Any] = {"va": "top", "fontsize": 15, "parse_math": False}
        figure.text(at[0] / width, 1 - 6 / height, name, **style)
        figure.text(at[0] / width, 1 - 32 / height, verdict, color=colour, weight="bold", **style)
        for x, tile in zip(at, tiles, strict=True):
            axes = figure.add_axes((x / width, gap / height, side / width, side / height))
            draw_tile(axes, tile, fill(tile.title, CAPTION) + (tile.note and f"\n{tile.note}"), 12)
            outline(axes, scene.mask)
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
