"""What all figures are made of: one grid for pictures, one set of axes for curves; as PNG.

Figures are drawn by Agg without pyplot's global state, and matplotlib is imported when the first one is. The same input
gives the same bytes. Colours are those of Okabe and Ito (2008) for lines and of ``shown_maps`` for maps: both stay
readable to the colour-blind, and right and wrong are marked by a word, too. Legend: H x W pixels of a picture.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from progressive_attention.files import replacing
from progressive_attention.maps.shown_maps import COLOUR_MAP, over_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
RIGHT, WRONG = OKABE_ITO[0], OKABE_ITO[1]  # blue and vermilion
BLACK, GREY = "black", "#555555"
DPI = 140
GAP, GROUP_GAP = 8, 24  # pixels between tiles, and more before a group of them
HEADING, TITLE = 24, 17  # pixels: a line of type above a group, and of one above or below a tile
RING = 0.07  # radius around a point, in widths of a tile


class Tile(NamedTuple):
    """A picture in a grid, with words around it, each line with its colour.

    ``pixels``: (H, W, 3), uint8 or in [0, 1]; None leaves the place empty. ``heading``: lines that begin a group of
    tiles. ``notes``: lines below. Over the picture a ring is drawn around ``point`` (x, y), in its pixels, and a line
    around ``mask`` (H, W) bool.
    """

    pixels: np.ndarray | None
    title: str = ""
    heading: Sequence[tuple[str, str]] = ()
    notes: Sequence[tuple[str, str]] = ()
    point: np.ndarray | None = None
    mask: np.ndarray | None = None


def new_figure(width: float, height: float, dpi: int = DPI) -> "Figure":
    """An empty white figure of so many pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width / dpi, height / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def finish(figure: "Figure", path: Path | None = None) -> bytes:
    """The figure as PNG, written to ``path`` if there is one, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    content = buffer.getvalue()
    if path is not None:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return content


def plot_axes(
    figure: "Figure",
    place: tuple[float, float, float, float],
    title: str = "",
    x_label: str = "",
    y_label: str = "",
) -> "Axes":
    """Axes for curves at ``place``: left, top, width, height in pixels; lines at the y axis's ticks."""
    left, top, width, height = place
    across, down = figure.get_size_inches() * figure.dpi
    axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_title(title, loc="left", fontsize=11, weight="bold", pad=6, parse_math=False)
    axes.set_xlabel(x_label, fontsize=10)
    axes.set_ylabel(y_label, fontsize=10)
    axes.tick_params(labelsize=9, length=3)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def coloured(values: np.ndarray) -> np.ndarray:
    """A map in [0, 1] in colour: (H, W) -> (H, W, 3)."""
    from matplotlib import colormaps

    return colormaps[COLOUR_MAP](values)[..., :3]


def grid(
    rows: Sequence[Sequence[Tile]],
    side: int = 220,
    title: str = "",
    legend: Sequence[str] | None = None,
    path: Path | None = None,
) -> bytes:
    """Tiles of ``side`` x ``side`` pixels in rows, the title above; the PNG, written to ``path`` if there is one.

    A column in which a group begins stands apart. Titles are wrapped to a tile's width and headings cut to that of
    their group. ``legend``: notes beside the scale of maps, at the foot; None for figures without maps.
    """
    lefts = column_places(rows, side)
    tops, height = row_places(rows, side, 44 if title else GAP)
    width, foot = lefts[-1] + side + GAP, 36 if legend is not None else 0
    canvas = np.full((height + foot, width, 3), 255, np.uint8)
    figure = new_figure(width, height + foot)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    write(axes, width / 2, 12, title, size=20, weight="bold", ha="center")
    for row, top in zip(rows, tops, strict=True):
        lines = title_lines(row, side)
        ends = [*(left - GROUP_GAP for left, tile in zip(lefts, row, strict=False) if tile.heading), width]
        for tile, left in zip(row, lefts, strict=False):
            room = min(end for end in ends if end > left) - left
            draw_words(axes, tile, left, top, side, room, lines)
            draw_picture(axes, canvas, tile, left, top, side)
    if legend is not None:
        ramp, ground = np.linspace(0, 1, 140)[None], np.full((1, 140, 3), 128, np.uint8)
        canvas[height + 10 : height + 20, 40:180] = np.rint(255 * over_image(ground, ramp))[:, : width - 40]
        write(axes, 32, height + 8, "0", ha="right", color=GREY)
        write(axes, 188, height + 8, "     ".join(["each map’s largest value", *legend]), color=GREY)
    axes.imshow(canvas, interpolation="none", extent=(0, width, height + foot, 0), aspect="auto")
    axes.set(xlim=(0, width), ylim=(height + foot, 0))
    return finish(figure, path)


def column_places(rows: Sequence[Sequence[Tile]], side: int) -> list[int]:
    """The left edge of each column."""
    begins = {i for row in rows for i, tile in enumerate(row) if i and tile.heading}
    lefts, x = [], GAP
    for i in range(max(map(len, rows))):
        x += GROUP_GAP if i in begins else 0
        lefts.append(x)
        x += side + GAP
    return lefts


def row_places(rows: Sequence[Sequence[Tile]], side: int, y: int) -> tuple[list[int], int]:
    """The top edge of each row's pictures, the first row's words beginning at ``y``; and where the last row ends."""
    tops = []
    for row in rows:
        y += HEADING * max(len(tile.heading) for tile in row) + TITLE * title_lines(row, side) + 3
        tops.append(y)
        y += side + TITLE * max(len(tile.notes) for tile in row) + GAP
    return tops, y


def title_of(tile: Tile, side: int) -> list[str]:
    """The title's lines, as wide as the tile."""
    return [part for text in tile.title.split("\n") for part in wrap(text, int(side / 7.6))]


def title_lines(row: Sequence[Tile], side: int) -> int:
    """How many lines the longest title has."""
    return max(len(title_of(tile, side)) for tile in row)


def shortened(text: str, letters: int = 16) -> str:
    """At most so many letters of a text."""
    return text if len(text) <= letters else text[: letters - 1] + "…"


def write(axes: "Axes", x: float, y: float, text: str, size: float = 13, **style: Any) -> None:
    """Text at a pixel of the figure, ``size`` pixels high, taken as it is: a dollar sign starts no formula."""
    axes.text(x, y, text, fontsize=size * 72 / DPI, parse_math=False, **{"va": "top", **style})


def draw_words(axes: "Axes", tile: Tile, left: int, top: int, side: int, room: int, lines: int) -> None:
    """Heading, title and notes of a tile, in ``room`` pixels; below the heading are so many lines of titles."""
    for i, (text, colour) in enumerate(reversed(tile.heading), 1):
        y = top - TITLE * lines - HEADING * i
        write(axes, left, y, shortened(text, int(room / 11)), size=18, weight="bold", color=colour)
    if title := title_of(tile, side):
        write(axes, left + side / 2, top - 6, "\n".join(title), ha="center", va="baseline", linespacing=1.1)
    for i, (text, colour) in enumerate(tile.notes):
        write(axes, left, top + side + 2 + TITLE * i, shortened(text, int(room / 8)), color=colour)


def draw_picture(axes: "Axes", canvas: np.ndarray, tile: Tile, left: int, top: int, side: int) -> None:
    """A tile's pixels on the canvas in a thin grey frame, each as large as it takes, and what is drawn over them."""
    from matplotlib.patches import Circle, Rectangle

    if tile.pixels is None:
        return
    rows, columns = (np.arange(side) * size // side for size in tile.pixels.shape[:2])
    pixels = tile.pixels if tile.pixels.dtype == np.uint8 else np.rint(255 * tile.pixels)
    canvas[top - 1 : top + side + 1, left - 1 : left + side + 1] = 136
    canvas[top : top + side, left : left + side] = pixels[rows[:, None], columns]
    drawn: list[Any] = []
    if tile.mask is not None and tile.mask.any():  # white on black, so that it shows on any ground
        down, across = ((np.arange(size + 2) - 0.5) * side / size for size in tile.mask.shape)
        around = widened(tile.mask).astype(float)
        for colour, width in (("black", 1.8), ("white", 0.8)):
            drawn.append(axes.contour(left + across, top + down, around, [0.5], colors=colour, linewidths=width))
    if tile.point is not None:  # sky blue on black: no colour of maps, nor that of outlines
        x, y = tile.point * side / tile.pixels.shape[1]
        for colour, width in (("black", 3.0), (OKABE_ITO[5], 1.6)):
            ring = Circle((left + x, top + y), RING * side, fill=False, ec=colour, lw=width)
            drawn.append(axes.add_patch(ring))
    for lines in drawn:  # only what lies inside the tile
        lines.set_clip_path(Rectangle((left, top), side, side, transform=axes.transData))


def widened(mask: np.ndarray) -> np.ndarray:
    """A mask one pixel wider on each side, on a ground one pixel wider: (H, W) -> (H + 2, W + 2)."""
    padded = np.pad(mask, 2)
    shifts = [np.roll(padded, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return np.logical_or.reduce(shifts)[1:-1, 1:-1]
